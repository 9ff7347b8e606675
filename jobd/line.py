"""Where one job is on its grid: which tick comes next, when, and which are due by now.

May import: job, policy, schedule, clock. Nothing here waits.

A line looks without moving: `look` says what is due and where the line would be then, and whoever takes that puts it
there. So memory may run out in between, and no tick is lost or comes twice.

Tricky: jitter puts a tick's run off and never the tick. By how much follows from the line and the number of the tick,
so nothing has to be remembered; it is less than the gap to the next tick, so runs stay in order.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jobd.clock import Clock
from jobd.job import Due, Job
from jobd.policy import LATE_RUNS, Missed
from jobd.schedule import Every

#: Stretches of time that a wall clock has shown before it was set back, so many at most.
_STRETCHES = 8


#: What a line has seen: the ticks that are due, None if there are none yet; where the line is once that row has been
#: taken; and when its next run is due then, in monotonic seconds.
Look = tuple[Due | None, Any, float]


class Line:
    """The ticks of one job."""

    __slots__ = ("_salt", "_schedule", "job", "place")

    def __init__(self, job: Job) -> None:
        self.place: Any = None
        self.take(job)

    def take(self, job: Job) -> None:
        """Be the line of this job from here on, which has the same schedule."""
        self.job = job
        self._schedule: Any = job.schedule
        self._salt = random.getrandbits(60) if job.policies.jitter else 0

    @property
    def tick(self) -> int:
        """The number of the next tick."""
        raise NotImplementedError

    @property
    def due(self) -> float:
        """When the next run is due, in monotonic seconds."""
        raise NotImplementedError

    def look(self, now: float) -> Look:
        """What is due at `now`, in monotonic seconds."""
        raise NotImplementedError

    def clock_was_set(self, step_ns: int, now: float) -> Any:
        """Where the line is, now that somebody has set the wall clock."""
        return self.place

    def put_off_no_more(self) -> None:
        """From here on a run is due at its tick's instant."""
        self._salt = 0

    def _put_off_s(self, tick: int, gap_s: float) -> float:
        jitter_s = self.job.policies.jitter
        if not jitter_s:
            return 0.0
        chance = (hash((self._salt, tick)) & 0xFFFFFF) / 0x1000000
        return chance * min(jitter_s, gap_s)


class _Grid:
    """Ticks at regular intervals from an anchor on the monotonic clock.

    It is shown from its anchor, in whole nanoseconds: as exact as it is. Jobs that are due together often share one; so
    it keeps its last answer, and what their runs hold of that is shared, too.
    """

    __slots__ = ("_anchor_ns", "_kept", "_schedule", "_wall", "anchor")

    def __init__(self, schedule: Every, anchor: float, wall: Clock) -> None:
        self._schedule = schedule
        self._wall = wall
        self.anchor = anchor
        self._anchor_ns = round(anchor * 1e9)
        self._kept = -1, 0, (0.0, 0.0, 0)

    def instants(self, tick: int) -> tuple[float, float, int]:
        """When the tick and the one after it lie, and when the first of them does on the wall clock, in nanoseconds."""
        kept, ahead_ns, instants = self._kept
        if kept != tick or ahead_ns != self._wall.offset_ns:
            instants = self._instants(tick, ahead_ns := self._wall.offset_ns)
            self._kept = tick, ahead_ns, instants
        return instants

    def _instants(self, tick: int, ahead_ns: int) -> tuple[float, float, int]:
        due, schedule = self._schedule.due, self._schedule
        return due(tick, self.anchor), due(tick + 1, self.anchor), ahead_ns + self._anchor_ns + schedule.offset_ns(tick)


_grid = lru_cache(64)(_Grid)


