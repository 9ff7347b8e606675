"""The lines of all jobs in the order in which they are due; those that are due together, in the order of the jobs.

May import: line, job. Jobs of one interval are due together tick after tick. So lines stand at their instants, and only
the instants are in a heap: a thousand lines that went through it one by one would be a tenth of their runs.

Tricky: memory may run out anywhere in here, and no line may be lost or found twice for that. So whatever takes memory
comes before the step in which a line moves on, and that step takes none.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

from jobd.job import Due
from jobd.line import Line

#: A line, and the place of its job among the others.
_Entry = tuple[int, Line]
_NOBODY: list[_Entry] = []


class Lineup:
    """Lines, each at the instant at which it is due next."""

    def __init__(self, lines: Iterable[Line]) -> None:
        """Line them up, in the order in which they come."""
        self._lines: dict[float, list[_Entry]] = {}
        for entry in enumerate(lines):
            self._lines.setdefault(entry[1].due, []).append(entry)
        #: May hold an instant at which nobody stands.
        self._instants = list(self._lines)
        heapify(self._instants)
        #: Those whose instant has come, and how many of them have moved on.
        self._due: Sequence[_Entry] = _NOBODY
        self._moved = 0

    @property
    def next_due(self) -> float:
        """When the next line is due, in monotonic seconds; never, if there is none."""
        if self._moved < len(self._due):
            return -math.inf
        return self._instants[0] if self._instants else math.inf

    def take_due(self, now: float, rows: deque[Due], most: float) -> None:
        """Add to the rows what is due at `now`, until there are `most` rows; what has been added is not due again."""
        while len(rows) < most and (self._moved < len(self._due) or self._come_to(now)):
            entry = self._due[self._moved]
            row, place, due = entry[1].look(now)
            moved = self._moved + 1
            try:
                if row is not None:
                    rows.append(row)
                self._put(entry, due)
            except BaseException:
                if row is not None and rows and rows[-1] is row:
                    rows.pop()
                raise
            entry[1].place, self._moved = place, moved

    def _come_to(self, now: float) -> bool:
        """Come to the first lines that are due by now; whether there are any."""
        while self._instants and self._instants[0] <= now:
            together = self._lines.get(self._instants[0], _NOBODY)
            together.sort()  # most are in order already
            self._due, self._moved = together, 0
            self._lines.pop(self._instants[0], None)
            heappop(self._instants)
            if together:
                return True
        return False

    def _put(self, entry: _Entry, due: float) -> None:
        together = self._lines.get(due)
        if together is None:
            heappush(self._instants, due)  # first: an instant at which nobody stands does no harm
            self._lines[due] = [entry]
        else:
            together.append(entry)
