"""Wall-clock time: where instants come from, and how they are written."""

import re
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd import clock

_SECOND_NS = 1_000_000_000


@pytest.mark.parametrize(
    ("wall_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (999, "1970-01-01T00:00:00.000000Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (1_767_225_599_999_999_999, "2025-12-31T23:59:59.999999Z"),
        (1_767_225_600_000_000_000, "2026-01-01T00:00:00.000000Z"),
    ],
)
def test_an_instant_is_written_in_utc_with_microseconds(wall_ns: int, text: str) -> None:
    """RFC 3339 with a Z; what is finer is cut off, never rounded into the next second."""
    assert clock.stamp(wall_ns) == text


#: From some instant to others in the same millisecond, the next one, the same second, the next one, and far away.
_GAPS_NS = st.sampled_from(
    [0, 999, 1_000, 999_999, 1_000_000, 999_000_000, 999_999_999, _SECOND_NS, 86_400 * _SECOND_NS]
)


@given(st.integers(0, 4_000_000_000), st.lists(st.tuples(_GAPS_NS, st.sampled_from([-1, 1])), max_size=20))
def test_every_instant_is_written_as_datetime_writes_it(second: int, steps: list[tuple[int, int]]) -> None:
    """Forwards and backwards: what is kept from the last call is never that of another second or millisecond."""
    stamps = clock._Stamps()
    wall_ns = second * _SECOND_NS
    for gap_ns, direction in [(0, 1), *steps]:
        wall_ns = max(0, wall_ns + gap_ns * direction)
        seconds, rest_ns = divmod(wall_ns, _SECOND_NS)
        expected = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
        assert stamps.stamp(wall_ns) == expected.isoformat(timespec="microseconds").replace("+00:00", "Z")


def test_now_is_now() -> None:
    """The time of a line lies between the moment before and the moment after."""
    before = time.time_ns()
    text = clock.now()
    after = time.time_ns()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    assert clock.stamp(before) <= text <= clock.stamp(after)


def test_durations_are_shown_to_the_microsecond() -> None:
    """Finer digits of a float are noise."""
    assert clock.seconds(0.1 + 0.2) == 0.3
    assert clock.seconds(1.23456789) == 1.234568


@given(st.floats(-1e6, 1e6))
def test_durations_are_shown_as_round_would_show_them(duration: float) -> None:
    """But for ties, which floats that are finer than microseconds hardly know."""
    assert clock.seconds(duration) == pytest.approx(round(duration, 6), abs=1.0001e-6)
    assert clock.seconds(clock.seconds(duration)) == clock.seconds(duration)


def test_there_are_no_limits_to_a_duration() -> None:
    """One that makes no sense is shown as what it is."""
    assert clock.seconds(float("inf")) == float("inf")
    assert clock.seconds(-1e-9) == 0


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The wall clock and the monotonic clock, to be set at will, in nanoseconds."""
    times = {"wall": 1_000_000 * _SECOND_NS, "monotonic": 500 * _SECOND_NS}
    monkeypatch.setattr(clock.Real, "time_ns", lambda: times["wall"])
    monkeypatch.setattr(clock.Real, "monotonic_ns", lambda: times["monotonic"])
    return times


def test_an_instant_has_the_wall_clocks_time(clocks: dict[str, int]) -> None:
    """It is as far from now on the wall as it is on the monotonic clock, exactly."""
    wall = clock.Clock()
    assert wall.wall_ns(500) == 1_000_000 * _SECOND_NS
    assert wall.wall_ns(510.25) == 1_000_010 * _SECOND_NS + _SECOND_NS // 4


@pytest.mark.parametrize("step_ns", [3600 * _SECOND_NS, -3600 * _SECOND_NS, clock.STEP_NS + 1, -clock.STEP_NS - 1])
def test_a_wall_clock_that_is_set_is_followed(clocks: dict[str, int], step_ns: int) -> None:
    """From the next look on, forwards and backwards."""
    wall = clock.Clock()
    clocks["wall"] += step_ns
    assert wall.wall_ns(500) == 1_000_000 * _SECOND_NS
    wall.watch()
    assert wall.wall_ns(500) == 1_000_000 * _SECOND_NS + step_ns


@pytest.mark.parametrize("slew_ns", [0, 1_000_000, -1_000_000, clock.STEP_NS, -clock.STEP_NS])
def test_a_wall_clock_that_is_slewed_leaves_the_grid_alone(clocks: dict[str, int], slew_ns: int) -> None:
    """A little off is worth less than a grid that stays a grid."""
    wall = clock.Clock()
    clocks["wall"] += slew_ns
    wall.watch()
    assert wall.wall_ns(500) == 1_000_000 * _SECOND_NS


def test_a_slow_slew_is_followed_when_it_has_added_up(clocks: dict[str, int]) -> None:
    """The difference is to where the clock was followed last, not to the last look."""
    wall = clock.Clock()
    for _ in range(11):
        clocks["wall"] += clock.STEP_NS // 10
        wall.watch()
    assert wall.wall_ns(500) == 1_000_000 * _SECOND_NS + 11 * (clock.STEP_NS // 10)
