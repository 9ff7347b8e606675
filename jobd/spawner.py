"""From schedules to ticks: wakes up when a tick is due, and offers it.

May import: job, clock. Runs on the control loop and on its time only, so a test can run
a day in a moment.

After a stall it finds several ticks of one job due: it offers them as one row, and keeps the phase.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jobd import clock
from jobd.job import Due, Job

#: Rows offered in one turn of the loop, so that the first of many jobs due together need not wait for the last.
ROWS_PER_TURN = 64
#: The kernel may end a wait late by a thousandth of its length (select(2) allows itself that slack), so a long wait
#: ends early by more than that, and a short one follows.
EARLY = 0.002
LONG_WAIT_S = 0.1


@dataclass(slots=True)
class _Line:
    """One job in the order of what is due next."""

    due: float
    order: int
    job: Job
    anchor: float
    tick: int = 0

    def __lt__(self, other: "_Line") -> bool:
        return (self.due, self.order) < (other.due, other.order)


class Spawner:
    """Offers every tick of every job, in the order in which they are due."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wall: clock.Clock, offer: Callable[[list[Due]], None]) -> None:
        """Offer rows of due ticks by calling `offer` on `loop`."""
        self._loop = loop
        self._wall = wall
        self._offer = offer
        self._lines: list[_Line] = []
        self._timer: asyncio.Handle | None = None

    def start(self, jobs: Iterable[Job]) -> None:
        """From here on each job has its ticks; tick 0 of each is due now."""
        now = self._loop.time()
        self._lines = [_Line(job.schedule.due(0, now), order, job, now) for order, job in enumerate(jobs)]
        heapq.heapify(self._lines)
        self._wake()

    def stop(self) -> list[Due]:
        """Offer nothing more; what is due by now and was not offered."""
        if self._timer is not None:
            self._timer.cancel()
        left = self._take_due(len(self._lines))
        self._lines = []
        return left

    def _wake(self) -> None:
        self._wall.watch()
        rows = self._take_due(ROWS_PER_TURN)
        if rows:
            self._offer(rows)
        if self._lines:
            self._timer = self._next()

    def _next(self) -> asyncio.Handle:
        wait = self._lines[0].due - self._loop.time()
        if wait <= 0:
            return self._loop.call_soon(self._wake)
        return self._loop.call_later(wait * (1 - EARLY) if wait > LONG_WAIT_S else wait, self._wake)

    def _take_due(self, most: int) -> list[Due]:
        now = self._loop.time()
        rows: list[Due] = []
        while self._lines and self._lines[0].due <= now and len(rows) < most:
            line = self._lines[0]
            rows.append(self._row(line, now))
            line.tick = rows[-1].last + 1
            line.due = line.job.schedule.due(line.tick, line.anchor)
            heapq.heapreplace(self._lines, line)
        return rows

    def _row(self, line: _Line, now: float) -> Due:
        schedule = line.job.schedule
        last = schedule.latest(line.tick, line.anchor, now)
        # The grid is shown from its anchor, in whole nanoseconds: as exact as it is.
        scheduled_ns = self._wall.wall_ns(line.anchor) + schedule.offset_ns(last)
        return Due(line.job, line.tick, last, schedule.due(last, line.anchor), scheduled_ns)
