"""taskiq: its scheduler, a task with an interval for each of our jobs, and the broker that runs them in this process.

It looks what is due at each whole second, so that is the grid.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from taskiq import InMemoryBroker, TaskiqScheduler
from taskiq.api import run_scheduler_task
from taskiq.schedule_sources import LabelScheduleSource

from bench import load

_meter = load.Meter()
_second = time.monotonic() + math.ceil(time.time()) - time.time() - 1

broker = InMemoryBroker(max_async_tasks=load.JOBS)
scheduler = TaskiqScheduler(broker, [LabelScheduleSource(broker)])


def make() -> Callable[[], Awaitable[None]]:
    """A function of its own for each task: taskiq renames those that it registers."""

    async def metered() -> None:
        _meter.run(load.grid(_second))

    return metered


for number in range(load.JOBS):
    broker.register_task(make(), task_name=f"job{number}", schedule=[{"interval": int(load.INTERVAL_S)}])

asyncio.run(run_scheduler_task(scheduler, run_startup=True))
