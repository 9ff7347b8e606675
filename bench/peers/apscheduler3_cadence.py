"""APScheduler 3: an AsyncIOScheduler with a job on an interval for each of ours, all on the same grid."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bench import load

#: Until then all jobs have been added.
LEAD_S = 2.0

_meter = load.Meter()


async def serve(job: Callable[[float], Awaitable[None]]) -> None:
    """Run the job, for ever."""
    scheduler = AsyncIOScheduler()
    start = time.monotonic() + LEAD_S
    begin = datetime.now().astimezone() + timedelta(seconds=LEAD_S)
    for _ in range(load.JOBS):
        scheduler.add_job(job, "interval", args=[start], seconds=load.INTERVAL_S, start_date=begin)
    scheduler.start()
    await asyncio.Event().wait()


async def metered(start: float) -> None:
    """What every run does."""
    _meter.run(load.grid(start))


if __name__ == "__main__":
    asyncio.run(serve(metered))
