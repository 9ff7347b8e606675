"""The stop sequence: RUNNING, DRAINING, CANCELLING, STOPPED, as the table in states says, on time whatever the runs
do.

May import: states, exits, events, log, notify, settings, signals, children, clock, interpreter, render,
agenda, starvation. Everything waits on loop time.

One function, `_settle`, changes the state; what a state does are the steps that enter it. Entering STOPPED abandons
whatever is left, so no way through the table leaves a run without an end. `leave` is called last and does not come
back. Memory may run out in any step: `resume` takes it again, and each can be taken twice.

Tricky: while the daemon is STARTING there is no loop to wait on, and nothing in flight to wait for; then the whole
sequence runs through in one call, in whichever thread reads the signals.
"""

import asyncio
import signal
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from jobd import events, interpreter, log, render, signals, starvation
from jobd.agenda import Agenda
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
FENCE_S = 0.82
#: What jobs have left running gets this much of `FLUSH_S` to end by itself before it is killed.
CHILDREN_S = 0.2
#: So long before the fence the last line is given up on a stop that is late: leaving takes time on a busy machine, too.
LEAVING_S = 0.25
#: What the log's last lines get, however late it is.
LEAST_FLUSH_S = 0.1
#: How many of those that were killed the log names.
_NAMED = 20
#: So long before the fence, a stop that finds no memory for its last words leaves without them.
OVERDUE_S = 0.15
#: The states in which a stop waits for something to end.
_STOPPING = frozenset({State.DRAINING, State.CANCELLING})
#: What the fence leaves in any case, for the last words of a daemon that heard of the stop too late.
LEAST_S = 0.01


def bound_s(settings: Settings) -> float:
    """Within how many seconds of the first stop signal the process has ended, or the last fence falls."""
    return settings.grace_period + settings.cancel_timeout + FENCE_S


class Runs(Protocol):
    """What the stop sequence asks of the runner."""

    outcomes: dict[Outcome, int]

    @property
    def running(self) -> int:
        """Number of runs in flight."""

    def close(self, announce: Callable[[], None]) -> None:
        """Start no run from here on; `announce` is called in the same step."""

    def named(self) -> list[dict[str, Any]]:
        """The oldest runs in flight, as the log names them."""

    def cancel(self, again: bool = False) -> None:
        """Cancel every run in flight; `again`, those as well that have been before."""

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


class Lifespans(Protocol):
    """What jobs share, which is closed when the last of them has ended."""

    @property
    def closed(self) -> bool:
        """Whether nothing is open."""

    def close(self) -> None:
        """Ask for it to be closed; `StopSequence.runs_changed` is called when it has."""

    def cancel(self) -> None:
        """Hurry up who was asked before, and ask the others."""

    def abandon(self) -> None:
        """Tell what has not closed."""


