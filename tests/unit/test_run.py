"""What a job knows about its run: `current_run`, and `stopping` in threads and coroutines. In real time."""

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from jobd import run as runs
from jobd.run import Run, Stopping, current_run

from .helpers import LIMIT_S, job_of


def make() -> Run:
    """A run of some job."""
    return Run(job_of(), "id-1", 0, 3)


def in_thread(body: Callable[[], object]) -> threading.Thread:
    """A thread that does this."""
    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread


def test_outside_a_run_there_is_no_current_one() -> None:
    """Asking is an error that says when it would be none."""
    with pytest.raises(RuntimeError, match="only inside a run"):
        current_run()


def test_a_run_is_current_wherever_its_context_reaches() -> None:
    """In the coroutine, in tasks that it creates, in `asyncio.to_thread`; not in a bare thread of its making."""
    made = make()
    outside: list[str] = []

    def bare() -> None:
        try:
            current_run()
        except RuntimeError as error:
            outside.append(str(error))

    async def body() -> None:
        runs.current.set(made)
        assert current_run() is made
        assert await asyncio.create_task(asyncio.to_thread(current_run)) is made
        in_thread(bare).join(LIMIT_S)

    contextvars.copy_context().run(asyncio.run, body())
    assert len(outside) == 1


def test_a_run_tells_its_job_its_tick_and_its_instant() -> None:
    """The facts of the log, for the job itself."""
    made = make()
    made.scheduled_ns = 1_500_000_000
    assert (made.job, made.run_id, made.first_tick, made.tick) == ("job", "id-1", 0, 3)
    assert made.scheduled_at == datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)
    assert made.scheduled == "1970-01-01T00:00:01.500000Z"
    assert repr(made) == "<run id-1 of job, tick 3>"


def test_a_run_that_is_asked_to_stop_is_stopping() -> None:
    """Whether its event existed before or is looked at for the first time afterwards."""
    before, after = make(), make()
    assert not before.stopping.is_set()
    before.ask_to_stop()
    after.ask_to_stop()
    assert before.stopping.is_set()
    assert after.stopping.is_set()


def test_all_threads_of_a_run_see_the_same_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that look for the first time at once are both told when the run is to stop."""
    made = make()
    found: list[Stopping] = []
    both = threading.Barrier(2)

    def slowly() -> Stopping:
        try:
            both.wait(0.2)
        except threading.BrokenBarrierError:  # the other one was kept out, as it should be
            pass
        return Stopping()

    monkeypatch.setattr(runs, "Stopping", slowly)
    for thread in [in_thread(lambda: found.append(made.stopping)) for _ in range(2)]:
        thread.join(LIMIT_S)
    made.ask_to_stop()
    assert [event.is_set() for event in found] == [True, True]


def test_a_thread_waits_until_it_is_asked_to_stop() -> None:
    """`wait` blocks its thread and returns True when the event is set."""
    stopping = Stopping()
    returned: list[bool] = []
    thread = in_thread(lambda: returned.append(stopping.wait(LIMIT_S)))
    assert not returned
    stopping.set()
    thread.join(LIMIT_S)
    assert returned == [True]


def test_a_thread_waits_no_longer_than_it_said() -> None:
    """With a timeout that passes, `wait` returns False."""
    began = time.monotonic()
    assert Stopping().wait(0.05) is False
    assert 0.04 < time.monotonic() - began < LIMIT_S


def test_a_coroutine_waits_until_it_is_asked_to_stop_from_another_thread() -> None:
    """It is to be awaited, blocks nothing meanwhile, and any number may wait."""
    stopping = Stopping()

    async def body() -> list[bool]:
        waiting = [asyncio.ensure_future(stopping.wait()) for _ in range(5)]
        await asyncio.sleep(0)
        in_thread(stopping.set)
        return await asyncio.wait_for(asyncio.gather(*waiting), LIMIT_S)

    assert asyncio.run(body()) == [True] * 5


def test_a_coroutine_waits_no_longer_than_it_said() -> None:
    """With a timeout that passes, `wait` returns False; nought means to look without waiting."""

    async def body() -> tuple[bool, bool]:
        return await Stopping().wait(0.02), await Stopping().wait(0)

    assert asyncio.run(body()) == (False, False)


def test_who_waits_after_the_event_is_set_does_not_wait() -> None:
    """In a thread and in a coroutine, without and with a timeout of nought."""
    stopping = Stopping()
    stopping.set()

    async def body() -> tuple[bool, bool]:
        return await stopping.wait(), await stopping.wait(0)

    assert stopping.wait() is True
    assert stopping.wait(0) is True
    assert asyncio.run(body()) == (True, True)


def test_a_wait_that_is_cancelled_is_cancelled() -> None:
    """The timeout inside does not swallow it, and the waiter is forgotten."""
    stopping = Stopping()

    async def body() -> None:
        task = asyncio.ensure_future(stopping.wait(LIMIT_S))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(body())
    assert not stopping._wakers


def test_a_loop_that_is_closed_meanwhile_does_not_hinder_the_others() -> None:
    """`set` reaches every waiter, and those that are gone raise nothing."""
    stopping = Stopping()
    gone = asyncio.new_event_loop()
    gone.close()
    stopping._wakers.append(lambda: gone.call_soon_threadsafe(print))
    stopping.set()
    assert stopping.is_set()
