"""The one place where time comes in. Imports nothing of ours.

Everything is measured on the monotonic clock; people read wall-clock time. A `Clock` holds the difference of the two.
It holds it twice: as it was when it was last off by more than `STEP_NS`, so that ticks that lie on an exact grid are
shown on an exact grid; and as it is, for ticks that lie on the wall clock itself.

Tricky: a job may put other functions into the module `time`, or into every module that has imported one from there,
as libraries do that freeze time for tests. `Real` keeps Python's own where nobody looks for them.
"""

import time
from _thread import allocate_lock
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

#: A wall clock that is further off than this has been set; below it, the grid is worth more than the correction.
STEP_NS = 100_000_000
#: How finely ticks on the wall clock follow it. The two clocks are slewed alike, so what differs was a step.
FINE_NS = 1_000_000
#: A measurement during which so much time has passed is made again, a few times.
_QUICK_NS = 50_000
#: Longer than any measurement takes.
_LONG_NS = 10**18

_SECOND_NS = 1_000_000_000


_never = allocate_lock()
_never.acquire()


class Real:
    """The functions of `time` as they were before any job was imported."""

    monotonic = staticmethod(time.monotonic)
    monotonic_ns = staticmethod(time.monotonic_ns)
    time_ns = staticmethod(time.time_ns)

    @staticmethod
    def sleep(seconds: float) -> None:
        """As `time.sleep`, which no hook of a job's can refuse: the sleep of Python 3.13 may be audited."""
        _never.acquire(True, seconds)


class Clock:
    """Tells the wall-clock time of instants on the monotonic clock."""

    def __init__(self) -> None:
        #: By how much the wall clock is ahead of the monotonic one, as ticks on an exact grid are shown.
        self.offset_ns = _measured_ns()
        self._exact_ns = self.offset_ns

    def watch(self) -> int:
        """Follow the wall clock if it has been set; by how many nanoseconds it was, since the last look."""
        offset_ns = _measured_ns()
        step_ns = offset_ns - self._exact_ns
        if abs(offset_ns - self.offset_ns) > STEP_NS:
            self.offset_ns = offset_ns
        if abs(step_ns) <= FINE_NS:
            return 0
        self._exact_ns = offset_ns
        return step_ns

    def wall_ns(self, instant: float) -> int:
        """Nanoseconds since the epoch at `instant`, in monotonic seconds; equal steps stay equal."""
        return self.offset_ns + round(instant * _SECOND_NS)

    def exact_ns(self, instant: float) -> int:
        """The same, by the wall clock as it stood at the last look."""
        return self._exact_ns + round(instant * _SECOND_NS)

    def instant(self, wall_ns: int) -> float:
        """When the wall clock shows that, in monotonic seconds, if nobody sets it meanwhile."""
        return (wall_ns - self._exact_ns) / _SECOND_NS


def _measured_ns() -> int:
    """By how much the wall clock is ahead of the monotonic one; something may come in between the two looks."""
    shortest_ns, ahead_ns = _LONG_NS, 0
    for _ in range(4):
        before, wall, after = Real.monotonic_ns(), Real.time_ns(), Real.monotonic_ns()
        if after - before < shortest_ns:
            shortest_ns, ahead_ns = after - before, wall - before
        if shortest_ns < _QUICK_NS:
            break
    return ahead_ns


_MILLISECOND_NS = 1_000_000
#: To format them anew would take longer than all else that a stamp takes.
_DIGITS = [f"{number:03}" for number in range(1000)]
_LAST_DIGITS = [f"{digits}Z" for digits in _DIGITS]


class _Stamps:
    """Formats instants as RFC 3339; what they begin with is kept from the last call, with when that begins to be so."""

    _date = staticmethod(datetime.fromtimestamp)
    _time_ns = staticmethod(Real.time_ns)

    def __init__(self) -> None:
        self._second = self._millisecond = (-_LONG_NS * _SECOND_NS, "")

    def stamp(self, wall_ns: int | None = None) -> str:
        """RFC 3339, UTC, with microseconds and ``Z``: of an instant in nanoseconds since the epoch, or of now."""
        if wall_ns is None:
            wall_ns = self._time_ns()
        begin_ns, text = self._millisecond
        micros = (wall_ns - begin_ns) // 1000
        if not 0 <= micros < 1000:
            text = self._down_to_milliseconds(wall_ns)
            micros = wall_ns % _MILLISECOND_NS // 1000
        return text + _LAST_DIGITS[micros]

    # Each of these keeps its text in one assignment, because any thread may come by.

    def _down_to_milliseconds(self, wall_ns: int) -> str:
        begin_ns, text = self._second
        millis = (wall_ns - begin_ns) // _MILLISECOND_NS
        if not 0 <= millis < 1000:
            text = self._down_to_seconds(wall_ns)
            millis = wall_ns % _SECOND_NS // _MILLISECOND_NS
        text += _DIGITS[millis]
        self._millisecond = (wall_ns - wall_ns % _MILLISECOND_NS, text)
        return text

    def _down_to_seconds(self, wall_ns: int) -> str:
        # Not strftime: it imports a module, by whatever a job has made of importing.
        text = self._date(wall_ns // _SECOND_NS, UTC).isoformat()[:19] + "."
        self._second = (wall_ns - wall_ns % _SECOND_NS, text)
        return text


#: The instant in nanoseconds since the epoch, as the log shows it. Ticks and lines keep what they need of it each.
stamp: Callable[[int], str] = lru_cache(64)(_Stamps().stamp)  # many jobs may be due at one instant
#: The wall-clock time now, likewise.
now: Callable[[], str] = _Stamps().stamp


#: What is added to so large a float is rounded to a whole number, which is still there when this is taken away again.
_WHOLE = 1.5 * 2.0**52


def seconds(duration: float) -> float:
    """A duration as the log shows it, to the microsecond; `round` would take four times as long."""
    return (duration * 1e6 + _WHOLE - _WHOLE) / 1e6
