"""Schedules: a tick lies at ``anchor + n * interval``, whatever has happened before it."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.schedule import MAX_INTERVAL_S, MIN_INTERVAL_S, Every

intervals = st.floats(MIN_INTERVAL_S, MAX_INTERVAL_S)
anchors = st.floats(0, 1e7)
ticks = st.integers(0, 1_000_000)


@given(intervals, anchors, ticks)
def test_a_tick_lies_exactly_at_the_anchor_and_that_many_intervals(interval: float, anchor: float, tick: int) -> None:
    """The instant is computed from the number alone, not from the tick before."""
    assert Every(interval).due(tick, anchor) == anchor + tick * interval


@given(intervals, anchors, ticks, st.floats(0, 1e5))
def test_latest_is_the_last_tick_that_is_due(interval: float, anchor: float, tick: int, later: float) -> None:
    """The tick that `latest` names is due and the next one is not."""
    every = Every(interval)
    now = every.due(tick, anchor) + later
    latest = every.latest(tick, anchor, now)
    assert latest >= tick
    assert every.due(latest, anchor) <= now < every.due(latest + 1, anchor)


@given(st.floats(0.01, MAX_INTERVAL_S), anchors, ticks)
def test_no_tick_is_early_at_its_own_instant(interval: float, anchor: float, tick: int) -> None:
    """At the very instant of a tick it is the latest; a moment before, it is not yet."""
    every = Every(interval)
    due = every.due(tick + 1, anchor)
    assert every.latest(tick, anchor, due) == tick + 1
    assert every.latest(tick, anchor, math.nextafter(due, 0)) == tick


@given(intervals, anchors)
def test_nothing_drifts_in_ten_thousand_ticks(interval: float, anchor: float) -> None:
    """Asked at each tick for the next one, it is where exact arithmetic puts it, to a few roundings of one number."""
    every = Every(interval)
    tick = 0
    for _ in range(10_000):
        tick = every.latest(tick, anchor, every.due(tick, anchor)) + 1
    exact = Fraction(anchor) + tick * Fraction(interval)
    assert tick == 10_000
    assert abs(Fraction(every.due(tick, anchor)) - exact) <= 2 * math.ulp(float(exact))


@given(intervals, ticks)
def test_the_grid_in_nanoseconds_is_the_grid(interval: float, tick: int) -> None:
    """What the log shows of a tick is its offset from the anchor, to the nanosecond or the float's own precision."""
    exact = tick * Fraction(interval) * 10**9
    assert abs(Every(interval).offset_ns(tick) - exact) <= 1 + exact * Fraction(1, 2**51)


@pytest.mark.parametrize("interval", [MIN_INTERVAL_S, 0.5, 10, MAX_INTERVAL_S])
def test_an_interval_within_the_bounds_is_taken(interval: float) -> None:
    """The bounds themselves are intervals."""
    assert Every(interval).interval_s == interval


@pytest.mark.parametrize(
    "interval", [0.0, -0.0, -1.0, 1e-9, 0.000999, MAX_INTERVAL_S + 1, 1e308, math.inf, -math.inf, math.nan]
)
def test_an_interval_beyond_the_bounds_is_refused(interval: float) -> None:
    """Neither a busy loop nor a schedule that never comes due can be declared, and the bounds are named."""
    with pytest.raises(ValueError, match=r"must be from 1ms to 366d"):
        Every(interval)


def test_a_schedule_is_shown_as_people_write_it() -> None:
    """Its text is the duration in the units that people write."""
    assert str(Every(90)) == "every 1m30s"
