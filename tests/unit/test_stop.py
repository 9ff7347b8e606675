"""The stop sequence on virtual time, with runs that end when the test says so."""

import dataclasses
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobd import events, signals
from jobd.exits import ExitCode
from jobd.notify import Notifier
from jobd.settings import DEFAULTS
from jobd.states import MOVES, Cause, Outcome, State
from jobd.stop import EXTEND_S, FENCE_S, FLUSH_S, SECOND_CANCEL, WAITING_EVERY_S, StopSequence

from .virtual import Log, VirtualLoop

#: Far enough after another signal to be a request of its own.
APART_S = 2 * signals.ONE_REQUEST_S


@pytest.fixture(autouse=True)
def _switch_interval() -> Iterator[None]:
    """A stop changes how often threads give way; the tests after this one want it back."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


class Runs:
    """Runs that end when they are told to; `obedient` ones when they are cancelled."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.outcomes: dict[Outcome, int] = Counter()
        self.obedient: Counter[bool] = Counter()
        self.changed: Callable[[], None] = lambda: None
        self.closed = 0
        self.cancelled_at: list[float] = []
        self.abandoned = 0
        self._loop = loop

    @property
    def running(self) -> int:
        return self.obedient.total()

    def close(self, announce: Callable[[], None]) -> None:
        self.closed += 1
        announce()

    def named(self) -> list[dict[str, Any]]:
        return [{"job": "job"}] * self.running

    def cancel(self, again: bool = False) -> None:
        assert again == bool(self.cancelled_at)
        self.cancelled_at.append(self._loop.time())
        self._loop.call_soon(self.end, Outcome.CANCELLED, self.obedient[True], True)

    def abandon(self) -> None:
        self.abandoned += 1
        self.end(Outcome.ABANDONED, self.running)

    def begin(self, obedient: bool = False) -> None:
        """A run starts."""
        self.obedient[obedient] += 1

    def end(self, outcome: Outcome = Outcome.SUCCEEDED, count: int = 1, obedient: bool = False) -> None:
        """So many runs end."""
        if count:
            self.outcomes[outcome] += count
        for kind in (obedient, not obedient):
            ending = min(count, self.obedient[kind])
            self.obedient[kind] -= ending
            count -= ending
        self.changed()


