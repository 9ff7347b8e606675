"""What one part of the control plane is to do, and when: timers that no lack of memory can lose.

May import: starvation.

A timer of asyncio is gone once its callback has been called, and without memory it may be gone without a call. So
what is to be done stands in a table of our own, and asyncio's timer only says when to look. An entry leaves the table
when its work has been done; until then it is due, and `resume` tries it again.

So whoever makes an entry must let its work be done twice: either it raises before it has had an effect, or it takes
up where it has left off.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from jobd import starvation

#: asyncio calls back early by as much as its clock is coarse.
_COARSE_S = 2e-9


class Agenda:
    """Entries, each with a name: a new one takes the place of an old one of its name."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Everything is done on `loop` and by its time."""
        self._loop = loop
        self._entries: dict[str, tuple[float, Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False

    def after(self, delay_s: float, name: str, work: Callable[[], None]) -> None:
        """Do `work` in `delay_s`, on the next turn of the loop at the earliest."""
        self._entries[name] = (self._loop.time() + delay_s, work)
        if not self._busy:
            self.arm()

    def has(self, name: str) -> bool:
        """Whether there is an entry of this name."""
        return name in self._entries

    def clear(self) -> None:
        """Do nothing of all that."""
        self._entries.clear()

    def arm(self) -> None:
        """See to it that the loop looks when the next entry is due, whatever has become of its timers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._entries:
            self._timer = self._loop.call_at(min(when for when, _ in self._entries.values()), self.resume)

    def resume(self) -> None:
        """Do what is due. What the machine lets us down in is left for the next time, and raised at the end."""
        self._busy = True
        try:
            starvation.do_all(self._due())
        finally:
            self._busy = False
            self.arm()

    def _due(self) -> list[Callable[[], None]]:
        limit = self._loop.time() + _COARSE_S
        due = sorted((entry[0], name) for name, entry in self._entries.items() if entry[0] <= limit)
        return [partial(self._do, name, self._entries[name]) for _, name in due]

    def _do(self, name: str, entry: tuple[float, Callable[[], None]]) -> None:
        if self._entries.get(name) is not entry:
            return  # what was due before it has dropped it, or put it off
        try:
            entry[1]()
        except BaseException as error:
            if not starvation.lacking(error):  # it would be the same the next time
                self._done(name, entry)
            raise
        self._done(name, entry)

    def _done(self, name: str, entry: tuple[float, Callable[[], None]]) -> None:
        if self._entries.get(name) is entry:
            del self._entries[name]
