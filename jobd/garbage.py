"""Where garbage is collected: in a thread of its own, so that no finaliser of a job's runs on the control plane.

May import: bell, clock.

Python collects cyclic garbage in whichever thread happens to allocate, and runs there what the garbage has asked for:
`__del__`, callbacks of weak references, the `finally` of suspended generators. A job's finaliser that sleeps or waits
for a lock would hold the control plane, and with it ticks, signals and the stop. So the automatic collection is off
(a threshold of 0; `gc.isenabled()` still says True), and a thread does the same work when the counts say so. Until
that thread is there, while our own modules are imported, nothing is collected at all (see `__main__`).

Tricky: objects also die when the last reference goes, wherever that is. Frames and tasks of running jobs that the
control plane has looked at would die in its hands, with everything in them; `drop` lets them die over here.
"""

import gc
import threading
from collections import deque

from jobd.bell import Bell
from jobd.clock import Real

#: How often to look at the counts while there is enough to collect each time. What a job makes of cyclic garbage from
#: one look to the next is what memory grows by, compared with Python's own way.
LOOK_EVERY_S = 0.01
#: While no run is in flight, nobody rings, and yet there may be others who make garbage.
IDLE_S = 60.0
#: The oldest generation is collected for this part of the time at most: what it takes grows with the heap.
OLDEST_SHARE = 0.05

#: For so long what is dropped is kept, so that whoever has dropped it has let go of it.
KEPT_S = 0.1

_litter: deque[object] = deque()
_callers_threshold = gc.get_threshold()
_disable_automatic = gc.set_threshold
_enable, _is_enabled, _count, _threshold = gc.enable, gc.isenabled, gc.get_count, gc.get_threshold
_collect, _freeze = gc.collect, gc.freeze


def drop(*things: object) -> None:
    """Let these die in the collector's thread, if it is the last to hold them."""
    _litter.append(things)


def leave_be() -> None:
    """Never look for garbage among what there is by now: modules, mostly, which stay, and nothing of a job's."""
    _freeze()


class Collector:
    """The thread that collects."""

    def __init__(self) -> None:
        """Make the thread; it waits for `look`."""
        self._limits = [limit or fallback for limit, fallback in zip(_callers_threshold, (700, 10, 10), strict=True)]
        self._oldest_not_before = 0.0
        self._wake = Bell()
        self._thread = threading.Thread(target=self._work, name="jobd garbage", daemon=True)
        self._thread.start()
        self.keep()

    def keep(self) -> None:
        """Take the automatic collection away from all threads, again if a job has changed that."""
        if not _is_enabled():
            _enable()
        if _threshold()[0]:
            _disable_automatic(0, *self._limits[1:])

    def look(self) -> None:
        """Have the garbage collected, for as long as there is enough of it. From any thread; never waits."""
        self.keep()
        if _litter or _count()[0] > self._limits[0]:
            self._wake.ring()

    def _work(self) -> None:
        while True:
            try:
                self._wake.wait(IDLE_S)
                self._let_die()
                while _count()[0] > self._limits[0]:
                    self._collect_some()
                    Real.sleep(LOOK_EVERY_S)
            except Exception:  # no memory, say; without this thread there would only be less
                Real.sleep(LOOK_EVERY_S)

    def _let_die(self) -> None:
        if dying := [_litter.popleft() for _ in range(len(_litter))]:
            Real.sleep(KEPT_S)
            dying.clear()

    def _collect_some(self) -> None:
        _, middle, old = _count()
        began = Real.monotonic()
        if middle <= self._limits[1]:
            _collect(0)
        elif old <= self._limits[2] or began < self._oldest_not_before:
            _collect(1)
        else:
            _collect(2)
            ended = Real.monotonic()
            self._oldest_not_before = ended + (ended - began) / OLDEST_SHARE