class Manager(Notifier):
    """A service manager that remembers what it is told, and when."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__(None)
        self._loop = loop
        #: When it heard what.
        self.told: list[tuple[float, str]] = []
        #: When it was asked for how much more time, in seconds.
        self.extensions: list[tuple[float, float]] = []

    def status(self, text: str) -> None:
        self.told.append((self._loop.time(), text))

    def stopping(self, extend_s: float) -> None:
        self.told.append((self._loop.time(), "stopping"))
        self.extensions.append((self._loop.time(), extend_s))

    def extend(self, extend_s: float) -> None:
        self.told.append((self._loop.time(), "extend"))
        self.extensions.append((self._loop.time(), extend_s))


class Fence:
    """A fence that remembers how it was armed."""

    def __init__(self) -> None:
        self.armed: list[float] = []
        self.unread = 0.0

    def unread_s(self) -> float:
        return self.unread

    def arm(self, within_s: float) -> None:
        self.armed.append(within_s)


class Stop:
    """A stop sequence among fakes."""

    def __init__(self, loop: VirtualLoop, grace_s: float = 20.0, cancel_s: float = 5.0) -> None:
        self.loop = loop
        self.to = Log(loop)
        self.runs = Runs(loop)
        self.manager = Manager(loop)
        self.fence = Fence()
        self.left: list[tuple[float, ExitCode]] = []
        #: The states in which spawning was stopped.
        self.spawning_stopped: list[State] = []
        self.sequence = StopSequence(
            loop=loop,
            settings=dataclasses.replace(DEFAULTS, grace_period=grace_s, cancel_timeout=cancel_s),
            runner=self.runs,
            to=self.to,
            notifier=self.manager,
            fence=self.fence,
            stop_spawning=lambda: self.spawning_stopped.append(self.state),
            leave=self._leave,
        )
        self.runs.changed = self.sequence.runs_changed

    @property
    def state(self) -> State:
        return self.sequence.state

    def _leave(self, code: ExitCode) -> None:
        self.left.append((self.loop.time(), code))

    def hear(self, number: signal.Signals) -> None:
        """A stop signal comes now."""
        self.sequence.signalled(number, self.loop.time())

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """A stop signal comes, well after the last one."""
        self.loop.pass_time(APART_S)
        self.hear(number)


@pytest.fixture
def stop(loop: VirtualLoop) -> Stop:
    """A daemon that runs, with one run in flight that does not end when it is cancelled."""
    stop = Stop(loop)
    assert stop.sequence.ready()
    stop.runs.begin()
    return stop


def reach(stop: Stop, state: State) -> None:
    """Bring a fresh sequence, with a stubborn run in flight, to this state."""
    stop.runs.begin()
    if state is not State.STARTING:
        stop.sequence.ready()
    for _ in range(3):
        if stop.state is not state:
            stop.signal()
    assert stop.state is state


def provoke(stop: Stop, cause: Cause) -> None:
    """Bring the cause about, as it comes about in a daemon."""
    match cause:
        case Cause.READY:
            stop.sequence.ready()
        case Cause.REFUSED:
            stop.sequence.refuse()
        case Cause.SIGNAL:
            stop.signal()
        case Cause.FAILURE:
            stop.sequence.failed(RuntimeError("the daemon itself"))
        case Cause.ALL_ENDED:
            stop.runs.end()
        case Cause.GRACE_OVER:
            stop.loop.pass_time(20)
        case Cause.CLEANUP_OVER:
            stop.loop.pass_time(5)


@pytest.mark.parametrize(("state", "cause"), MOVES, ids=lambda value: value.name)
def test_each_cause_makes_its_move(loop: VirtualLoop, state: State, cause: Cause) -> None:
    """Every row of the table comes about by its cause; a failure goes straight on through the drain."""
    stop = Stop(loop)
    reach(stop, state)
    provoke(stop, cause)
    to = MOVES[state, cause]
    if to is State.DRAINING:
        assert stop.spawning_stopped == [State.DRAINING]
        assert stop.state is (State.CANCELLING if cause is Cause.FAILURE else State.DRAINING)
    else:
        assert stop.state is to


_OTHERS = [(state, cause) for state in State for cause in Cause if (state, cause) not in MOVES]


@pytest.mark.parametrize(("state", "cause"), _OTHERS, ids=lambda value: value.name)
def test_every_other_cause_changes_nothing(loop: VirtualLoop, state: State, cause: Cause) -> None:
    """What the table does not name does not happen: no move, no line, no word to anybody."""
    stop = Stop(loop)
    reach(stop, state)
    before = (len(stop.to.lines), len(stop.manager.told), len(stop.runs.cancelled_at), len(stop.left))
    stop.sequence._move(cause)
    assert stop.state is state
    assert (len(stop.to.lines), len(stop.manager.told), len(stop.runs.cancelled_at), len(stop.left)) == before


def test_a_stop_with_nothing_in_flight_is_over_at_once(loop: VirtualLoop) -> None:
    """One signal, no time: requested, stopped, left with 0."""
    stop = Stop(loop)
    stop.sequence.ready()
    stop.signal()
    assert stop.to.names == ["shutdown.requested", "daemon.stopped"]
    assert stop.left == [(loop.time(), ExitCode.OK)]


def test_a_stop_while_starting_is_over_at_once_and_starts_nothing(loop: VirtualLoop) -> None:
    """A signal before the jobs are loaded ends the daemon there and then; that they are ready comes too late."""
    stop = Stop(loop)
    stop.signal(signal.SIGINT)
    assert stop.left == [(loop.time(), ExitCode.OK)]
    assert stop.sequence.ready() is False
    assert stop.state is State.STOPPED


def test_a_drain_waits_for_the_runs_and_ends_with_the_last(loop: VirtualLoop, stop: Stop) -> None:
    """Runs that end within the grace period make it a clean end, as soon as the last one has ended."""
    stop.runs.begin()
    stop.signal()
    loop.pass_time(3)
    stop.runs.end()
    assert stop.state is State.DRAINING
    loop.pass_time(4)
    stop.runs.end()
    assert stop.left == [(APART_S + 7, ExitCode.OK)]
    assert stop.runs.cancelled_at == []
    (stopped,) = stop.to.of(events.DAEMON_STOPPED)
    assert (stopped["exit_code"], stopped["shutdown_s"], stopped["runs"]) == (0, 7.0, {"succeeded": 2})


def test_the_request_says_who_asked_and_what_is_at_stake(stop: Stop) -> None:
    """The signal by its name, the number of runs in flight, and the time that they have."""
    stop.signal(signal.SIGINT)
    assert stop.to.of(events.SHUTDOWN_REQUESTED) == [{"signal": "SIGINT", "running": 1, "grace_period_s": 20.0}]


def test_the_request_is_told_in_the_step_that_starts_no_more_runs(stop: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before it, when a run could still start, nor after it: the runner says when."""
    said: list[list[str]] = []

    def close(announce: Callable[[], None]) -> None:
        said.append(stop.to.names)
        announce()
        said.append(stop.to.names)

    monkeypatch.setattr(stop.runs, "close", close)
    stop.signal()
    assert said == [[], ["shutdown.requested"]]


