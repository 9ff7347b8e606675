"""The lines of all jobs in the order in which they are due; those that are due together, in the order of the jobs.

May import: line, job. Jobs of one interval are due together tick after tick. So lines stand at their instants, and only
the instants are in a heap, each once: a thousand lines that went through it one by one would be a tenth of their runs.

Tricky: memory may run out anywhere in here, and no line may be lost or found twice for that. So whatever takes memory
comes before the step in which a line moves on, and that step takes none.
"""

import math
from bisect import insort
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from operator import attrgetter

from jobd.job import Due
from jobd.line import Line

_ORDER = attrgetter("order")
_NOBODY: Sequence[Line] = ()


class Lineup:
    """Lines, each at the instant at which it is due next."""

    def __init__(self, lines: Iterable[Line]) -> None:
        """Line them up, in the order in which they come."""
        self._lines: dict[float, list[Line]] = {}
        for order, line in enumerate(lines):
            line.order = order
            self._lines.setdefault(line.due, []).append(line)
        #: May hold an instant at which nobody stands.
        self._instants = list(self._lines)
        heapify(self._instants)
        #: Those whose instant has come, and how many of them have moved on.
        self._due = _NOBODY
        self._moved = 0

    @property
    def next_due(self) -> float:
        """When the next line is due, in monotonic seconds; never, if there is none."""
        if self._moved < len(self._due):
            return -math.inf
        return self._instants[0] if self._instants else math.inf

    def take_due(self, now: float, rows: list[Due], most: float) -> None:
        """Add to the rows what is due at `now`, until there are `most` rows; what has been added is not due again."""
        while len(rows) < most and (self._moved < len(self._due) or self._come_to(now)):
            line = self._due[self._moved]
            row, place, due = line.look(now)
            moved = self._moved + 1
            if row is not None:
                rows.append(row)
            try:
                self._put(line, due)
            except BaseException:
                if row is not None:
                    rows.pop()
                raise
            line.place, self._moved = place, moved

    def _come_to(self, now: float) -> bool:
        """Come to the first lines that are due by now; whether there are any."""
        while self._instants and self._instants[0] <= now:
            instant = self._instants[0]
            self._due, self._moved = self._lines.get(instant, _NOBODY), 0
            self._lines.pop(instant, None)
            heappop(self._instants)
            if self._due:
                return True
        return False

    def _put(self, line: Line, due: float) -> None:
        together = self._lines.get(due)
        if together is None:
            heappush(self._instants, due)  # first: an instant without a line does no harm
            self._lines[due] = [line]
        elif together[-1].order < line.order:
            together.append(line)
        else:
            insort(together, line, key=_ORDER)
