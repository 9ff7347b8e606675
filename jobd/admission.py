"""Which due ticks become runs, by the policies of their jobs and by what is in flight already.

May import: events, job, log, policy, run, timetable. On the control plane, under the runner's gate.

A run that is offered waits in `offered` until its plane, thread or process takes it. Ticks that come due meanwhile (the
plane is held by another job, say) are added to the row it stands for, so a held plane finds one run for each job when
it is released, not a burst; unless the job wants a run for each missed tick.

How a job stands is known by its name, because a reload makes another job of it.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise

from jobd import events, log
from jobd.job import Due, Job
from jobd.policy import LATE_RUNS, PLAIN, Missed, Overlap
from jobd.run import Run
from jobd.timetable import Timetable

#: From how many runs of one job at once they are said to pile up. Fewer are what overlapping on purpose looks like.
MANY = 10
#: A tick that is later than this has been missed.
LATE_S = 1.0


@dataclass(slots=True)
class Standing:
    """How a job stands: its runs that have been offered and have not ended."""

    runs: int = 0
    #: With how many of them the next warning comes.
    tell_at: int = MANY
    #: The one that takes their place when they have ended; not counted among them until then.
    waiting: Run | None = None
    #: Where each missed tick has a run of its own: those that have been offered, the oldest first; some have begun.
    late: deque[Run] = field(default_factory=deque)


class Admission:
    """Takes due ticks, and says which runs they have."""

    def __init__(
        self,
        in_flight: Collection[str],
        timetable: Timetable,
        to: log.Log,
        make_room: Callable[[str], None],
        drop: Callable[[Run], None],
        daemon: str,
    ) -> None:
        """`make_room` is called for a job whose runs in flight are to give way to another one, and `drop` for a run
        that has been offered for so long that it is not to start any more.

        `daemon` is what the ids of its runs begin with.
        """
        self._in_flight = in_flight
        self._timetable = timetable
        self._log = to
        self._make_room = make_room
        self._drop = drop
        #: By the names of the jobs.
        self.standings: dict[str, Standing] = {}
        self._run_ids = _run_ids(daemon)
        #: The runs that are offered: by the name of their job, or by their own ids where a job may have several.
        self.offered: dict[str, Run] = {}
        #: How many runs may be offered or in flight at once, over all jobs.
        self.max_running: int | None = None

    def take(self, row: Due, batch: list[Run], now: float) -> None:
        """Account for a row of due ticks; a run that it makes is offered, and added to the batch."""
        job = row.job
        if job.policies is not PLAIN and job.policies.missed is Missed.SKIP and _is_missed(row, now):
            self.skip(job, row.first, row.last, "missed")
            return
        run = self.offered.get(job.name)
        if run is not None and run.of is not job:  # a reload has come in between, and this may be its cure
            self._drop(run)
            run = None
        run = run or self._admit(row, batch)
        if run is not None:
            if row.first > run.tick + 1:  # those in between have been missed, and it is for none of them
                self.skip(job, run.first_tick, run.tick, "missed")
                run.first_tick = row.first
            # No memory is taken from here on, or ticks would be skipped again.
            run.tick, run.due = row.last, row.due
            run.scheduled_ns, run.put_off_s = row.scheduled_ns, row.put_off_s

    def _admit(self, row: Due, batch: list[Run]) -> Run | None:
        """The run for the row: a new one, or one that waits for its place; None if it may have none."""
        job = row.job
        standing = self.standings.get(job.name) or self.standings.setdefault(job.name, Standing())
        policies = job.policies
        if standing.runs and policies is not PLAIN:
            if policies.overlap is Overlap.REPLACE:
                return self._let_wait(standing, row)
            if policies.overlap is Overlap.SKIP:
                self.skip(job, row.first, row.last, "overlap")
                return None
        if (self.max_running or policies.max_running) and self._is_full(standing, policies.max_running):
            self.skip(job, row.first, row.last, "max_running")
            return None
        if standing.late and (run := self._moved_up(standing, row)):
            return run
        if standing.runs + 1 >= standing.tell_at:
            self._warn(standing, job)
        run = Run(job, self._run_ids(), row.first, row.last)
        if policies is not PLAIN and policies.missed is Missed.ALL and policies.overlap is not Overlap.REPLACE:
            run.key = run.run_id
            standing.late.append(run)
        batch.append(run)
        runs = standing.runs + 1
        self.offered[run.key] = run
        standing.runs = runs  # no memory is taken from where it is offered on
        return run

    def _forget_begun(self, late: deque[Run]) -> None:
        while late and self.offered.get(late[0].key) is not late[0]:
            late.popleft()

    def _moved_up(self, standing: Standing, row: Due) -> Run | None:
        """The newest run for the row, and each of the others for what the next one was for, if they are too many.

        A further one would be in the queue of whoever is held, beside the one that is dropped for it.
        """
        self._forget_begun(standing.late)
        if len(standing.late) < LATE_RUNS:
            return None
        late = standing.late = deque(run for run in standing.late if self.offered.get(run.key) is run)
        if len(late) < LATE_RUNS:
            return None
        oldest, newest = late[0], late[-1]
        if oldest.of is not row.job:
            self._drop(oldest)
            return None
        pairs = list(pairwise(late))
        self.skip(row.job, oldest.first_tick, oldest.tick, "missed")
        # No memory is taken from here on, or ticks would be skipped again.
        for run, following in pairs:
            run.first_tick, run.tick, run.due = following.first_tick, following.tick, following.due
            run.scheduled_ns, run.put_off_s = following.scheduled_ns, following.put_off_s
        newest.first_tick, newest.tick = row.first, row.last
        return newest

    def _is_full(self, standing: Standing, most: int | None) -> bool:
        if most is not None and standing.runs >= most:
            return True
        return self.max_running is not None and len(self._in_flight) + len(self.offered) >= self.max_running

    def _warn(self, standing: Standing, job: Job) -> None:
        """Warn as the runs of the job grow more; another one is about to be offered."""
        self._log.emit(events.JOB_OVERLAPPING, job=job.name, running=standing.runs + 1)
        standing.tell_at *= 2

    def _let_wait(self, standing: Standing, row: Due) -> Run:
        """The run that takes the place of those in flight when they have ended, as they are asked to."""
        self._timetable.after(0, partial(self._make_room, row.job.name))
        run = standing.waiting or Run(row.job, self._run_ids(), row.first, row.last)
        run.why_skipped = "overlap"
        standing.waiting = run
        return run

    def let_in(self, name: str) -> list[Run]:
        """Offer the run that has waited for its place, if that is free: it, or none."""
        standing = self.standings.get(name)
        if standing is None or standing.waiting is None or standing.runs:
            return []
        run = standing.waiting
        batch = [run]
        self.offered[run.key] = run
        standing.waiting, standing.runs = None, 1
        return batch

    def use(self, jobs: Mapping[str, Job]) -> None:
        """From here on these are the jobs, by their names; nothing starts any more of those that are none of them."""
        for offered in list(self.offered.values()):
            if offered.of.name not in jobs:
                self._drop(offered)
        for name, standing in self.standings.items():
            self._forget_begun(standing.late)
            run = standing.waiting
            if run is None:
                continue
            if name in jobs and jobs[name].policies.overlap is Overlap.REPLACE:
                run.of = jobs[name]
            else:
                self.skip(run.of, run.first_tick, run.tick, "overlap")
                standing.waiting = None

    def comes_too_late(self, run: Run, now: float) -> bool:
        """Whether its job wants no run for ticks that were missed; what has waited for its place was not."""
        if run.of.policies.missed is not Missed.SKIP or run.why_skipped != "missed":
            return False
        return run.first_tick < run.tick or now - run.due - run.put_off_s > LATE_S

    def skip_missed(self, run: Run) -> None:
        """Account for the ticks that the run stands for, but for its own."""
        self.skip(run.of, run.first_tick, run.tick - 1, run.why_skipped)
        run.first_tick = run.tick

    def skip(self, job: Job, first: int, last: int, reason: str) -> None:
        """Account for ticks that have no run."""
        self._log.emit(events.TICK_SKIPPED, job=job.name, tick=first, count=last - first + 1, reason=reason)

    def close(self) -> None:
        """Account for every run that is offered, or waits for its place: none of them starts any more."""
        for run in list(self.offered.values()):
            self.skip(run.of, run.first_tick, run.tick, "missed")
            del self.offered[run.key]
        for standing in self.standings.values():
            if standing.waiting is not None:
                run = standing.waiting
                self.skip(run.of, run.first_tick, run.tick, "overlap")
                standing.waiting = None


def _is_missed(row: Due, now: float) -> bool:
    return row.first < row.last or now - row.due - row.put_off_s > LATE_S


def _run_ids(daemon: str) -> Callable[[], str]:
    """Makes run ids: what tells this daemon from every other, and a number."""
    return map(f"{daemon}-".__add__, map(str, count(1))).__next__
