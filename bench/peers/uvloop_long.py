"""The same grid on uvloop, for one job; its clock counts milliseconds, so time is taken elsewhere."""

import asyncio
import time

import uvloop

from bench import load


async def main() -> None:
    """Sleep to each instant."""
    meter = load.Meter()
    start, tick = time.monotonic(), 0
    while True:
        due = start + tick * load.INTERVAL_S
        await asyncio.sleep(due - time.monotonic())
        meter.run(due)
        tick += 1


uvloop.run(main())