class _NothingShared:
    """Where jobs share nothing."""

    closed = True

    def close(self) -> None:
        pass

    def cancel(self) -> None:
        pass

    def abandon(self) -> None:
        pass


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
        lifespans: Lifespans | None = None,
    ) -> None:
        """`stop_spawning` is called when the drain begins, `leave` when all is said; it ends the process."""
        self.state = State.STARTING
        self._loop = loop
        self._settings = settings
        self._runner = runner
        self._log = to
        self._notifier = notifier
        self._fence = fence
        self._leave = leave
        self._children = children or _Childless()
        self._lifespans = lifespans or _NothingShared()
        self._agenda = Agenda(loop)
        self._requests = signals.Requests()
        self._signal: signal.Signals | None = None
        self._cause = Cause.READY
        #: What asks for a move that has not been made yet. A signal stands by itself: nobody asks for it again.
        self._asked: Cause | None = None
        self._signalled = False
        self._settling = False
        self._requested_at: float | None = None
        self._verdict = ExitCode.OK
        self._cancelling_at = 0.0
        self._spent_s = 0.0  # on children
        #: What is left to do to enter each state.
        self._steps: dict[State, deque[Callable[[], None]]] = {
            State.STARTING: deque(),
            State.RUNNING: deque(),
            State.DRAINING: deque([self._hurry, self._close, stop_spawning, self._drain]),
            State.CANCELLING: deque([self._tell_leftovers, self._note_children, self._cancel]),
            State.STOPPED: deque([self._abandon, self._judge, self._end_children, self._say_last, self._leave_now]),
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

    def signalled(self, signum: signal.Signals, heard_at: float) -> None:
        """A stop signal has come; told again, with the same instant, it is the same request."""
        if self._requests.is_new(heard_at, self._loop.time()):
            self._signal = signum
            self._signalled = True
            self._settle()

    def failed(self, error: BaseException) -> None:
        """The daemon itself has failed; it stops as well as it still can."""
        self._verdict = ExitCode.INTERNAL  # first: if the rest fails too, it is known what has happened
        try:
            self._log.emit(events.DAEMON_FAILED, **render.failure(error))
        except Exception as again:  # a job has spoilt what that needs
            if starvation.lacking(again):
                raise
        if self.state is not State.STOPPED:
            self._move(Cause.FAILURE)
        elif self._steps[self.state]:
            self._settle()  # the end itself has failed: what is left of it
        else:
            self._log.flush(LEAST_FLUSH_S)
            self._leave(self._verdict)

    def runs_changed(self) -> None:
        """Runs have ended, or what they share has closed; a stop goes on if that was the last."""
        if self.state in _STOPPING and self._all_ended():
            self._move(Cause.ALL_ENDED)

    def use(self, settings: Settings) -> None:
        """From here on these settings hold; a stop that has begun keeps to its own."""
        if self.state in (State.STARTING, State.RUNNING):
            self._settings = settings

    def _all_ended(self) -> bool:
        """Whether no run is in flight, and what they share is closed; it is asked to, when they have ended."""
        if self._runner.running:
            return False
        self._lifespans.close()
        return self._lifespans.closed

    def resume(self) -> None:
        """Go on after a lack of memory, wherever that has come in between."""
        self._settle()
        self._agenda.resume()

    def _move(self, cause: Cause) -> None:
        self._asked = cause
        self._settle()

    def _settle(self) -> None:
        """Take the steps that are left, then make the move that is asked for; and so on."""
        if self._settling:
            return  # a step has asked for a move: when it is done
        self._settling = True
        try:
            while self._steps[self.state] or self._asked or self._signalled:
                if steps := self._steps[self.state]:
                    self._take(steps)
                else:
                    self._make_move()
        finally:
            self._settling = False

    def _take(self, steps: deque[Callable[[], None]]) -> None:
        try:
            steps[0]()
        except BaseException as error:
            if not starvation.lacking(error):  # it would be the same the next time
                steps.popleft()
            raise
        steps.popleft()

    def _make_move(self) -> None:
        cause = self._asked or Cause.SIGNAL
        to = MOVES.get((self.state, cause))
        if to is not None:
            self._agenda.clear()
            self.state, self._cause = to, cause
        if self._asked:
            self._asked = None
        else:
            self._signalled = False

    def _hurry(self) -> None:
        interpreter.hurry()
        unread_s = self._fence.unread_s()
        if self._requested_at is None:
            self._requested_at = self._loop.time() - unread_s
        self._fence.arm(max(LEAST_S, bound_s(self._settings) - unread_s))
        self._notifier.stopping(EXTEND_S)

    def _close(self) -> None:
        self._runner.close(announce=self._announce)

    def _drain(self) -> None:
        if self._all_ended():
            self._move(Cause.ALL_ENDED)
        elif self._grace_left_s() <= 0 or self._cause is Cause.FAILURE:
            self._move(Cause.GRACE_OVER)
        else:
            self._agenda.after(self._grace_left_s(), "grace", lambda: self._move(Cause.GRACE_OVER))
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
        self._agenda.after(WAITING_EVERY_S, "waiting", self._wait)

    def _tell_leftovers(self) -> None:
        self._cancelling_at = self._loop.time()
        self._notifier.extend(self._cancel_timeout_s() + EXTEND_S)
        self._notifier.status(self.status)
        self._log.emit(
            events.SHUTDOWN_CANCELLING,
            running=self._runner.running,
            runs=self._runner.named(),
            reason="signal" if self._cause is Cause.SIGNAL else "grace_period",
        )

    def _note_children(self) -> None:
        self._children.note()  # first: what clean-up starts from here on is left alone

    def _cancel(self) -> None:
        left_s = self._cancelling_at - self._loop.time()
        timeout_s = self._cancel_timeout_s()
        self._agenda.after(left_s + timeout_s, "end", lambda: self._move(Cause.CLEANUP_OVER))
        self._agenda.after(left_s + timeout_s * SECOND_CANCEL, "cancel", self._cancel_again)
        self._runner.cancel()
        self._children.terminate()  # last: that its child has ended must not be what a run hears first

    def _cancel_again(self) -> None:
        self._runner.cancel(again=True)
        self._lifespans.cancel()  # a run that refuses to end must not keep what it shares from being closed

    def _cancel_timeout_s(self) -> float:
        """The whole cancel timeout, unless the stop was noticed too late for that."""
        grace_left_s = self._settings.grace_period - seconds(self._cancelling_at - (self._requested_at or 0.0))
        return max(0.0, min(0.0, grace_left_s) + self._settings.cancel_timeout)

    def _abandon(self) -> None:
        self._log.hold()
        self._runner.abandon()
        self._lifespans.abandon()

    def _judge(self) -> None:
        abandoned = self._runner.outcomes[Outcome.ABANDONED] or not self._lifespans.closed
        if self._verdict is ExitCode.OK and abandoned:
            self._verdict = ExitCode.ABANDONED

    def _end_children(self) -> None:
        before = self._loop.time()
        killed = self._children.end(CHILDREN_S)
        self._spent_s += self._loop.time() - before
        if killed:
            named = [each._asdict() for each in killed[:_NAMED]]
            self._log.emit(events.CHILDREN_KILLED, count=len(killed), children=named)

    def _say_last(self) -> None:
        self._log.finish(
            events.DAEMON_STOPPED,
            self._for_last_lines_s(),
            self._before_fence_s(),
            exit_code=int(self._verdict),
            uptime_s=seconds(Real.monotonic() - signals.held_since),
            shutdown_s=self._shutdown_s(),
            runs={outcome.value: count for outcome, count in self._runner.outcomes.items() if count},
        )

    def _for_last_lines_s(self) -> float:
        return max(LEAST_FLUSH_S, min(FLUSH_S - self._spent_s, self._before_fence_s()))

    def _before_fence_s(self) -> float:
        return bound_s(self._settings) - LEAVING_S - self._shutdown_s()

    def overdue(self) -> bool:
        """Whether a stop was asked for so long ago that the last fence is about to fall."""
        return self._requested_at is not None and self._shutdown_s() > bound_s(self._settings) - OVERDUE_S

    def _leave_now(self) -> None:
        self._leave(self._verdict)

    def _grace_left_s(self) -> float:
        return self._settings.grace_period - self._shutdown_s()

    def _shutdown_s(self) -> float:
        return 0.0 if self._requested_at is None else seconds(self._loop.time() - self._requested_at)
