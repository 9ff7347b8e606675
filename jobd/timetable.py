"""Things to be done at their instants, many of them, most of which are called off before.

May import: agenda. Like the agenda it forgets nothing for want of memory; so what is done here must bear being done
twice: either it raises before it has had an effect, or it takes up where it has left off.
"""

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from jobd.agenda import Agenda

#: What has been called off is thrown away when there is more of it than this, and than of the rest.
_LITTER = 64
#: Loops call back early by as much as their clock is coarse.
_COARSE_S = 1e-6


def _nothing() -> None: ...


class Timer:
    """One thing to be done."""

    __slots__ = ("over", "work")

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work
        #: Whether it has been done, or called off.
        self.over = False


class Timetable:
    """What is to be done on a loop, in the order of time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Everything is done on `loop` and by its time."""
        self._loop = loop
        self._agenda = Agenda(loop)
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._litter = 0

    def after(self, delay_s: float, work: Callable[[], None]) -> Timer:
        """Do `work` in `delay_s`."""
        timer = Timer(work)
        self._count += 1
        heappush(self._timers, (self._loop.time() + delay_s, self._count, timer))
        if self._timers[0][2] is timer:
            self._wait()
        return timer

    def call_off(self, timer: Timer) -> None:
        """Do not do it after all."""
        if timer.over:
            return
        timer.over, timer.work = True, _nothing  # which may hold a run, its job, and all that its module has
        self._litter += 1
        if self._litter > max(_LITTER, len(self._timers) // 2):
            kept = [entry for entry in self._timers if not entry[2].over]
            heapify(kept)
            self._timers, self._litter = kept, 0

    def resume(self) -> None:
        """Go on after a lack of memory, wherever that has come in between."""
        self._wait()
        self._agenda.resume()

    def _wait(self) -> None:
        if self._timers:
            self._agenda.after(max(0.0, self._timers[0][0] - self._loop.time()), "next", self._do_due)

    def _do_due(self) -> None:
        while self._timers and self._timers[0][0] <= self._loop.time() + _COARSE_S:
            timer = self._timers[0][2]
            if timer.over:
                self._litter -= 1
            else:
                timer.work()
                timer.over, timer.work = True, _nothing
            self._drop(timer)
        self._wait()

    def _drop(self, timer: Timer) -> None:
        if self._timers and self._timers[0][2] is timer:  # what it has done may have thrown litter away
            heappop(self._timers)