def test_spawning_stops_before_anything_is_waited_for(stop: Stop) -> None:
    """The runner is closed, then the ticks that are left are handed over, once each."""
    stop.signal()
    assert (stop.runs.closed, stop.spawning_stopped) == (1, [State.DRAINING])
    stop.signal()
    stop.signal()
    assert (stop.runs.closed, stop.spawning_stopped) == (1, [State.DRAINING])


def test_a_drain_is_told_every_five_seconds(loop: VirtualLoop, stop: Stop) -> None:
    """Each line says how many runs are left and how much of the grace period is."""
    stop.signal()
    loop.pass_time(19)
    waiting = stop.to.of(events.SHUTDOWN_WAITING)
    assert [fields["remaining_s"] for fields in waiting] == [20.0, 15.0, 10.0, 5.0]
    assert {fields["running"] for fields in waiting} == {1}
    assert [fields["runs"] for fields in waiting] == [[{"job": "job"}]] * 4
    assert WAITING_EVERY_S <= 5


def test_what_is_left_after_the_grace_period_is_cancelled(loop: VirtualLoop, stop: Stop) -> None:
    """At its end, not before, with that reason; runs that obey make it a clean end."""
    stop.runs.end()
    stop.runs.begin(obedient=True)
    stop.signal()
    loop.pass_time(19.999)
    assert stop.runs.cancelled_at == []
    loop.pass_time(1)
    assert stop.runs.cancelled_at == [APART_S + 20]
    assert [f["reason"] for f in stop.to.of(events.SHUTDOWN_CANCELLING)] == ["grace_period"]
    assert stop.left == [(APART_S + 20, ExitCode.OK)]


def test_the_second_cancellation_comes_late_in_the_cancel_timeout(loop: VirtualLoop, stop: Stop) -> None:
    """Honest clean-up is left alone for most of the time; then a run that hangs in it is cancelled once more."""
    stop.signal()
    loop.pass_time(100)
    first = APART_S + 20
    assert stop.runs.cancelled_at == [first, first + 5 * SECOND_CANCEL]
    assert 0.5 < SECOND_CANCEL < 1


def test_a_run_that_ends_on_the_second_cancellation_is_not_abandoned(loop: VirtualLoop, stop: Stop) -> None:
    """What ends within the cancel timeout by whichever cancellation makes it a clean end."""
    stop.signal()
    loop.pass_time(20 + 4.5)
    stop.runs.end(Outcome.CANCELLED)
    assert stop.left == [(APART_S + 24.5, ExitCode.OK)]


def test_what_does_not_end_is_abandoned_and_told_by_the_exit_code(loop: VirtualLoop, stop: Stop) -> None:
    """After grace period and cancel timeout, at that very moment, the process leaves with 3."""
    stop.signal()
    loop.pass_time(100)
    assert stop.left == [(APART_S + 25, ExitCode.ABANDONED)]
    (stopped,) = stop.to.of(events.DAEMON_STOPPED)
    assert (stopped["exit_code"], stopped["shutdown_s"], stopped["runs"]) == (3, 25.0, {"abandoned": 1})


def test_the_second_signal_skips_the_rest_of_the_grace_period(loop: VirtualLoop, stop: Stop) -> None:
    """The leftovers are cancelled now, because of the signal, and still have the whole cancel timeout."""
    stop.signal()
    stop.signal(signal.SIGINT)
    assert [f["reason"] for f in stop.to.of(events.SHUTDOWN_CANCELLING)] == ["signal"]
    assert stop.runs.cancelled_at == [2 * APART_S]
    loop.pass_time(100)
    assert stop.left == [(2 * APART_S + 5, ExitCode.ABANDONED)]


def test_the_third_signal_leaves_now(loop: VirtualLoop, stop: Stop) -> None:
    """What is left is abandoned at once."""
    for _ in range(3):
        stop.signal()
    assert stop.left == [(3 * APART_S, ExitCode.ABANDONED)]
    assert stop.runs.abandoned == 1


