"""Every policy, on virtual time: the real spawner, runner and stop sequence, as `jobd.testing` plays them."""

import asyncio
import contextlib
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from jobd import events, every, policy
from jobd.job import Due, Job, Kind
from jobd.plane import JobPlane
from jobd.policy import LATE_RUNS, Missed, Overlap, Policies
from jobd.run import Run, current_run
from jobd.runner import Runner
from jobd.schedule import Every
from jobd.testing import Story, simulate

from .helpers import job_of, nothing, row, stubborn
from .virtual import Log, VirtualControlLoop, VirtualLoop


def job(interval_s: float = 10.0, kind: Kind = Kind.COROUTINE, name: str = "job", **policies: Any) -> Job:
    """A job with these policies."""
    given, wrong = policy.read(policies)
    assert not wrong
    return Job(name, Every(interval_s), nothing, kind, "tests:job", given)


def seconds(story: Story, what: str = "started_at") -> list[float]:
    """When the runs started (or ended), in seconds from the beginning."""
    begin = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    return [(getattr(run, what) - begin).total_seconds() for run in story.runs if getattr(run, what)]


def outcomes(story: Story) -> list[str | None]:
    """How the runs ended, in the order of their starts."""
    return [run.outcome for run in story.runs]


def reasons(story: Story) -> dict[int, str]:
    """The ticks that had no run, and why."""
    return {tick.tick: tick.reason for tick in story.ticks if tick.reason}


# --- overlap and limits


def test_allow_lets_runs_overlap() -> None:
    """The default: a run at every tick, however long the others take."""
    story = simulate(job(), takes={"job": 25}, lasting=59)
    assert seconds(story) == [0, 10, 20, 30, 40, 50]
    assert not reasons(story)


def test_skip_starts_none_beside_another() -> None:
    """Ticks during a run are skipped, with the reason; the one at which it has ended is not."""
    story = simulate(job(overlap="skip"), takes={"job": 25}, lasting=100)
    assert seconds(story) == [0, 30, 60, 90]
    assert reasons(story) == dict.fromkeys((1, 2, 4, 5, 7, 8, 10), "overlap")


def test_replace_cancels_the_run_in_flight() -> None:
    """There is never more than one: the new one starts when the old one has ended."""
    story = simulate(job(overlap="replace"), takes={"job": 25}, lasting=35)
    assert seconds(story) == [0, 10, 20, 30]
    assert outcomes(story) == ["cancelled", "cancelled", "cancelled", None]


def test_replace_waits_for_a_run_that_refuses_to_end() -> None:
    """A thread cannot be cancelled: the newest tick waits for it, and the ones before that are skipped."""
    story = simulate(job(overlap="replace", kind=Kind.FUNCTION), takes={"job": 25}, lasting=59)
    assert seconds(story) == [0, 25, 50]
    assert [run.tick for run in story.runs] == [0, 2, 5]
    assert reasons(story) == {1: "overlap", 3: "overlap", 4: "overlap"}


def test_replace_does_not_cut_a_clean_up_off() -> None:
    """The one in flight is asked once, and again only when it has had the cancel timeout."""
    cleaned: list[float] = []

    async def careful() -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(3)
            cleaned.append(loop.time())

    policies = Policies(overlap=Overlap.REPLACE)
    story = simulate(Job("careful", Every(0.5), careful, Kind.COROUTINE, "x", policies), lasting=6.4)
    assert cleaned == [3.5]
    assert [run.tick for run in story.runs] == [0, 7]


def test_replace_ends_a_run_that_rests() -> None:
    """Between two attempts nothing executes it, so it ends at once."""
    story = simulate(
        job(10, overlap="replace", retries=3, backoff="1h", backoff_max="1h"),
        takes={"job": lambda tick: ValueError() if tick == 0 else 1.0},
        lasting=15,
    )
    assert [(run.tick, run.outcome, run.attempts) for run in story.runs] == [(0, "cancelled", 1), (1, "succeeded", 1)]


@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.COROUTINE])
def test_a_run_that_another_one_waits_for_is_not_tried_again(kind: Kind) -> None:
    """It has had its time, and cleans up when the tick comes; its end is its own, and the newest tick has its place."""

    async def careful() -> None:
        if current_run().tick == 0:
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(3)

    policies = Policies(overlap=Overlap.REPLACE, timeout=9.0, retries=3)
    replacing = Job("job", Every(10.0), careful if kind is Kind.COROUTINE else nothing, kind, "x", policies)
    takes = {"job": lambda tick: 0.0 if tick else 12.0} if kind is Kind.FUNCTION else {}
    story = simulate(replacing, takes=takes, lasting=29)
    assert [(run.tick, run.outcome, run.attempts) for run in story.runs] == [
        (0, "timed_out", 1),
        (1, "succeeded", 1),
        (2, "succeeded", 1),
    ]
    assert seconds(story) == [0, 12, 20]


