"""The job plane: a task's first step is taken once, and at once where that can be."""

import asyncio

from jobd import watch
from jobd.plane import JobPlane

from .virtual import VirtualLoop


def steps_of(loop: VirtualLoop, between: bool) -> list[str]:
    """What happens, in order, when the plane makes a task and steps it; `between` the two, another call comes in."""
    steps: list[str] = []

    async def job() -> None:
        steps.append("first step")
        await asyncio.sleep(0)
        steps.append("second step")

    def make() -> None:
        task = asyncio.Task(job(), loop=loop)
        if between:
            loop.call_soon(steps.append, "call")
        JobPlane(loop).step(task)
        steps.append("made")
        kept.append(task)

    kept: list[asyncio.Task[None]] = []
    loop.call_soon(make)
    loop.pass_time(1)
    assert kept[0].done()
    return steps


def test_a_task_takes_its_first_step_at_once(loop: VirtualLoop) -> None:
    """And not again in the loop's next turn."""
    assert steps_of(loop, between=False) == ["first step", "made", "second step"]


def test_where_a_call_comes_between_a_task_steps_in_the_next_turn(loop: VirtualLoop) -> None:
    """Any thread may call; neither is lost, and the task's step is not taken twice."""
    assert steps_of(loop, between=True) == ["made", "first step", "call", "second step"]


def test_who_holds_the_plane_is_named_within_a_second() -> None:
    """Whenever that has begun between two looks, on a machine that lets us look when we want to."""
    assert watch.HELD_S + watch.LOOK_EVERY_S < 1
