"""Bare asyncio and structlog: one task every 10 s or so, and two lines for it."""

import asyncio

import structlog

from bench import load

log = structlog.get_logger()


async def job() -> None:
    """What every run does."""


async def main() -> None:
    """Run it on a grid."""
    loop = asyncio.get_running_loop()
    start, tick = loop.time(), 0
    while True:
        await asyncio.sleep(start + tick * load.INTERVAL_S - loop.time())
        log.info("run.started", job="job", tick=tick)
        await loop.create_task(job())
        log.info("run.finished", job="job", tick=tick)
        tick += 1


asyncio.run(main())
