"""Many jobs that are due once, and some behind them that are due again and again.

They count only after the many have had their first tick, which comes at once.
"""

from collections.abc import Awaitable, Callable

from bench import load
from jobd import every

_marks = load.Marks()
_first_ticks = 0


def _make_idle() -> Callable[[], Awaitable[None]]:
    async def idle() -> None:
        global _first_ticks
        _first_ticks += 1

    return idle


def _make() -> Callable[[], Awaitable[None]]:
    async def empty() -> None: ...

    return empty


for number in range(load.IDLE):
    globals()[f"idle{number}"] = every("1d", name=f"idle{number}")(_make_idle())

for number in range(load.JOBS - 1):
    globals()[f"job{number}"] = every(load.INTERVAL_S, name=f"job{number}")(_make())


@every(load.INTERVAL_S)
async def last() -> None:
    """Count the tick: of jobs that are due together, the one declared last starts last."""
    if _first_ticks == load.IDLE:
        _marks.tick()