def test_a_second_signal_while_cancelling_leaves_now_too(loop: VirtualLoop, stop: Stop) -> None:
    """When the grace period has run out by itself, the next signal is the one that leaves."""
    stop.signal()
    loop.pass_time(21)
    stop.signal()
    assert stop.left == [(loop.time(), ExitCode.ABANDONED)]


def test_signals_close_together_are_one_request(loop: VirtualLoop, stop: Stop) -> None:
    """A supervisor and a terminal that send theirs together ask once."""
    stop.signal()
    for _ in range(20):
        loop.pass_time(signals.ONE_REQUEST_S - 0.01)
        stop.hear(signal.SIGINT)
    assert stop.state is State.DRAINING
    assert [f["signal"] for f in stop.to.of(events.SHUTDOWN_REQUESTED)] == ["SIGTERM"]


def test_signals_a_quarter_of_a_second_apart_are_two(loop: VirtualLoop, stop: Stop) -> None:
    """From that distance on each one counts."""
    stop.signal()
    loop.pass_time(signals.ONE_REQUEST_S)
    stop.hear(signal.SIGTERM)
    assert stop.state is State.CANCELLING


def test_a_signal_that_is_told_again_later_is_one_request(loop: VirtualLoop, stop: Stop) -> None:
    """Where memory is lacking for long, one signal is told until all of it could be done."""
    heard_at = loop.time()
    for _ in range(3):
        stop.sequence.signalled(signal.SIGTERM, heard_at)
        loop.pass_time(2 * signals.ONE_REQUEST_S)
    assert stop.state is State.DRAINING


def test_without_a_grace_period_runs_are_cancelled_at_once(loop: VirtualLoop) -> None:
    """Nought is not unset: there is no drain to be told of, and the cancel timeout is still theirs."""
    stop = Stop(loop, grace_s=0)
    stop.sequence.ready()
    stop.runs.begin()
    stop.signal()
    assert stop.to.names == ["shutdown.requested", "shutdown.cancelling"]
    assert stop.to.of(events.SHUTDOWN_CANCELLING)[0]["reason"] == "grace_period"
    loop.pass_time(100)
    assert stop.left == [(APART_S + 5, ExitCode.ABANDONED)]


def test_without_any_time_at_all_the_end_is_immediate(loop: VirtualLoop) -> None:
    """No grace and no cancel timeout: what obeys at once is cancelled, what does not is abandoned."""
    stop = Stop(loop, grace_s=0, cancel_s=0)
    stop.sequence.ready()
    stop.runs.begin()
    stop.signal()
    loop.settle()
    assert stop.left == [(APART_S, ExitCode.ABANDONED)]


def test_the_fence_falls_after_the_log_and_within_the_bound(stop: Stop) -> None:
    """It is armed once, when the stop is asked for, for the whole of the sequence and the last lines."""
    stop.signal()
    stop.signal()
    assert stop.fence.armed == [25 + FENCE_S]
    assert FLUSH_S < FENCE_S < 1


def test_the_manager_hears_of_the_stop_first(stop: Stop) -> None:
    """That starts the manager's clock, so the same word asks for more time than until the next one."""
    stop.signal()
    assert stop.manager.told[0] == (APART_S, "stopping")
    assert stop.manager.extensions[0] == (APART_S, EXTEND_S)
    assert EXTEND_S >= 2 * WAITING_EVERY_S


def test_the_manager_is_asked_for_more_time_with_every_line(loop: VirtualLoop, stop: Stop) -> None:
    """Each time that the drain is told in the log, and when it turns to cancelling for longer than that lasts."""
    stop.signal()
    loop.pass_time(22)
    asked = stop.manager.extensions
    assert [(at, extend) for at, extend in asked[1:-1] if extend == EXTEND_S] == asked[1:-1]
    assert [at for at, _ in asked[1:-1]] == stop.to.instants(events.SHUTDOWN_WAITING)
    assert asked[-1][0] == APART_S + 20
    assert asked[-1][1] > 5 + 1


def test_a_long_cancel_timeout_is_announced_as_a_whole(loop: VirtualLoop) -> None:
    """Nothing is told while runs clean up, so the manager is asked for all of it beforehand."""
    stop = Stop(loop, grace_s=0, cancel_s=600)
    stop.sequence.ready()
    stop.runs.begin()
    stop.signal()
    loop.pass_time(1000)
    asked_at, extend = stop.manager.extensions[-1]
    assert stop.left[0][0] + 1 <= asked_at + extend


