"""What many begin with: for each job one that starts a run and sleeps, for ever."""

import asyncio
import time

from bench import load

_meter = load.Meter()


async def job(due: float) -> None:
    """What every run does."""
    _meter.run(due)


async def every(interval_s: float, start: float) -> None:
    """Start the job again and again."""
    tick = 0
    while True:
        task = asyncio.create_task(job(start + tick * interval_s))
        tick += 1
        await asyncio.sleep(interval_s)
        await task


async def main() -> None:
    """All of them."""
    start = time.monotonic()
    await asyncio.gather(*(every(load.INTERVAL_S, start) for _ in range(load.JOBS)))


asyncio.run(main())
