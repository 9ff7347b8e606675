"""Log lines: whatever is logged, it is one line of JSON, of a bounded length, and nobody's exception."""

import contextlib
import enum
import json
import math
import subprocess
import sys
import time
import traceback
import tracemalloc
import uuid
import zoneinfo
from collections import UserDict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, NamedTuple, NoReturn

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from jobd import ending, render

from .helpers import LIMIT_S

#: A little more than a line may hold, because what has been left out is told.
MOST_BYTES = render.LINE_BYTES * 1.1


class Silent:
    """An object that cannot be shown."""

    def __repr__(self) -> NoReturn:
        raise RuntimeError("no repr")

    def __str__(self) -> NoReturn:
        raise RuntimeError("no str")


class Leaving:
    """An object that tries to end the process when it is shown."""

    def __repr__(self) -> NoReturn:
        raise SystemExit(7)

    __str__ = __repr__


class Masked:
    """An object that does not even tell its class."""

    @property  # type: ignore[misc]
    def __class__(self) -> NoReturn:  # type: ignore[override]
        raise RuntimeError("no class")


class Closed(dict[str, Any]):
    """A dict that cannot be looked into."""

    def items(self) -> NoReturn:
        raise RuntimeError("no items")

    __iter__ = keys = values = items


class Real(float):
    """A float of another library's making, as numpy's is."""


class Whole(int):
    """An int of another library's making."""


class Word(str):
    """A str of another library's making."""

    __slots__ = ()


