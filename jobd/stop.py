"""The stop sequence: RUNNING, DRAINING, CANCELLING, STOPPED, as the table in states says, on time whatever the runs
do.

May import: states, exits, events, log, notify, settings, signals, children, clock, render. Everything waits on loop
time.

One function, `_move`, changes the state; what a state does stands in the one method that enters it. Entering
STOPPED abandons whatever is left, so no way through the table leaves a run without an end. `leave` is called last
and does not come back.

Tricky: while the daemon is STARTING there is no loop to wait on, and nothing in flight to wait for; then the whole
sequence runs through in one call, in whichever thread reads the signals.
"""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from jobd import events, log, render, signals
from jobd.children import Killed
from jobd.clock import Real, seconds
from jobd.exits import ExitCode
from jobd.notify import Notifier
from jobd.settings import Settings
from jobd.states import MOVES, Cause, Outcome, State

#: How often a drain is told in the log, in seconds.
WAITING_EVERY_S = 5.0
#: How much more time systemd is asked for each time: enough to miss one asking.
EXTEND_S = 3 * WAITING_EVERY_S
#: Cancelled runs are cancelled once more when this part of the cancel timeout is over. Doing it more often would kill
#: honest clean-up; never doing it would let a clean-up that hangs use up everything.
SECOND_CANCEL = 0.8
#: Within the second that the time bound allows beyond grace period and cancel timeout: the log's last lines get this
#: much, and the fence falls after that.
FLUSH_S = 0.6
FENCE_S = 0.85
#: What jobs have left running gets this much of `FLUSH_S` to end by itself before it is killed.
CHILDREN_S = 0.2
#: What the log's last lines get, however long that has taken.
LEAST_FLUSH_S = 0.2
#: How many of those that were killed the log names.
_NAMED = 20
#: What the fence leaves in any case, for the last words of a daemon that heard of the stop too late.
LEAST_S = 0.01
#: From the stop on, a thread that computes in Python gives way this often; with many, the control plane waits for all.
SWITCH_INTERVAL_S = 0.0005


def bound_s(settings: Settings) -> float:
    """Within how many seconds of the first stop signal the process has ended, or the last fence falls."""
    return settings.grace_period + settings.cancel_timeout + FENCE_S


class Runs(Protocol):
    """What the stop sequence asks of the runner."""

    outcomes: Counter[Outcome]

    @property
    def running(self) -> int:
        """Number of runs in flight."""

    def close(self, announce: Callable[[], None]) -> None:
        """Start no run from here on; `announce` is called in the same step."""

    def named(self) -> list[dict[str, Any]]:
        """The oldest runs in flight, as the log names them."""

    def cancel(self) -> None:
        """Cancel every run in flight; called again, those that have not ended yet."""

    def abandon(self) -> None:
        """Give up every run in flight."""


class Fence(Protocol):
    """Ends the process, whatever its threads do, when it has not left in time."""

    def unread_s(self) -> float:
        """How long the stop signal had to wait until it was read, because the GIL was held."""

    def arm(self, within_s: float) -> None:
        """End the process `within_s` from now."""


class Children(Protocol):
    """The processes that jobs have started, and those that these have started."""

    def note(self) -> None:
        """Remember who is there now."""

    def terminate(self) -> None:
        """Ask those that have been noted to end."""

    def end(self, within_s: float) -> list[Killed]:
        """End everybody, and who does not end `within_s` by force; those are returned."""


class _Childless:
    """Where no job can start a process."""

    def note(self) -> None:
        pass

    def terminate(self) -> None:
        pass

    def end(self, within_s: float) -> list[Killed]:
        return []


