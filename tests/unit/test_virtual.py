"""The virtual loop itself, because every other test believes it."""

import asyncio
import time

from .virtual import VirtualLoop


def test_an_hour_of_sleep_takes_no_time(loop: VirtualLoop) -> None:
    """A coroutine that sleeps finds that exactly that much time has passed, though none has."""
    began = time.process_time()
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() == 3600
    assert time.process_time() - began < 1


def test_run_until_runs_what_is_due_and_no_more(loop: VirtualLoop) -> None:
    """What is due at the instant itself still runs; what is due later does not; now is the instant."""
    ran: list[float] = []
    for due in (1.0, 2.0, 2.5):
        loop.call_at(due, ran.append, due)
    loop.run_until(2.0)
    assert ran == [1.0, 2.0]
    assert loop.time() == 2.0


def test_a_loop_with_nothing_to_do_comes_back_at_once(loop: VirtualLoop) -> None:
    """Where a real loop would wait for ever, this one returns and its time stands still."""
    loop.run_out()
    assert loop.time() == 0


def test_after_a_stall_everything_is_late(loop: VirtualLoop) -> None:
    """A stall moves the clock without running anything; what came due meanwhile runs afterwards."""
    ran: list[float] = []
    loop.call_at(1.0, lambda: ran.append(loop.time()))
    loop.stall(5.0)
    loop.settle()
    assert ran == [5.0]


def test_calls_from_the_same_instant_keep_their_order(loop: VirtualLoop) -> None:
    """What is called soon runs in the order of the calls, before any time passes."""
    ran: list[str] = []
    loop.call_later(0.1, ran.append, "later")
    loop.call_soon_threadsafe(ran.append, "first")
    loop.call_soon(ran.append, "second")
    loop.run_out()
    assert ran == ["first", "second", "later"]
