"""Coroutines, all due together, that note in their first line how late they are."""

from collections.abc import Awaitable, Callable

from bench import load
from jobd import current_run, every

_meter = load.Meter()


def _make() -> Callable[[], Awaitable[None]]:
    async def metered() -> None:
        _meter.run(current_run().due)

    return metered


for number in range(load.JOBS):
    globals()[f"job{number}"] = every(load.INTERVAL_S, name=f"job{number}")(_make())
