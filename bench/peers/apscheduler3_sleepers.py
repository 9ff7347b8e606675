"""APScheduler 3: runs that sleep, and a handler of SIGTERM that shuts the scheduler down, which cancels them."""

import asyncio
import signal

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bench import load

_sleepers = load.Sleepers()


async def sleeper() -> None:
    """What every run does."""
    if _sleepers.more():
        await asyncio.sleep(3600)


async def main() -> None:
    """Start them, wait for the signal, and end them."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    scheduler = AsyncIOScheduler(job_defaults={"misfire_grace_time": None})
    scheduler.start()
    for _ in range(load.JOBS * load.TICKS):
        scheduler.add_job(sleeper)
    await asked.wait()
    scheduler.shutdown()


asyncio.run(main())
