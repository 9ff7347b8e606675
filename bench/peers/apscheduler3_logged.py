"""APScheduler 3, and two lines for each run by structlog as it comes."""

import asyncio

import structlog

from bench import load
from bench.peers import apscheduler3_cadence

_log = structlog.get_logger()
_meter = load.Meter()


async def logged(start: float) -> None:
    """What every run does."""
    due = load.grid(start)
    _log.info("run.started", due=due)
    _meter.run(due)
    _log.info("run.finished", due=due, outcome="succeeded")


asyncio.run(apscheduler3_cadence.serve(logged))
