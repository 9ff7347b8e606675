"""The stop, proven: the whole daemon on virtual time, under thousands of schedules of signals, endings and time-outs.

Whatever the schedule, the daemon leaves once, at the instant and with the code that the contract says, and its log
proves what every log proves. What is expected is computed here a second time, from the contract and not from the
code. Instants and lengths are multiples of an eighth of a second, which floats hold exactly, so that many things fall
due together.

`FUZZ=10` in the environment makes it ten times as many schedules.
"""

import asyncio
import dataclasses
import itertools
import math
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from acceptance import consistency
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from jobd import events, signals
from jobd.exits import ExitCode
from jobd.job import Job
from jobd.run import current_run
from jobd.settings import DEFAULTS
from jobd.states import MOVES, State
from jobd.stop import FENCE_S, SECOND_CANCEL

from .helpers import job_of
from .whole import Left, Whole, whole

SCHEDULES = 2000 * int(os.environ.get("FUZZ", "1"))
#: Into so many tests they are dealt, so that they may run side by side.
SHARES = 4
#: What floats may be off by after some additions.
EXACT = 1e-6
#: The last thing that any schedule does, if nothing has asked for the stop before.
LAST_S = 6.0
#: Longer than any schedule.
FOR_EVER_S = 86_400.0
#: What is a failure of the daemon itself.
FAILURES = {"failure", "broken"}


