"""What one would write without a library: a heap of what is due when, on a grid, and a task for each run. No log."""

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from typing import Any

from bench import load

Job = Callable[[int, float], Coroutine[Any, Any, None]]


async def serve(job: Job) -> None:
    """Start `job` with its number and the tick's instant, for ever."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    lines = [(start, number, 0) for number in range(load.JOBS)]
    running = set()
    while True:
        await asyncio.sleep(lines[0][0] - loop.time())
        now = loop.time()
        while lines[0][0] <= now:
            due, number, tick = lines[0]
            heapq.heapreplace(lines, (start + (tick + 1) * load.INTERVAL_S, number, tick + 1))
            task = loop.create_task(job(number, due))
            running.add(task)
            task.add_done_callback(running.discard)


_meter = load.Meter()


async def metered(number: int, due: float) -> None:
    """What every run does."""
    _meter.run(due)


if __name__ == "__main__":
    asyncio.run(serve(metered))
