"""From ticks to runs: which due ticks become runs, which runs are in flight, and how each ended.

May import: job, policy, run, ending, invoke, kin, flight, admission, attempts, timetable, plane, log, events, clock,
states, stacks, garbage, starvation.

A run belongs to the control plane, which offers it; it begins on the thread that executes it, where `_put_in_flight`
tells `run.started`. Where nothing depends on its end, that comes on the same thread: `_finish` tells `run.finished`.
Ends that policies or a stop wait for are handed to the control plane and are told there. Either happens under the gate,
so a run has one end, whoever is first: its own, or `abandon`.

A run that is offered waits in `_offered` until its plane or thread takes it. Which ticks may have a run is
`admission`'s to say; timeouts and further attempts are `attempts`'.

Tricky: `_gate` makes "may this run start?" and "run.started" one step, and so "no run starts any more" and what is
logged after it. Nothing under the gate waits or runs user code.
"""

import asyncio
import contextvars
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from types import FrameType
from typing import Any

from jobd import clock, ending, events, garbage, invoke, kin, log, stacks, starvation
from jobd.admission import MANY, Admission, Standing
from jobd.attempts import Attempts
from jobd.clock import seconds
from jobd.ending import Ending
from jobd.flight import Flight, lives
from jobd.job import Due, Job, Kind
from jobd.plane import JobPlane
from jobd.policy import PLAIN
from jobd.run import Run
from jobd.states import Outcome
from jobd.timetable import Timetable

#: How a line about a run ends is told by its outcome.
_LEVELS = {
    Outcome.SUCCEEDED: "info",
    Outcome.FAILED: "error",
    Outcome.TIMED_OUT: "error",
    Outcome.CANCELLED: "warning",
    Outcome.ABANDONED: "error",
}
#: Outcomes that come with an error's text.
_EXPLAINED = frozenset({Outcome.FAILED, Outcome.TIMED_OUT})
_WORDS = {outcome: outcome.value for outcome in Outcome}
#: A run that was handed over and has not begun for about so long is handed over again: its thread may have died for
#: want of memory before its first line. Whoever begins first has the run.
HANDED_S = 0.5
#: For so long it is told where each run stands that is given up: with tens of thousands, their ends are what counts.
STACKS_S = 0.15
#: While ends are told, their lines leave every so many: those of a stop may be more than may wait.
PUSH_EVERY = 256
#: Our own, whatever a job does to the module.
_random = random.Random().random