class Mute(str):
    """A str that cannot be encoded."""

    __slots__ = ()

    def encode(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError("no bytes")


def deep(levels: int) -> list[Any]:
    """A list in a list in a list."""
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


def cycle(width: int) -> list[Any]:
    """A list that holds itself that many times."""
    endless: list[Any] = []
    endless.extend([endless] * width)
    return endless


def graph(size: int) -> dict[str, Any]:
    """Nodes that all know one another."""
    nodes: list[dict[str, Any]] = [{"name": str(n)} for n in range(size)]
    for node in nodes:
        node["neighbours"] = nodes
    return nodes[0]


def check(line: bytes) -> Any:
    """What the line says, if it is one: one line, JSON, not too long."""
    assert line.endswith(b"\n")
    assert len(line) <= MOST_BYTES
    text = line.decode()
    assert text.splitlines() == [text[:-1]]
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is no JSON")


NASTY: dict[str, Callable[[], Any]] = {
    "nan": lambda: math.nan,
    "infinity": lambda: -math.inf,
    "bytes": lambda: b"\xff\x00\n",
    "bytearray": lambda: bytearray(b"x"),
    "memoryview": lambda: memoryview(b"abc")[::2],
    "lone surrogate": lambda: "a\ud800b",
    "surrogateescape": lambda: b"\xff".decode(errors="surrogateescape"),
    "line ends": lambda: "a\nb\r\nc\x85d\u2028e\u2029f\x0bg\x0ch\x1ci\x1dj\x1ek",
    "terminal": lambda: "\x1b[2J\x7f\x9b",
    "forged": lambda: '"}\n{"event": "daemon.stopped"}',
    "huge int": lambda: 10**30,
    "unspeakable int": lambda: 10**5000,
    "negative int": lambda: -(2**63) - 1,
    "tuple key": lambda: {(1, 2): 3},
    "other keys": lambda: {None: 1, 2: 3, 1.5: 4, b"x": 5, Silent(): 6, "\ud800": 7},
    "set": lambda: {1, 2, frozenset({3})},
    "silent": Silent,
    "leaving": Leaving,
    "masked": Masked,
    "class": lambda: Silent,
    "function": lambda: check,
    "exception": lambda: ValueError(Silent()),
    "closed dict": lambda: Closed(a=1),
    "user dict": lambda: UserDict(a=1),
    "float subclass": lambda: Real(1.5),
    "int subclass": lambda: Whole(5),
    "str subclass": lambda: Word("text"),
    "mute": lambda: Mute("text"),
    "mute key": lambda: {Mute("text"): 1},
    "datetime": lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "date": lambda: date(2026, 1, 2),
    "deep": lambda: deep(5_000),
    "deeper than Python": lambda: deep(100_000),
    "cycle": lambda: cycle(1),
    "10 MB": lambda: "x" * 10_000_000,
    "10 MB of what must be escaped": lambda: "\x85\u2028\x7f" * 3_000_000,
    "wide": lambda: list(range(1_000_000)),
    "10 MB of bytes": lambda: bytes(10_000_000),
    "long keys": lambda: {str(n) * 3_000: n for n in range(500)},
}

#: Those that can be mixed with anything: not too large, and such that hypothesis can look at them.
MIXED = [
    name for name in NASTY if name not in {"masked", "wide", "deeper than Python", "long keys"} and "MB" not in name
]


@pytest.mark.parametrize("name", NASTY)
def test_whatever_is_logged_is_one_line(name: str) -> None:
    """A field that JSON does not know, or that is too long, costs neither its line nor the fields beside it."""
    said = check(render.line({"event": "x", "nasty": NASTY[name](), "after": 1}))
    assert (said["event"], said["after"]) == ("x", 1)
    assert "nasty" in said


@given(name=st.text(max_size=render.NAME_CHARS + 20), outcome=st.text(max_size=20), number=st.integers(0, 2**63))
def test_a_brief_line_is_the_same_line(name: str, outcome: str, number: int) -> None:
    """Whatever the job's name and the texts are made of, the short way to a line leads to the same one."""
    fields = {"event": "run.finished", "job": name, "tick": number, "outcome": outcome, "duration_s": number / 7}
    assert render.brief(dict(fields)) == render.line(dict(fields))


@pytest.mark.parametrize("name", NASTY)
def test_whatever_is_logged_is_one_line_beside_something_worse(name: str) -> None:
    """Nor does it where another field has the whole line go the slow way."""
    said = check(render.line({"event": "x", "nasty": NASTY[name](), "slow": {(): 1}, "nested": [NASTY[name]()]}))
    assert said["event"] == "x"
    assert said["slow"] == {"()": 1}
    assert "nasty" in said


@pytest.mark.parametrize(
    "value",
    [cycle(4), cycle(20), graph(10), {"a": graph(5), "b": cycle(3)}],
    ids=["cycle of 4", "cycle of 20", "graph", "both"],
)
def test_what_holds_itself_many_times_takes_no_time(value: Any) -> None:
    """Structures whose walk would never end are cut, and in a moment."""
    began = time.process_time()
    check(render.line({"event": "x", "value": value}))
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "text",
    ["\x85" * 32_000, "\x7f" * 65_000, "\u2028" * 21_000, "é" * 32_000, "😀" * 16_000, '"' * 32_000, "\x00" * 10_000],
    ids=["next line", "delete", "line separator", "two bytes", "four bytes", "quotes", "nul"],
)
def test_a_text_that_grows_when_it_is_written_stays_in_bounds(text: str) -> None:
    """What counts is the length of the line, not that of the text."""
    check(render.line({"event": "x", "text": text, "again": text}))


def test_many_fields_with_long_names_stay_in_bounds() -> None:
    """Names count as well."""
    check(render.line({f"{n}" + "😀" * 1000: n for n in range(1000)}))


def test_what_is_clipped_says_how_long_it_was() -> None:
    """The start and the end are kept, and the number of characters."""
    said = check(render.line({"event": "x", "text": "a" * 100_000 + "z" * 200_000}))
    assert said["text"].startswith("aaa")
    assert said["text"].endswith("zzz")
    assert "300000 characters" in said["text"]


@pytest.mark.parametrize("huge", ["x" * 10**7, "\udc80" * 10**7, b"\xff" * 10**7], ids=["plain", "lone", "bytes"])
def test_only_what_is_shown_of_a_huge_value_is_encoded(huge: str | bytes) -> None:
    """All of it would hold the GIL, and with it both planes."""
    tracemalloc.start()
    try:
        said = check(render.line({"event": "x", "value": huge}))
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "10000000 characters" in said["value"]
    assert taken < 2_000_000


def test_the_first_fields_survive() -> None:
    """Timestamp, level and event come first, so no field of a job's takes their room."""
    fields = {"timestamp": "t", "level": "info", "event": "e", "job": "j", "run_id": "r"}
    said = check(render.line(fields | {str(n): "x" * 50_000 for n in range(100)}))
    assert said.items() >= fields.items()


