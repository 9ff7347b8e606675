"""The heap, and two lines for each run by structlog as it comes: rendered and printed by whoever logs."""

import asyncio

import structlog

from bench import load
from bench.floors import heap

_log = structlog.get_logger()
_meter = load.Meter()


async def logged(number: int, due: float) -> None:
    """What every run does."""
    _log.info("run.started", job=f"job{number}", due=due)
    _meter.run(due)
    _log.info("run.finished", job=f"job{number}", due=due, outcome="succeeded")


asyncio.run(heap.serve(logged))