def test_a_run_whose_job_has_become_one_that_replaces_gives_way(loop: VirtualLoop, to: Log) -> None:
    """The runs of the job as it was before a reload count, too."""

    async def long() -> None:
        await asyncio.sleep(60)

    runner = Runner(loop, JobPlane(loop), to)
    plain = job_of(long, "job")
    runner.offer(deque([row(plain, 0)]))
    loop.pass_time(5)
    runner.offer(deque([row(replace(plain, policies=Policies(overlap=Overlap.REPLACE)), 1)]))
    loop.settle()
    assert [fields["tick"] for fields in to.of(events.RUN_STARTED)] == [0, 1]
    assert [fields["outcome"] for fields in to.of(events.RUN_FINISHED)] == ["cancelled"]


def test_a_run_that_ends_as_it_is_to_give_way_does_not_take_the_next_one_along(loop: VirtualLoop, to: Log) -> None:
    """It has ended by itself, which is not told yet as its next tick comes."""
    runner = Runner(loop, JobPlane(loop), to)

    def offer(tick: int) -> None:
        runner.offer(deque([row(replacing, tick)]))

    async def body() -> None:
        await asyncio.sleep(9)
        if current_run().tick == 0:
            loop.call_soon(loop.call_soon, offer, 1)

    replacing = replace(job(10, overlap="replace"), function=body)
    offer(0)
    loop.pass_time(60)
    told = [(fields["tick"], fields["outcome"]) for fields in to.of(events.RUN_FINISHED)]
    assert told == [(0, "succeeded"), (1, "succeeded")]


def test_a_stop_cancels_nothing_for_the_sake_of_a_run_that_has_been_skipped(loop: VirtualLoop, to: Log) -> None:
    """What is in flight has its grace period, though a tick has just come that would have replaced it."""
    runner = Runner(loop, JobPlane(loop), to)
    replacing = replace(job(10, overlap="replace"), function=lambda: asyncio.sleep(20))
    runner.offer(deque([row(replacing, 0)]))
    loop.pass_time(10)
    runner.offer(deque([row(replacing, 1)]))
    runner.close(announce=lambda: None)
    loop.pass_time(60)
    assert [(fields["tick"], fields["reason"]) for fields in to.of(events.TICK_SKIPPED)] == [(1, "overlap")]
    assert [(fields["tick"], fields["outcome"]) for fields in to.of(events.RUN_FINISHED)] == [(0, "succeeded")]


def test_a_run_that_waits_for_its_place_goes_with_its_job(loop: VirtualLoop, to: Log) -> None:
    """Nothing of a job that a reload has removed starts any more."""
    replacing = replace(job(10, overlap="replace"), function=stubborn)
    runner = Runner(loop, JobPlane(loop), to)
    runner.offer(deque([row(replacing, 0)]))
    loop.pass_time(10)
    runner.offer(deque([row(replacing, 1)]))
    runner.use([])
    loop.pass_time(100)
    assert [fields["tick"] for fields in to.of(events.RUN_STARTED)] == [0]
    assert [(fields["tick"], fields["reason"]) for fields in to.of(events.TICK_SKIPPED)] == [(1, "overlap")]


def test_what_waits_for_its_place_is_skipped_where_its_job_replaces_no_more(loop: VirtualLoop, to: Log) -> None:
    """Its place would never be free, now that runs begin beside the one that it waits for."""
    runner = Runner(loop, JobPlane(loop), to)
    replacing = replace(job(10, overlap="replace"), function=stubborn)
    runner.offer(deque([row(replacing, 0)]))
    loop.pass_time(10)
    runner.offer(deque([row(replacing, 1)]))
    allowing = replace(job(10, retries=1, backoff=1), function=stubborn)
    runner.use([allowing])
    runner.offer(deque([row(allowing, 2)]))
    loop.pass_time(100)
    assert [fields["tick"] for fields in to.of(events.RUN_STARTED)] == [0, 2]
    assert [(fields["tick"], fields["reason"]) for fields in to.of(events.TICK_SKIPPED)] == [(1, "overlap")]


def test_what_waits_for_a_held_plane_gives_way_to_the_job_that_a_reload_has_made_of_its_own(
    loop: VirtualLoop, to: Log
) -> None:
    """One that does not hold the plane any more, say; it must not join a run of what does."""
    runner = Runner(loop, JobPlane(loop), to)
    executed: list[str] = []

    async def old() -> None:
        executed.append("old")

    async def new() -> None:
        executed.append("new")

    for missed in ("once", "all"):
        before, after = (replace(job(10, missed=missed), function=function) for function in (old, new))
        runner.offer(deque([row(before, 0)]))
        runner.use([after])
        runner.offer(deque([row(after, 1)]))
        loop.settle()
    assert executed == ["new", "old", "new"]
    assert [(fields["tick"], fields["count"]) for fields in to.of(events.TICK_SKIPPED)] == [(0, 1)]
    assert not runner.running


@pytest.mark.parametrize("missed", ["once", "all"])
def test_what_waits_for_a_held_plane_goes_with_its_job(loop: VirtualLoop, to: Log, missed: str) -> None:
    """Each of its ticks is accounted for."""
    runner = Runner(loop, JobPlane(loop), to)
    for tick in range(3):
        runner.offer(deque([row(job(10, missed=missed), tick)]))
    runner.use([])
    loop.settle()
    assert not to.of(events.RUN_STARTED)
    assert sum(fields["count"] for fields in to.of(events.TICK_SKIPPED)) == 3
    assert not runner.busy


