"""Where a run stands in the code: of tasks on a virtual loop, of threads in real time."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Generator
from typing import Any

from jobd import stacks

from .helpers import LIMIT_S
from .virtual import VirtualLoop

NO_CODE: frozenset[Any] = frozenset()


async def inner() -> None:
    """The innermost of some coroutines."""
    await asyncio.sleep(10)


async def middle() -> None:
    """Awaits `inner`."""
    await inner()


async def outer() -> None:
    """Awaits `middle`."""
    await middle()


def names(stack: list[str]) -> list[str]:
    """The functions of a stack."""
    return [place.rpartition(" in ")[2] for place in stack]


def suspended(loop: VirtualLoop, coroutine: Any) -> asyncio.Task[Any]:
    """A task of the coroutine, at its first wait."""
    task: asyncio.Task[Any] = loop.create_task(coroutine)
    loop.pass_time(1)
    assert not task.done()
    return task


def test_a_task_stands_in_the_chain_of_what_it_awaits(loop: VirtualLoop) -> None:
    """Outermost first, each with file and line."""
    stack = stacks.of_task(suspended(loop, outer()), NO_CODE, None)
    assert names(stack)[:3] == ["outer", "middle", "inner"]
    line = inner.__code__.co_firstlineno + 2
    assert stack[2] == f"{__file__}:{line} in inner"


def test_code_of_ours_is_left_out(loop: VirtualLoop) -> None:
    """Frames of no interest are skipped, those within them are not."""
    stack = stacks.of_task(suspended(loop, outer()), frozenset({outer.__code__, inner.__code__}), None)
    assert names(stack)[:1] == ["middle"]
    assert "inner" not in names(stack)


def test_generators_and_async_generators_are_followed(loop: VirtualLoop) -> None:
    """A chain may go through an object with `__await__`; it is followed as far as Python tells."""

    class Awaitable:
        def __await__(self) -> Generator[Any, Any, None]:
            return (yield from inner().__await__())

    async def through() -> None:
        await Awaitable()

    async def ticking() -> AsyncIterator[int]:
        await inner()
        yield 1

    async def looping() -> None:
        async for _ in ticking():
            pass

    assert names(stacks.of_task(suspended(loop, through()), NO_CODE, None))[0].endswith("through")
    assert "Awaitable.__await__" in names(stacks.of_task(suspended(loop, through()), NO_CODE, None))[1]
    of_looping = names(stacks.of_task(suspended(loop, looping()), NO_CODE, None))
    assert [name.rpartition(".")[2] for name in of_looping[:3]] == ["looping", "ticking", "inner"]


def test_a_task_that_is_done_stands_nowhere(loop: VirtualLoop) -> None:
    """There is nothing to be shown of it."""
    task = loop.create_task(outer())
    loop.run_out()
    assert task.done()
    assert stacks.of_task(task, NO_CODE, None) == []


def test_a_deep_chain_is_cut_at_the_outer_end(loop: VirtualLoop) -> None:
    """What is shown is where the task waits, not where it came from."""

    async def deeper(levels: int) -> None:
        await (deeper(levels - 1) if levels else inner())

    stack = stacks.of_task(suspended(loop, deeper(100)), NO_CODE, None)
    assert len(stack) == stacks.MOST
    assert "inner" in names(stack)[-2:]


def test_a_thread_stands_where_it_waits() -> None:
    """Outermost first, the thread's own first functions included, those of no interest left out."""
    gate = threading.Event()
    begun = threading.Event()

    def body() -> None:
        begun.set()
        gate.wait(LIMIT_S)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    assert begun.wait(LIMIT_S)
    everything = names(stacks.of_thread(thread.ident, NO_CODE))
    without = names(stacks.of_thread(thread.ident, frozenset({body.__code__})))
    gate.set()
    thread.join(LIMIT_S)
    where = next(n for n, name in enumerate(everything) if name.endswith("body"))
    assert where > everything.index("Thread.run")
    assert not any(name.endswith("body") for name in without)


def test_a_thread_that_has_ended_stands_nowhere() -> None:
    """Nor does one that never began."""
    thread = threading.Thread(target=lambda: None)
    assert stacks.of_thread(thread.ident, NO_CODE) == []
    thread.start()
    thread.join(LIMIT_S)
    assert thread.ident not in sys._current_frames()
    assert stacks.of_thread(thread.ident, NO_CODE) == []


def test_a_deep_stack_of_a_thread_is_cut_at_the_outer_end() -> None:
    """The innermost frames are those that say what it is doing."""

    def deeper(levels: int) -> list[str]:
        return deeper(levels - 1) if levels else stacks.of_thread(threading.get_ident(), NO_CODE)

    stack = deeper(100)
    assert len(stack) == stacks.MOST
    assert names(stack)[-1] == "of_all_threads"


async def wrapper() -> None:
    """As the code of ours around a job's."""
    await spins()


async def spins() -> None:
    """Is now in a step, and now between two."""
    while True:
        for _ in range(100):
            pass
        await asyncio.sleep(0)


def test_a_task_that_spins_is_seen_in_a_step_or_between_two() -> None:
    """However it is met: its own line is always there, though nothing of ours is."""
    made: list[asyncio.Task[None]] = []

    async def main() -> None:
        made.append(asyncio.create_task(wrapper()))
        begun.set()
        await asyncio.wait(made)

    begun = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert begun.wait(LIMIT_S)
    (task,) = made
    skip, seen = frozenset({wrapper.__code__}), [0, 0]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # now and then in the middle of a look
    try:
        while task.get_coro().cr_await is None and not task.get_coro().cr_running:  # type: ignore[union-attr]
            pass  # it is about to begin
        end = time.monotonic() + LIMIT_S
        while (sum(seen) < 500 or not all(seen)) and time.monotonic() < end:
            stack = names(stacks.of_task(task, skip, thread.ident))
            assert "spins" in stack, stack
            assert "wrapper" not in stack
            seen["_run_once" in " ".join(stack)] += 1
    finally:
        sys.setswitchinterval(interval)
        task.get_loop().call_soon_threadsafe(task.cancel)
        thread.join(LIMIT_S)
    assert all(seen), seen
