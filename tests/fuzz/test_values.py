"""Every setting, in every place where it can be given: a value of the right type, or a fault that says what to do."""

import argparse
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd import cli, durations, events, faults, log, render
from jobd.envfile import MAX_BLANKS, MAX_BYTES
from jobd.errors import Fault
from jobd.settings import DECLARED, DEFAULTS, Resolved, Setting

from .grammar import RIGHT, WRONG, bounded, examples, in_quotes, values

PLACES = ["flag", "environment", "file"]
#: What is right for no setting at all, whatever it is about.
NEVER = ["", " ", "\t", "\u2003"]
NO_NUMBER = [
    *("nan", "NaN", "inf", "-inf", "infinity", "1e308", "1e-9", "1e3", "-1", "-0.0", "-0", "+5", "5\n", " 5 ", "5 "),
    *(" 5", "1,5", "0x10", "0b1", "true", "None", "1_000", "\uff15", "\u0665", "\u00b2", "1.2.3", ".", "5.", ".5"),
    *("5#", "5# seconds", "5 # seconds", "\u201c5\u201d", "'5'", '"5"', "${HOME}", "${X:-5}", "$HOME", "`id`", "5;"),
    *("1" * 400, "x" * 100_000, "\u200b5", "\ufeff5", "5\u00a0", "\U0001f600", "\x1b[31m5", "\udcff", "5\x7f"),
]
NO_DURATION = [
    *NO_NUMBER,
    *("10 parsecs", "10parsecs", "10 s", "10S", "1M", "s", "ms", "1m1h", "1s1s", "5s5", "1h 30m", "1w", "99999999d"),
]
#: For each kind of setting, what is wrong for all of that kind.
WRONG_FOR = {
    "targets, separated by spaces": [],
    "duration": NO_DURATION,
    "whole number": [*NO_NUMBER, "0", "00", "0.5", "5s", "9" * 10],
    "debug, info, warning or error": [*NO_NUMBER, "INFO", "Info", "info ", "warn", "verbose", "10", "0", "info\n"],
    "json, console or auto": [*NO_NUMBER, "JSON", "yaml", "json ", "1", "0", "json\n", "auto,json"],
}
ALSO_WRONG = {"JOBD_INTERVAL": ["0", "0s", "0ms", "0.0", "0.0000001", "0.5ms", "0.9ms", "367d"]}


def resolve(given: dict[str, tuple[str, str]]) -> tuple[list[Fault], Resolved]:
    """What the command line makes of these settings, each with its place and its text."""
    flags: dict[str, object] = {"env_file": None, "targets": [], **dict.fromkeys(DECLARED)}
    environment: dict[str, str] = {}
    lines: list[str] = []
    for key, (place, text) in given.items():
        if place == "flag":
            flags["targets" if key == "jobs" else key] = [text] if key == "jobs" else text
        elif place == "environment":
            environment[DECLARED[key].name] = text
        else:
            lines.append(f"{DECLARED[key].name}={in_quotes(text)}\n")
    Path(".env").write_bytes("".join(lines).encode())
    with mock.patch.dict("os.environ", environment), bounded():
        configuration = cli._configuration(argparse.Namespace(**flags), cli._Start("", os.environ))
    return configuration.faults, configuration.resolved


def fits(place: str, text: str) -> bool:
    """Whether the text can stand there at all; the file has rules of its own, which are not what is tested here."""
    if place != "file":
        return not any(0xD800 <= ord(c) < 0xDC80 or 0xDD00 <= ord(c) < 0xE000 for c in text)
    short = len(text.encode("utf-8", "replace")) < MAX_BYTES / 20 and not re.search(rf"\s{{{MAX_BLANKS}}}", text)
    return short and not any(c in "\0\r" or 0xD800 <= ord(c) < 0xE000 for c in text)


def source(setting: Setting, key: str, place: str) -> str:
    """How the place is called."""
    flag = "command line" if key == "jobs" else f"command line ({setting.flag})"
    return {"flag": flag, "environment": "environment", "file": ".env line 1"}[place]


