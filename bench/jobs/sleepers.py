"""Coroutines that sleep until they are cancelled, and one more in each tick of each job."""

import asyncio
from collections.abc import Awaitable, Callable

from bench import load
from jobd import every

_sleepers = load.Sleepers()


def _make() -> Callable[[], Awaitable[None]]:
    async def sleeper() -> None:
        if _sleepers.more():
            await asyncio.sleep(3600)

    return sleeper


for number in range(load.JOBS):
    globals()[f"job{number}"] = every(load.INTERVAL_S, name=f"job{number}")(_make())
