"""Schedules: from numbers of ticks to instants and back. Pure; time is an argument.

Imports durations only. A tick lies at ``anchor + n * interval``, computed from its number: nothing accumulates, so
nothing drifts.
"""

import math
from dataclasses import dataclass

from jobd import durations

#: Shorter intervals are a typing error or a busy loop; longer ones are a matter for a calendar.
MIN_INTERVAL_S = 0.001
MAX_INTERVAL_S = 366 * 86_400.0


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
        return round(tick * self.interval_s * 1_000_000_000)

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
