"""Coroutines that do nothing, all due together, and one behind them that counts the ticks."""

from collections.abc import Awaitable, Callable

from bench import load
from jobd import every

_marks = load.Marks()


def _make() -> Callable[[], Awaitable[None]]:
    async def empty() -> None: ...

    return empty


for number in range(load.JOBS - 1):
    globals()[f"job{number}"] = every(load.INTERVAL_S, name=f"job{number}")(_make())


@every(load.INTERVAL_S)
async def last() -> None:
    """Count the tick: of jobs that are due together, the one declared last starts last."""
    if _marks.tick():
        load.stop()
