"""Durations: what people write is read, and everything else is refused, whatever `float` thinks of it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10", 10),
        ("0", 0),
        ("007", 7),
        ("0.5", 0.5),
        ("250ms", 0.25),
        ("10s", 10),
        ("5m", 300),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1d2h3m4s5ms", 93_784.005),
        ("0s", 0),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    """A number alone is in seconds; units may follow one another from the largest to the smallest."""
    assert durations.parse(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "infinity",
        "1e308",
        "1e3",
        "-1",
        "-0",
        "+5",
        " 5 ",
        "5 ",
        " 5",
        "5\n",
        "5\t",
        "1_000",
        "1,5",
        "0x10",
        "true",
        "None",
        "10 parsecs",
        "10parsecs",
        "10 s",
        "1m1h",
        "1s1s",
        "s",
        "ms",
        ".5",
        "5.",
        "1.2.3",
        "10S",
        "５",  # noqa: RUF001 - full-width digits are the point
        "١٠",  # noqa: RUF001 - and so are Arabic ones
        "²",
        "“5”",
        "'5'",
        '"10s"',
        "10s;",
        "5# seconds",
        "${GRACE}",
        "\x00",
        "5\x00",
        "\ud800",
        "1" * 65,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """What `float` would take but nobody means is refused too, and the message says how to write it."""
    with pytest.raises(ValueError, match=r"write it like 10, 0\.5, 250ms"):
        durations.parse(text)


@given(st.integers(0, 10**13))
def test_what_is_shown_reads_back(milliseconds: int) -> None:
    """To the millisecond, a duration that is shown and read again is the same duration."""
    seconds = milliseconds / 1000
    assert durations.parse(durations.show(seconds)) == pytest.approx(seconds, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (59, "59s"),
        (90, "1m30s"),
        (5400, "1h30m"),
        (86_400, "1d"),
        (1.001, "1s1ms"),
        (0.0015, "0.0015s"),
        (1234.56789, "1234.56789s"),
    ],
)
def test_a_duration_is_shown_in_its_largest_units(seconds: float, text: str) -> None:
    """Units that are zero are left out."""
    assert durations.show(seconds) == text


@given(st.floats(0.001, 366 * 86_400))
def test_what_is_shown_reads_back_to_the_nanosecond(seconds: float) -> None:
    """A duration that is no whole number of milliseconds is shown as one that can be read, whatever its size."""
    assert durations.parse(durations.show(seconds)) == pytest.approx(seconds, rel=1e-9, abs=1e-9)


@given(st.text(max_size=80))
def test_any_text_is_a_finite_duration_or_refused(text: str) -> None:
    """There is no third thing: no other exception, no negative, no infinite duration."""
    try:
        seconds = durations.parse(text)
    except ValueError:
        return
    assert seconds >= 0
    assert math.isfinite(seconds)


@given(st.from_regex(durations._PARTS, fullmatch=True))
def test_whatever_has_the_form_of_a_duration_is_one(text: str) -> None:
    """Up to the longest text that is looked at, every text of the right form is read."""
    if 0 < len(text) <= 64:
        assert durations.parse(text) >= 0
