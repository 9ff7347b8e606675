"""The runner, with the job plane on the same virtual loop: each run has one start and one end, each tick one line."""

import asyncio
import contextlib
import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from jobd import ending, events, flight
from jobd.job import Job
from jobd.plane import JobPlane
from jobd.policy import Policies
from jobd.run import Run, current_run
from jobd.runner import Runner
from jobd.states import Outcome

from .helpers import job_of, nothing, row, stubborn
from .virtual import Log, VirtualLoop, virtual_loop


@pytest.fixture
def runner(loop: VirtualLoop, to: Log) -> Runner:
    """A runner whose two planes are one virtual loop."""
    return Runner(loop, JobPlane(loop), to)


async def long() -> None:
    """A job that takes a minute, and ends when it is cancelled."""
    await asyncio.sleep(60)


def ended(to: Log) -> dict[str, str]:
    """The outcome of each run that has ended."""
    return {fields["run_id"]: fields["outcome"] for fields in to.of(events.RUN_FINISHED)}


def outcome(runner: Runner, loop: VirtualLoop, to: Log, body: Callable[[], Any]) -> dict[str, Any]:
    """The last line about a run of this body, once it has ended."""
    runner.offer(deque([row(job_of(body), 0)]))
    loop.pass_time(100)
    (finished,) = to.of(events.RUN_FINISHED)
    assert runner.running == 0
    return finished