def test_a_run_that_waits_for_a_held_plane_is_replaced_like_any_other(loop: VirtualLoop, to: Log) -> None:
    """By the newest tick, also where every missed tick is to have a run."""
    runner = Runner(loop, JobPlane(loop), to)
    replacing = replace(job(10, overlap="replace", missed="all"), function=lambda: asyncio.sleep(1e6))
    for tick in range(3):
        runner.offer(deque([row(replacing, tick)]))
    loop.pass_time(50)
    assert [fields["tick"] for fields in to.of(events.RUN_STARTED)] == [2]
    assert sum(fields["count"] for fields in to.of(events.TICK_SKIPPED)) == 2
    assert runner.running == 1


def test_what_waits_for_its_place_is_skipped_by_a_stop() -> None:
    """It has not started, so it never does."""
    story = simulate(job(overlap="replace", kind=Kind.FUNCTION), takes={"job": 25}, stop_at=12, grace_period=60)
    assert seconds(story) == [0]
    assert reasons(story) == {1: "overlap"}
    assert story.exit_code == 0


def test_a_job_has_at_most_so_many_runs() -> None:
    """Its own limit counts its own runs only."""
    limited, free = job(max_running=2, name="limited"), job(name="free")
    story = simulate(limited, free, takes={"limited": 35, "free": 35}, lasting=59)
    assert [run.tick for run in story.of("limited")] == [0, 1, 4, 5]
    assert [run.tick for run in story.of("free")] == [0, 1, 2, 3, 4, 5]
    assert reasons(story) == {2: "max_running", 3: "max_running"}


def test_the_daemon_has_at_most_so_many_runs() -> None:
    """JOBD_MAX_RUNNING counts all of them."""
    story = simulate(job(name="a"), job(name="b"), takes={"a": 15, "b": 15}, max_running=1, lasting=19)
    assert [(run.job, run.tick) for run in story.runs] == [("a", 0)]
    assert Counter(tick.reason for tick in story.ticks) == {None: 1, "max_running": 3}


# --- timeout


def test_a_timeout_ends_a_run() -> None:
    """Its outcome is its own, and says how long it had."""
    story = simulate(job(100, timeout="7s"), takes={"job": 60}, lasting=50)
    (run,) = story.runs
    assert (run.outcome, seconds(story, "ended_at")) == ("timed_out", [7])
    assert run.error == {"type": "TimeoutError", "message": "did not end within 7s"}


def test_a_timeout_counts_from_the_first_line_of_the_job(loop: VirtualLoop, to: Log) -> None:
    """Of many that are due together, the first may hold the plane; the others have done nothing yet, then."""
    runner = Runner(loop, JobPlane(loop), to)
    executed: list[str] = []

    async def holds() -> None:
        loop.stall(2.0)
        runner._timetable.resume()  # meanwhile the control plane has come to its timers

    async def quick() -> None:
        executed.append(current_run().job)

    async def slow() -> None:
        await asyncio.sleep(0.9)

    hasty = [replace(job(timeout="1s", retries=1, name=f"{n}"), function=(quick, slow)[n % 2]) for n in range(20)]
    runner.offer(deque(row(each, 0) for each in (replace(job(name="holds"), function=holds), *hasty)))
    loop.pass_time(100)
    assert executed == [f"{n}" for n in range(0, 20, 2)]
    assert {fields["outcome"] for fields in to.of(events.RUN_FINISHED)} == {"succeeded"}


def test_a_timeout_cuts_no_clean_up_off_that_a_stop_has_begun(loop: VirtualLoop, to: Log) -> None:
    """Nor does a stop one that a timeout, or a grace period of the job's own, has begun."""
    runner = Runner(loop, JobPlane(loop), to)
    cleaned: list[str] = []

    async def careful() -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            await asyncio.sleep(3)
            cleaned.append(current_run().job)

    jobs = [job(name="times out", timeout="9s"), job(name="times out meanwhile", timeout="11s")]
    jobs.append(job(name="brief", grace_period="4s"))
    runner.offer(deque(row(replace(each, function=careful), 0) for each in jobs))
    loop.pass_time(5)
    runner.close(announce=lambda: None)
    loop.pass_time(5)
    runner.cancel()
    loop.pass_time(4)
    assert sorted(cleaned) == ["brief", "times out", "times out meanwhile"]
    assert not runner.running


def test_a_run_that_is_faster_has_no_timeout() -> None:
    """Nor does anything of it stay behind."""
    story = simulate(job(100, timeout="7s"), takes={"job": 6.9}, lasting=999)
    assert set(outcomes(story)) == {"succeeded"}


def test_a_function_cannot_be_interrupted() -> None:
    """It ends when it ends, and then it has timed out."""
    story = simulate(job(100, kind=Kind.FUNCTION, timeout="7s"), takes={"job": 60}, lasting=99)
    assert (outcomes(story), seconds(story, "ended_at")) == (["timed_out"], [60])


