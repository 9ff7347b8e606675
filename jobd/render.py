"""Log lines as JSON that cannot fail. Imports nothing of ours.

The fast path is orjson alone, for texts and numbers; anything else is copied first, by `_plain`, which knows a text for
everything. What orjson refuses (lone surrogates, huge integers), what makes a line too long, and what is too much to be
copied goes the slow way, field by field, and is cut down. Nothing a job logs can raise here, lose its line, or make it
two lines.

Tricky: orjson does not hold on to what it walks through. Where it calls Python on its way, which it does for all that
it does not know and for time zones, another thread may change the list that it is in the middle of, and the process
dies. So it is given texts and numbers, and lists and dicts that nobody else has.
"""

import re
import traceback
from collections.abc import Iterable
from datetime import date, datetime, time
from enum import Enum
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any
from uuid import UUID

import orjson

#: Kept here, because a job may put something else into the module.
_orjson = orjson.dumps

#: A line longer than this is clipped, text by text. Twelve per cent more, for what clipping cannot foresee, are still
#: within the 48 KiB at which journald begins another entry (LineMax= in `journald.conf(5)`).
LINE_BYTES = 43_000
#: What is left of a text or a collection once its line has to be clipped.
TEXT_CHARS = 8_192
ITEMS = 200
DEPTH = 12
#: Nothing is copied that is nested deeper, even where there is room for it.
WHOLE_DEPTH = 64
#: How many values of one field are looked at: what refers to itself in several places has no end within any depth.
VALUES = 10_000

#: Longer than the traceback of a recursion without end, as long as its limit is Python's own; that one Python folds.
LONG_ENTRIES = 1_100
#: Of a longer one, this much of its start and of its end is kept: about as much as a line has room for.
FIRST_ENTRIES = 50
LAST_ENTRIES = 100
#: How many exceptions that led to one another are looked at.
CHAINED = 100

#: What orjson takes: this much, and for each character of a text 8 bytes, in case all have to be escaped, in a buffer
#: that it doubles when it is full, and copies.
ROOM_BYTES = 4_096
ROOM_FACTOR = 24
_ROOM = bytes(ROOM_BYTES + 1)
_NEARLY_ALL = slice(ROOM_BYTES)
#: The longest name of a job with which a line is still a brief one.
NAME_CHARS = 100
_CONTAINERS = frozenset({dict, list})
_SCALARS = frozenset({str, int, float, bool, type(None)})
_TIMES = frozenset({datetime, date, time})

_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_UTC_Z
#: Characters that JSON leaves as they are and some readers take for the end of a line or for a terminal's command.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UTC = re.compile(r"\+00:00$")
_DEL = 0x7F  # a number, because Python looks for that five times as fast as for b"\x7f"
_UNSAFE = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")


def line(fields: dict[str, Any]) -> bytes:
    """The fields as one line of JSON, newline included."""
    try:
        if not _SCALARS.issuperset(map(type, fields.values())):
            whole = _Budget(whole=True)
            whole.room_for(len(fields))
            fields = dict(zip(fields, _each(list(fields.values()), whole, 0), strict=True))
        chars = _chars(fields)
        if chars <= LINE_BYTES:  # else orjson would keep the GIL for nothing
            bytes(ROOM_BYTES + ROOM_FACTOR * chars)  # as in `_dumps`, without the call
            data = _orjson(fields, option=_OPTIONS)
            if len(data) <= LINE_BYTES and (
                (data.isascii() and _DEL not in data) or len(data := _safe(data)) <= LINE_BYTES
            ):
                return data  # escapes make it longer
    except Exception:
        pass  # there is another way for whatever it was
    return _safe(_dumps(tame(fields), _OPTIONS))


def brief(fields: dict[str, Any]) -> bytes:
    """The same for a job's name, and numbers, and texts of our own that are short: nothing has to be counted."""
    try:
        if len(fields["job"]) <= NAME_CHARS:
            _ROOM[_NEARLY_ALL]  # made of what is there, because to make it of zeros takes longer
            data = _orjson(fields, option=_OPTIONS)
            if data.isascii() and _DEL not in data:
                return data
    except Exception:
        pass
    return line(fields)


def _dumps(value: Any, option: int = 0) -> bytes:
    """The value as JSON. Raises `MemoryError` where orjson would crash: it does not look whether it got its memory."""
    # Nothing gives the GIL away between letting go of these bytes and orjson's taking them.
    bytes(ROOM_BYTES + ROOM_FACTOR * _chars(value))
    return _orjson(value, option=option)


def _chars(value: Any, depth: int = 0) -> int:
    """About how many characters the value is long; what is nested deeper than any field of ours is not asked."""
    kind = type(value)
    if kind is str:
        return len(value)
    chars = 0
    if kind in _CONTAINERS and depth < 4:
        for item in value.values() if kind is dict else value:
            kind = type(item)
            if kind is str:
                chars += len(item)
            elif kind in _CONTAINERS:
                chars += _chars(item, depth + 1)
    return chars


