"""Schedules at regular intervals: from numbers of ticks to instants and back. Pure; time is an argument.

Imports durations only. A tick lies at ``anchor + n * interval``, computed from its number: nothing accumulates, so
nothing drifts. Schedules that lie on the wall clock are asked in nanoseconds since the epoch; `crontab` has one more.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from jobd import durations

#: Shorter intervals are a typing error or a busy loop; longer ones are a matter for a calendar.
MIN_INTERVAL_S = 0.001
MAX_INTERVAL_S = 366 * 86_400.0
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Every:
    """A tick every `interval_s` seconds, tick 0 at the anchor."""

    interval_s: float

    def __post_init__(self) -> None:
        if not MIN_INTERVAL_S <= self.interval_s <= MAX_INTERVAL_S:
            raise ValueError(f"is no interval; it must be from {MIN_INTERVAL_S * 1000:g}ms to 366d")

    def due(self, tick: int, anchor: float) -> float:
        """The instant of the tick."""
        return anchor + tick * self.interval_s

    def offset_ns(self, tick: int) -> int:
        """How long after the anchor the tick lies, in nanoseconds."""
        return round(tick * self.interval_s * _SECOND_NS)

    def latest(self, tick: int, anchor: float, now: float) -> int:
        """The last tick due by `now`, where `tick` is known to be."""
        latest = max(tick, math.floor((now - anchor) / self.interval_s))
        # The division may be off by one where an instant lies on a tick; `due` decides.
        while self.due(latest + 1, anchor) <= now:
            latest += 1
        while latest > tick and self.due(latest, anchor) > now:
            latest -= 1
        return latest

    def __str__(self) -> str:
        return f"every {durations.show(self.interval_s)}"


class OnWall(Protocol):
    """A schedule whose ticks are instants of the wall clock, in nanoseconds since the epoch."""

    @property
    def forgets_ns(self) -> int:
        """A wall clock that is set back by more than this has been wrong before: what it has shown then may come
        again.
        """

    def after(self, instant_ns: int) -> int:
        """The first tick after the instant."""

    def latest(self, first_ns: int, now_ns: int) -> tuple[int, int]:
        """The last tick due by now, where `first_ns` is one that is, and how many ticks later it is."""

    def newest(self, first_ns: int, now_ns: int, most: int) -> tuple[int, int]:
        """The first of the newest `most` ticks due by now, and how many ticks after `first_ns` it comes."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """A tick at every whole multiple of `interval_s` seconds since the epoch."""

    interval_s: float
    forgets_ns = 60 * _SECOND_NS

    def __post_init__(self) -> None:
        Every(self.interval_s)  # raises for an interval that is none

    @property
    def _interval_ns(self) -> int:
        return round(self.interval_s * _SECOND_NS)

    def after(self, instant_ns: int) -> int:
        """The first tick after the instant."""
        return (instant_ns // self._interval_ns + 1) * self._interval_ns

    def latest(self, first_ns: int, now_ns: int) -> tuple[int, int]:
        """The last tick due by now, and how many ticks after `first_ns` it comes."""
        count = (now_ns - first_ns) // self._interval_ns
        return first_ns + count * self._interval_ns, count

    def newest(self, first_ns: int, now_ns: int, most: int) -> tuple[int, int]:
        """The first of the newest `most` ticks due by now, and how many ticks after `first_ns` it comes."""
        count = max(0, self.latest(first_ns, now_ns)[1] - most + 1)
        return first_ns + count * self._interval_ns, count

    def __str__(self) -> str:
        return f"every {durations.show(self.interval_s)} of the clock"
