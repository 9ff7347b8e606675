"""From schedules to ticks: wakes up when a tick is due, and offers it.

May import: job, clock, agenda. Runs on the control loop and on its time only, so a test can run
a day in a moment.

After a stall it finds several ticks of one job due: it offers them as one row, and keeps the phase.

Tricky: memory may run out anywhere in here, and no tick may be lost or offered twice for that. So a row that has been
made stays in `_rows` until it has been taken, and a line moves on in the same step in which its row gets there.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jobd import clock
from jobd.agenda import Agenda
from jobd.job import Due, Job

#: Rows offered in one turn of the loop, so that the first of many jobs due together need not wait for the last.
ROWS_PER_TURN = 64
#: The kernel may end a wait late by a thousandth of its length (select(2) allows itself that slack), so a long wait
#: ends early by more than that, and a short one follows.
EARLY = 0.002
LONG_WAIT_S = 0.1


@dataclass(slots=True, eq=False)
class _Line:
    """Where one job is on its grid."""

    job: Job
    anchor: float
    tick: int = 0


#: In the order of what is due next: its instant, the order of the jobs, and the job's line. A tuple, because the heap
#: compares those without a call into Python.
_Entry = tuple[float, int, _Line]


class Spawner:
    """Offers every tick of every job, in the order in which they are due."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wall: clock.Clock, offer: Callable[[list[Due]], None]) -> None:
        """Offer rows of due ticks by calling `offer` on `loop`.

        Where `offer` raises, it has removed from the list what it has taken.
        """
        self._loop = loop
        self._wall = wall
        self._offer = offer
        self._lines: list[_Entry] = []
        self._in_order = True
        self._rows: list[Due] = []
        self._offering = False
        self._agenda = Agenda(loop)

    def start(self, jobs: Iterable[Job]) -> None:
        """From here on each job has its ticks; tick 0 of each is due now, and offered in the loop's next turn."""
        now = self._loop.time()
        self._lines = [(job.schedule.due(0, now), order, _Line(job, now)) for order, job in enumerate(jobs)]
        self._in_order = False
        self._agenda.after(0, "ticks", self._wake)

    def resume(self) -> None:
        """Go on after a lack of memory, wherever that has come in between."""
        self._agenda.resume()

    def stop(self) -> list[Due]:
        """Offer nothing more; what is due by now and was not offered. Asked again, what is left in that list."""
        self._agenda.clear()
        if not self._offering:
            self._take_due(len(self._lines) + len(self._rows))
        self._lines.clear()
        return [] if self._offering else self._rows

    def _wake(self) -> None:
        self._wall.watch()
        self._take_due(ROWS_PER_TURN)
        if self._rows:
            self._offer_rows()
        if self._lines:
            wait = self._lines[0][0] - self._loop.time()
            self._agenda.after(wait * (1 - EARLY) if wait > LONG_WAIT_S else wait, "ticks", self._wake)

    def _offer_rows(self) -> None:
        self._offering = True
        try:
            self._offer(self._rows)
            self._rows.clear()
        finally:
            self._offering = False

    def _take_due(self, most: int) -> None:
        now = self._loop.time()
        if not self._in_order:
            heapq.heapify(self._lines)
            self._in_order = True
        while self._lines and self._lines[0][0] <= now and len(self._rows) < most:
            due, order, line = self._lines[0]
            row, next_due = self._row(line, due, now)
            entry = (next_due, order, line)
            self._rows.append(row)
            line.tick, self._lines[0] = row.last + 1, entry
            self._in_order = False  # until that has come to its end
            heapq.heapreplace(self._lines, entry)
            self._in_order = True

    def _row(self, line: _Line, due: float, now: float) -> tuple[Due, float]:
        """The ticks of the line from the one that is due at `due` to the last that is due now, and when the next is."""
        schedule, anchor, last = line.job.schedule, line.anchor, line.tick
        next_due = schedule.due(last + 1, anchor)
        if next_due <= now:
            last = schedule.latest(last + 1, anchor, now)
            due, next_due = schedule.due(last, anchor), schedule.due(last + 1, anchor)
        # The grid is shown from its anchor, in whole nanoseconds: as exact as it is.
        scheduled_ns = self._wall.wall_ns(anchor) + schedule.offset_ns(last)
        return Due(line.job, line.tick, last, due, scheduled_ns), next_due