def tame(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, each text and collection cut down to what one line may hold."""
    room = LINE_BYTES
    kept: dict[str, Any] = {}
    for key, value in list(fields.items())[:ITEMS]:
        key, item = clip(_key(key), 200), _cut(value)
        size = len(_safe(_dumps(item)))
        if size > room:
            item = f"<{size} bytes, left out>"
        spent = len(_safe(_dumps({key: item})))
        if spent > room:
            break
        kept[key] = item
        room -= spent
    return kept


def _safe(data: bytes) -> bytes:
    return data if data.isascii() and _DEL not in data else _UNSAFE.sub(_escaped, data)


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(match[0].decode())


def text(value: object, chars: int = 2 * TEXT_CHARS) -> str:
    """A text for any object: its `str`, clipped to so many characters, or a placeholder where that raises."""
    try:
        return _encodable(str(value), chars)
    except BaseException as error:
        return f"<{_name(type(value))} whose __str__ raised {_name(type(error))}>"


def printable(value: str) -> str:
    """The text without characters that would command a terminal; ends of lines and tabs stay."""
    return _COMMANDS.sub(lambda match: f"\\x{ord(match[0]):02x}", value)


def clip(value: str, chars: int = TEXT_CHARS, length: int = 0) -> str:
    """The text, or its start and its end and its length if it is longer than `chars`.

    Where the middle has been left out already, `length` says how long it was.
    """
    length = max(length, len(value))
    if length <= chars:
        return value
    half = chars // 2
    return f"{value[:half]} [...{length} characters in all...] {value[-half:]}"


def failure(error: BaseException, skip: int = 0) -> dict[str, Any]:
    """The fields `error` and `traceback` for an exception, without ever raising one; `skip` frames are left out."""
    cls = type(error)
    try:
        trace = _trace(error)
        for _ in range(skip):
            trace = trace and (trace.tb_next or trace)
        limit = -(FIRST_ENTRIES + LAST_ENTRIES) if len(_entries(trace)) > LONG_ENTRIES else None
        shown = _formatted(cls, error, trace, limit)
    except BaseException as second:
        shown = f"<no traceback: formatting it raised {_name(type(second))}>"
    return {
        "error": {"type": _full_name(cls), "message": text(error, TEXT_CHARS)},
        "traceback": _encodable(shown),
    }


def _formatted(cls: type[BaseException], error: BaseException, trace: TracebackType | None, limit: int | None) -> str:
    """The traceback as Python shows it.

    In some versions of it, the parser that finds the place within a line is confused where another thread uses it at
    the same moment (python/cpython#106905), which has gone the next time.
    """
    shown = partial(traceback.format_exception, cls, error, trace, limit=limit)
    try:
        return "".join(shown())
    except SystemError:
        return "".join(shown())


def shorten(error: BaseException) -> None:
    """Take the middle out of long tracebacks, those of exceptions that led to this one, too. It never raises.

    One that is raised again and again, by a client that keeps why it is broken, has more with each time, and with that
    holds everything that these calls have used.
    """
    try:
        for each in _chained(error):
            _shorten(_trace(each))
    except Exception:  # no memory, say
        pass


def _shorten(trace: TracebackType | None) -> None:
    entries = _entries(trace)
    if len(entries) > LONG_ENTRIES:
        entries[FIRST_ENTRIES - 1].tb_next = entries[-LAST_ENTRIES]


def _entries(trace: TracebackType | None) -> list[TracebackType]:
    entries = []
    while trace is not None:
        entries.append(trace)
        trace = trace.tb_next
    return entries


def _chained(error: BaseException) -> Iterable[BaseException]:
    """The exception and those that led to it or are in its group, each once."""
    found: dict[int, BaseException] = {}
    left: list[BaseException | None] = [error]
    while left and len(found) < CHAINED:
        each = left.pop()
        if each is not None and id(each) not in found:
            found[id(each)] = each
            left += [_part(each, "__cause__"), _part(each, "__context__")]
            if isinstance(each, BaseExceptionGroup):
                left += BaseExceptionGroup.exceptions.__get__(each)
    return found.values()


def _trace(error: BaseException) -> TracebackType | None:
    """The exception's traceback; a `__getattribute__` of its own is not asked."""
    trace: TracebackType | None = _part(error, "__traceback__")
    return trace


def _part(error: BaseException, name: str) -> Any:
    return BaseException.__dict__[name].__get__(error)


def _name(cls: type) -> str:
    try:
        return _encodable(cls.__qualname__)
    except BaseException:  # a metaclass may refuse even that
        return "nameless"


def _full_name(cls: type) -> str:
    try:
        module = cls.__module__
    except BaseException:
        module = "?"
    return _name(cls) if module == "builtins" else f"{text(module)}.{_name(cls)}"


def _encodable(value: str, chars: int = 2 * TEXT_CHARS) -> str:
    """The text, clipped, with what UTF-8 cannot say (lone surrogates) written out; a subclass is not asked to do it.

    The middle of a long one goes first: to encode all of it would keep the GIL.
    """
    length = str.__len__(value)
    if length > chars:
        half = chars // 2
        value = str.__getitem__(value, slice(half)) + str.__getitem__(value, slice(-half, None))
    return clip(str.encode(value, "utf-8", "backslashreplace").decode(), chars, length)


def representation(value: object) -> str:
    """The `repr` of any object, or a placeholder where that raises."""
    try:
        return _encodable(repr(value))
    except BaseException as error:
        return f"<{_name(type(value))} whose __repr__ raised {_name(type(error))}>"


class _TooMuch(Exception):
    """There are more values than are copied."""


class _Budget:
    """How much may be copied: a `whole` value, or as much of it as a field shows that is cut down."""

    __slots__ = ("depth", "left", "whole")

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.left = VALUES
        self.depth = WHOLE_DEPTH if whole else DEPTH

    def room_for(self, count: int) -> int:
        """Of so many values, how many are copied. Raises `_TooMuch`."""
        if self.whole and count > self.left:
            raise _TooMuch
        return count if self.whole else ITEMS


def _plain(value: Any, budget: _Budget, depth: int = 0) -> Any:
    """A copy that nobody else has, of types that orjson writes without calling anybody."""
    try:
        return _copied(value, type(value), budget, depth)
    except _TooMuch:
        raise
    except BaseException as error:  # of a time zone, say, or the value of an enumeration; no other one goes with it
        return f"<{_name(type(value))} that raised {_name(type(error))}>"


# What a value is, only its type knows: one that stands for another one answers for that when it is asked. And the
# methods are those of the built-in types: what a subclass has made of them is its author's code.


def _copied(value: Any, kind: type, budget: _Budget, depth: int) -> Any:
    container = next((each for each in (dict, list, set, frozenset) if issubclass(kind, each)), None)
    if container is None and kind is not tuple:
        return _single(value, kind, budget, depth)
    if depth >= budget.depth:
        return f"<{_name(kind)} nested deeper than {budget.depth}>"
    room = budget.room_for((container or tuple).__len__(value))
    if container is dict:
        items = list(islice(dict.items(value), room))
        each = _each([item for _, item in items], budget, depth + 1)
        return dict(zip([_key(key) for key, _ in items], each, strict=True))
    return _each(list(islice((container or tuple).__iter__(value), room)), budget, depth + 1)


def _single(value: Any, kind: type, budget: _Budget, depth: int) -> Any:
    if value is None or kind is bool:
        return value
    if issubclass(kind, str):
        return str.__str__(value) if budget.whole else _encodable(value)
    if issubclass(kind, float):
        return float.__float__(value)  # orjson refuses subclasses, such as numpy's
    if issubclass(kind, int):
        number = int.__int__(value)
        return number if -(2**63) <= number < 2**64 else text(value)
    if issubclass(kind, Enum):
        return _plain(value.value, budget, depth + 1)
    if kind in _TIMES:
        return _UTC.sub("Z", value.isoformat())
    if kind is UUID:
        return str(value)
    return _unknown(value, kind)


def _unknown(value: Any, kind: type) -> str:
    """What is written for a type that JSON does not know."""
    if issubclass(kind, bytes | bytearray | memoryview):
        data = bytes(value)
        ends = data if len(data) <= 2 * TEXT_CHARS else data[:TEXT_CHARS] + data[-TEXT_CHARS:]
        return clip(ends.decode("utf-8", "backslashreplace"), 2 * TEXT_CHARS, len(data))
    if issubclass(kind, BaseException):
        return f"{_name(kind)}: {text(value)}"
    return representation(value)


def _each(values: list[Any], budget: _Budget, depth: int) -> list[Any]:
    budget.left -= len(values)
    if budget.left < 0:
        return ["<left out>"] * len(values)
    if budget.whole:  # the same, but most are of these types, and a call for each takes longer than all the rest
        return [value if type(value) in _SCALARS else _plain(value, budget, depth) for value in values]
    return [_plain(value, budget, depth) for value in values]


def _key(key: Any) -> str:
    if type(key) is str and len(key) <= TEXT_CHARS and key.isascii():
        return key
    return _encodable(key) if issubclass(type(key), str) else representation(key)


def _cut(value: Any) -> Any:
    plain = _plain(value, _Budget(whole=False))
    if isinstance(plain, str):
        return plain
    data = _dumps(plain)
    return clip(data.decode()) if len(data) > TEXT_CHARS else plain