class StopSequence:
    """Where the daemon is in its life, and what that means."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        runner: Runs,
        to: log.Log,
        notifier: Notifier,
        fence: Fence,
        stop_spawning: Callable[[], None],
        leave: Callable[[ExitCode], None],
        children: Children | None = None,
    ) -> None:
        """`stop_spawning` is called when the drain begins, `leave` when all is said; it ends the process."""
        self.state = State.STARTING
        self._loop = loop
        self._settings = settings
        self._runner = runner
        self._log = to
        self._notifier = notifier
        self._fence = fence
        self._stop_spawning = stop_spawning
        self._leave = leave
        self._children = children or _Childless()
        self._timers: list[asyncio.TimerHandle] = []
        self._requests = signals.Requests()
        self._signal: signal.Signals | None = None
        self._cause = Cause.READY
        self._requested_at: float | None = None
        self._verdict = ExitCode.OK
        self._enter = {
            State.RUNNING: lambda: None,
            State.DRAINING: self._drain,
            State.CANCELLING: self._cancel,
            State.STOPPED: self._stopped,
        }

    @property
    def status(self) -> str:
        """One line for people."""
        return f"{self.state.value}, {self._runner.running} in flight"

    def ready(self) -> bool:
        """Every job is loaded; whether the daemon may run, or was stopped before."""
        self._move(Cause.READY)
        return self.state is State.RUNNING

    def refuse(self) -> None:
        """The configuration cannot be used; every fault is in the log already."""
        self._verdict = ExitCode.CONFIG
        self._move(Cause.REFUSED)

    def signalled(self, signum: signal.Signals) -> None:
        """A stop signal has come."""
        if self._requests.is_new(self._loop.time()):
            self._signal = signum
            self._move(Cause.SIGNAL)

    def failed(self, error: BaseException) -> None:
        """The daemon itself has failed; it stops as well as it still can."""
        self._verdict = ExitCode.INTERNAL
        self._log.emit(events.DAEMON_FAILED, **render.failure(error))
        if self.state is State.STOPPED:
            self._leave(self._verdict)  # the end itself has failed
        self._move(Cause.FAILURE)

    def runs_changed(self) -> None:
        """Runs have ended; a stop goes on if that was the last."""
        if self._runner.running == 0:
            self._move(Cause.ALL_ENDED)

    def _move(self, cause: Cause) -> None:
        to = MOVES.get((self.state, cause))
        if to is None:
            return
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.state = to
        self._cause = cause
        self._enter[to]()

    def _after(self, delay_s: float, then: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(delay_s, then))

    def _drain(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        unread_s = self._fence.unread_s()
        self._requested_at = self._loop.time() - unread_s
        self._fence.arm(max(LEAST_S, bound_s(self._settings) - unread_s))
        self._notifier.stopping(EXTEND_S)
        self._runner.close(announce=self._announce)
        self._stop_spawning()
        if self._runner.running == 0:
            self._move(Cause.ALL_ENDED)
        elif self._grace_left_s() <= 0 or self._cause is Cause.FAILURE:
            self._move(Cause.GRACE_OVER)
        else:
            self._after(self._grace_left_s(), lambda: self._move(Cause.GRACE_OVER))
            self._wait()

    def _announce(self) -> None:
        self._log.emit(
            events.SHUTDOWN_REQUESTED,
            signal=self._signal.name if self._signal else None,
            running=self._runner.running,
            grace_period_s=self._settings.grace_period,
        )

    def _wait(self) -> None:
        """Tell how the drain stands, now and every `WAITING_EVERY_S`."""
        self._notifier.extend(EXTEND_S)
        self._notifier.status(self.status)
        self._log.emit(
            events.SHUTDOWN_WAITING,
            running=self._runner.running,
            runs=self._runner.named(),
            remaining_s=seconds(self._grace_left_s()),
        )
        self._after(WAITING_EVERY_S, self._wait)

    def _cancel(self) -> None:
        # The whole cancel timeout, unless the stop was noticed too late for that.
        timeout_s = max(0.0, min(0.0, self._grace_left_s()) + self._settings.cancel_timeout)
        self._notifier.extend(timeout_s + EXTEND_S)
        self._notifier.status(self.status)
        self._log.emit(
            events.SHUTDOWN_CANCELLING,
            running=self._runner.running,
            runs=self._runner.named(),
            reason="signal" if self._cause is Cause.SIGNAL else "grace_period",
        )
        self._children.note()  # first: what clean-up starts from here on is left alone
        self._runner.cancel()
        self._children.terminate()  # last: that its child has ended must not be what a run hears first
        self._after(timeout_s * SECOND_CANCEL, self._runner.cancel)
        self._after(timeout_s, lambda: self._move(Cause.CLEANUP_OVER))

    def _stopped(self) -> None:
        self._log.hold()
        self._runner.abandon()
        if self._verdict is ExitCode.OK and self._runner.outcomes[Outcome.ABANDONED]:
            self._verdict = ExitCode.ABANDONED
        spent_s = self._end_children()
        self._log.finish(
            events.DAEMON_STOPPED,
            max(LEAST_FLUSH_S, FLUSH_S - spent_s),
            exit_code=int(self._verdict),
            uptime_s=seconds(Real.monotonic() - signals.held_since),
            shutdown_s=self._shutdown_s(),
            runs={outcome.value: count for outcome, count in self._runner.outcomes.items()},
        )
        self._leave(self._verdict)

    def _end_children(self) -> float:
        """How many seconds that took."""
        before = self._loop.time()
        if killed := self._children.end(CHILDREN_S):
            named = [each._asdict() for each in killed[:_NAMED]]
            self._log.emit(events.CHILDREN_KILLED, count=len(killed), children=named)
        return self._loop.time() - before

    def _grace_left_s(self) -> float:
        return self._settings.grace_period - self._shutdown_s()

    def _shutdown_s(self) -> float:
        return 0.0 if self._requested_at is None else seconds(self._loop.time() - self._requested_at)