def test_a_coroutine_that_swallows_its_timeout_is_asked_again() -> None:
    """With each cancel timeout that passes; once would be too easily overheard."""
    asked: list[float] = []

    async def deaf() -> None:
        loop = asyncio.get_running_loop()
        while len(asked) < 3:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                asked.append(loop.time())

    story = simulate(Job("deaf", Every(1000), deaf, Kind.COROUTINE, "x", Policies(timeout=7.0)), lasting=100)
    assert asked == [7, 12, 17]
    assert outcomes(story) == ["timed_out"]


# --- retries


def test_a_retry_is_the_same_run() -> None:
    """One start, one end; between the attempts `run.retrying` says what has failed and how long it waits."""
    fails: Iterator[Any] = iter([ValueError("one"), KeyError("two"), 1.0])
    story = simulate(job(1000, retries=5, backoff="4s"), takes={"job": lambda tick: next(fails)}, lasting=100)
    (run,) = story.runs
    assert (run.outcome, run.attempts) == ("succeeded", 3)
    retrying = [line for line in story.lines if line["event"] == "run.retrying"]
    assert [(line["attempt"], line["error"]["type"], line["run_id"]) for line in retrying] == [
        (1, "ValueError", run.run_id),
        (2, "KeyError", run.run_id),
    ]
    assert 2 <= retrying[0]["delay_s"] <= 4
    assert 4 <= retrying[1]["delay_s"] <= 8
    waited = sum(line["delay_s"] for line in retrying)
    assert seconds(story, "ended_at")[0] == pytest.approx(waited + 1, abs=1e-3)


def test_retries_come_to_an_end() -> None:
    """The run has failed with what its last attempt failed with."""
    story = simulate(job(1000, retries=2, backoff=0), takes={"job": lambda tick: ValueError("no")}, lasting=10)
    (run,) = story.runs
    assert (run.outcome, run.attempts, run.error) == ("failed", 3, {"type": "ValueError", "message": "no"})


def test_an_attempt_that_timed_out_is_retried() -> None:
    """Each attempt has the whole timeout."""
    story = simulate(job(1000, retries=1, backoff=0, timeout=5), takes={"job": 60}, lasting=100)
    assert (outcomes(story), story.runs[0].attempts, seconds(story, "ended_at")) == (["timed_out"], 2, [10])


def test_waits_are_bounded() -> None:
    """However many attempts there have been."""
    story = simulate(
        job(10_000, retries=20, backoff="1s", backoff_max="3s"), takes={"job": lambda tick: ValueError()}, lasting=9000
    )
    delays = [line["delay_s"] for line in story.lines if line["event"] == "run.retrying"]
    assert len(delays) == 20
    assert all(1.5 <= delay <= 3 for delay in delays[3:])


def test_a_stop_ends_a_run_that_rests_between_two_attempts() -> None:
    """At once, with the outcome of the attempt that it has had; nothing is tried again during a drain."""
    story = simulate(job(1000, retries=5, backoff=60), takes={"job": lambda tick: ValueError()}, stop_at=5)
    assert story.runs[0].attempts == 1
    assert (outcomes(story), seconds(story, "ended_at"), story.exit_code) == (["failed"], [5], 0)


def test_an_attempt_that_fails_during_a_drain_is_the_last() -> None:
    """There is no time for another one."""
    fails: list[int] = []

    async def failing() -> None:
        fails.append(1)
        await asyncio.sleep(8)
        raise ValueError

    policies = Policies(retries=5, backoff=0.0)
    story = simulate(Job("f", Every(1000), failing, Kind.COROUTINE, "x", policies), stop_at=5)
    assert (outcomes(story), len(fails), story.left_at) == (["failed"], 1, story.runs[0].ended_at)


def test_skip_counts_a_run_that_rests() -> None:
    """It is in flight, so no other starts beside it."""
    story = simulate(
        job(10, retries=1, backoff=30, overlap="skip"), takes={"job": lambda tick: ValueError()}, lasting=14
    )
    assert [run.tick for run in story.runs] == [0]


# --- missed ticks


def offered(loop: VirtualLoop, to: Log, rows: list[Due]) -> tuple[list[int], dict[int, int]]:
    """The ticks that had a run, and the rows of those that had none, by their first."""
    runner = Runner(loop, JobPlane(loop), to)
    runner.offer(deque(rows))
    loop.settle()
    started = [fields["tick"] for fields in to.of(events.RUN_STARTED)]
    return started, {fields["tick"]: fields["count"] for fields in to.of(events.TICK_SKIPPED)}


def test_once_starts_one_run_for_a_row_of_missed_ticks(loop: VirtualLoop, to: Log) -> None:
    """For the last of them."""
    assert offered(loop, to, [row(job(missed="once"), 3, 7)]) == ([7], {3: 4})


def test_skip_starts_none_for_missed_ticks(loop: VirtualLoop, to: Log) -> None:
    """Neither for a row, nor for one that is more than a second late; one that is on time has its run."""
    loop.stall(100.0)
    skipping = job(missed="skip")
    assert offered(loop, to, [row(skipping, 3, 7)]) == ([], {3: 5})
    to.lines.clear()
    assert offered(loop, to, [row(skipping, 9)]) == ([], {9: 1})
    to.lines.clear()
    assert offered(loop, to, [row(skipping, 10)]) == ([10], {})


