"""From ticks to runs: which due ticks become runs, which runs are in flight, and how each ended.

May import: job, run, invoke, plane, log, events, clock, states, stacks.

A run belongs to the control plane, which offers it; it begins on the thread that executes it, where `_put_in_flight`
tells `run.started`; it ends on the control plane, where `_finish` tells `run.finished`. So a run has one end, whoever
is first: its own, or `abandon`.

A run that is offered waits in `_offered` until its plane or thread takes it. Ticks that come due meanwhile (the
plane is held by another job, say) are added to the row it stands for, so a held plane finds one run for each job
when it is released, not a burst.

Tricky: `_gate` makes "may this run start?" and "run.started" one step, and so "no run starts any more" and what is
logged after it. Nothing under the gate waits or runs user code.
"""

import asyncio
import contextvars
import random
import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from jobd import clock, events, invoke, log, stacks
from jobd import run as runs
from jobd.clock import seconds
from jobd.job import Due, Job, Kind
from jobd.plane import JobPlane
from jobd.run import Run
from jobd.states import Outcome

#: How a line about a run ends is told by its outcome.
_LEVELS = {
    Outcome.SUCCEEDED: "info",
    Outcome.FAILED: "error",
    Outcome.CANCELLED: "warning",
    Outcome.ABANDONED: "error",
}
_WORDS = {outcome: outcome.value for outcome in Outcome}
#: How many runs a line about many names.
_NAMED = 20
#: From how many runs of one job at once they are said to pile up. Fewer are what overlapping on purpose looks like.
_MANY = 10
#: A run that was handed over and has not begun for about so long is handed over again: its thread may have died for
#: want of memory before its first line. Whoever begins first has the run.
HANDED_S = 0.5
#: Our own, whatever a job does to the module.
_random = random.Random().random