def test_a_refused_configuration_leaves_with_78(stop: Stop, loop: VirtualLoop) -> None:
    """Nothing was started, so nothing is waited for."""
    refused = Stop(loop)
    refused.sequence.refuse()
    assert refused.left == [(loop.time(), ExitCode.CONFIG)]
    assert refused.to.names == ["daemon.stopped"]
    assert refused.to.of(events.DAEMON_STOPPED)[0]["shutdown_s"] == 0.0


def test_a_failed_daemon_stops_its_runs_and_leaves_with_70(loop: VirtualLoop, stop: Stop) -> None:
    """A failure of the daemon itself is told, runs are cancelled at once, and no end of theirs hides the code."""
    stop.sequence.failed(RuntimeError("broken"))
    assert stop.to.of(events.DAEMON_FAILED)[0]["error"] == {"type": "RuntimeError", "message": "broken"}
    assert stop.to.of(events.SHUTDOWN_REQUESTED)[0]["signal"] is None
    assert stop.runs.cancelled_at == [0.0]
    loop.pass_time(100)
    assert stop.left == [(5.0, ExitCode.INTERNAL)]


def test_a_failure_during_the_stop_does_not_prolong_it(loop: VirtualLoop, stop: Stop) -> None:
    """Each failure takes the sequence one step on, never back."""
    stop.signal()
    stop.sequence.failed(RuntimeError("once"))
    assert stop.state is State.CANCELLING
    stop.sequence.failed(RuntimeError("twice"))
    assert stop.left == [(loop.time(), ExitCode.INTERNAL)]


