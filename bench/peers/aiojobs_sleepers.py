"""aiojobs: runs that sleep, and a handler of SIGTERM that closes the scheduler, which cancels them."""

import asyncio
import signal

import aiojobs

from bench import load

_sleepers = load.Sleepers()


async def sleeper() -> None:
    """What every run does."""
    if _sleepers.more():
        await asyncio.sleep(3600)


async def main() -> None:
    """Spawn them, wait for the signal, and end them."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    scheduler = aiojobs.Scheduler(limit=None, close_timeout=60)  # a tenth of a second, as it is, is too short
    for _ in range(load.JOBS * load.TICKS):
        await scheduler.spawn(sleeper())
    await asked.wait()
    await scheduler.close()


asyncio.run(main())