class Steady(Line):
    """Ticks on a grid; the place is the number of the next tick."""

    __slots__ = ("_grid",)

    def __init__(self, job: Job, now: float, wall: Clock, tick: int = 0) -> None:
        """The tick of this number is due now."""
        super().__init__(job)
        self.place = tick
        self._grid = _grid(self._schedule, now - tick * self._schedule.interval_s, wall)

    @property
    def tick(self) -> int:
        """The number of the next tick."""
        number: int = self.place
        return number

    @property
    def due(self) -> float:
        """When the next run is due."""
        return self._run_due(self.place)

    def _run_due(self, tick: int) -> float:
        due: float = self._schedule.due(tick, self._grid.anchor)
        return due + self._put_off_s(tick, self._schedule.interval_s) if self._salt else due

    def look(self, now: float) -> Look:
        """What is due at `now`."""
        first = last = self.place
        due, next_due, scheduled_ns = self._grid.instants(first)
        put_off_s = 0.0
        if self._salt or next_due <= now:
            last = self._last(first, now)
            due, _, scheduled_ns = self._grid.instants(last)
            put_off_s = self._run_due(last) - due
            next_due = self._run_due(last + 1)
        return Due(self.job, first, last, due, scheduled_ns, put_off_s), last + 1, next_due

    def _last(self, first: int, now: float) -> int:
        last: int = self._schedule.latest(first, self._grid.anchor, now)
        if last > first and self._run_due(last) > now:  # put off
            last -= 1
        return max(first, last - LATE_RUNS + 1) if self.job.policies.missed is Missed.ALL else last


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a line is on the wall clock."""

    tick: int
    instant_ns: int
    #: From when to when it has ticked since the clock was set last; and before that, stretch by stretch.
    ticked: tuple[int, int] | None = None
    before: tuple[tuple[int, int], ...] = ()
    #: Up to when the ticks that were missed each have a run, once that has been decided.
    late_ns: int = 0


class OnTheWall(Line):
    """Ticks at instants of the wall clock, which somebody may set.

    Set ahead, it makes the ticks that it has passed over due. Set back, it makes none come twice: what it has shown
    already is passed over, unless it was so far off that it must have been wrong.
    """

    __slots__ = ("_wall",)

    def __init__(self, job: Job, now: float, wall: Clock, tick: int = 0) -> None:
        """The tick of this number is the first one after now."""
        super().__init__(job)
        self._wall = wall
        self.place = _Place(tick, self._schedule.after(wall.exact_ns(now) - 1))

    @property
    def tick(self) -> int:
        """The number of the next tick."""
        number: int = self.place.tick
        return number

    @property
    def due(self) -> float:
        """When the next run is due, if nobody sets the clock."""
        return self._run_due(self.place.tick, self.place.instant_ns)

    def _run_due(self, tick: int, instant_ns: int) -> float:
        due = self._wall.instant(instant_ns)
        if not self._salt:
            return due
        return due + self._put_off_s(tick, (self._schedule.after(instant_ns) - instant_ns) / 1e9)

    def look(self, now: float) -> Look:
        """What is due at `now`."""
        place: _Place = self.place
        due = self.due
        if due > now:
            return None, place, due
        if self.job.policies.missed is Missed.ALL:
            last_ns, last, late_ns = self._oldest(place, now)
            after_ns = self._next(last_ns, place.before)
        else:
            last_ns, last, after_ns = self._newest(place, now)
            late_ns = 0
        ticked = (place.ticked[0] if place.ticked else place.instant_ns, last_ns)
        at = self._wall.instant(last_ns)
        row = Due(self.job, place.tick, last, at, last_ns, self._run_due(last, last_ns) - at if self._salt else 0.0)
        following = _Place(last + 1, after_ns, ticked, place.before, late_ns)
        return row, following, self._run_due(last + 1, after_ns)

    def _oldest(self, place: _Place, now: float) -> tuple[int, int, int]:
        """The oldest tick due by now that has a run, its number, and up to when those after it each have one, too."""
        if place.instant_ns <= place.late_ns:
            return place.instant_ns, place.tick, place.late_ns
        late_ns = self._until(place.instant_ns, now, place.before)
        oldest_ns, count = self._schedule.newest(place.instant_ns, late_ns, LATE_RUNS)
        return oldest_ns, place.tick + count, late_ns

    def _newest(self, place: _Place, now: float) -> tuple[int, int, int]:
        """The newest tick due by now, its number, and the tick after it."""
        last_ns, last = self._last(place.instant_ns, place.tick, now, place.before)
        after_ns = self._next(last_ns, place.before)
        while self._run_due(last + 1, after_ns) <= now:
            last_ns, last = self._last(after_ns, last + 1, now, place.before)  # behind a stretch that was passed over
            after_ns = self._next(last_ns, place.before)
        return last_ns, last, after_ns

    def _last(self, first_ns: int, first: int, now: float, before: tuple[tuple[int, int], ...]) -> tuple[int, int]:
        """The last tick due by `now`, and its number, where that of `first_ns` is known to be."""
        last_ns, count = self._schedule.latest(first_ns, self._until(first_ns, now, before))
        if count and self._run_due(first + count, last_ns) > now:  # put off
            last_ns, count = self._schedule.latest(first_ns, last_ns - 1)
        return last_ns, first + count

    def _until(self, first_ns: int, now: float, before: tuple[tuple[int, int], ...]) -> int:
        """Up to when ticks are new, from one that is: until now, or to where what was shown before begins.

        Now is no earlier than that one, which is due, even if a float says so that is too coarse for nanoseconds.
        """
        ends_ns = min([self._wall.exact_ns(now), *(begins - 1 for begins, _ in before if begins > first_ns)])
        return max(first_ns, ends_ns)

    def _next(self, instant_ns: int, before: tuple[tuple[int, int], ...]) -> int:
        following: int = self._schedule.after(instant_ns)
        while ended_ns := next((last for first, last in before if first <= following <= last), 0):
            following = self._schedule.after(ended_ns)
        return following

    def clock_was_set(self, step_ns: int, now: float) -> _Place:
        """Where the line is, now that the clock has been set by so much."""
        place: _Place = self.place
        if step_ns >= 0:
            return place
        before = (*place.before, place.ticked) if place.ticked else place.before
        before = before[-_STRETCHES:] if -step_ns <= self._schedule.forgets_ns else ()
        # What was missed by the old time is still due by the new one, unless that has yet to come to it.
        since_ns = min(self._wall.exact_ns(now), place.instant_ns - 1)
        return _Place(place.tick, self._next(since_ns, before), None, before)


def line_of(job: Job, now: float, wall: Clock, tick: int = 0) -> Line:
    """The line of a job that begins now; its next tick has that number."""
    make: Callable[[Job, float, Clock, int], Line] = Steady if isinstance(job.schedule, Every) else OnTheWall
    return make(job, now, wall, tick)
