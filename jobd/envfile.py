"""The `.env` file: python-dotenv's parser, with what it would hang on, drop or guess refused.

May import: errors.

python-dotenv hangs on a FIFO, takes a directory for an empty file, and drops what follows a quote that is never
closed. So the file is checked before it is parsed, and each piece that the parser marks as faulty is reported with
its line. Values are taken as they are: ``${HOME}`` is not expanded.

Tricky: what is read here is put into the environment later, which takes less than the parser gives.
"""

import os
import re
import stat
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from jobd.errors import Fault, InvalidConfig

#: A configuration is never this large; something that is was named by mistake.
MAX_BYTES = 262_144
#: An unclosed quote makes the parser read to the end of the file; after so many faults the rest is not worth it.
MAX_FAULTS = 10
#: What a faulty line begins with if it was meant for an assignment.
_NAME = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)(?:\s*[=:]|$)", re.ASCII)
#: The parser looks for a comment once from each blank to the last in a row: at most a moment up to here, minutes for
#: a whole file of them.
MAX_BLANKS = 1000

_BLANKS = re.compile(r"[^\S\r\n]+")


@dataclass(frozen=True, slots=True)
class EnvFile:
    """The variables of one file."""

    values: dict[str, str] = field(default_factory=dict)
    #: Where each stands: ``.env line 3``.
    sources: dict[str, str] = field(default_factory=dict)
    #: Variables that the file names more than once.
    duplicates: list[str] = field(default_factory=list)


def read(path: str | None) -> EnvFile:
    """The file at `path`; with None, `.env` in the current directory, which need not exist.

    Raises `InvalidConfig` with every fault of the file.
    """
    shown = ".env" if path is None else path
    named_by = "current directory" if path is None else "command line (--env-file)"
    try:
        text = _text(Path(shown))
    except FileNotFoundError:
        if path is None:
            return EnvFile()
        raise InvalidConfig([Fault("--env-file", shown, named_by, "there is no such file")]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        setting = ".env" if path is None else "--env-file"
        raise InvalidConfig([Fault(setting, shown, named_by, f"cannot be used: {reason}")]) from None
    return _parse(text, shown)


def _text(path: Path) -> str:
    data = _bytes(path)
    if b"\0" in data:
        raise ValueError(f"line {_line_of(data, data.index(0))} holds a NUL byte")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"line {_line_of(data, error.start)} is not UTF-8") from None
    for blanks in _BLANKS.finditer(text):
        if len(blanks[0]) > MAX_BLANKS:
            before = text[: blanks.start()].encode()
            raise ValueError(f"line {_line_of(before, len(before))} holds more than {MAX_BLANKS} blanks in a row")
    return text


def _bytes(path: Path) -> bytes:
    # O_NONBLOCK: opening a FIFO must not wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        data: bytes | None = file.read(MAX_BYTES + 1)
    if data is None:  # one of the kernel's, such as /proc/kmsg, would have us wait
        raise ValueError("nothing can be read from it")
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    return data


def _line_of(data: bytes, offset: int) -> int:
    return len((data[:offset] + b".").splitlines())


def _parse(text: str, shown: str) -> EnvFile:
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    duplicates: dict[str, None] = {}
    faults: list[Fault] = []
    for binding in parse_stream(StringIO(text, newline=None)):
        original = binding.original.string
        blank = len(original) - len(original.lstrip())
        source = f"{shown} line {binding.original.line + original[:blank].count(chr(10))}"
        if fault := _fault(binding):
            faults.append(Fault(shown, _masked(original.strip()), source, fault))
            if len(faults) == MAX_FAULTS:
                break
        elif binding.key is not None and binding.value is not None:
            if binding.key in values:
                duplicates[binding.key] = None
            values[binding.key] = binding.value
            sources[binding.key] = source
    if faults:
        raise InvalidConfig(faults)
    return EnvFile(values, sources, list(duplicates))


def _fault(binding: Binding) -> str | None:
    """What is wrong with the binding, if anything is."""
    if binding.error or (binding.key is not None and binding.value is None):
        return "is no assignment; write NAME=value, and close every quote"
    if "=" in (binding.key or ""):
        return "has a name that no variable can have; write NAME=value, and no = in the name"
    try:
        os.fsencode(f"{binding.key}{binding.value}")
    except UnicodeEncodeError:
        return "holds a character that the locale cannot express; use one of UTF-8, such as LC_ALL=C.UTF-8"
    return None


def _masked(written: str) -> str:
    """What may be shown of a faulty piece of the file: of what is not jobd's own it may be a secret."""
    line = written.partition("\n")[0]
    name = _NAME.match(line)
    if name is None:
        return "***"
    if name[1].startswith("JOBD_"):
        return line[:200]
    if name[0] == line:
        return line if name[1].isupper() else "***"  # a name alone, by the look of it
    return f"{name[0]}***"