def test_skip_looks_again_when_the_plane_is_free(loop: VirtualLoop, to: Log) -> None:
    """Another job may have held it meanwhile."""
    runner = Runner(loop, JobPlane(loop), to)
    skipping = job(missed="skip")
    runner.offer(deque([row(skipping, 0)]))
    loop.stall(5)
    loop.settle()
    assert to.of(events.RUN_STARTED) == []
    assert [(fields["tick"], fields["reason"]) for fields in to.of(events.TICK_SKIPPED)] == [(0, "missed")]
    assert not runner.busy
    loop.pass_time(5)
    runner.offer(deque([row(skipping, 1)]))
    loop.settle()
    assert [fields["tick"] for fields in to.of(events.RUN_STARTED)] == [1]


def test_each_tick_is_told_once_where_some_were_missed_while_a_run_waited(loop: VirtualLoop, to: Log) -> None:
    """The process was suspended, say, and the plane was held before and after."""
    runner = Runner(loop, JobPlane(loop), to)
    skipping = job(missed="skip")
    for first, last in [(0, 0), (1, 1), (2, 5), (6, 6), (7, 9), (10, 10), (11, 11)]:
        runner.offer(deque([row(skipping, first, last)]))
    assert runner.busy
    loop.settle()
    told = [fields["tick"] for fields in to.of(events.RUN_STARTED)]
    for fields in to.of(events.TICK_SKIPPED):
        told += range(fields["tick"], fields["tick"] + fields["count"])
    assert sorted(told) == list(range(12))


def test_all_starts_a_run_for_each_missed_tick() -> None:
    """The newest thousand of them; the spawner makes a row of each."""
    from jobd.line import line_of
    from jobd.virtual import Wall

    line = line_of(job(10, missed="all"), 0.0, Wall())
    rows = []
    for _ in range(LATE_RUNS + 5):
        row, line.place, due = line.look(20_000.0)
        assert row is not None
        rows.append((row.first, row.last))
        if due > 20_000:
            break
    assert rows[0] == (0, 1001)
    assert rows[1:] == [(n, n) for n in range(1002, 2001)]


def test_all_does_not_fold_ticks_while_the_plane_is_held(loop: VirtualLoop, to: Log) -> None:
    """Each has its own run when it is free again."""
    runner = Runner(loop, JobPlane(loop), to)
    every = job(missed="all")
    runner.offer(deque([row(every, 0)]))
    runner.offer(deque([row(every, 1)]))
    loop.settle()
    assert [fields["tick"] for fields in to.of(events.RUN_STARTED)] == [0, 1]


def test_all_keeps_the_newest_while_the_plane_is_held(loop: VirtualLoop, to: Log) -> None:
    """However long that is: a thousand runs, and each older tick is accounted for; a job beside it loses none."""
    plane = JobPlane(loop)
    runner = Runner(loop, plane, to)
    every, other = job(missed="all"), job(name="other")
    runner.offer(deque([row(other, 0)]))
    for tick in range(LATE_RUNS + 20):
        runner.offer(deque([row(every, tick)]))
    assert len(plane._calls) == LATE_RUNS + 1
    loop.settle()
    started = [fields["tick"] for fields in to.of(events.RUN_STARTED) if fields["job"] == "job"]
    skipped = [(fields["tick"], fields["count"], fields["reason"]) for fields in to.of(events.TICK_SKIPPED)]
    assert started == list(range(20, LATE_RUNS + 20))
    assert skipped == [(tick, 1, "missed") for tick in range(20)]
    assert not runner.busy
    runner.offer(deque([row(every, LATE_RUNS + 20)]))
    loop.settle()
    assert to.of(events.RUN_STARTED)[-1]["tick"] == LATE_RUNS + 20


def test_all_keeps_the_newest_of_a_job_that_a_reload_has_changed_meanwhile(loop: VirtualLoop, to: Log) -> None:
    """Each tick is accounted for once, and has a run of the job that it came from."""
    runner = Runner(loop, JobPlane(loop), to)
    executed: list[str] = []

    async def new() -> None:
        executed.append("new")

    old = job(missed="all")
    for tick in range(LATE_RUNS):
        runner.offer(deque([row(old, tick)]))
    changed = replace(old, function=new)
    runner.use([changed])
    for tick in range(LATE_RUNS, LATE_RUNS + 30):
        runner.offer(deque([row(changed, tick)]))
    loop.settle()
    started = [fields["tick"] for fields in to.of(events.RUN_STARTED)]
    skipped = [(fields["tick"], fields["count"]) for fields in to.of(events.TICK_SKIPPED)]
    assert started == list(range(30, LATE_RUNS + 30))
    assert skipped == [(tick, 1) for tick in range(30)]
    assert len(executed) == 30
    assert not runner.running


def test_a_function_with_an_interpreter_of_its_own_can_be_played() -> None:
    """Named by itself, as in its module: a process can be cancelled, and a coroutine has none."""

    @every("1h", isolation="process")
    def isolated() -> None: ...

    @every("1h", isolation="process")
    async def asynchronous() -> None: ...

    with pytest.raises(ValueError, match="no other interpreter can import"):
        simulate(isolated)
    with pytest.raises(ValueError, match="isolation is for plain functions"):
        simulate(asynchronous)