def test_what_json_knows_is_written_as_it_is() -> None:
    """No detour for plain values: they come back as they went in."""
    fields = {"a": None, "b": True, "c": 1, "d": 0.1, "e": "é\n", "f": [1, {"g": []}], "h": {"i": "j"}, "k": 2**63}
    assert check(render.line(fields)) == fields


def test_floats_that_json_lacks_are_null() -> None:
    """Neither NaN nor Infinity is written, nor a number that is none."""
    assert check(render.line({"a": math.nan, "b": math.inf, "c": {(): -math.inf}})) == {
        "a": None,
        "b": None,
        "c": {"()": None},
    }


CHANGING = """
import datetime, sys, threading
from pathlib import Path
from jobd import render

class Clears:
    def __init__(self, within): self.within = within
    def __repr__(self): self.within.clear(); return "cleared"

class Zone(datetime.tzinfo):
    def utcoffset(self, of): raise SystemExit

within = []
within.extend(Clears(within) for _ in range(50))
print(render.line({"within": within}))
print(render.line({"at": datetime.datetime(2020, 1, 1, tzinfo=Zone())}))
shared, done = {}, threading.Event()

def changes():
    number = 0
    while not done.is_set():
        number += 1
        shared[number % 50] = shared[str(number % 50)] = [Path(str(number))] * 20
        shared.pop(str(number * 3 % 50), None)

sys.setswitchinterval(1e-5)
for _ in range(3): threading.Thread(target=changes, daemon=True).start()
for _ in range(200): render.line({"shared": shared})
for _ in range(2000): render.line({"shared": [shared.get("1"), {"in": shared.get("2")}]})
done.set()
print("lives")
"""


def test_what_changes_while_it_is_written_ends_nobody() -> None:
    """Not even where a value empties the list that it is in, or a thread does: orjson by itself crashes there."""
    done = subprocess.run(
        [sys.executable, "-c", CHANGING], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("lives\n")


class Proxy:
    """Says that it is a text."""

    __class__ = property(lambda self: str)

    def __repr__(self) -> str:
        return "a proxy"


class Multi(dict[str, list[int]]):
    """Has an opinion of its own on what it holds."""

    def items(self) -> NoReturn:
        raise AssertionError("asked")

    __iter__ = __len__ = items


class Point(NamedTuple):
    """Has names for what it holds."""

    x: int
    y: int


class Text(str):
    """A text of another type."""

    __slots__ = ()


def test_what_a_value_is_its_type_says() -> None:
    """Not what it says of itself; and no method of a subclass is called to write what it holds."""
    said = check(
        render.line(
            {
                "proxy": {"one": Proxy(), "other": 1},
                "multi": [Multi(a=[1, 2])],
                "point": Point(1, 2),
                "text": Text("x" * 30_000),
                "late": datetime(2020, 1, 1, tzinfo=timezone(timedelta(seconds=30))),
            }
        )
    )
    assert said == {
        "proxy": {"one": "a proxy", "other": 1},
        "multi": [{"a": [1, 2]}],
        "point": "Point(x=1, y=2)",
        "text": "x" * 30_000,
        "late": "2020-01-01T00:00:00+00:00:30",
    }


class Color(enum.Enum):
    """An enumeration."""

    RED = 1


def test_times_and_their_like_are_written_as_json_has_them() -> None:
    """In RFC 3339 where they are instants; members of an enumeration by their value."""
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    said = check(
        render.line(
            {
                "utc": datetime(2020, 1, 1, 1, 2, 3, 4, tzinfo=UTC),
                "berlin": [datetime(2020, 1, 1, tzinfo=berlin)],
                "naive": datetime(2020, 1, 1, tzinfo=UTC).replace(tzinfo=None),
                "date": date(2020, 1, 1),
                "red": Color.RED,
                "id": {(): uuid.UUID(int=0)},
            }
        )
    )
    assert said == {
        "utc": "2020-01-01T01:02:03.000004Z",
        "berlin": ["2020-01-01T00:00:00+01:00"],
        "naive": "2020-01-01T00:00:00",
        "date": "2020-01-01",
        "red": 1,
        "id": {"()": "00000000-0000-0000-0000-000000000000"},
    }


_hashable = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zp"])),
    st.binary(),
    st.tuples(st.integers(), st.text()),
)
_leaves = st.one_of(
    _hashable,
    st.integers(-(10**40), 10**40),
    st.datetimes(),
    st.sampled_from(MIXED).map(lambda name: NASTY[name]()),
)
_anything = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(_hashable, inner, max_size=5),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(), inner, max_size=3).map(Closed),
        st.frozensets(_hashable),
    ),
    max_leaves=15,
)


