"""Attempts: how long one may take, and whether another one follows it within the same run.

May import: events, job, log, run, ending, states, timetable, clock. On the control plane.

Between two attempts a run rests: it is in flight, and nothing executes it. A stop ends those that rest.
"""

import random
from collections.abc import Callable
from functools import partial

from jobd import events, log
from jobd.clock import seconds
from jobd.ending import Ending
from jobd.job import Kind
from jobd.policy import Policies
from jobd.run import Run
from jobd.states import Outcome
from jobd.timetable import Timer, Timetable

#: Outcomes after which another attempt may help.
_RETRIED = frozenset({Outcome.FAILED, Outcome.TIMED_OUT})
#: A wait that is left because a run began later than it was handed over; shorter ones are noise.
_LEFT_S = 1e-4
#: Our own, whatever a job does to the module.
_chance = random.Random().random


class Attempts:
    """Watches over the attempts of runs."""

    def __init__(
        self,
        timetable: Timetable,
        now: Callable[[], float],
        to: log.Log,
        start: Callable[[list[Run]], None],
        cancel: Callable[[list[Run]], None],
    ) -> None:
        """`start` hands runs to whoever executes them, `cancel` cancels them; `now` is the time of the loop."""
        self._timetable = timetable
        self._now = now
        self._log = to
        self._start = start
        self._cancel = cancel
        #: How long a cancelled run gets to end before it is cancelled again, in seconds.
        self.cancel_timeout_s = 5.0
        self._resting: dict[str, Run] = {}

    def watch(self, run: Run) -> None:
        """The first attempt of the run is about to be handed over; or it has been, and that is done again."""
        if run.timer is None:
            run.timer = self._timeout(run)

    def _timeout(self, run: Run) -> Timer | None:
        timeout_s = run.of.policies.timeout
        if timeout_s is None:
            return None
        return self._timetable.after(timeout_s, partial(self._look, run, timeout_s, run.attempt))

    def _look(self, run: Run, timeout_s: float, attempt: int) -> None:
        """The attempt would have had its time, if it had begun when it was handed over."""
        if run.ended or run.dropped or run.attempt != attempt or run.cancel_as is Outcome.CANCELLED:
            return
        begun = run.begun and not run.resting and (run.entered or run.of.kind is not Kind.COROUTINE)
        left_s = run.attempt_at + timeout_s - self._now() if begun else timeout_s
        if left_s < _LEFT_S:
            self.end(run, Outcome.TIMED_OUT)
        else:
            run.timer = self._timetable.after(left_s, partial(self._look, run, timeout_s, attempt))

    def end(self, run: Run, outcome: Outcome) -> None:
        """Cancel the run, for that outcome; and again with each cancel timeout that it swallows it."""
        if run.ended:
            return
        before, last = run.cancel_as, run.timer
        again = partial(self._end_again, run, outcome, run.attempt)
        timer = self._timetable.after(max(self.cancel_timeout_s, 0.1), again)
        try:
            run.cancel_as = before or outcome
            self._cancel([run])
        except BaseException:
            # Who makes room passes over runs that have been cancelled. But one that has had its time has had it, and
            # the timer that has come does this again.
            if outcome is Outcome.CANCELLED:
                run.cancel_as = before
            self._timetable.call_off(timer)
            raise
        run.timer = timer
        if last is not None:
            self._timetable.call_off(last)

    def _end_again(self, run: Run, outcome: Outcome, attempt: int) -> None:
        """Unless that attempt is over: a timer stays behind where memory ran out before anybody knew of it."""
        if run.attempt == attempt:
            self.end(run, outcome)

    def over(self, run: Run) -> None:
        """The run needs no timer any more."""
        if run.timer is not None:
            self._timetable.call_off(run.timer)
            run.timer = None

    def rests(self, run: Run, ending: Ending) -> bool:
        """Whether the attempt that has so ended is followed by another one; then the run rests until that."""
        policies = run.of.policies
        if run.attempt > policies.retries or ending.outcome not in _RETRIED or run.cancel_as is Outcome.CANCELLED:
            return False
        self._rest(run, ending, _delay_s(policies, run.attempt))
        return True

    def _rest(self, run: Run, ending: Ending, delay_s: float) -> None:
        self.over(run)
        timer = self._timetable.after(delay_s, partial(self._try_again, run, run.attempt + 1))
        try:
            self._resting[run.run_id] = run
            self._tell(run, ending, delay_s)
        except BaseException:
            self._resting.pop(run.run_id, None)
            self._timetable.call_off(timer)
            raise
        run.rest(timer)  # takes no memory, or that it rests would be told again

    def _tell(self, run: Run, ending: Ending, delay_s: float) -> None:
        self._log.emit(
            events.RUN_RETRYING,
            job=run.job,
            run_id=run.run_id,
            attempt=run.attempt,
            delay_s=seconds(delay_s),
            error=(ending.fields or {}).get("error"),
        )

    def _try_again(self, run: Run, attempt: int) -> None:
        if run.attempt != attempt or run.run_id not in self._resting:
            return
        if run.handed_over < 0:  # else this is done again, and its timer is that of the attempt already
            run.timer, run.handed_over = self._timeout(run), 0.0
        self._start([run])
        run.handed_over = self._now()

    def begins(self, run: Run) -> bool:
        """On the thread that executes it: whether the run, which rests, may go on with its next attempt."""
        now = self._now()
        if run.handed_over < 0 or self._resting.pop(run.run_id, None) is None:
            return False  # it has come for the attempt before, or too late
        # No memory is taken from there on, or nobody would have the run.
        run.resting, run.begun, run.ending, run.attempt_at = False, True, None, now
        return True

    def handed_over_before(self, late: float) -> list[Run]:
        """The runs whose next attempt was handed over before that, and has not begun."""
        return [run for run in self.resting() if 0 <= run.handed_over < late]

    def resting(self) -> list[Run]:
        """The runs that rest."""
        return list(self._resting.values())

    def forget(self, run: Run) -> None:
        """The run has ended, or is about to: it has no further attempt."""
        self._resting.pop(run.run_id, None)


def _delay_s(policies: Policies, attempt: int) -> float:
    """How long to wait after the attempt: twice as long each time, up to half of it less by chance, and bounded."""
    longest = min(policies.backoff * 2.0 ** min(attempt - 1, 60), max(policies.backoff_max, 0.0))
    return longest * (1 - _chance() / 2)