# --- grace period and jitter


def test_a_grace_period_of_its_own_is_shorter() -> None:
    """Its runs are cancelled first; the others have the daemon's."""
    story = simulate(
        job(100, grace_period=3, name="short"), job(100, name="long"),
        takes={"short": 60, "long": 12}, stop_at=5, grace_period=20,
    )  # fmt: skip
    assert {run.job: run.outcome for run in story.runs} == {"short": "cancelled", "long": "succeeded"}
    assert seconds(story, "ended_at") == [8, 12]


def test_a_grace_period_of_its_own_is_never_longer() -> None:
    """The daemon leaves when its time is up."""
    story = simulate(job(100, grace_period=100), takes={"job": 60}, stop_at=5, grace_period=20)
    assert seconds(story, "ended_at") == [25]


@given(st.integers(1, 9))
@profile(max_examples=20, deadline=None)
def test_jitter_moves_runs_and_never_the_grid(jitter_s: int) -> None:
    """Each run is late by up to the jitter, by chance; its tick is where it would be without."""
    story = simulate(job(10, jitter=jitter_s), lasting=1000)
    late = [(run.started_at - run.scheduled_at).total_seconds() for run in story.runs]
    assert [run.tick for run in story.runs] == list(range(len(story.runs)))
    assert len(story.runs) >= 100
    assert all(run.scheduled_at == story.runs[0].scheduled_at + run.tick * timedelta(seconds=10) for run in story.runs)
    assert all(0 <= each <= jitter_s for each in late)
    assert max(late) > jitter_s / 2 > min(late)
    assert not reasons(story)


def test_a_stop_accounts_for_a_tick_whose_run_is_put_off() -> None:
    """It has come, and has no run any more."""
    story = simulate(job(1000, jitter=1000), job(1000, name="other"), stop_at=1)
    assert {(tick.job, tick.tick) for tick in story.ticks} == {("job", 0), ("other", 0)}


def test_jitter_is_not_being_late() -> None:
    """A job that skips what it has missed has not missed what was put off on purpose."""
    story = simulate(job(10, jitter=10, missed="skip"), lasting=1000)
    assert not reasons(story)


# --- where memory is lacking


class Starved:
    """A runner on a loop that is left when memory is lacking; then all is taken up again."""

    def __init__(self) -> None:
        self.loop = VirtualControlLoop()
        self.to = Log(self.loop)
        self.plane = JobPlane(self.loop)
        self.runner = Runner(self.loop, self.plane, self.to)
        self.timetable = self.runner._timetable
        self.failed = 0

    def fails(
        self, owner: object, name: str, when: Callable[..., bool] = lambda *_, **__: True, late: bool = False
    ) -> None:
        """A call of the owner's fails, the first one that is like that; `late`, when it has had its effect."""
        real = getattr(owner, name)
        left = [MemoryError()]

        def call(*arguments: Any, **named: Any) -> Any:
            fails = bool(left) and when(*arguments, **named)
            result = None if fails and not late else real(*arguments, **named)
            if fails:
                self.failed += 1
                raise left.pop()
            return result

        setattr(owner, name, call)

    def offer(self, of: Job, tick: int) -> None:
        """Offer one tick, as the spawner does."""
        try:
            self.runner.offer(deque([row(of, tick)]))
        except MemoryError:
            self.resume()

    def resume(self) -> None:
        """What is left of the turn comes first."""
        self.loop.settle()
        self.runner.resume()

    def pass_time(self, seconds: int) -> None:
        """Turn the loop, and have the watch come by each second."""
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            try:
                self.loop.pass_time(1)
            except MemoryError:
                self.resume()
            self.runner.start_again()
            self.runner.collect()
            self.runner.find_ends()

    @property
    def ended(self) -> list[tuple[Any, str]]:
        """When the runs ended, and how."""
        outcomes = [fields["outcome"] for fields in self.to.of(events.RUN_FINISHED)]
        return list(zip(self.to.instants(events.RUN_FINISHED), outcomes, strict=True))


@pytest.fixture
def starved() -> Iterator[Starved]:
    """A runner whose memory may be lacking."""
    made = Starved()
    yield made
    made.loop.pass_time(3600)
    made.loop.close()
    assert made.failed == 1


def body(function: Callable[[], Any], **policies: Any) -> Job:
    """A job of this function with these policies."""
    return replace(job(**policies), function=function)


async def hangs() -> None:
    """It ends when it is cancelled."""
    await asyncio.sleep(1e6)


def fails_then(following: Callable[[], Any]) -> Callable[[], Any]:
    """A job whose first attempt fails."""

    async def attempt() -> None:
        if current_run().attempt == 1:
            raise ValueError
        await following()

    return attempt


def lasts(expected_s: float) -> Callable[..., bool]:
    """Whether a timer is one for this time."""
    return lambda delay_s, work: delay_s == expected_s