@profile(max_examples=200)
@given(st.dictionaries(st.one_of(st.text(), st.text(st.characters(categories=["Cs", "Cc", "Zl"]))), _anything))
def test_anything_at_all_is_one_line(fields: dict[str, Any]) -> None:
    """For every structure of everything there is exactly one line of JSON."""
    said = check(render.line(fields))
    assert isinstance(said, dict)


_words = st.text(st.characters(codec="utf-8"), max_size=20)
_numbers = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False))
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, _words),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(_words, inner, max_size=5)),
    max_leaves=8,
)


@given(st.dictionaries(_words, _json, max_size=5))
def test_what_is_json_already_comes_back_unchanged(fields: dict[str, Any]) -> None:
    """Nothing is lost or changed where nothing has to be."""
    assert check(render.line(fields)) == fields


class MetaclassOfSecrets(type):
    """A class whose name cannot be asked for."""

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class Chained(Exception):
    """An exception whose cause is itself."""

    @property
    def __cause__(self) -> "Chained":  # type: ignore[override]
        return self


class Wordy(str):
    """A text whose clipping would fail."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> NoReturn:
        raise RuntimeError("no part")


def _exceptions() -> dict[str, Callable[[], BaseException]]:
    class Broken(Exception):
        __str__ = Silent.__str__

    class Quitting(Exception):
        __str__ = Leaving.__repr__

    class Homeless(Exception):
        __module__ = Silent()  # type: ignore[assignment]

    class Hidden(Exception, metaclass=MetaclassOfSecrets):
        pass

    class Odd(Exception):
        def __str__(self) -> str:
            return Wordy("x" * 100_000)

    looped = ValueError("loop")
    looped.__context__ = ValueError("other")
    looped.__context__.__context__ = looped
    return {
        "str raises": Broken,
        "str exits": Quitting,
        "module raises": Homeless,
        "class raises": Hidden,
        "text is odd": Odd,
        "looped": lambda: looped,
        "own cause": Chained,
        "surrogates": lambda: ValueError("\ud800"),
        "bytes": lambda: ValueError(b"\xff"),
        "300 kB": lambda: ValueError("x" * 300_000),
        "group": lambda: ExceptionGroup("g", [ValueError(n) for n in range(1000)]),
        "nested groups": lambda: _nested(200),
        "no arguments": ValueError,
        "syntax": lambda: SyntaxError("bad", ("file", 1, 2, "text\ud800", 3, 4)),
        "odd syntax": lambda: SyntaxError("bad", (None, None, None, None)),
    }


def _nested(levels: int) -> BaseException:
    error: Exception = ValueError("inmost")
    for _ in range(levels):
        error = ExceptionGroup("g", [error])
    return error


@pytest.mark.parametrize("name", list(_exceptions()))
def test_every_exception_has_its_fields(name: str) -> None:
    """Whatever a job raises, its type, its message and a traceback, or placeholders for them, make one line."""
    error = _exceptions()[name]()
    fields = render.failure(error)
    said = check(render.line({"event": "x", "run_id": "r", **fields}))
    assert said["run_id"] == "r"
    assert set(said) == {"event", "run_id", "error", "traceback"}
    assert set(fields["error"]) == {"type", "message"}


def test_an_exception_is_named_by_its_module_and_class() -> None:
    """Builtins go by their own name, others with their module; the message is that of `str`."""
    assert render.failure(ValueError("no"))["error"] == {"type": "ValueError", "message": "no"}
    assert render.failure(Chained("no"))["error"]["type"] == f"{__name__}.Chained"


def test_a_long_message_is_clipped_with_its_length() -> None:
    """300 kB of message are no use to anybody; how much it was is."""
    message = render.failure(ValueError("x" * 300_000))["error"]["message"]
    assert "300000 characters" in message
    assert len(message) < render.TEXT_CHARS + 100


def test_a_message_that_cannot_be_shown_has_a_placeholder() -> None:
    """It names the class and what went wrong."""
    assert render.text(Silent()) == "<Silent whose __str__ raised RuntimeError>"
    assert render.representation(Leaving()) == "<Leaving whose __repr__ raised SystemExit>"


def test_a_traceback_names_the_members_of_a_group() -> None:
    """Both exceptions of a group can be found in its one field."""
    trace = render.failure(ExceptionGroup("two", [ValueError("first"), KeyError("second")]))["traceback"]
    assert "first" in trace
    assert "second" in trace


@given(st.text(), st.integers(2, 100))
def test_clip_keeps_short_texts_and_the_ends_of_long_ones(text: str, chars: int) -> None:
    """A text of the allowed length is itself; a longer one begins and ends as it did and says its length."""
    clipped = render.clip(text, chars)
    if len(text) <= chars:
        assert clipped == text
    else:
        half = chars // 2
        assert clipped == f"{text[:half]} [...{len(text)} characters in all...] {text[-half:]}"


def _raised_again(error: BaseException, times: int = 5_000) -> None:
    for _ in range(times):
        with contextlib.suppress(type(error)):
            raise error


def _length(error: BaseException) -> int:
    return sum(1 for _ in traceback.walk_tb(error.__traceback__))


def _call_broken(error: ConnectionError | None) -> NoReturn:
    if error is None:
        raise ConnectionError("broken")  # at first
    raise error  # again


def test_an_exception_that_is_raised_again_and_again_is_shown_without_its_middle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its traceback grows with each time: where it came from and where it was raised last is what is kept of it."""
    monkeypatch.setattr(render, "LONG_ENTRIES", 200)
    error, shown = None, ""
    for _ in range(render.LONG_ENTRIES):
        try:
            _call_broken(error)
        except ConnectionError as raised:
            error = raised
            shown = (ending.failed(error).fields or {})["traceback"]
            assert _length(error) <= render.LONG_ENTRIES
    assert shown.index("# again") < shown.index("# at first")


