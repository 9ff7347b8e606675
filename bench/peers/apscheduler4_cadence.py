"""APScheduler 4: an AsyncScheduler with a schedule for each of our jobs, all on the same grid."""

import asyncio
import sys
import time
from datetime import datetime, timedelta

from bench import load
from bench.peers.environment import APSCHEDULER_4

sys.path.insert(0, str(APSCHEDULER_4))  # beside version 3, which has the same name

from apscheduler import AsyncScheduler
from apscheduler.triggers.interval import IntervalTrigger

#: Until then all schedules have been added.
LEAD_S = 5.0

_meter = load.Meter()


async def metered(start: float) -> None:
    """What every run does."""
    _meter.run(load.grid(start))


async def main() -> None:
    """Add the schedules, and run them."""
    async with AsyncScheduler(max_concurrent_jobs=load.JOBS) as scheduler:
        await scheduler.configure_task("metered", func=metered, max_running_jobs=load.JOBS)
        start = time.monotonic() + LEAD_S
        begin = datetime.now().astimezone() + timedelta(seconds=LEAD_S)
        for _ in range(load.JOBS):
            trigger = IntervalTrigger(seconds=load.INTERVAL_S, start_time=begin)
            await scheduler.add_schedule("metered", trigger, args=[start])
        await scheduler.run_until_stopped()


asyncio.run(main())
