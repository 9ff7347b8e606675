"""Cron expressions: what matches, in which time zone, and what a change of the clocks does to it."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from jobd.crontab import MOST_COUNTED, Cron

BERLIN = "Europe/Berlin"
SECOND_NS = 1_000_000_000


def ns(text: str) -> int:
    """The instant in nanoseconds since the epoch."""
    return int(datetime.fromisoformat(text).timestamp()) * SECOND_NS


def ticks(expression: str, timezone: str | None, since: str, count: int) -> list[str]:
    """The next ticks, as a clock in the time zone shows them."""
    cron, instant = Cron(expression, timezone), ns(since)
    zone = ZoneInfo(timezone) if timezone else UTC
    shown = []
    for _ in range(count):
        instant = cron.after(instant)
        shown.append(datetime.fromtimestamp(instant / SECOND_NS, zone).isoformat(" "))
    return shown


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 3 * * *", ["2026-01-02 03:30:00+00:00", "2026-01-03 03:30:00+00:00"]),
        ("*/20 * * * *", ["2026-01-01 12:20:00+00:00", "2026-01-01 12:40:00+00:00"]),
        ("0 9-17/4 * * mon-fri", ["2026-01-01 13:00:00+00:00", "2026-01-01 17:00:00+00:00"]),
        ("0 0 1 jan,JUL *", ["2026-07-01 00:00:00+00:00", "2027-01-01 00:00:00+00:00"]),
        ("0 0 29 2 *", ["2028-02-29 00:00:00+00:00", "2032-02-29 00:00:00+00:00"]),
        ("*/15 * * * * *", ["2026-01-01 12:00:15+00:00", "2026-01-01 12:00:30+00:00"]),
        ("5 0 3 * * *", ["2026-01-02 03:00:05+00:00", "2026-01-03 03:00:05+00:00"]),
        ("0 12 * * sun", ["2026-01-04 12:00:00+00:00", "2026-01-11 12:00:00+00:00"]),
        ("0 12 * * 7", ["2026-01-04 12:00:00+00:00", "2026-01-11 12:00:00+00:00"]),
        ("0 0 13 * fri", ["2026-01-02 00:00:00+00:00", "2026-01-09 00:00:00+00:00"]),  # either of the two, as in cron
        ("@hourly", ["2026-01-01 13:00:00+00:00", "2026-01-01 14:00:00+00:00"]),
        ("  0   3 * *  * ", ["2026-01-02 03:00:00+00:00", "2026-01-03 03:00:00+00:00"]),
    ],
)
def test_what_matches(expression: str, expected: list[str]) -> None:
    """Five or six fields, names, lists, ranges and steps."""
    assert ticks(expression, None, "2026-01-01T12:00:00+00:00", 2) == expected


@pytest.mark.parametrize("expression", ["30 2 * * *", "0 30 2 * * *"])
def test_a_fixed_time_that_is_left_out_comes_right_after(expression: str) -> None:
    """The clocks go from 2 to 3: half past two comes at three, that day."""
    assert ticks(expression, BERLIN, "2026-03-28T12:00:00+00:00", 2) == [
        "2026-03-29 03:00:00+02:00",
        "2026-03-30 02:30:00+02:00",
    ]


@pytest.mark.parametrize("expression", ["30 2 * * *", "0 30 2 * * *"])
def test_a_fixed_time_that_comes_twice_counts_once(expression: str) -> None:
    """The clocks go from 3 to 2: half past two is the first one."""
    assert ticks(expression, BERLIN, "2026-10-24T12:00:00+00:00", 2) == [
        "2026-10-25 02:30:00+02:00",
        "2026-10-26 02:30:00+01:00",
    ]


def test_in_between_it_does_not_come_again() -> None:
    """Asked in the second hour, too."""
    assert ticks("30 2 * * *", BERLIN, "2026-10-25T02:10:00+01:00", 1) == ["2026-10-26 02:30:00+01:00"]


def test_what_follows_the_clock_goes_on_through_the_change() -> None:
    """Every hour is every hour, also the one that comes twice, and none is made up for the one that is left out."""
    assert ticks("0 * * * *", BERLIN, "2026-10-24T23:30:00+00:00", 4) == [
        "2026-10-25 02:00:00+02:00",
        "2026-10-25 02:00:00+01:00",
        "2026-10-25 03:00:00+01:00",
        "2026-10-25 04:00:00+01:00",
    ]
    assert ticks("0 * * * *", BERLIN, "2026-03-28T23:30:00+00:00", 3) == [
        "2026-03-29 01:00:00+01:00",
        "2026-03-29 03:00:00+02:00",
        "2026-03-29 04:00:00+02:00",
    ]


STAR_SHOWS: dict[str, Callable[[datetime], bool]] = {
    "*/10 0 * * sun": lambda t: t.minute % 10 == 0 and t.hour == 0 and t.isoweekday() == 7,
    "0 * * * sun": lambda t: t.minute == 0 and t.isoweekday() == 7,
    "*/20 * 1 * *": lambda t: t.minute % 20 == 0 and t.day == 1,
    "*/30 * * 4,11 *": lambda t: t.minute % 30 == 0 and t.month in (4, 11),
    "*/10 0-3 * * *": lambda t: t.minute % 10 == 0 and t.hour <= 3,
    "*/15 3 * * *": lambda t: t.minute % 15 == 0 and t.hour == 3,
    "30 */2 * * *": lambda t: t.minute == 30 and t.hour % 2 == 0,
    "0 */30 23 * * *": lambda t: t.minute % 30 == 0 and t.hour == 23,
}


@pytest.mark.parametrize("expression", STAR_SHOWS)
@pytest.mark.parametrize(
    ("timezone", "changes"),
    [
        (BERLIN, ["2026-03-29", "2026-10-25"]),
        ("America/Havana", ["2026-03-08", "2026-11-01"]),
        ("America/Santiago", ["2026-04-05", "2026-09-06"]),
        ("America/Sao_Paulo", ["2018-02-18", "2018-11-04"]),
        ("Australia/Lord_Howe", ["2026-04-05", "2026-10-04"]),
        ("Antarctica/Troll", ["2026-03-29", "2026-10-25"]),
        ("Asia/Amman", ["2016-04-01", "2022-02-25"]),
    ],
)
def test_a_star_comes_whenever_the_clock_shows_it_and_only_then(
    expression: str, timezone: str, changes: list[str]
) -> None:
    """Also where midnight is left out, or comes twice, or the clocks change by half an hour; on the way back, too."""
    zone = ZoneInfo(timezone)
    for change in changes:
        begin = ns(f"{change}T00:00:00+00:00") // SECOND_NS - 2 * 86_400
        minutes = range(begin, begin + 4 * 86_400, 60)
        shown = [at * SECOND_NS for at in minutes if STAR_SHOWS[expression](datetime.fromtimestamp(at, zone))]
        cron, found = Cron(expression, timezone), [begin * SECOND_NS - 1]
        while (tick := cron.after(found[-1])) < minutes.stop * SECOND_NS:
            found.append(tick)
        assert found[1:] == shown
        for number in range(1, len(shown)):
            assert cron.newest(shown[0], shown[-1], number) == (shown[-number], len(shown) - number)


def test_several_times_that_are_left_out_come_once() -> None:
    """They would all come at three; one instant is one tick."""
    assert ticks("0,30 2 * * *", BERLIN, "2026-03-29T00:00:00+00:00", 2) == [
        "2026-03-29 03:00:00+02:00",
        "2026-03-30 02:00:00+02:00",
    ]


def test_a_change_of_half_an_hour() -> None:
    """Lord Howe Island goes from 2:00 to 2:30."""
    assert ticks("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00+00:00", 1) == ["2026-10-04 02:30:00+11:00"]


@pytest.mark.parametrize(
    ("expression", "timezone", "reason"),
    [
        ("61 * * * *", None, "bad minute"),
        ("* 24 * * *", None, "bad hour"),
        ("* * 0 * *", None, "bad day-of-month"),
        ("* * * 13 *", None, "bad month"),
        ("* * * * 8", None, "bad day-of-week"),
        ("* * * *", None, "wrong number of fields"),
        ("* * * * * * *", None, "wrong number of fields"),
        ("", None, "wrong number of fields"),
        ("@reboot", None, "wrong number of fields"),
        ("*/0 * * * *", None, "bad minute"),
        ("5-1 * * * *", None, "bad minute"),
        ("0 0 31 2 *", None, "bad day-of-month"),
        ("* * */20 * 1L", None, "never comes"),
        ("0 3 * * *", "Europe/Berlim", "did you mean Europe/Berlin?"),
        ("0 3 * * *", "../../etc/passwd", "is no time zone"),
        ("0 3 * * *", "", "is no time zone"),
        ("0 3 * * *", "a\0b", "is no time zone"),
    ],
)
def test_what_cannot_be_used_is_refused(expression: str, timezone: str | None, reason: str) -> None:
    """With what is wrong, and what would be right."""
    with pytest.raises(ValueError, match=r"write|did you mean") as refused:
        Cron(expression, timezone)
    assert reason in str(refused.value)


@given(st.text(max_size=40) | st.text("0123456789*/,-LW# \t", max_size=30))
@profile(deadline=None)
@example("5L/2 * * * *")
@example("* * L/2 * *")
@example("* * * * ²L")
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    """Never another exception."""
    with contextlib.suppress(ValueError):
        cron = Cron(text)
        first = cron.after(0)
        assert cron.after(first) > first > 0


@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 */5 * * *", "*/20 5 1 * * *"]), st.integers(0, 2**31), st.data()
)
@profile(deadline=None)
def test_ticks_do_not_depend_on_where_one_asks(expression: str, start_s: int, data: st.DataObject) -> None:
    """Asked one by one, or from somewhere in between, they are the same."""
    cron, fresh = Cron(expression, BERLIN), Cron(expression, BERLIN)
    first = cron.after(start_s * SECOND_NS)
    second = cron.after(first)
    between = data.draw(st.integers(first, second - 1))
    assert fresh.after(between) == second


def test_the_latest_tick_is_found_and_counted() -> None:
    """As many as have been missed; the count has an end, and what it ends with is the last all the same."""
    cron = Cron("* * * * *")
    minute = 60 * SECOND_NS
    assert cron.latest(minute, minute) == (minute, 0)
    assert cron.latest(minute, 10 * minute + 1) == (10 * minute, 9)
    year = int(timedelta(days=365) / timedelta(minutes=1)) * minute
    assert cron.latest(minute, year + 5) == (year, MOST_COUNTED)


@pytest.mark.parametrize("expression", ["* * * * *", "*/7 * * * *", "* 9 * * mon"])
def test_the_newest_ticks_are_found(expression: str) -> None:
    """As many as are asked for, up to now, also where they are not evenly spread; all of them, where they are fewer."""
    cron = Cron(expression)
    first = cron.after(0)
    ticks = [first]
    while len(ticks) < 3 * MOST_COUNTED:
        ticks.append(cron.after(ticks[-1]))
    for due in (10, MOST_COUNTED, MOST_COUNTED + 1, 2 * MOST_COUNTED, 3 * MOST_COUNTED):
        oldest, number = cron.newest(first, ticks[due - 1] + 1, MOST_COUNTED)
        assert oldest == ticks[max(0, due - MOST_COUNTED)]
        assert number == min(max(0, due - MOST_COUNTED), MOST_COUNTED + 1)


@given(
    st.sampled_from(["*/20 * * * *", "30 2 * * *", "*/15 1-3 * * *", "0 */5 * * *", "30 0-4 * * *", "*/20 5 1 * * *"]),
    st.sampled_from(["2026-03-27T00:00:00+00:00", "2026-10-23T00:00:00+00:00"]),
    st.integers(0, 3 * 86_400),
    st.integers(1, 40),
)
@profile(deadline=None)
def test_the_newest_are_the_same_as_one_by_one(expression: str, around: str, past_s: int, count: int) -> None:
    """Also where the clocks change."""
    cron = Cron(expression, BERLIN)
    ticks = [cron.after((int(datetime.fromisoformat(around).timestamp()) + past_s) * SECOND_NS)]
    for _ in range(count):
        ticks.append(cron.after(ticks[-1]))
    assert cron.newest(ticks[0], cron.after(ticks[-1]) - 1, 1) == (ticks[-1], count)
    assert cron.newest(ticks[0], ticks[-1], count) == (ticks[1], 1)


@pytest.mark.parametrize(
    ("expression", "timezone", "since"),
    [
        ("* * * * 0-4", "Africa/Cairo", "2024-10-31T05:00:00+00:00"),
        ("* * * * 1-6", "America/Santiago", "2026-04-04T12:00:00+00:00"),
        ("30 */2 * * *", "Australia/Lord_Howe", "2026-04-02T12:00:00+00:00"),
    ],
)
def test_none_is_older_than_the_first_where_clocks_go_back_at_midnight(
    expression: str, timezone: str, since: str
) -> None:
    """And none is left out, though an hour comes twice."""
    cron = Cron(expression, timezone)
    ticks = [cron.after(int(datetime.fromisoformat(since).timestamp()) * SECOND_NS)]
    for _ in range(MOST_COUNTED + 20):
        ticks.append(cron.after(ticks[-1]))
    assert cron.newest(ticks[0], ticks[-1], MOST_COUNTED) == (ticks[21], 21)
    assert cron.latest(ticks[0], ticks[-1]) == (ticks[-1], MOST_COUNTED)


def test_equal_schedules_are_equal() -> None:
    """A reload tells what has changed by that."""
    assert Cron("0 3 * * *") == Cron("0  3 * * *")
    assert Cron("0 3 * * *") != Cron("0 3 * * *", BERLIN)
    assert len({Cron("0 3 * * *"), Cron("0 3 * * *")}) == 1
    assert str(Cron("0 3 * * *", BERLIN)) == "cron 0 3 * * * Europe/Berlin"