def test_a_recursion_without_end_is_shown_from_where_it_began() -> None:
    """Python folds what is the same; so nothing of it is left out, and the count is right."""

    def recurse() -> None:
        recurse()

    def begin() -> None:
        recurse()

    try:
        begin()
    except RecursionError as error:
        shown = (ending.failed(error).fields or {})["traceback"]
    assert "in begin" in shown
    assert f"repeated {render.FIRST_ENTRIES} more" not in shown


@pytest.mark.parametrize("role", ["cause", "context", "member"])
def test_exceptions_that_led_to_one_are_shortened_with_it(role: str) -> None:
    """However they hang together, in a circle, too."""
    shared = ConnectionError("broken")
    _raised_again(shared)
    error = ExceptionGroup("all", [shared] if role == "member" else [ValueError()])
    error.__cause__ = shared if role == "cause" else None
    error.__context__ = shared if role == "context" else None
    shared.__context__ = error
    render.shorten(error)
    assert _length(shared) == render.FIRST_ENTRIES + render.LAST_ENTRIES


def test_a_traceback_that_another_thread_confuses_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that show one at once may get a SystemError from Python's own parser."""
    answers: list[list[str] | None] = [None, ["here"]]

    def confused(*_: object, **__: object) -> list[str]:
        answer = answers.pop(0)
        if answer is None:
            raise SystemError("AST constructor recursion depth mismatch")
        return answer

    monkeypatch.setattr("traceback.format_exception", confused)
    assert render.failure(ValueError())["traceback"] == "here"


def test_the_traceback_that_a_job_logs_is_left_whole() -> None:
    """It may be about to raise the exception on; only what is shown of it is limited."""
    error = ConnectionError("broken")
    _raised_again(error)
    shown = render.failure(error)["traceback"]
    assert f"repeated {render.FIRST_ENTRIES + render.LAST_ENTRIES - 3} more times" in shown
    assert _length(error) == 5_000
