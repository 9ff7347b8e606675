"""taskiq: how long it takes to register tasks with a schedule each, and to have the schedules read."""

import asyncio
import time

from taskiq import InMemoryBroker
from taskiq.schedule_sources import LabelScheduleSource

from bench import load


async def idle() -> None:
    """What nobody waits for."""


async def main() -> None:
    """Register them as its documentation does."""
    begin = time.monotonic()
    broker = InMemoryBroker()
    for number in range(load.IDLE):
        broker.register_task(idle, task_name=f"idle{number}", schedule=[{"interval": 86_400}])
    source = LabelScheduleSource(broker)
    await source.startup()
    await source.get_schedules()
    load.report(registered_s=time.monotonic() - begin)


asyncio.run(main())