def test_a_run_gives_way_though_its_cancellation_failed(starved: Starved) -> None:
    """It is made again, and the run does not count as cancelled until then."""
    replacing = body(hangs, overlap="replace")
    starved.offer(replacing, 0)
    starved.pass_time(10)
    starved.fails(starved.plane, "call")
    starved.offer(replacing, 1)
    starved.pass_time(2)
    assert starved.ended == [(10, "cancelled")]
    assert [fields["tick"] for fields in starved.to.of(events.RUN_STARTED)] == [0, 1]


def test_a_cancellation_is_never_without_the_next_one(starved: Starved) -> None:
    """The timer for that comes first, because nobody makes room twice."""

    async def swallows_one() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1e6)
        await asyncio.sleep(1e6)

    replacing = body(swallows_one, overlap="replace")
    starved.offer(replacing, 0)
    starved.pass_time(10)
    starved.fails(starved.timetable, "after", lasts(5.0))
    starved.offer(replacing, 1)
    starved.pass_time(7)
    assert starved.ended == [(15, "cancelled")]


def test_a_timeout_whose_cancellation_failed_is_still_one(starved: Starved) -> None:
    """It comes at once again, and once."""
    starved.offer(body(hangs, timeout=7), 0)
    starved.loop.settle()
    starved.fails(starved.plane, "call")
    starved.pass_time(20)
    assert starved.ended == [(7, "timed_out")]


def test_a_timer_that_nobody_knows_of_ends_no_later_attempt(starved: Starved) -> None:
    """Memory may run out when it is set and has not been handed back."""
    starved.offer(body(hangs, timeout=7, retries=1, backoff=0), 0)
    starved.loop.settle()
    starved.fails(starved.timetable, "after", lasts(5.0), late=True)
    starved.pass_time(20)
    assert starved.to.instants(events.RUN_RETRYING) == [7]
    assert starved.ended == [(14, "timed_out")]


@pytest.mark.parametrize("late", [False, True])
def test_a_run_has_its_timeout_though_its_start_failed(starved: Starved, late: bool) -> None:
    """Whether the plane has it by then or not."""
    starved.fails(starved.runner._executor, "start", late=late)
    starved.offer(body(hangs, timeout=7), 0)
    starved.pass_time(20)
    assert starved.ended == [(pytest.approx(7, abs=1), "timed_out")]


def test_a_run_has_its_timeout_though_that_could_not_be_set_at_first(starved: Starved) -> None:
    """It starts when it can."""
    starved.fails(starved.timetable, "after", lasts(7.0))
    starved.offer(body(hangs, timeout=7), 0)
    starved.pass_time(20)
    assert starved.ended == [(pytest.approx(7, abs=1), "timed_out")]


def test_a_later_attempt_has_its_timeout_though_that_could_not_be_set_at_first(starved: Starved) -> None:
    """As the first one does."""
    starved.offer(body(fails_then(hangs), timeout=7, retries=1, backoff=2), 0)
    starved.loop.settle()
    starved.fails(starved.timetable, "after", lasts(7.0))
    starved.pass_time(20)
    assert starved.ended == [(pytest.approx(8.5, abs=0.6), "timed_out")]


@pytest.mark.parametrize("late", [False, True])
def test_a_later_attempt_has_one_timeout_though_its_start_failed(starved: Starved, late: bool) -> None:
    """One timer of it is enough."""
    set_s: list[float] = []
    real = starved.timetable.after
    starved.timetable.after = lambda delay_s, work: set_s.append(delay_s) or real(delay_s, work)  # type: ignore[method-assign,func-returns-value]
    starved.offer(body(fails_then(hangs), timeout=7, retries=1, backoff=2), 0)
    starved.loop.settle()
    starved.fails(starved.runner._attempts, "_start", late=late)
    starved.pass_time(20)
    assert starved.ended == [(pytest.approx(8.5, abs=0.6), "timed_out")]
    assert set_s.count(7.0) == 2


def test_a_run_comes_to_rest_once(starved: Starved) -> None:
    """And says so once, though the timer of the attempt before could not be thrown away."""
    starved.fails(starved.timetable, "call_off", late=True)
    starved.offer(body(fails_then(nothing), timeout=7, retries=1, backoff=2), 0)
    starved.pass_time(20)
    assert len(starved.to.of(events.RUN_RETRYING)) == 1
    assert [outcome for _, outcome in starved.ended] == ["succeeded"]


def test_a_run_that_rests_gives_way_though_its_end_could_not_be_told(starved: Starved) -> None:
    """It has no further attempt by then, and is no run that waits for one."""
    resting = body(fails_then(nothing), overlap="replace", retries=1, backoff="1h", backoff_max="1h")
    starved.offer(resting, 0)
    starved.pass_time(10)
    starved.fails(starved.runner, "_account")
    starved.offer(resting, 1)
    starved.pass_time(2)
    assert starved.ended == [(10, "cancelled")]
    assert [fields["tick"] for fields in starved.to.of(events.RUN_STARTED)] == [0, 1]


