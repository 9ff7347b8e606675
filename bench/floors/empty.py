"""Bare asyncio: on a grid, a task with a done callback for each run of a coroutine that does nothing. No log."""

import asyncio

from bench import load

_failed = 0


async def empty() -> None:
    """What every run does."""


def ended(task: asyncio.Task[None]) -> None:
    """Look at how the run ended, as anybody has to who does not want to lose errors."""
    global _failed
    if task.cancelled() or task.exception() is not None:
        _failed += 1


async def main() -> None:
    """Spawn ticks until all are done."""
    loop, marks, tick, last = asyncio.get_running_loop(), load.Marks(), 0, False
    start = loop.time()
    while not last:
        await asyncio.sleep(start + tick * load.INTERVAL_S - loop.time())
        for _ in range(load.JOBS):
            loop.create_task(empty()).add_done_callback(ended)
        last = marks.tick()
        tick += 1


asyncio.run(main())