class Runner:
    """Knows every run from the moment its tick is due until it has ended."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, plane: JobPlane, to: log.Log, max_running: int | None = None
    ) -> None:
        """Run jobs on `plane` and collect their endings on `loop`, the control loop."""
        self._loop = loop
        self._plane = plane
        self._log = to
        self._max_running = max_running
        self._executor = invoke.Executor(plane, self._begin, self._begin_all, self._end)
        self._gate = threading.Lock()
        self._closed = False
        self._offered: dict[Job, Run] = {}
        self._in_flight: dict[str, Run] = {}
        self._overlaps: dict[Job, _Overlap] = {}
        self._announced = False
        self._handing = False
        #: The run that was abandoned last.
        self._given_up: Run | None = None
        self._ended: deque[Run] = deque()
        self._collecting = False
        #: Empty ones for each plane, because one may not be entered twice at once.
        self._context, self._plane_context = contextvars.Context(), contextvars.Context()
        self._run_ids = _run_ids()
        self._tell_started = to.teller(events.RUN_STARTED.level)
        self._tell_finished = {outcome: to.teller(level) for outcome, level in _LEVELS.items()}
        #: How many runs ended with each outcome.
        self.outcomes: Counter[Outcome] = Counter()
        #: Called on the control plane after runs have started or ended; the stop sequence and the status listen.
        self.on_change: Callable[[], None] = lambda: None

    @property
    def running(self) -> int:
        """Number of runs in flight."""
        return len(self._in_flight)

    @property
    def busy(self) -> bool:
        """Whether any run is in flight, or offered and about to be."""
        return bool(self._in_flight or self._offered)

    def offer(self, ticks: list[Due]) -> None:
        """Start a run for each row of due ticks: for its last tick, the missed ones before it are skipped.

        A row leaves the list once it is accounted for, so that what is in it after a lack of memory can be offered
        again.
        """
        batch: list[Run] = []
        with self._gate:
            while ticks and not self._closed:
                self._take(ticks[0], batch)
                del ticks[0]
        self._hand_over(batch)

    def _take(self, row: Due, batch: list[Run]) -> None:
        run = self._offered.get(row.job)
        if run is None:
            if self._full():
                self._skip(row.job, row.first, row.last, "max_running")
                return
            run = Run(row.job, self._run_ids(), row.first, row.last)
            overlap = self._overlaps.get(row.job) or self._overlaps.setdefault(row.job, _Overlap())
            batch.append(run)
            self._offered[row.job] = run
            overlap.runs += 1
            if overlap.runs >= overlap.tell_at:
                self._warn_of(overlap, row.job)
        run.tick, run.due, run.scheduled_ns = row.last, row.due, row.scheduled_ns

    def _hand_over(self, batch: list[Run]) -> None:
        self._executor.start(batch)
        now = self._loop.time()
        for run in batch:
            run.handed_over = now

    def close(self, announce: Callable[[], None]) -> None:
        """Start no run from here on, and ask those in flight to come to an end.

        `announce` logs the stop request in the same step, so that no `run.started` can follow it.
        """
        with self._gate:
            self._closed = True
            if not self._announced:
                announce()
                self._announced = True
        for run in list(self._offered.values()):
            self._skip(run.of, run.first_tick, run.tick, "missed")
            del self._offered[run.of]
        for run in self.oldest():
            run.ask_to_stop()

    def cancel(self) -> None:
        """Cancel every run in flight."""
        self._executor.cancel(self.oldest())

    def abandon(self) -> None:
        """Give up every run in flight, each with the place where it stands."""
        self._collect()
        frames = stacks.of_all_threads()
        for run in self.oldest():
            if run.of.kind is Kind.COROUTINE and not run.entered:  # somebody else holds the plane
                self._finish(run, invoke.CANCELLED, self._loop.time())
                continue
            if run is not self._given_up:
                stack, age_s = self.stack(run, frames), self._age(run)
                if run.printed:
                    run.end_printed()
                self._log.emit(events.SHUTDOWN_ABANDONED, job=run.job, run_id=run.run_id, age_s=age_s, stack=stack)
                self._given_up = run
            self._finish(run, invoke.ABANDONED, self._loop.time())
        self._log.push()

    def oldest(self) -> list[Run]:
        """The runs in flight, the oldest first."""
        with self._gate:
            return list(self._in_flight.values())

    def named(self) -> list[dict[str, Any]]:
        """The oldest runs in flight, as the log names them."""
        return [{"job": r.job, "run_id": r.run_id, "age_s": self._age(r)} for r in self.oldest()[:_NAMED]]

    def stack(self, run: Run, frames: dict[int, FrameType] | None = None) -> list[str]:
        """Where the run stands in the code."""
        body = run.body
        if isinstance(body, int):
            return stacks.of_thread(body, invoke.FRAMES, frames)
        if body is None:
            return []
        if asyncio.current_task(self._plane.loop) is body and self._plane.ident is not None:
            return stacks.of_thread(self._plane.ident, invoke.FRAMES)
        return stacks.of_task(body, invoke.FRAMES)

    def holder(self) -> Run | None:
        """The run on whose behalf the job plane is executing something at this moment, if one can be named."""
        context = stacks.context_of(self._plane.ident)
        return context.get(runs.current) if context else None

    def tell(self) -> None:
        """Log every run in flight, with its age and where it stands."""
        for run in self.oldest():
            self._log.emit(
                events.RUN_IN_FLIGHT, job=run.job, run_id=run.run_id, age_s=self._age(run), stack=self.stack(run)
            )

    def _warn_of(self, overlap: "_Overlap", job: Job) -> None:
        """Warn as the runs of the job grow more."""
        self._log.emit(events.JOB_OVERLAPPING, job=job.name, running=overlap.runs)
        overlap.tell_at *= 2

    def resume(self) -> None:
        """Go on after a lack of memory, wherever that has come in between."""
        self.start_again()
        self.find_ends()
        self.on_change()

    def start_again(self) -> None:
        """Hand over again what may have got lost on its way, because memory ran out where it was to be executed."""
        # Not in a rhythm: whoever takes the memory away may have one too.
        late = self._loop.time() - HANDED_S * (0.5 + _random())
        with self._gate:
            lost = [run for run in self._offered.values() if run.handed_over < late]
        if not self._plane.idle:  # it will come to those that it has been given
            lost = [run for run in lost if run.of.kind is not Kind.COROUTINE]
        if lost:
            self._hand_over(lost)

    def collect(self) -> None:
        """See off what has ended, where somebody holds the job plane before it could hand that on."""
        if self._ended:
            self._handing = False  # it may have got lost, too
            self._collect()

    def find_ends(self) -> None:
        """Find runs that have ended and had no memory left to say so."""
        dead = [run for run in self.oldest() if not _lives(run)]
        # Who dies tells its end first, so those that have not been told by now never will be.
        self._collect()
        for run in dead:
            if run.run_id in self._in_flight:
                run.ending = run.ending or invoke.STARVED
                run.ended = run.ended or self._loop.time()
                self._ended.append(run)
        self._call_for_collection()

    def _full(self) -> bool:
        return self._max_running is not None and len(self._in_flight) + len(self._offered) >= self._max_running

    def _age(self, run: Run) -> float:
        return seconds(self._loop.time() - run.started)

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
        if self._closed or self._offered.get(run.of) is not run:  # refused by the stop, or begun already
            return False
        if run.first_tick < run.tick:
            self._skip(run.of, run.first_tick, run.tick - 1, "missed")
            run.first_tick = run.tick
        started = self._loop.time()
        self._in_flight[run.run_id] = run  # before its line, which cannot be taken back if this takes memory
        if self._tell_started:
            self._tell_start(self._tell_started, run, started)
        run.started, run.begun = started, True
        del self._offered[run.of]
        return True

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

    def _end(self, run: Run, ending: invoke.Ending) -> None:
        """On the thread that executed the run: hand its ending to the control plane, in one hop for many."""
        if run.printed:
            run.end_printed()
        run.ending, run.ended = ending, self._loop.time()
        self._ended.append(run)
        try:
            if run.of.kind is not Kind.COROUTINE:
                self._call_for_collection()
            elif not self._handing and not self._collecting:
                self._hand_on_soon()
        except Exception:  # no memory, say; it has ended all the same, and the watch comes by
            pass

    def _hand_on_soon(self) -> None:
        """On the job plane: hand on what has ended when this turn of it is over; in one hop, as many as those are.

        Somebody may hold the plane before that, but then the watch comes by.
        """
        self._handing = True
        try:
            self._plane.loop.call_soon(self._hand_on, context=self._plane_context)
        except BaseException:  # no memory, say; who comes next tries again
            self._handing = False
            raise

    def _hand_on(self) -> None:
        self._handing = False
        self._call_for_collection()

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
        self._collecting = False  # RACE: before the queue is looked at, so that who appends later calls again
        try:
            while self._ended:
                run = self._ended[0]
                self._finish(run, run.ending, run.ended)
                self._ended.popleft()
        finally:
            self._log.push()
        self.on_change()

    def _finish(self, run: Run, ending: invoke.Ending, ended: float) -> None:
        if run.run_id not in self._in_flight:
            return  # abandoned before it ended after all
        count = self.outcomes[ending.outcome] + 1
        overlap = self._overlaps[run.of]
        if tell := self._tell_finished[ending.outcome]:
            tell(
                events.RUN_FINISHED,
                job=run.of.name,
                run_id=run.run_id,
                tick=run.tick,
                outcome=_WORDS[ending.outcome],
                duration_s=seconds(ended - run.started),
                **(ending.failure or {}),
            )
        # Nothing takes memory between the line and this, so a run that is in here has no end in the log.
        del self._in_flight[run.run_id]
        self.outcomes[ending.outcome] = count
        overlap.runs -= 1
        if not overlap.runs:
            overlap.tell_at = _MANY

    def skip(self, rows: list[Due]) -> None:
        """Account for ticks that came due and will get no run, because the stop came first; each leaves the list."""
        while rows:
            self._skip(rows[0].job, rows[0].first, rows[0].last, "missed")
            del rows[0]

    def _skip(self, job: Job, first: int, last: int, reason: str) -> None:
        self._log.emit(events.TICK_SKIPPED, job=job.name, tick=first, count=last - first + 1, reason=reason)


@dataclass(slots=True)
class _Overlap:
    """The runs of one job that have been offered and have not ended."""

    runs: int = 0
    tell_at: int = _MANY


def _lives(run: Run) -> bool:
    """Whether whoever executes the run is still at it."""
    body = run.body  # None again when it has come to its end, however it has
    return isinstance(body, int) or (body is not None and not body.done())


def _run_ids() -> Callable[[], str]:
    """Makes run ids: eight characters that tell this daemon from every other, and a number."""
    daemon = secrets.token_hex(4)
    numbers = iter(range(1, 2**63))
    return lambda: f"{daemon}-{next(numbers)}"
