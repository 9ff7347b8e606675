"""aiomisc: a PeriodicCallback for each job."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import count

import aiomisc

from bench import load

_meter = load.Meter()


def make(start: float) -> Callable[[], Awaitable[None]]:
    """A job that counts its own ticks."""
    dues = (start + tick * load.INTERVAL_S for tick in count())

    async def job() -> None:
        _meter.run(next(dues))

    return job


async def main() -> None:
    """Start all of them."""
    start = time.monotonic()
    callbacks = [aiomisc.PeriodicCallback(make(start)) for _ in range(load.JOBS)]
    for callback in callbacks:
        callback.start(load.INTERVAL_S)
    await asyncio.Event().wait()


with aiomisc.entrypoint() as loop:
    loop.run_until_complete(main())
