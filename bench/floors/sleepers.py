"""Bare asyncio: tasks that sleep, and a handler of SIGTERM that cancels and gathers them. No log."""

import asyncio
import signal

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
    tasks = []
    for _ in range(load.TICKS):
        tasks += [asyncio.create_task(sleeper()) for _ in range(load.JOBS)]
        await asyncio.sleep(0)
    print("ready", flush=True)
    await asked.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


asyncio.run(main())
