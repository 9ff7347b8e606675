"""From schedules to ticks: wakes up when a tick is due, and offers it.

May import: job, line, lineup, clock, agenda. Runs on the control loop and on its time only, so a test can run
a day in a moment.

After a stall it finds several ticks of one job due: it offers them as one row, and keeps the phase.

Tricky: memory may run out anywhere in here, and no tick may be lost or offered twice for that. So a row that has been
made stays in `_rows` until it has been taken.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection

from jobd import clock
from jobd.agenda import Agenda
from jobd.job import Due, Job
from jobd.line import Line, OnTheWall, line_of
from jobd.lineup import Lineup

#: Rows offered in one turn of the loop, so that the first of many jobs due together need not wait for the last.
ROWS_PER_TURN = 64
#: Rows offered in the first turn, and how long then to leave the interpreter to those who execute them: while the next
#: rows are made, they could not begin.
FIRST_ROWS = 4
GIVE_WAY_S = 0.0005
#: The kernel may end a wait late by a thousandth of its length (select(2) allows itself that slack), so a long wait
#: ends early by more than that, and a short one follows.
EARLY = 0.002
LONG_WAIT_S = 0.1
#: Where nobody tells when the wall clock is set, it is looked at so often, if the ticks of any job lie on it.
LOOK_AT_CLOCK_S = 10.0


class Spawner:
    """Offers every tick of every job, in the order in which they are due."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wall: clock.Clock,
        offer: Callable[[deque[Due]], None],
        tell_step: Callable[[float], None] = lambda step_s: None,
    ) -> None:
        """Offer rows of due ticks by calling `offer` on `loop`, and `tell_step` by how much the wall clock was set.

        `offer` removes from the queue what it takes; what it leaves there, `stop` returns.
        """
        self._loop = loop
        self._wall = wall
        self._offer = offer
        self._tell_step = tell_step
        self._lines: list[Line] = []  # in the order of the jobs
        self._lineup = Lineup(())
        self._rows: deque[Due] = deque()
        self._offering = False
        self._agenda = Agenda(loop)
        #: The next tick of each job that there was; its numbers go on if it comes back.
        self._numbers: dict[str, int] = {}
        self._set_ns = 0  # by how much the wall clock was set, while the lines do not know of it
        #: Whether the ticks of any job lie on the wall clock.
        self.on_wall = False
        #: By which part of its length a long wait is shortened.
        self.early = EARLY
        #: Whether somebody calls `look_at_clock` when the wall clock has been set.
        self.is_told_of_clock = False

    def start(self, jobs: Collection[Job]) -> None:
        """From here on each job has its ticks; their first are offered in the loop's next turn.

        Called again, it changes the jobs: one that has the same schedule as before keeps its place on its grid.
        """
        self._put_off_no_more(self._leaving(jobs))  # or their ticks that have come would go without a word
        self._take_due()
        if self._rows:  # now: what is due of a job as it was has its run before there is another one
            self._offer_rows()
        self._follow_clock()  # or a line that begins now would do so where the clock stood at the last look
        now = self._loop.time()
        lines = {line.job.name: line for line in self._lines}
        numbers = self._numbers | {name: line.tick for name, line in lines.items()}
        following = [self._line(job, lines.get(job.name), numbers, now) for job in jobs]
        self._lineup = Lineup(following)
        self._lines, self._numbers = following, numbers
        self.on_wall = any(isinstance(line, OnTheWall) for line in following)
        self._agenda.after(0, "ticks", self._wake)

    def _leaving(self, jobs: Collection[Job]) -> list[Line]:
        """The lines that end with these jobs: of one that has gone, or has another schedule."""
        schedules = {job.name: job.schedule for job in jobs}
        return [line for line in self._lines if line.job.schedule != schedules.get(line.job.name)]

    def _line(self, job: Job, line: Line | None, numbers: dict[str, int], now: float) -> Line:
        if line is None or line.job.schedule != job.schedule:
            return line_of(job, now, self._wall, numbers.get(job.name, 0))
        line.take(job)
        return line

    def resume(self) -> None:
        """Go on after a lack of memory, wherever that has come in between."""
        self._agenda.resume()

    def stop(self) -> deque[Due]:
        """Offer nothing more; what is due by now and was not offered. Asked again, what is left of that."""
        self._agenda.clear()
        if not self._offering:
            self._put_off_no_more(self._lines)
            self._take_due()
        self._lines, self._lineup = [], Lineup(())
        return deque() if self._offering else self._rows

    def _put_off_no_more(self, lines: Collection[Line]) -> None:
        """Have runs of these lines that jitter puts off due at once, where their tick has come."""
        for line in lines:
            line.put_off_no_more()
        if lines:
            self._lineup = Lineup(self._lines)

    def look_at_clock(self) -> None:
        """Somebody has set the wall clock."""
        self._agenda.after(0, "ticks", self._wake)

    def _wake(self) -> None:
        """Offer the first of what is due."""
        self._follow_clock()
        self._offer_due(FIRST_ROWS, GIVE_WAY_S)

    def _go_on(self) -> None:
        """Offer more of it."""
        self._offer_due(ROWS_PER_TURN, 0.0)

    def _offer_due(self, most: int, pause_s: float) -> None:
        self._take_due(most)
        if self._rows:
            self._offer_rows()
        if self._rows or not self._lines:  # nobody takes any more, or there are no more
            return
        wait_s = self._lineup.next_due - self._loop.time()
        if wait_s <= 0:
            self._agenda.after(pause_s, "ticks", self._go_on)
        else:
            self._agenda.after(self._shortened(wait_s), "ticks", self._wake)

    def _shortened(self, wait_s: float) -> float:
        """How long to wait at first, for a tick that is due in so many seconds."""
        if wait_s > LONG_WAIT_S:
            wait_s *= 1 - self.early
        if self.on_wall and not self.is_told_of_clock:
            wait_s = min(wait_s, LOOK_AT_CLOCK_S)
        return wait_s

    def _follow_clock(self) -> None:
        self._set_ns += self._wall.watch()
        if not self._set_ns:
            return
        now = self._loop.time()
        for line in self._lines:
            line.place = line.clock_was_set(self._set_ns, now)
        self._lineup = Lineup(self._lines)
        if abs(self._set_ns) > clock.STEP_NS:
            self._tell_step(self._set_ns / 1e9)
        self._set_ns = 0

    def _offer_rows(self) -> None:
        self._offering = True
        try:
            self._offer(self._rows)
        finally:
            self._offering = False

    def _take_due(self, most: float = math.inf) -> None:
        self._lineup.take_due(self._loop.time(), self._rows, most)
