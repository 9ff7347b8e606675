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
from jobd.policy import Policies
from jobd.run import Run
from jobd.states import Outcome
from jobd.timetable import Timetable

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
        """An attempt of the run has been handed over."""
        timeout_s = run.of.policies.timeout
        if timeout_s is not None and run.timer is None:
            run.timer = self._timetable.after(timeout_s, partial(self._look, run, timeout_s))

    def _look(self, run: Run, timeout_s: float) -> None:
        """The attempt would have had its time, if it had begun when it was handed over."""
        if run.ended or run.dropped:
            return
        begun = run.begun and not run.resting
        left_s = run.attempt_at + timeout_s - self._now() if begun else timeout_s
        if left_s < _LEFT_S:
            self.end(run, Outcome.TIMED_OUT)
        else:
            run.timer = self._timetable.after(left_s, partial(self._look, run, timeout_s))

    def end(self, run: Run, outcome: Outcome) -> None:
        """Cancel the run, for that outcome; and again with each cancel timeout that it swallows it."""
        if run.ended:
            return
        run.cancel_as = run.cancel_as or outcome
        self._cancel([run])
        timer = self._timetable.after(max(self.cancel_timeout_s, 0.1), partial(self.end, run, outcome))
        self.over(run)
        run.timer = timer

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
        timer = self._timetable.after(delay_s, partial(self._try_again, run))
        try:
            self._tell(run, ending, delay_s)
            self._resting[run.run_id] = run
        except BaseException:
            self._timetable.call_off(timer)
            raise
        self.over(run)
        run.rest(timer)

    def _tell(self, run: Run, ending: Ending, delay_s: float) -> None:
        self._log.emit(
            events.RUN_RETRYING,
            job=run.job,
            run_id=run.run_id,
            attempt=run.attempt,
            delay_s=seconds(delay_s),
            error=(ending.fields or {}).get("error"),
        )

    def _try_again(self, run: Run) -> None:
        if run.resting and run.run_id in self._resting:
            self._hand_over(run)

    def _hand_over(self, run: Run) -> None:
        run.handed_over = 0.0
        self._start_one(run)
        run.timer = None  # it has come
        self.watch(run)

    def begins(self, run: Run) -> bool:
        """On the thread that executes it: whether the run, which rests, may go on with its next attempt."""
        if run.handed_over < 0 or self._resting.pop(run.run_id, None) is None:
            return False  # it has come for the attempt before, or too late
        run.resting, run.begun, run.ending, run.attempt_at = False, True, None, self._now()
        return True

    def start_again(self, late: float) -> None:
        """Hand over again what was handed over before that, and has not begun."""
        for run in list(self._resting.values()):
            if 0 <= run.handed_over < late:
                self._start_one(run)

    def _start_one(self, run: Run) -> None:
        self._start([run])
        run.handed_over = self._now()

    def resting(self) -> list[Run]:
        """The runs that rest."""
        return list(self._resting.values())

    def forget(self, run: Run) -> bool:
        """The run has ended, or is about to; whether it has rested."""
        return self._resting.pop(run.run_id, None) is not None


def _delay_s(policies: Policies, attempt: int) -> float:
    """How long to wait after the attempt: twice as long each time, up to half of it less by chance, and bounded."""
    longest = min(policies.backoff * 2.0 ** min(attempt - 1, 60), max(policies.backoff_max, 0.0))
    return longest * (1 - _chance() / 2)