def test_when_the_end_itself_fails_the_process_leaves_nevertheless(
    loop: VirtualLoop, stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left to be done on the way out is done all the same: the last line, above all."""

    def broken() -> None:
        raise RuntimeError("cannot abandon")

    loop.set_exception_handler(lambda _, context: stop.sequence.failed(context["exception"]))
    monkeypatch.setattr(stop.runs, "abandon", broken)
    stop.signal()
    loop.pass_time(100)
    assert stop.left == [(APART_S + 25, ExitCode.INTERNAL)]
    assert stop.to.names[-2:] == ["daemon.failed", "daemon.stopped"]
    assert stop.to.of(events.DAEMON_STOPPED)[0]["exit_code"] == 70


def test_the_last_line_is_the_last_line(loop: VirtualLoop, stop: Stop) -> None:
    """It is logged as such, and no timer of the sequence says anything after it."""
    stop.signal()
    loop.pass_time(1000)
    assert stop.to.last == ["daemon.stopped"]
    assert stop.to.names[-1] == "daemon.stopped"
    assert [at for at, _ in stop.manager.told if at > stop.left[0][0]] == []


def test_the_status_is_one_line_for_people(stop: Stop) -> None:
    """The state, and how many runs are in flight."""
    assert stop.sequence.status == "running, 1 in flight"
    stop.signal()
    assert (APART_S, "draining, 1 in flight") in stop.manager.told


class AnyStop(RuleBasedStateMachine):
    """Signals, endings, failures and time in any order: the promises hold in all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.interval = sys.getswitchinterval()
        #: When the first stop was asked for.
        self.asked: float | None = None
        self.failed = self.refused = False

    @initialize(grace=st.sampled_from([0.0, 0.1, 3.0, 20.0]), cancel=st.sampled_from([0.0, 0.1, 5.0, 60.0]))
    def begin(self, grace: float, cancel: float) -> None:
        self.bound = grace + cancel
        self.grace = grace
        self.stop = Stop(self.loop, grace, cancel)

    def in_life(self) -> bool:
        return not self.stop.left

    @precondition(lambda self: self.stop.state is State.STARTING)
    @rule()
    def becomes_ready(self) -> None:
        assert self.stop.sequence.ready()

    @precondition(lambda self: self.stop.state is State.STARTING)
    @rule()
    def is_refused(self) -> None:
        self.refused = True
        self.stop.sequence.refuse()

    @precondition(lambda self: self.stop.state is State.RUNNING)
    @rule(obedient=st.booleans())
    def starts_a_run(self, obedient: bool) -> None:
        self.stop.runs.begin(obedient)

    @precondition(lambda self: self.in_life() and self.stop.runs.running > 0)
    @rule(outcome=st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED]), obedient=st.booleans())
    def ends_a_run(self, outcome: Outcome, obedient: bool) -> None:
        self.stop.runs.end(outcome, 1, obedient)

    @precondition(in_life)
    @rule(number=st.sampled_from([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))
    def is_signalled(self, number: signal.Signals) -> None:
        self._ask()
        self.stop.hear(number)

    @precondition(in_life)
    @rule()
    def fails(self) -> None:
        self._ask()
        self.failed = True
        self.stop.sequence.failed(RuntimeError("the daemon itself"))

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.25, 1.0, 4.0, 5.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        said = len(self.stop.to.lines) if self.stop.left else None
        self.loop.pass_time(seconds)
        assert said in (None, len(self.stop.to.lines))

    def _ask(self) -> None:
        if self.asked is None:
            self.asked = self.loop.time()

    @invariant()
    def leaves_once_in_time_and_with_the_right_code(self) -> None:
        stop = self.stop
        assert len(stop.left) == (stop.state is State.STOPPED)
        if stop.left:
            ((at, code),) = stop.left
            assert stop.runs.running == 0
            assert code == self._right_code()
            assert stop.to.of(events.DAEMON_STOPPED)[0]["exit_code"] == code
            assert stop.to.names[-1] == "daemon.stopped"
            assert self.refused or at <= (self.asked or 0) + self.bound + 1e-6
        elif self.asked is not None:
            assert self.loop.time() <= self.asked + self.bound + 1e-6

    def _right_code(self) -> ExitCode:
        if self.failed:
            return ExitCode.INTERNAL
        if self.refused:
            return ExitCode.CONFIG
        return ExitCode.ABANDONED if self.stop.runs.outcomes[Outcome.ABANDONED] else ExitCode.OK

    @invariant()
    def spawns_until_the_stop_and_not_after_it(self) -> None:
        stopped = int(self.asked is not None)
        assert (len(self.stop.spawning_stopped), self.stop.runs.closed, len(self.stop.fence.armed)) == (stopped,) * 3
        assert len(self.stop.to.of(events.SHUTDOWN_REQUESTED)) == stopped

    @invariant()
    def is_told_often_enough(self) -> None:
        if self.stop.state is State.DRAINING:
            assert self.loop.time() - self.stop.to.instants(events.SHUTDOWN_WAITING)[-1] <= 5
        for at, fields in zip(
            self.stop.to.instants(events.SHUTDOWN_WAITING), self.stop.to.of(events.SHUTDOWN_WAITING), strict=True
        ):
            assert fields["remaining_s"] == pytest.approx(self.grace - (at - (self.asked or 0)), abs=1e-5)
            assert fields["remaining_s"] >= 0

    @invariant()
    def the_manager_is_never_kept_waiting(self) -> None:
        asked = self.stop.manager.extensions
        words = [at for at, _ in asked[1:]] + [self.stop.left[0][0] if self.stop.left else self.loop.time()]
        assert all(word <= at + extend for (at, extend), word in zip(asked, words, strict=False))

    @invariant()
    def cancels_only_when_the_time_has_come(self) -> None:
        first = self.stop.to.instants(events.SHUTDOWN_CANCELLING)
        assert len(first) <= 1
        assert len(self.stop.runs.cancelled_at) <= 2
        if first and self.stop.to.of(events.SHUTDOWN_CANCELLING)[0]["reason"] == "grace_period" and not self.failed:
            assert first[0] == pytest.approx((self.asked or 0) + self.grace)

    def teardown(self) -> None:
        if self.asked is not None:
            self.loop.pass_time(self.bound)
            assert self.stop.state is State.STOPPED
            self.leaves_once_in_time_and_with_the_right_code()
        self.loop.close()
        sys.setswitchinterval(self.interval)


AnyStop.TestCase.settings = profile(max_examples=150, stateful_step_count=25)
TestAnyStop = AnyStop.TestCase


@pytest.mark.parametrize("unread_s", [0.5, 7.0, 19.0, 22.0, 24.5, 30.0])
def test_a_stop_signal_that_waited_for_the_gil_is_counted_from_when_it_came(stop: Stop, unread_s: float) -> None:
    """The time bound runs from the signal, not from the moment in which Python could read it."""
    stop.fence.unread = unread_s
    read_at = stop.loop.time() + APART_S
    stop.signal()
    stop.loop.pass_time(40)
    left_at, code = stop.left[0]
    assert left_at - read_at == pytest.approx(max(0.0, 25.0 - unread_s), abs=0.001)
    assert code is ExitCode.ABANDONED
    assert stop.fence.armed[0] <= max(0.05, 26.0 - unread_s)
