"""aiojobs has no schedules: the heap decides what is due, and a scheduler of aiojobs runs it."""

import asyncio

import aiojobs

from bench import load

_meter = load.Meter()


async def job(due: float) -> None:
    """What every run does."""
    _meter.run(due)


async def main() -> None:
    """Spawn tick after tick."""
    loop = asyncio.get_running_loop()
    start, tick = loop.time(), 0
    async with aiojobs.Scheduler(limit=None) as scheduler:
        while True:
            due = start + tick * load.INTERVAL_S
            await asyncio.sleep(due - loop.time())
            for _ in range(load.JOBS):
                await scheduler.spawn(job(due))
            tick += 1


asyncio.run(main())