def test_a_run_has_a_start_and_an_end(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """Two lines, of the same run, that say which tick it was for, when that was, and how long the run took."""
    loop.stall(20.25)
    runner.offer(deque([row(job_of(long, "poll"), 2)]))
    loop.run_until(100)
    started, finished = to.lines
    assert started == (
        events.RUN_STARTED.name,
        {
            "job": "poll",
            "run_id": started.fields["run_id"],
            "tick": 2,
            "scheduled_at": "1970-01-01T00:00:20.000000Z",
            "lateness_s": 0.25,
        },
    )
    assert finished == (
        events.RUN_FINISHED.name,
        {
            "job": "poll",
            "run_id": started.fields["run_id"],
            "tick": 2,
            "outcome": "succeeded",
            "duration_s": 60.0,
        },
    )
    assert to.levels == ["info", "info"]


def test_a_run_is_in_flight_from_its_start_to_its_end(loop: VirtualLoop, runner: Runner) -> None:
    """It counts while its code runs; whoever listens is told of its end when the watch comes by."""
    changes: list[int] = []
    runner.on_change = lambda: changes.append(runner.running)
    runner.offer(deque([row(job_of(long), 0)]))
    loop.pass_time(1)
    assert (runner.running, [run.job for run in runner.oldest()]) == (1, ["job"])
    loop.pass_time(60)
    assert (runner.running, runner.oldest(), runner.busy) == (0, [], True)
    runner.collect()
    assert (runner.busy, changes) == (False, [0])
    assert Counter(runner.outcomes) == Counter({Outcome.SUCCEEDED: 1})


def test_runs_of_one_job_may_overlap(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """A tick that comes while the run before it goes on has a run of its own."""
    job = job_of(long)
    for tick in range(3):
        runner.offer(deque([row(job, tick)]))
        loop.pass_time(10)
    assert runner.running == 3
    assert [fields["tick"] for fields in to.of(events.RUN_STARTED)] == [0, 1, 2]


def test_runs_that_pile_up_are_told_at_each_doubling(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """One warning at ten runs of a job, one at twenty; other jobs do not count, and who has ended all begins anew."""
    job, other = job_of(long), job_of(nothing, "other")
    for tick in range(25):
        runner.offer(deque([row(job, tick), row(other, tick)]))
        loop.pass_time(2)
    assert [(fields["job"], fields["running"]) for fields in to.of(events.JOB_OVERLAPPING)] == [
        (job.name, 10),
        (job.name, 20),
    ]
    loop.pass_time(120)
    assert runner.running == 0
    for tick in range(25, 36):
        runner.offer(deque([row(job, tick)]))
        loop.pass_time(2)
    assert [fields["running"] for fields in to.of(events.JOB_OVERLAPPING)] == [10, 20, 10]


def test_run_ids_are_unique(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """Each run has its own, also beside those of another daemon."""
    other = Runner(loop, JobPlane(loop), to)
    for number in range(50):
        runner.offer(deque([row(job_of(name=f"{number}"), 0)]))
        other.offer(deque([row(job_of(name=f"{number}"), 0)]))
    loop.settle()
    assert len({fields["run_id"] for fields in to.of(events.RUN_STARTED)}) == 100


class Group(BaseException):
    """An exception that is no `Exception`."""


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """An exception whose attributes cannot be set, as dataclasses make them."""

    code: int = 7


class Unspeakable(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def _raising(error: BaseException) -> Callable[[], Coroutine[Any, Any, None]]:
    async def body() -> None:
        await asyncio.sleep(1)
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("no"), "ValueError"),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (StopIteration(), "RuntimeError"),
        (StopAsyncIteration(), "StopAsyncIteration"),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
        (TimeoutError(), "TimeoutError"),
        (MemoryError(), "MemoryError"),
        (RecursionError("deep"), "RecursionError"),
        (ExceptionGroup("two", [ValueError(1), KeyError(2)]), "ExceptionGroup"),
        (BaseExceptionGroup("two", [KeyboardInterrupt(), KeyError(2)]), "BaseExceptionGroup"),
        (Group("own"), "Group"),
        (Unspeakable(), "Unspeakable"),
        (Frozen(), "Frozen"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_whatever_a_job_raises_fails_the_run(
    loop: VirtualLoop, runner: Runner, to: Log, error: BaseException, kind: str
) -> None:
    """The run's end says what was raised and where; the loop goes on."""
    finished = outcome(runner, loop, to, _raising(error))
    assert finished["outcome"] == "failed"
    assert finished["duration_s"] == 1.0
    assert finished["error"]["type"].rpartition("test_runner.")[2] == kind
    assert "in body" in finished["traceback"]
    assert to.levels[-1] == "error"


def test_the_traceback_begins_with_the_jobs_own_code(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """Frames of jobd are of no interest to whoever wrote the job."""
    finished = outcome(runner, loop, to, _raising(ValueError("no")))
    assert finished["error"] == {"type": "ValueError", "message": "no"}
    assert "invoke.py" not in finished["traceback"]


def test_a_job_that_raises_at_the_call_fails(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """Nor does it matter that its code never became a coroutine."""

    class Broken:
        async def __call__(self, needed: int) -> None: ...

    assert outcome(runner, loop, to, Broken())["error"]["type"] == "TypeError"  # type: ignore[arg-type]


def test_a_job_that_cancels_itself_has_failed(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """Only jobd's own cancellation is called one."""

    async def body() -> None:
        task = asyncio.current_task()
        assert task
        task.cancel()
        await asyncio.sleep(1)

    finished = outcome(runner, loop, to, body)
    assert finished["outcome"] == "failed"
    assert finished["error"]["type"] == "asyncio.exceptions.CancelledError"


def test_a_cancelled_run_is_cancelled(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """It ends at once, its end says so, and it says no error."""
    runner.offer(deque([row(job_of(long), 0)]))
    loop.pass_time(5)
    runner.cancel()
    loop.settle()
    (finished,) = to.of(events.RUN_FINISHED)
    assert (finished["outcome"], finished["duration_s"]) == ("cancelled", 5.0)
    assert "error" not in finished
    assert to.levels[-1] == "warning"


def test_a_run_that_cleans_up_ends_after_that(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """What a job awaits in `finally` is not cut off."""

    async def body() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(3)

    runner.offer(deque([row(job_of(body), 0)]))
    loop.pass_time(5)
    runner.cancel()
    loop.pass_time(2.9)
    assert runner.running == 1
    loop.pass_time(0.2)
    assert list(ended(to).values()) == ["cancelled"]


def test_a_run_that_swallows_its_cancellation_and_ends_was_cancelled(
    loop: VirtualLoop, runner: Runner, to: Log
) -> None:
    """Coming to an orderly end because one was cancelled is no success."""

    async def body() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    runner.offer(deque([row(job_of(body), 0)]))
    loop.pass_time(5)
    runner.cancel()
    loop.settle()
    assert list(ended(to).values()) == ["cancelled"]


def test_a_run_that_fails_when_it_is_cancelled_has_failed(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """A fault in the cleaning up is not hidden behind the cancellation."""

    async def body() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("while cleaning up")

    runner.offer(deque([row(job_of(body), 0)]))
    loop.pass_time(5)
    runner.cancel()
    loop.settle()
    (finished,) = to.of(events.RUN_FINISHED)
    assert (finished["outcome"], finished["error"]["message"]) == ("failed", "while cleaning up")


def test_a_cancelled_run_is_asked_to_stop_too(loop: VirtualLoop, runner: Runner) -> None:
    """Code that looks at `stopping` while it cleans up finds it set."""
    seen: list[bool] = []

    async def body() -> None:
        seen.append(current_run().stopping.is_set())
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(current_run().stopping.is_set())

    runner.offer(deque([row(job_of(body), 0)]))
    loop.pass_time(1)
    runner.cancel()
    loop.settle()
    assert seen == [False, True]


def test_another_jobs_cancelling_of_all_tasks_is_no_end_of_anything(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """A run that is cancelled by a stranger before its first line still has a start and an end, and the ticks of
    its job go on.
    """
    victim = job_of(name="victim")

    async def vandal() -> None:
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()

    runner.offer(deque([row(job_of(vandal, "vandal"), 0), row(victim, 0)]))
    loop.pass_time(10)
    runner.offer(deque([row(victim, 1)]))
    loop.pass_time(10)
    accounted = [fields["tick"] for fields in to.of(events.RUN_STARTED) if fields["job"] == "victim"]
    accounted += [fields["tick"] for fields in to.of(events.TICK_SKIPPED) if fields["job"] == "victim"]
    assert sorted(accounted) == [0, 1]
    assert len(ended(to)) == len(to.of(events.RUN_STARTED))
    assert 1 in [fields["tick"] for fields in to.of(events.RUN_STARTED)]


def test_ticks_that_come_while_the_plane_is_held_become_one_run(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """The run is for the last tick; the ones before it are told as missed, just before it starts."""
    job = job_of()
    runner.offer(deque([row(job, 4)]))
    runner.offer(deque([row(job, 5, 6)]))
    loop.stall(65)
    runner.offer(deque([row(job, 7)]))
    loop.settle()
    skipped, started, finished = to.lines
    assert skipped == (events.TICK_SKIPPED.name, {"job": "job", "tick": 4, "count": 3, "reason": "missed"})
    assert (started.fields["tick"], started.fields["lateness_s"]) == (7, -5.0)
    assert started.fields["scheduled_at"] == "1970-01-01T00:01:10.000000Z"
    assert finished.fields["tick"] == 7


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_run_that_is_handed_over_several_times_is_executed_once(
    loop: VirtualLoop, to: Log, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    """Who takes it for lost may do so just before it begins, and then comes after it has ended."""
    plane = JobPlane(loop)
    runner = Runner(loop, plane, to)
    monkeypatch.setattr(JobPlane, "idle", True)
    call, executed, left = plane.call, list[int](), [3] * (attempt == 1)

    def call_and_stall(*arguments: Any) -> None:
        call(*arguments)
        while left and left[0]:
            left[0] -= 1
            loop.stall(5)
            runner.start_again()

    async def body() -> None:
        executed.append(current_run().attempt)
        if current_run().attempt == 1 == attempt - 1:
            left.append(3)
            raise ValueError

    monkeypatch.setattr(plane, "call", call_and_stall)
    policies = Policies(retries=1, backoff=1.0)
    runner.offer(deque([row(dataclasses.replace(job_of(body), policies=policies), 0)]))
    loop.pass_time(100)
    assert left == [0]
    assert executed == list(range(1, attempt + 1))
    assert [fields["outcome"] for fields in to.of(events.RUN_FINISHED)] == ["succeeded"]


def test_a_held_plane_is_handed_nothing_again(loop: VirtualLoop, to: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """It will come to what it has been given, and a run that rests between two attempts is no exception."""
    plane = JobPlane(loop)
    runner = Runner(loop, plane, to)
    call, waiting = plane.call, list[int]()

    def call_and_stall(*arguments: Any) -> None:
        call(*arguments)
        loop.stall(60)
        if len(waiting) < 10:
            waiting.append(len(plane._calls))
            runner.start_again()

    async def fails() -> None:
        raise ValueError

    monkeypatch.setattr(plane, "call", call_and_stall)
    runner.offer(deque([row(dataclasses.replace(job_of(fails), policies=Policies(retries=1, backoff=1.0)), 0)]))
    loop.pass_time(100)
    assert waiting == [1, 1]


def test_a_row_of_ticks_becomes_one_run(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """What the spawner missed is accounted for as well, by the first tick and the number."""
    runner.offer(deque([row(job_of(), 3, 9)]))
    loop.settle()
    assert to.of(events.TICK_SKIPPED) == [{"job": "job", "tick": 3, "count": 6, "reason": "missed"}]
    assert [fields["tick"] for fields in to.of(events.RUN_STARTED)] == [9]


def test_one_job_that_waits_does_not_hold_another(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """Only ticks of the same job are taken together."""
    one, two = job_of(name="one"), job_of(name="two")
    runner.offer(deque([row(one, 0), row(two, 0)]))
    runner.offer(deque([row(two, 1), row(one, 1)]))
    loop.settle()
    assert [(f["job"], f["tick"]) for f in to.of(events.RUN_STARTED)] == [("one", 1), ("two", 1)]


def test_no_more_runs_than_allowed_are_in_flight(loop: VirtualLoop, to: Log) -> None:
    """Ticks beyond the cap are skipped for that reason, and the next tick after an end has its run again."""
    runner = Runner(loop, JobPlane(loop), to, max_running=2)
    jobs = [job_of(long, name) for name in "abc"]
    runner.offer(deque([row(job, 0) for job in jobs]))
    loop.pass_time(30)
    runner.offer(deque([row(jobs[0], 1, 3)]))
    loop.pass_time(60)
    runner.offer(deque([row(jobs[2], 1)]))
    loop.pass_time(1)
    assert [(f["job"], f["tick"]) for f in to.of(events.RUN_STARTED)] == [("a", 0), ("b", 0), ("c", 1)]
    assert to.of(events.TICK_SKIPPED) == [
        {"job": "c", "tick": 0, "count": 1, "reason": "max_running"},
        {"job": "a", "tick": 1, "count": 3, "reason": "max_running"},
    ]


def test_a_cap_counts_what_is_offered_and_has_not_begun(loop: VirtualLoop, to: Log) -> None:
    """While the plane is held, runs that wait for it take up room, and further ticks of theirs are still merged."""
    runner = Runner(loop, JobPlane(loop), to, max_running=1)
    one, two = job_of(name="one"), job_of(name="two")
    runner.offer(deque([row(one, 0), row(two, 0)]))
    runner.offer(deque([row(one, 1)]))
    loop.settle()
    assert [(f["job"], f["tick"], f["reason"]) for f in to.of(events.TICK_SKIPPED)] == [
        ("two", 0, "max_running"),
        ("one", 0, "missed"),
    ]
    assert [(f["job"], f["tick"]) for f in to.of(events.RUN_STARTED)] == [("one", 1)]


def test_a_closed_runner_starts_nothing_more(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """What was offered and has not begun is refused and told as skipped, after the announcement."""
    job = job_of()
    runner.offer(deque([row(job, 0)]))
    runner.offer(deque([row(job, 1, 4)]))
    runner.close(announce=lambda: to.emit(events.SHUTDOWN_REQUESTED, signal=None, running=0, grace_period_s=0.0))
    loop.pass_time(10)
    assert to.names == [events.SHUTDOWN_REQUESTED.name, events.TICK_SKIPPED.name]
    assert to.of(events.TICK_SKIPPED) == [{"job": "job", "tick": 0, "count": 5, "reason": "missed"}]
    assert runner.running == 0


def test_closing_asks_the_runs_in_flight_to_stop(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """A coroutine that waits for `stopping` wakes up and ends by itself, as a success."""

    async def body() -> None:
        assert await current_run().stopping.wait(1000)

    runner.offer(deque([row(job_of(body), 0)]))
    loop.pass_time(5)
    runner.close(announce=lambda: None)
    loop.settle()
    assert [(f["outcome"], f["duration_s"]) for f in to.of(events.RUN_FINISHED)] == [("succeeded", 5.0)]


def test_what_is_abandoned_has_its_end_and_no_second_one(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """Each leftover is told with the place where it stands; that it ends later changes nothing."""
    for name in "ab":
        runner.offer(deque([row(job_of(stubborn, name), 0)]))
    loop.pass_time(10)
    runner.close(announce=lambda: None)
    runner.cancel()
    loop.pass_time(5)
    to.lines.clear()
    runner.abandon()
    loop.pass_time(1000)
    assert to.names == [events.SHUTDOWN_ABANDONED.name, events.RUN_FINISHED.name] * 2
    assert [f["outcome"] for f in to.of(events.RUN_FINISHED)] == ["abandoned", "abandoned"]
    assert [f["age_s"] for f in to.of(events.SHUTDOWN_ABANDONED)] == [15.0, 15.0]
    assert all("in stubborn" in f["stack"][0] for f in to.of(events.SHUTDOWN_ABANDONED))
    assert Counter(runner.outcomes) == Counter({Outcome.ABANDONED: 2})


def test_what_has_ended_by_itself_is_not_abandoned(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """An ending that is on its way to the control plane when all is given up still counts."""

    async def body() -> None:
        await asyncio.sleep(1)
        loop.call_soon(runner.abandon)

    runner.offer(deque([row(job_of(body), 0)]))
    runner.offer(deque([row(job_of(long, "long"), 0)]))
    loop.pass_time(2)
    assert [(f["job"], f["outcome"]) for f in to.of(events.RUN_FINISHED)] == [
        ("job", "succeeded"),
        ("long", "abandoned"),
    ]
    assert [f["job"] for f in to.of(events.SHUTDOWN_ABANDONED)] == ["long"]


def _in_flight(loop: VirtualLoop, runner: Runner, names: str) -> None:
    for name in names:
        runner.offer(deque([row(job_of(long, name), 0)]))
    loop.pass_time(1)


def test_who_listens_and_fails_keeps_no_run_from_its_end(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """What is called for the ends that were collected raises: all others are given up before that is told."""

    def broken() -> NoReturn:
        raise RuntimeError("nobody listens")

    _in_flight(loop, runner, "ab")
    runner.on_change = broken
    with pytest.raises(RuntimeError, match="nobody listens"):
        runner.abandon()
    assert list(ended(to).values()) == ["abandoned", "abandoned"]


def test_a_run_that_cannot_be_looked_at_keeps_none_from_its_end(
    loop: VirtualLoop, runner: Runner, to: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its own end, too; only where it stands is not told."""
    _in_flight(loop, runner, "abc")
    stack = runner.flight.stack

    def fails_once(run: Run, frames: Any) -> list[str]:
        if run.job == "b":
            raise RuntimeError("no stack")
        return stack(run, frames)

    monkeypatch.setattr(runner.flight, "stack", fails_once)
    with pytest.raises(RuntimeError, match="no stack"):
        runner.abandon()
    assert list(ended(to).values()) == ["abandoned"] * 3
    assert [f["job"] for f in to.of(events.SHUTDOWN_ABANDONED)] == ["a", "c"]


def test_an_end_that_could_not_be_collected_is_told_as_it_was(
    loop: VirtualLoop, runner: Runner, to: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has ended by itself is not abandoned because seeing off another one has raised."""
    _in_flight(loop, runner, "ab")
    runner.close(announce=lambda: None)
    finish, calls = runner._finish, iter([True])

    def fails_once(run: Run, how: ending.Ending, ended: float) -> None:
        if next(calls, False):
            raise RuntimeError("no end")
        finish(run, how, ended)

    monkeypatch.setattr(runner, "_finish", fails_once)
    for run in runner.oldest():
        runner._end(run, ending.SUCCEEDED)
    with pytest.raises(RuntimeError, match="no end"):
        runner.abandon()
    assert list(ended(to).values()) == ["succeeded", "succeeded"]


def test_stacks_of_runs_beyond_count_do_not_keep_their_ends_waiting(
    loop: VirtualLoop, runner: Runner, to: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is told to be abandoned, and where it stands as long as there is time for that."""
    _in_flight(loop, runner, "abcd")

    def slow(run: Run, frames: Any) -> list[str]:
        loop.stall(0.1)
        return [run.job]

    monkeypatch.setattr(runner.flight, "stack", slow)
    runner.abandon()
    assert [f["stack"] for f in to.of(events.SHUTDOWN_ABANDONED)] == [["a"], ["b"], [], []]
    assert list(ended(to).values()) == ["abandoned"] * 4


class Hostile:
    """An awaitable that raises at every question, as some proxies do."""

    def __init__(self) -> None:
        self.left = 10

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(f"do not ask me for {name}")

    def __await__(self) -> "Hostile":
        return self

    def __iter__(self) -> "Hostile":
        return self

    def __next__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise StopIteration


def test_a_run_that_stands_in_something_hostile_can_be_abandoned(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """Looking for the place where a run stands raises nothing, whatever it awaits."""

    async def body() -> None:
        await Hostile()

    runner.offer(deque([row(job_of(body), 0)]))
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    assert runner.running == 1
    runner.abandon()
    assert list(ended(to).values()) == ["abandoned"]


def test_the_oldest_are_named_and_no_more_than_twenty(loop: VirtualLoop, runner: Runner) -> None:
    """A line about many runs stays short."""
    jobs = [job_of(long, str(n)) for n in range(25)]
    for job in jobs:
        runner.offer(deque([row(job, 0)]))
        loop.pass_time(1)
    named = runner.named()
    assert [run["job"] for run in named] == [str(n) for n in range(20)]
    assert [run["age_s"] for run in named] == [25.0 - n for n in range(20)]
    assert [run["run_id"] for run in named] == [run.run_id for run in runner.oldest()[:20]]


def test_runs_in_flight_are_told_with_their_place(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """Who asks hears of each run how old it is and which line it waits in, the job's own first."""

    async def body() -> None:
        await long()

    runner.offer(deque([row(job_of(body), 0)]))
    loop.pass_time(3)
    runner.flight.ask()
    assert not runner.flight.tell()
    (told,) = to.of(events.RUN_IN_FLIGHT)
    assert (told["job"], told["age_s"]) == ("job", 3.0)
    assert "test_runs_in_flight_are_told_with_their_place.<locals>.body" in told["stack"][0]
    assert "in long" in told["stack"][1]
    assert not any("invoke.py" in place for place in told["stack"])


def test_of_many_runs_in_flight_some_are_told_at_a_time(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """Each once, but for those that have ended by then: no stop is to wait for thousands of places in the code."""
    for number in range(2 * flight.TOLD_TOGETHER):
        runner.offer(deque([row(job_of(long, str(number)), 0)]))
    loop.pass_time(1)
    runs = runner.oldest()
    assert len(runs) == 2 * flight.TOLD_TOGETHER
    runner.flight.ask()
    assert runner.flight.tell()
    told = [line["run_id"] for line in to.of(events.RUN_IN_FLIGHT)]
    assert told == [run.run_id for run in runs[: flight.TOLD_TOGETHER]]
    runner.cancel()
    loop.pass_time(1)
    assert not runner.flight.tell()
    assert len(to.of(events.RUN_IN_FLIGHT)) == flight.TOLD_TOGETHER


def test_lines_of_one_run_come_in_order(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """Skipped, started, what the job itself says, finished."""

    async def body() -> None:
        to.emit(events.STRAY_WARNING, message="in the job")

    runner.offer(deque([row(job_of(body), 0, 1)]))
    loop.settle()
    assert to.names == ["tick.skipped", "run.started", "stray.warning", "run.finished"]


def test_a_hundred_offers_in_one_batch_start_in_order(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """More than one turn takes are still taken in the order in which they were offered."""
    runner.offer(deque([row(job_of(name=str(n)), 0) for n in range(300)]))
    loop.settle()
    assert [f["job"] for f in to.of(events.RUN_STARTED)] == [str(n) for n in range(300)]
    assert len(ended(to)) == 300


async def _failing() -> None:
    await asyncio.sleep(7)
    raise ValueError("no")


_bodies = st.sampled_from([nothing, long, stubborn, _failing])
_actions = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, 3)),
        st.tuples(st.just("pass"), st.sampled_from([0, 1, 10, 70])),
        st.tuples(st.just("cancel"), st.just(0)),
    ),
    max_size=25,
)


@profile(max_examples=60)
@given(st.lists(_bodies, min_size=4, max_size=4), st.sampled_from([None, 1, 3]), _actions)
def test_each_run_has_one_end_and_each_tick_one_line(
    bodies: list[Callable[[], Any]], cap: int | None, actions: list[tuple[str, int]]
) -> None:
    """Whatever is offered, cancelled, closed and abandoned: the log proves both by itself."""
    with virtual_loop() as loop:
        to = Log(loop)
        runner = Runner(loop, JobPlane(loop), to, cap)
        jobs = [job_of(body, str(n)) for n, body in enumerate(bodies)]
        offered: Counter[Job] = Counter()
        for action, value in actions:
            if action == "offer":
                runner.offer(deque([row(jobs[value], offered[jobs[value]], offered[jobs[value]] + value)]))
                offered[jobs[value]] += value + 1
            elif action == "pass":
                loop.pass_time(value)
            else:
                runner.cancel()
        runner.close(announce=lambda: None)
        runner.cancel()
        loop.pass_time(1)
        runner.abandon()
        loop.run_out()
        started = [f["run_id"] for f in to.of(events.RUN_STARTED)]
        assert len(started) == len(set(started))
        assert sorted(started) == sorted(f["run_id"] for f in to.of(events.RUN_FINISHED))
        for job in jobs:
            ticks = [f["tick"] for f in to.of(events.RUN_STARTED) if f["job"] == job.name]
            for f in to.of(events.TICK_SKIPPED):
                if f["job"] == job.name:
                    ticks += range(f["tick"], f["tick"] + f["count"])
            assert sorted(ticks) == list(range(offered[job]))


def test_cancellations_that_wait_together_are_one(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """A plane that was held comes to all of them at once; none may cut off what cleans up."""
    cleaned_up: list[int] = []

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            cleaned_up.append(1)

    runner.offer(deque([row(job_of(cleans_up), 0)]))
    loop.pass_time(1)
    for _ in range(3):
        runner.cancel()  # and nothing turns meanwhile
    loop.pass_time(0.2)
    assert (cleaned_up, list(ended(to).values())) == ([1], ["cancelled"])


def test_a_second_cancellation_is_one_of_its_own(loop: VirtualLoop, runner: Runner, to: Log) -> None:
    """Where the plane has come to the first one, who has swallowed it is cancelled again."""

    async def swallows_one() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    runner.offer(deque([row(job_of(swallows_one), 0)]))
    loop.pass_time(1)
    for again in (False, True):
        runner.cancel(again)
        loop.pass_time(0.1)
    assert list(ended(to).values()) == ["cancelled"]
