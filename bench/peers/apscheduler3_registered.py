"""APScheduler 3: how long it takes to add jobs to a scheduler and to start that."""

import asyncio
import time

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bench import load


async def idle() -> None:
    """What nobody waits for."""


async def main() -> None:
    """Add them as its documentation does."""
    begin = time.monotonic()
    scheduler = AsyncIOScheduler()
    for number in range(load.IDLE):
        scheduler.add_job(idle, "interval", days=1, id=f"idle{number}")
    scheduler.start()
    load.report(registered_s=time.monotonic() - begin)


asyncio.run(main())