class Runner:
    """Knows every run from the moment its tick is due until it has ended."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plane: JobPlane,
        to: log.Log,
        max_running: int | None = None,
        name: str = "",
    ) -> None:
        """Run jobs on `plane` and collect their endings on `loop`, the control loop.

        `name` is the daemon's, which the ids of all its runs begin with; by default it is given one.
        """
        self._loop = loop
        self._now = loop.time
        self._plane = plane
        self._log = to
        self._executor = invoke.Executor(plane, to, self._begin, self._begin_all, self._end, self._settle)
        self._gate = threading.Lock()
        self._closed = False
        self.flight = Flight(self._gate, plane, self._now, to)
        self._in_flight = self.flight.runs
        self._timetable = Timetable(loop)
        self._admission = Admission(
            self._in_flight, self._timetable, to, self._make_room, self._drop, name or kin.new_name()
        )
        self._admission.max_running = max_running
        self._offered = self._admission.offered
        self._attempts = Attempts(self._timetable, self._now, to, self._executor.start, self._cancel)
        self._announced = False
        #: The run that was abandoned last.
        self._given_up: Run | None = None
        self._ended: deque[Run] = deque()
        self._collecting = False
        #: Whether runs have ended and nobody has settled that; and `on_change` has not been called for them.
        self._unsettled = False
        self._untold = False
        self._context = contextvars.Context()
        self.take_tellers()
        #: How many runs ended with each outcome; all are there from the beginning, since to add one takes memory.
        self.outcomes = dict.fromkeys(Outcome, 0)
        #: Called on the control plane after it has seen off runs; the stop sequence and the status listen.
        self.on_change: Callable[[], None] = lambda: None

    def take_tellers(self) -> None:
        """Ask the log for what tells of runs; after each change of its level."""
        teller = self._log.teller
        self._tell_started = teller(events.RUN_STARTED.level, brief=True)
        self._tell_finished = {o: teller(level, brief=o not in _EXPLAINED) for o, level in _LEVELS.items()}

    @property
    def running(self) -> int:
        """Number of runs in flight."""
        return len(self._in_flight)

    @property
    def busy(self) -> bool:
        """Whether any run is in flight, or about to be, or has ended and is to be told to who listens."""
        return bool(self._in_flight or self._offered or self._untold)

    def offer(self, ticks: deque[Due]) -> None:
        """Start a run for each row of due ticks: for its last tick, the missed ones before it are skipped.

        A row leaves the queue once it is accounted for, so that what is in it after a lack of memory can be offered
        again.
        """
        batch: list[Run] = []
        now = self._now()
        with self._gate:
            while ticks and not self._closed:
                self._admission.take(ticks[0], batch, now)
                ticks.popleft()
        self._hand_over(batch)

    def _make_room(self, name: str) -> None:
        """Cancel the runs of a job, for another one that waits for their place; unless it has got it, or is skipped."""
        standing = self._admission.standings.get(name)
        if standing is None or standing.waiting is None:
            return
        for run in self.oldest():
            if run.job == name and run.cancel_as is None:
                if self._forget_attempt(run):
                    self._finish(run, ending.CANCELLED, self._now())
                else:
                    self._attempts.end(run, Outcome.CANCELLED)
        self._let_in(name)
        self.on_change()

    def _forget_attempt(self, run: Run) -> bool:
        """Whether the run rests; who has been handed its next attempt finds then that there is none."""
        with self._gate:
            self._attempts.forget(run)
            return run.resting  # also where it has been forgotten before, and its end could not be told

    def _let_in(self, name: str) -> None:
        """Offer the run that has waited for its place, if it is free."""
        with self._gate:
            batch = [] if self._closed else self._admission.let_in(name)
        self._hand_over(batch)

    def _hand_over(self, batch: list[Run]) -> None:
        for run in batch:
            if run.of.policies is not PLAIN:
                self._attempts.watch(run)  # first, so that none begins that nobody watches over
        self._executor.start(batch)
        now = self._now()
        for run in batch:
            run.handed_over = now

    def close(self, announce: Callable[[], None]) -> None:
        """Start no run from here on, and ask those in flight to come to an end.

        `announce` logs the stop request in the same step, so that no `run.started` can follow it.
        """
        self._close_gate(announce)
        self._admission.close()
        for run in self.oldest():
            if run.resting:
                self._finish(run, run.ending, self._now())
                continue
            run.ask_to_stop()
            if run.of.policies.grace_period is not None:
                self._timetable.after(run.of.policies.grace_period, partial(self._cancel, [run]))

    def _close_gate(self, announce: Callable[[], None]) -> None:
        with self._gate:
            self._closed = True
            if not self._announced:
                announce()
                self._announced = True

    def cancel(self, again: bool = False) -> None:
        """Cancel every run in flight; one that has been cancelled before may clean up, and is only if `again`."""
        self._cancel([run for run in self.oldest() if again or run.cancelled is None])

    def _cancel(self, batch: list[Run]) -> None:
        for run in batch:
            run.cancel_as = run.cancel_as or Outcome.CANCELLED
        self._executor.cancel(batch)

    def set_limits(self, max_running: int | None, cancel_timeout_s: float) -> None:
        """How many runs may be in flight at once, and how long a cancelled one gets to end."""
        self._admission.max_running = max_running
        self._attempts.cancel_timeout_s = self._executor.cancel_timeout_s = cancel_timeout_s

    def abandon(self) -> None:
        """Kill what can be killed, and give up every other run in flight, each with the place where it stands.

        Whatever fails over one of them, the others have their ends before that is raised.
        """
        errors = [_error_of(self._executor.kill_all), _error_of(self._collect)]
        frames, until = stacks.of_all_threads(), self._now() + STACKS_S
        try:
            errors += [_error_of(self._abandon, run, frames if self._now() < until else None) for run in self.oldest()]
        finally:
            garbage.drop(frames)
        self._log.push()
        if error := next(filter(None, errors), None):
            raise error

    def _abandon(self, run: Run, frames: dict[int, FrameType] | None) -> None:
        if run.ended:  # by itself, which could not be told
            self._finish(run, run.ending, run.ended)
            return
        if run.of.kind is Kind.COROUTINE and not run.entered:  # somebody else holds the plane
            self._finish(run, ending.CANCELLED, self._now())
            return
        error = None if run is self._given_up else _error_of(self.flight.give_up, run, frames)
        self._given_up = run
        self._finish(run, ending.ABANDONED, self._now())
        if error:
            raise error

    def oldest(self) -> list[Run]:
        """The runs in flight, the oldest first."""
        return self.flight.oldest()

    def named(self) -> list[dict[str, Any]]:
        """The oldest runs in flight, as the log names them."""
        return self.flight.named()

    @property
    def begun(self) -> set[str]:
        """The ids of the runs that are in flight, or on the way to it."""
        with self._gate:
            return {*self._in_flight, *(run.run_id for run in self._offered.values())}

    def use(self, jobs: Iterable[Job]) -> None:
        """From here on there are these jobs: what waits for its place is a run of the new one, or skipped."""
        with self._gate:
            self._admission.use({job.name: job for job in jobs})

    def resume(self) -> None:
        """Go on after a lack of memory, wherever that has come in between."""
        self.start_again()
        self.find_ends()
        self._timetable.resume()
        self.on_change()

    def start_again(self) -> None:
        """Hand over again what may have got lost on its way, because memory ran out where it was to be executed."""
        # Not in a rhythm: whoever takes the memory away may have one too.
        late = self._now() - HANDED_S * (0.5 + _random())
        lost = self._offered_before(late) + self._attempts.handed_over_before(late)
        if not self._plane.idle:  # it will come to those that it has been given
            lost = list(filter(_needs_no_plane, lost))
        if lost:
            self._hand_over(lost)

    def _offered_before(self, late: float) -> list[Run]:
        with self._gate:
            return [run for run in self._offered.values() if run.handed_over < late]

    def collect(self) -> None:
        """See off what has ended and was not handed on, because somebody holds the job plane, say.

        And tell who listens of those ends that the control plane had nothing to do with.
        """
        if self._ended or self._untold:
            self._collect()

    def find_ends(self) -> None:
        """Find runs that have ended and had no memory left to say so."""
        dead = list(filter(_seems_dead, self.oldest()))
        # Who dies tells its end first, so those that have not been told by now never will be.
        self._collect()
        for run in dead:
            if run.run_id in self._in_flight and _seems_dead(run):  # it may rest meanwhile, or have gone on after that
                run.ending = run.ending or ending.STARVED
                run.ended = run.ended or self._now()
                self._ended.append(run)
        self._call_for_collection()

    def _begin(self, run: Run) -> bool:
        """On the thread that executes the run: whether it may start; from here on it is in flight."""
        with self._gate:
            begins = self._put_in_flight(run)
        self._log.push()
        return begins

    def _begin_all(self, batch: list[Run]) -> None:
        """The same for many at once: those that may start have `begun` then."""
        try:
            with self._gate:
                for run in batch:
                    self._put_in_flight(run)
        finally:
            self._log.push()

    def _put_in_flight(self, run: Run) -> bool:
        if self._closed:
            return False
        if run.resting:
            return self._attempts.begins(run)
        if self._offered.get(run.key) is not run:  # begun already
            return False
        started = self._now()
        if run.of.policies is not PLAIN and self._admission.comes_too_late(run, started):
            self._drop(run)
            return False
        if run.first_tick < run.tick:
            self._admission.skip_missed(run)
        self._in_flight[run.run_id] = run  # before its line, which cannot be taken back if this takes memory
        if tell := self._tell_started:
            self._tell_start(tell, run, started)
        run.started = run.attempt_at = started
        run.begun = True
        del self._offered[run.key]
        return True

    def _drop(self, run: Run) -> None:
        """Skip the ticks of a run that has been offered, and counts no more; the control plane sees to the rest."""
        standing = self._admission.standings[run.of.name]
        left = standing.runs - 1
        self._admission.skip(run.of, run.first_tick, run.tick, "missed")
        # No memory is taken from here on, or the ticks would be skipped again.
        run.dropped, standing.runs, self._untold = True, left, True
        del self._offered[run.key]
        try:
            self._ended.append(run)
            self._call_for_collection()
        except Exception:  # no memory, say; the watch comes by
            pass

    def _tell_start(self, tell: Callable[..., None], run: Run, started: float) -> None:
        try:
            tell(
                events.RUN_STARTED,
                job=run.of.name,
                run_id=run.run_id,
                tick=run.tick,
                scheduled_at=clock.stamp(run.scheduled_ns),
                lateness_s=seconds(started - run.due),
            )
        except BaseException:
            del self._in_flight[run.run_id]
            raise

    def _end(self, run: Run, ending: Ending) -> None:
        """On the thread that executed the run: end it, or leave that to the control plane, which has to know of it."""
        if run.printed:
            run.end_printed()
        run.ending, run.ended = ending, self._now()
        try:
            ended = self._ends_here(run)
        except Exception:  # no memory, say; it has ended all the same, and the control plane can wait for some
            ended = False
        if not ended:
            self._ended.append(run)
        self._unsettled = True  # RACE: last, or another thread might settle before there is anything to

    def _ends_here(self, run: Run) -> bool:
        """End the run, unless the control plane has to do with its end."""
        with self._gate:
            standing = self._admission.standings[run.of.name]
            if self._closed or run.of.policies is not PLAIN or standing.waiting is not None:
                return False
            self._untold = True  # RACE: first, or the watch might see neither this nor the run
            self._account(run, standing, run.ending, run.ended)
        return True

    def _settle(self) -> None:
        """On that thread, after one end or many: let out what was told, and hand on what is left to be told."""
        if self._unsettled:
            self._unsettled = False  # RACE: first, so that who ends a run now settles again
            self._log.push()
            try:
                self._call_for_collection()
            except Exception:  # no memory, say; the watch comes by
                pass

    def _call_for_collection(self) -> None:
        if self._ended and not self._collecting:
            self._collecting = True
            try:
                # Not in the job's context: what a job keeps there would be finalised, by its own code, on this plane.
                self._loop.call_soon_threadsafe(self._collect, context=self._context)
            except BaseException:  # no memory, say; who comes next tries again
                self._collecting = False
                raise

    def _collect(self) -> None:
        self._collecting = self._untold = False  # RACE: before the queue is looked at, so who appends later calls again
        try:
            while self._ended:
                self._see_off(self._ended[0])
                self._ended.popleft()
                if len(self._ended) % PUSH_EVERY == 0:
                    self._log.push()
        finally:
            self._log.push()
        self.on_change()

    def _see_off(self, run: Run) -> None:
        if run.dropped:
            self._attempts.over(run)
        elif run.of.policies is PLAIN:
            self._finish(run, run.ending, run.ended)
            if self._admission.standings[run.of.name].waiting is None:
                return
        elif run.run_id in self._in_flight and not run.resting and run.ending is not None:  # else that is seen already
            if self._may_rest(run) and self._attempts.rests(run, run.ending):
                return
            self._finish(run, run.ending, run.ended)
        self._let_in(run.job)

    def _may_rest(self, run: Run) -> bool:
        """Not if that would keep a stop waiting, or another run that waits for its place."""
        return not self._closed and self._admission.standings[run.of.name].waiting is None

    def _finish(self, run: Run, ending: Ending, ended: float) -> None:
        """On the control plane: end the run."""
        with self._gate:
            self._account(run, self._admission.standings[run.of.name], ending, ended)
        if run.timer is not None or run.resting:
            self._attempts.over(run)
            self._attempts.forget(run)

    def _account(self, run: Run, standing: Standing, ending: Ending, ended: float) -> None:
        """Under the gate: tell how the run has ended; from here on it is not in flight."""
        if run.run_id not in self._in_flight:
            return  # abandoned before it ended after all
        count = self.outcomes[ending.outcome] + 1
        if tell := self._tell_finished[ending.outcome]:
            self._tell_end(tell, run, ending, ended)
        # Nothing takes memory between the line and this, so a run that is in here has no end in the log.
        del self._in_flight[run.run_id]
        self.outcomes[ending.outcome] = count
        standing.runs -= 1
        if not standing.runs:
            standing.tell_at = MANY

    def _tell_end(self, tell: Callable[..., None], run: Run, ending: Ending, ended: float) -> None:
        attempts = run.attempt - run.resting
        tell(
            events.RUN_FINISHED,
            job=run.of.name,
            run_id=run.run_id,
            tick=run.tick,
            outcome=_WORDS[ending.outcome],
            duration_s=seconds(ended - run.started),
            **({"attempts": attempts} if attempts > 1 else {}),
            **(ending.fields or {}),
        )

    def skip(self, rows: deque[Due]) -> None:
        """Account for ticks that came due and will get no run, because the stop came first; each leaves the queue."""
        while rows:
            self._admission.skip(rows[0].job, rows[0].first, rows[0].last, "missed")
            rows.popleft()


def _error_of(call: Callable[..., object], *arguments: object) -> Exception | None:
    """What the call raises; a lack of memory and its like is raised here, since what it was in is done again then."""
    try:
        call(*arguments)
    except Exception as error:
        if starvation.lacking(error):
            raise
        return error
    return None


def _seems_dead(run: Run) -> bool:
    return not (run.resting or lives(run))


def _needs_no_plane(run: Run) -> bool:
    return run.of.kind is not Kind.COROUTINE