class Bodies:
    """What runs do, each for so many seconds."""

    #: Those that no cancellation ends.
    UNWILLING = frozenset(
        {
            "swallows_every_cancel",
            "ends_with_the_grace_period",
            "ends_at_the_second_cancel",
            "ends_with_the_cancel_timeout",
        }
    )

    def __init__(self, schedule: "Schedule", daemon: Whole) -> None:
        self._schedule = schedule
        self._daemon = daemon
        self._loop = daemon.loop

    async def succeeds(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def fails(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        raise ValueError

    async def exits(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        raise SystemExit(3)

    async def cancels_itself(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(seconds)

    async def heeds_stopping(self, seconds: float) -> None:
        await current_run().stopping.wait()
        await asyncio.sleep(seconds)

    async def heeds_cancel(self, seconds: float) -> None:
        await asyncio.sleep(FOR_EVER_S)

    async def cleans_up(self, seconds: float) -> None:
        try:
            await asyncio.sleep(FOR_EVER_S)
        finally:
            await asyncio.sleep(seconds)

    async def fails_in_clean_up(self, seconds: float) -> None:
        try:
            await asyncio.sleep(FOR_EVER_S)
        finally:
            raise ValueError

    async def swallows_one_cancel(self, seconds: float) -> None:
        try:
            await asyncio.sleep(FOR_EVER_S)
        except asyncio.CancelledError:
            if not self._daemon.over:
                await asyncio.sleep(FOR_EVER_S)

    async def swallows_every_cancel(self, seconds: float) -> None:
        await self._stubbornly(lambda: asyncio.sleep(FOR_EVER_S))

    async def ends_with_the_grace_period(self, seconds: float) -> None:
        await self._ends(self._schedule.grace)

    async def ends_at_the_second_cancel(self, seconds: float) -> None:
        await self._ends(self._schedule.grace + self._schedule.cancel * SECOND_CANCEL)

    async def ends_with_the_cancel_timeout(self, seconds: float) -> None:
        await self._ends(self._schedule.grace + self._schedule.cancel)

    async def _ends(self, after_s: float) -> None:
        """Come to an end so long after the stop has been asked for, whoever cancels."""
        await self._stubbornly(current_run().stopping.wait)
        ends_at = self._loop.time() + after_s
        await self._stubbornly(lambda: asyncio.sleep(max(0.0, ends_at - self._loop.time())))

    async def _stubbornly(self, wait: Callable[[], Any]) -> None:
        while True:
            try:
                await wait()
            except asyncio.CancelledError:
                if self._daemon.over:
                    raise
            else:
                return


@dataclasses.dataclass(frozen=True)
class Body:
    """What a run does: a method of `Bodies`, and for how long."""

    kind: str
    seconds: float

    @property
    def fails(self) -> bool:
        """Whether it fails also when it is cancelled."""
        return self.kind == "fails_in_clean_up"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Settings, jobs, and what happens when."""

    grace: float
    cancel: float
    max_running: int | None
    #: The interval of each job, and what its runs do in turn.
    jobs: tuple[tuple[float, tuple[Body, ...]], ...]
    #: How long after the one before something happens, and what.
    actions: tuple[tuple[float, str], ...]


_eighths = st.integers(0, 24).map(lambda n: n / 8)
_gaps = st.sampled_from([0.0, 0.125, 0.125, 0.25, 0.5, 1.0, 2.0, 3.0])
_lengths = st.sampled_from([0.0, 0.125, 1.0, 2.0])
_kinds = st.sampled_from([name for name in vars(Bodies) if name[0].islower()])
_actions = st.sampled_from(["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "failure", "broken", "hold", "release", "stall"])
_schedules = st.builds(
    Schedule,
    grace=_lengths,
    cancel=_lengths,
    max_running=st.sampled_from([None, None, 1, 3]),
    jobs=st.lists(
        st.tuples(
            st.sampled_from([0.125, 0.5, 1.0, 8.0]),
            st.lists(st.builds(Body, _kinds, _eighths), min_size=1, max_size=3).map(tuple),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
    actions=st.lists(st.tuples(_gaps, _actions), max_size=6).map(tuple),
)


#: How the runs end, as long as nobody cancels them.
OUTCOMES: dict[str, set[str]] = {
    "succeeds": {"succeeded"},
    "fails": {"failed"},
    "exits": {"failed"},
    "cancels_itself": {"failed"},
    "heeds_stopping": {"succeeded"},
    "heeds_cancel": set(),
    "cleans_up": set(),
    "fails_in_clean_up": {"failed"},
    "swallows_one_cancel": set(),
    "swallows_every_cancel": set(),
    "ends_with_the_grace_period": {"succeeded"},
    "ends_at_the_second_cancel": {"succeeded"},
    "ends_with_the_cancel_timeout": {"succeeded"},
}


class Play:
    """One schedule, played to its end."""

    def __init__(self, schedule: Schedule, daemon: Whole) -> None:
        self.schedule = schedule
        self.daemon = daemon
        self.loop = daemon.loop
        #: When something came that asks for the stop, or for more of it: a request by signal, or a failure.
        self.causes: list[tuple[float, str]] = []
        #: What each run does.
        self.does: dict[str, Body] = {}
        self.stalled = 0.0
        self._bodies = Bodies(schedule, daemon)
        self._requests = -signals.ONE_REQUEST_S

    def run(self) -> None:
        """Play it; afterwards an hour passes in which nothing may happen any more."""
        at = 0.0
        acts = []
        for delay, action in (*self.schedule.actions, (LAST_S, "SIGTERM")):
            at += delay
            acts.append(self.loop.call_at(at, self._act, action))
        limit = at + self.schedule.grace + self.schedule.cancel + 10
        jobs = [self._job(n, *job) for n, job in enumerate(self.schedule.jobs)]
        self.daemon.serve(jobs, until=limit)
        said = len(self.daemon.to.lines)
        self.daemon.over = True
        self.daemon.plane.release()
        self.daemon.hear_no_more()
        for act in acts:
            act.cancel()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.pass_time(3600)
        assert len(self.daemon.to.lines) == said
        assert self.loop.pending == []

    def _job(self, number: int, interval_s: float, bodies: tuple[Body, ...]) -> Job:
        started = 0

        async def function() -> None:
            nonlocal started
            started += 1
            body = self.does[current_run().run_id] = bodies[(started - 1) % len(bodies)]
            await getattr(self._bodies, body.kind)(body.seconds)

        return job_of(function, f"job {number}", interval_s)

    def _act(self, action: str) -> None:
        match action:
            case "hold":
                self.daemon.plane.hold()
            case "release":
                self.daemon.plane.release()
            case "stall":
                self.stalled += 1.0
                self.loop.stall(1.0)
            case "failure":
                self.causes.append((self.loop.time(), action))
                raise RuntimeError("a callback of the control plane")
            case "broken":
                self.causes.append((self.loop.time(), action))
                self.daemon.daemon._plane_broken(RuntimeError("the job plane"))
            case _:
                self._signal(signal.Signals[action])

    def _signal(self, signum: signal.Signals) -> None:
        now = self.loop.time()
        if signum in (signal.SIGTERM, signal.SIGINT):
            if now - self._requests >= signals.ONE_REQUEST_S:
                self.causes.append((now, signum.name))
            self._requests = now
        self.daemon.send(signum)


def moves_are_allowed(states: list[State]) -> None:
    """The daemon went from its first state to its last one, each step being a move of the table."""
    allowed = {(state, to) for (state, _), to in MOVES.items()}
    assert states[0] is State.STARTING
    assert states[-1] is State.STOPPED
    assert set(itertools.pairwise(states)) <= allowed


def log_is_consistent(play: Play) -> None:
    """What every log proves, each tick up to the request included."""
    lines = [{"event": event, **fields} for event, fields in play.daemon.to.lines]
    consistency.assert_nothing_after_the_end(lines)
    consistency.assert_one_end_for_each_run(lines)
    consistency.assert_each_tick_once(lines)
    consistency.assert_no_start_after_stop_request(lines)
    consistency.assert_counts_are_true(lines)
    (requested_at,) = play.daemon.to.instants(events.SHUTDOWN_REQUESTED)
    ticks = Counter(line["job"] for line in lines if line["event"] == "run.started")
    for line in lines:
        if line["event"] == "tick.skipped":
            ticks[line["job"]] += line["count"]
    due = {f"job {n}": int(requested_at / interval_s) + 1 for n, (interval_s, _) in enumerate(play.schedule.jobs)}
    assert ticks == due


def cap_is_kept(play: Play) -> None:
    """Never are more runs in flight than allowed."""
    running = 0
    for event, _ in play.daemon.to.lines:
        running += (event == "run.started") - (event == "run.finished")
        assert play.schedule.max_running is None or running <= play.schedule.max_running


def ways(play: Play) -> Iterator[tuple[float, float]]:
    """When the leftovers are cancelled, and when the daemon leaves whatever they do.

    There is more than one way where two things come at the same instant.
    """
    first, *rest = [at for at, _ in play.causes]
    for failed in {kind in FAILURES for at, kind in play.causes if at == first}:
        grace_over = first if failed else first + play.schedule.grace
        if not failed and rest and rest[0] <= grace_over:
            yield rest[0], _end(play, rest[0], rest[1:])
        if failed or not rest or rest[0] >= grace_over:
            yield grace_over, _end(play, grace_over, rest)


def _end(play: Play, cancelled_at: float, rest: list[float]) -> float:
    return min([cancelled_at + play.schedule.cancel, *rest])


def left_when_it_should(play: Play) -> None:
    """When the last run has ended, or when the time is up; never later, and never earlier."""
    to = play.daemon.to
    ((left_at, _),) = play.daemon.left
    asked = play.causes[0][0]
    assert left_at <= asked + play.schedule.grace + play.schedule.cancel + play.stalled + EXACT
    if play.stalled:
        return
    (requested_at,) = to.instants(events.SHUTDOWN_REQUESTED)
    assert requested_at == asked
    abandoned = [f for f in to.of(events.RUN_FINISHED) if f["outcome"] == "abandoned"]
    ends = [asked, *(at for at in to.instants(events.RUN_FINISHED) if at >= asked)]
    cancelled_at = to.instants(events.SHUTDOWN_CANCELLING)
    assert any(
        all(at == pytest.approx(cancel_at, abs=EXACT) for at in cancelled_at)
        and (left_at == pytest.approx(end_at, abs=EXACT) if abandoned else left_at <= end_at + EXACT)
        for cancel_at, end_at in ways(play)
    )
    assert left_at == max(ends)
    for at, f in zip(to.instants(events.RUN_FINISHED), to.of(events.RUN_FINISHED), strict=True):
        assert f["outcome"] not in ("cancelled", "abandoned") or at >= min(cancel_at for cancel_at, _ in ways(play))


def runs_end_as_they_are(play: Play) -> None:
    """Each run that is willing to end does so at its own time and with the outcome that is its own, unless the plane is
    held, so that it can neither begin nor be cancelled.
    """
    if play.stalled or "hold" in {action for _, action in play.schedule.actions}:
        return
    to = play.daemon.to
    cancelled_at = min(to.instants(events.SHUTDOWN_CANCELLING), default=math.inf)
    second_s = play.schedule.cancel * SECOND_CANCEL
    for at, fields in zip(to.instants(events.RUN_FINISHED), to.of(events.RUN_FINISHED), strict=True):
        body = play.does.get(fields["run_id"])
        if body is None:  # it was cancelled before its first line
            assert (fields["outcome"], at >= cancelled_at) == ("cancelled", True)
            continue
        outcomes = OUTCOMES[body.kind] | ({"abandoned"} if at >= cancelled_at else set())
        assert fields["outcome"] in outcomes | ({"cancelled"} if at >= cancelled_at and not body.fails else set()), body
        if body.kind == "heeds_stopping":
            assert at <= play.causes[0][0] + body.seconds + EXACT
        if body.kind not in Bodies.UNWILLING:
            needed_s = {"cleans_up": min(body.seconds, second_s), "swallows_one_cancel": second_s}.get(body.kind, 0.0)
            assert at <= cancelled_at + needed_s + EXACT


def children_have_their_time(play: Play) -> None:
    """Those of leftovers are asked to end once, when these are cancelled; all are ended before the last line, and what
    is started after that before the guard goes.
    """
    cancelling = ["note", "terminate"] if play.daemon.to.of(events.SHUTDOWN_CANCELLING) else []
    assert play.daemon.fences.asked == [*cancelling, "end", "end", "dismiss"]


def left_with_the_right_code(play: Play) -> None:
    """70 if the daemon has failed, else 3 if a run was abandoned, else 0."""
    ((left_at, code),) = play.daemon.left
    outcomes = {fields["outcome"] for fields in play.daemon.to.of(events.RUN_FINISHED)}
    if play.daemon.to.of(events.DAEMON_FAILED):
        expected = ExitCode.INTERNAL
    else:
        expected = ExitCode.ABANDONED if "abandoned" in outcomes else ExitCode.OK
    failed = any(kind in FAILURES and at < left_at for at, kind in play.causes)
    assert failed <= bool(play.daemon.to.of(events.DAEMON_FAILED))
    assert code == expected
    assert play.daemon.to.of(events.DAEMON_STOPPED)[0]["exit_code"] == code


def test_leaving_ends_the_daemon_and_not_the_tests() -> None:
    """First of all, because otherwise there would be no second test: with this code, so that it would be noticed."""
    with whole(DEFAULTS) as daemon, pytest.raises(Left):
        daemon.daemon._leave(ExitCode.INTERNAL)


@pytest.mark.parametrize("share", range(SHARES))
@profile(max_examples=SCHEDULES // SHARES)
@given(schedule=_schedules)
def test_every_stop_keeps_its_promises(share: int, schedule: Schedule) -> None:
    """No start after the request, one end for each run, one line for each tick, in time, with the right code."""
    settings = dataclasses.replace(
        DEFAULTS, grace_period=schedule.grace, cancel_timeout=schedule.cancel, max_running=schedule.max_running
    )
    with whole(settings) as daemon:
        play = Play(schedule, daemon)
        play.run()
        moves_are_allowed(daemon.states)
        log_is_consistent(play)
        cap_is_kept(play)
        left_when_it_should(play)
        runs_end_as_they_are(play)
        left_with_the_right_code(play)
        children_have_their_time(play)
        assert daemon.fences.armed == [schedule.grace + schedule.cancel + FENCE_S]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_jobs_are_loaded_is_a_whole_stop(signum: signal.Signals) -> None:
    """Nothing is started, nothing is waited for, and nothing is left to do."""
    with whole(DEFAULTS) as daemon:
        daemon.obey(signum)
        assert daemon.left == [(0.0, ExitCode.OK)]
        assert daemon.to.names == ["daemon.starting", "shutdown.requested", "daemon.stopped"]
        assert daemon.loop.pending == []
