"""heapq: many lines that are not due, some that are due again and again, and a task for each run of those."""

import asyncio
import heapq

from bench import load


async def empty() -> None:
    """What every run does."""


async def main() -> None:
    """Pop what is due, push when it is due next."""
    loop, marks = asyncio.get_running_loop(), load.Marks()
    start = loop.time()
    lines = [(start, number, 0) for number in range(load.JOBS)]
    lines += [(start + 86_400, load.JOBS + number, 0) for number in range(load.IDLE)]
    heapq.heapify(lines)
    running = set()
    while True:
        await asyncio.sleep(lines[0][0] - loop.time())
        now = loop.time()
        while lines[0][0] <= now:
            _, number, tick = lines[0]
            heapq.heapreplace(lines, (start + (tick + 1) * load.INTERVAL_S, number, tick + 1))
            task = loop.create_task(empty())
            running.add(task)
            task.add_done_callback(running.discard)
        marks.tick()


asyncio.run(main())