def test_a_run_that_has_come_to_rest_is_not_found_dead(starved: Starved) -> None:
    """Though it had ended when the search for such runs began."""
    starved.runner.offer(deque([row(body(fails_then(hangs), retries=1, backoff=0), 0)]))
    call_for_collection = starved.runner._call_for_collection
    starved.runner._call_for_collection = lambda: None  # type: ignore[method-assign]
    starved.loop.settle()
    starved.runner._call_for_collection = call_for_collection  # type: ignore[method-assign]
    starved.fails(starved.runner, "_call_for_collection")
    with pytest.raises(MemoryError):
        starved.runner.find_ends()
    starved.loop.settle()
    starved.runner.collect()
    assert (len(starved.to.of(events.RUN_RETRYING)), starved.runner.running, starved.ended) == (1, 1, [])


def test_an_end_that_is_seen_twice_is_none_of_the_next_attempt(starved: Starved) -> None:
    """Which may have begun meanwhile."""
    starved.runner.offer(deque([row(body(fails_then(hangs), retries=1, backoff=0), 0)]))
    starved.runner._collecting = True  # so that nobody does
    starved.loop.settle()
    starved.runner._ended *= 2
    starved.fails(starved.runner, "_let_in")
    with pytest.raises(MemoryError):
        starved.runner.collect()
    starved.loop.settle()
    starved.runner.collect()
    assert (len(starved.to.of(events.RUN_RETRYING)), starved.runner.running, starved.ended) == (1, 1, [])


def test_an_attempt_that_could_not_begin_has_an_end(starved: Starved) -> None:
    """Its thread had no memory in the moment in which it took it over."""
    attempts = starved.runner._attempts
    begins = attempts.begins

    def begins_without_memory(run: Run) -> bool:
        if not starved.failed:
            starved.fails(attempts, "_now")
        return begins(run)

    attempts.begins = begins_without_memory  # type: ignore[method-assign]
    starved.offer(body(fails_then(nothing), retries=1, backoff=2), 0)
    starved.pass_time(20)
    assert [outcome for _, outcome in starved.ended] == ["failed"]
    assert starved.runner.running == 0


# --- how they are written


def test_policies_are_what_is_documented() -> None:
    """The names of the contract."""
    assert set(policy.DECLARED) == {
        "jitter", "timeout", "overlap", "max_running", "missed", "retries", "backoff", "backoff_max", "grace_period",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("timeout", "0", "would end every run at once"),
        ("timeout", "soon", "is not a duration"),
        ("timeout", True, "is not a duration"),
        ("timeout", float("nan"), "is not a duration"),
        ("timeout", float("inf"), "is not a duration"),
        ("timeout", -1, "is not a duration"),
        ("timeout", 10**400, "is too long"),
        ("jitter", "400d", "is too long"),
        ("overlap", "never", "is not one of allow, skip, replace"),
        ("overlap", ["skip"], "is not one of"),
        ("missed", None, "is not one of once, all, skip"),
        ("max_running", 0, "must be a whole number from 1"),
        ("max_running", "2", "must be a whole number"),
        ("retries", 1001, "must be a whole number from 0 to 1000"),
        ("retries", True, "must be a whole number"),
        ("grace_period", [], "is not a duration"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, value: object, reason: str) -> None:
    """With what would be right."""
    policies, wrong = policy.read({name: value})
    assert policies == policy.PLAIN
    assert wrong[name].startswith(reason)


def test_a_long_backoff_is_as_long_as_it_says() -> None:
    """The bound follows it, unless both are given and contradict each other."""
    assert policy.read({"backoff": "10m"})[0].backoff_max == 600
    assert policy.read({"backoff": "10s"})[0].backoff_max == 300
    with pytest.raises(ValueError, match=r"backoff '10s' is longer than backoff_max, 5s"):
        every("1h", retries=3, backoff="10s", backoff_max="5s")
    short = policy.read({"backoff_max": "0.5s"})[0]
    assert (short.backoff, short.backoff_max) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"takes": {"jop": 1}}, "did you mean job?"),
        ({"takes": {"job": "1 parsec"}}, "is not a duration"),
        ({"takes": {"job": -1.0}}, "is not a duration"),
        ({"max_running": 0}, "max_running must be at least 1"),
        ({"lasting": "soon"}, "is not a duration"),
    ],
)
def test_a_simulation_that_means_nothing_is_refused(wrong: dict[str, Any], message: str) -> None:
    """Not played with a silent default."""
    with pytest.raises(ValueError, match=re.escape(message)):
        simulate(job(), **wrong)


def test_functions_that_can_be_no_jobs_are_refused() -> None:
    """As the daemon would refuse them."""
    with pytest.raises(ValueError, match="takes arguments"):
        simulate(row)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same name"):
        simulate(nothing, nothing)


def test_policies_are_shown_as_they_are_written() -> None:
    """Only those that somebody has set."""
    policies = Policies(timeout=90.0, overlap=Overlap.SKIP, missed=Missed.ALL, retries=3)
    assert policy.shown(policies) == ["timeout=1m30s", "overlap=skip", "missed=all", "retries=3"]
    assert policy.shown(policy.PLAIN) == []


def test_a_day_takes_less_than_a_second() -> None:
    """8,641 runs of a job of its own; the limit is generous, because machines differ."""
    import time

    began = time.process_time()
    story = simulate(job_of(), lasting="1d")
    took = time.process_time() - began
    assert len(story.runs) == 8_641
    assert took < 5
