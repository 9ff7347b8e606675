"""Runs of plain functions: a thread of its own for each, in real time."""

import asyncio
import dataclasses
import functools
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NoReturn

import pytest

from jobd import current_run, events, invoke
from jobd.plane import JobPlane
from jobd.runner import Runner

from .helpers import LIMIT_S, job_of, row
from .virtual import Log


class Control:
    """A runner on a real loop."""

    #: Nothing here takes longer, unless an end is never told.
    limit_s = 5.0

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.to = Log(self.loop)
        self.runner = Runner(self.loop, JobPlane(self.loop), self.to)

    def until(self, true: Callable[[], bool]) -> None:
        """Let the loop turn until that is so."""

        async def wait() -> None:
            async with asyncio.timeout(self.limit_s):
                while not true():
                    await asyncio.sleep(0.001)

        self.loop.run_until_complete(wait())

    def run(self, body: Callable[[], Any]) -> dict[str, Any]:
        """The end of a run of this function."""
        self.runner.offer(deque([row(job_of(body), 0)]))
        self.until(lambda: bool(self.to.of(events.RUN_FINISHED)))
        (finished,) = self.to.of(events.RUN_FINISHED)
        return finished


@pytest.fixture
def control() -> Iterator[Control]:
    """A runner that runs nothing yet."""
    made = Control()
    yield made
    made.loop.close()


def test_a_function_runs_in_a_daemon_thread_of_its_own(control: Control) -> None:
    """Named after the run, with the run as its current one, and no event loop in it."""
    seen: list[Any] = []

    def body() -> None:
        seen.extend([threading.current_thread(), current_run()])
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()

    assert control.run(body)["outcome"] == "succeeded"
    thread, run = seen
    assert thread is not threading.main_thread()
    assert (thread.daemon, thread.name) == (True, run.run_id)


def test_functions_do_not_wait_for_one_another(control: Control) -> None:
    """A hundred that all wait for the last one to begin come to their end."""
    together = threading.Barrier(100)
    for n in range(100):
        control.runner.offer(deque([row(job_of(lambda: together.wait(LIMIT_S), str(n)), 0)]))
    control.until(lambda: len(control.to.of(events.RUN_FINISHED)) == 100)
    assert {f["outcome"] for f in control.to.of(events.RUN_FINISHED)} == {"succeeded"}


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """An exception whose attributes cannot be set."""


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, Frozen])
def test_whatever_a_function_raises_fails_the_run(control: Control, kind: type[BaseException]) -> None:
    """And nothing but the run."""

    def body() -> None:
        raise kind

    finished = control.run(body)
    assert finished["outcome"] == "failed"
    assert finished["error"]["type"].rpartition(".")[2] == kind.__name__
    assert "in body" in finished["traceback"]
    assert "invoke.py" not in finished["traceback"]


class Proxy:
    """An object that answers every question with an exception."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise RuntimeError(name)


@pytest.mark.parametrize("function", [int, bytes, list, object, Proxy])
def test_what_a_function_returns_is_of_no_interest(control: Control, function: Callable[[], Any]) -> None:
    """Not even if it cannot be asked what it is."""
    assert control.run(lambda: function())["outcome"] == "succeeded"


def test_a_function_that_returns_an_awaitable_has_failed(control: Control) -> None:
    """Its code would never run; the message says how to declare it, and nothing is left to be warned of."""

    async def inner() -> None: ...

    def body() -> Coroutine[Any, Any, None]:
        return inner()

    finished = control.run(body)
    assert finished["outcome"] == "failed"
    assert "async def" in finished["error"]["message"]


def test_a_function_that_is_cancelled_is_asked_to_stop(control: Control) -> None:
    """Nothing more can be done to a thread; it ends by itself, and that is its outcome."""

    def body() -> None:
        assert current_run().stopping.wait(LIMIT_S)

    control.runner.offer(deque([row(job_of(body), 0)]))
    control.until(lambda: control.runner.running == 1)
    control.runner.cancel()
    control.until(lambda: control.runner.running == 0)
    assert [f["outcome"] for f in control.to.of(events.RUN_FINISHED)] == ["succeeded"]


def test_a_function_that_does_not_end_is_abandoned_where_it_stands(control: Control) -> None:
    """The stack shows the job's own code; its late end is no second one."""
    gate = threading.Event()

    def body() -> None:
        gate.wait(LIMIT_S)

    control.runner.offer(deque([row(job_of(body), 0)]))
    control.until(lambda: control.runner.running == 1)
    (run,) = control.runner.oldest()
    control.runner.abandon()
    gate.set()
    control.until(lambda: run.body is None and not control.runner._ended)
    assert [f["outcome"] for f in control.to.of(events.RUN_FINISHED)] == ["abandoned"]
    (abandoned,) = control.to.of(events.SHUTDOWN_ABANDONED)
    assert any(place.endswith("body") for place in abandoned["stack"])
    assert not any("invoke.py" in place for place in abandoned["stack"])


def test_a_function_for_which_there_is_no_thread_has_failed(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a start and an end like every run, and the daemon goes on."""

    def no_more(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(invoke, "start_new_thread", no_more)
    finished = control.run(lambda: None)
    assert (finished["outcome"], finished["error"]["message"]) == ("failed", "can't start new thread")
    assert control.to.names == ["run.started", "run.finished"]


def test_a_thread_that_is_slow_to_begin_has_its_run_all_the_same(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it was given up for lost, and there is no second one to be had."""
    slow: list[Callable[[], None]] = []

    def no_more(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(invoke, "start_new_thread", lambda *call: slow.append(functools.partial(call[0], *call[1])))
    control.runner.offer(deque([row(job_of(lambda: None), 0)]))
    monkeypatch.setattr(invoke, "start_new_thread", no_more)
    for run in control.runner._offered.values():
        run.handed_over -= 60
    control.runner.start_again()
    assert control.to.names == []
    thread = threading.Thread(target=slow.pop())
    thread.start()
    thread.join()
    assert [f["outcome"] for f in control.to.of(events.RUN_FINISHED)] == ["succeeded"]


def test_a_function_that_is_offered_too_late_does_not_start(control: Control) -> None:
    """A thread that comes to its start after the runner has closed does nothing."""
    ran: list[int] = []
    late: list[Callable[[], None]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(invoke, "start_new_thread", lambda *call: late.append(functools.partial(call[0], *call[1])))
        control.runner.offer(deque([row(job_of(lambda: ran.append(1)), 0)]))
    control.runner.close(announce=lambda: None)
    for start in late:
        start()
    assert ran == []
    assert control.to.names == ["tick.skipped"]