def wrong(key: str, place: str) -> Iterator[str]:
    """Every value that is wrong for the setting and can be given there."""
    setting = DECLARED[key]
    texts = [*NEVER, *WRONG_FOR[setting.kind], *ALSO_WRONG.get(setting.name, [])]
    return (text for text in texts if fits(place, text))


def told(fault: Fault) -> dict[str, str]:
    """The line of the log that tells the fault."""
    lines: list[bytes] = []
    to = mock.Mock(spec=log.Log)
    to.emit = lambda event, **fields: lines.append(render.line({"event": event.name, **fields}))
    faults.tell(to, [fault])
    (line,) = lines
    assert line.endswith(b"\n")
    assert len(line.decode().splitlines()) == 1
    shown: dict[str, str] = json.loads(line)
    return shown


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", DECLARED)
def test_every_wrong_value_is_one_fault_wherever_it_is_given(key: str, place: str) -> None:
    """It names the setting, the value as it was given, where that was, and what would be right."""
    setting = DECLARED[key]
    for text in wrong(key, place):
        faults, resolved = resolve({key: (place, text)})
        assert [(f.setting, f.value, f.source) for f in faults] == [(setting.name, text, source(setting, key, place))]
        assert getattr(resolved.settings, key) == getattr(DEFAULTS, key)
        (fault,) = faults
        assert any(word in fault.reason for word in ("write", "must be", "not one of")), fault.reason
        line = told(fault)
        assert line["event"] == events.CONFIG_INVALID.name
        assert (line["setting"], line["source"], line["reason"]) == (fault.setting, fault.source, fault.reason)


@pytest.mark.parametrize("key", DECLARED)
def test_a_wrong_value_is_not_rescued_from_another_place(key: str) -> None:
    """The first place that gives the setting decides, right or wrong."""
    right = next(text for text in RIGHT if not resolve({key: ("environment", text)})[0])
    for text in wrong(key, "environment"):
        Path(".env").write_text(f"{DECLARED[key].name}={in_quotes(right)}\n")
        flags = argparse.Namespace(env_file=None, targets=[], **dict.fromkeys(DECLARED))
        with mock.patch.dict("os.environ", {DECLARED[key].name: text}):
            configuration = cli._configuration(flags, cli._Start("", os.environ))
        assert [fault.value for fault in configuration.faults] == [text]


_given = st.dictionaries(st.sampled_from(sorted(DECLARED)), st.tuples(st.sampled_from(PLACES), values()), max_size=4)


@examples(600)
@given(_given)
def test_any_values_in_any_places_are_read_or_told(given: dict[str, tuple[str, str]]) -> None:
    """No exception, no value that is not the one that was given, and no fault that is not of one that was given."""
    given = {key: (place, text) for key, (place, text) in given.items() if fits(place, text)}
    faults, resolved = resolve(given)
    faulty = {fault.setting for fault in faults}
    for key, setting in DECLARED.items():
        if key not in given:
            assert getattr(resolved.settings, key) == getattr(DEFAULTS, key)
            assert setting.name not in faulty or key.startswith("demo")
        elif setting.name not in faulty:
            place, text = given[key]
            assert resolved.given[key].text == text
            one = (text,) if (key, place) == ("jobs", "flag") else setting.read(text)  # a target is not split there
            assert getattr(resolved.settings, key) == one
    for fault in faults:
        assert json.loads(json.dumps(told(fault)))["reason"]
        assert fault.reason.isprintable()


@examples(300)
@given(st.one_of(values(), st.sampled_from(WRONG), st.from_regex(durations._PARTS, fullmatch=True)))
def test_a_duration_is_what_it_says_or_none(text: str) -> None:
    """What is read is the sum of its parts, counted here in whole nanoseconds."""
    try:
        seconds = durations.parse(text)
    except ValueError:
        return
    expected, number = 0.0, ""
    for piece in text.replace("ms", "M"):
        if piece in "0123456789.":
            number += piece
        else:
            expected += float(number) * {"d": 86_400, "h": 3600, "m": 60, "s": 1, "M": 0.001}[piece]
            number = ""
    assert seconds == pytest.approx(expected + float(number or 0))
