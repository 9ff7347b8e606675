"""taskiq: how long it takes to register tasks with a schedule each, and to have the schedules read."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from taskiq import InMemoryBroker
from taskiq.schedule_sources import LabelScheduleSource

from bench import load


def make() -> Callable[[], Awaitable[None]]:
    """A function of its own for each task: taskiq renames those that it registers."""

    async def idle() -> None: ...

    return idle


async def main() -> None:
    """Register them as its documentation does."""
    begin = time.monotonic()
    broker = InMemoryBroker()
    for number in range(load.IDLE):
        broker.register_task(make(), task_name=f"idle{number}", schedule=[{"interval": 86_400}])
    source = LabelScheduleSource(broker)
    await source.startup()
    await source.get_schedules()
    load.report(registered_s=time.monotonic() - begin)


asyncio.run(main())
