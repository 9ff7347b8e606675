"""The `.env` file: python-dotenv's parser, with what it would hang on, drop or guess refused.

May import: textfile, errors.

python-dotenv hangs on a FIFO, takes a directory for an empty file, and drops what follows a quote that is never
closed. So the file is checked before it is parsed, and each piece that the parser marks as faulty is reported with
its line. Values are taken as they are: ``${HOME}`` is not expanded.

Tricky: what is read here is put into the environment later, which takes less than the parser gives.
"""

import os
import re
from collections.abc import Container
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from jobd import textfile
from jobd.errors import Fault, InvalidConfig

if TYPE_CHECKING:
    from dotenv.parser import Binding

MAX_BYTES = textfile.MAX_BYTES
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
    #: The whole text where a line of it has a fault: what else it was to give is not known.
    faulty: str = ""


def read(path: str | None, here: str = "", public: Container[str] = ()) -> EnvFile:
    """The file at `path`, as seen from the directory `here`; with None, `.env` in it, which need not exist.

    Raises `InvalidConfig` with every fault of the file, and with the variables that have none. Of a faulty line, the
    value is shown only if it is that of one of the `public` variables.
    """
    shown = ".env" if path is None else path
    named_by = "current directory" if path is None else "command line (--env-file)"
    try:
        text = _text(Path(here, shown))
    except FileNotFoundError:
        if path is None:
            return EnvFile()
        raise InvalidConfig([Fault("--env-file", shown, named_by, "there is no such file")]) from None
    except (OSError, ValueError) as error:
        setting = ".env" if path is None else "--env-file"
        raise InvalidConfig([Fault(setting, shown, named_by, f"cannot be used: {textfile.why(error)}")]) from None
    return _parse(text, shown, public)


def _text(path: Path) -> str:
    text = textfile.read(path)
    for blanks in _BLANKS.finditer(text):
        if len(blanks[0]) > MAX_BLANKS:
            before = text[: blanks.start()].encode()
            line = textfile.line_of(before, len(before))
            raise ValueError(f"line {line} holds more than {MAX_BLANKS} blanks in a row")
    return text


def _parse(text: str, shown: str, public: Container[str]) -> EnvFile:
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    duplicates: dict[str, None] = {}
    faults: list[Fault] = []
    from dotenv.parser import parse_stream  # only where there is a file: importing it takes a tenth of the start

    for binding in parse_stream(StringIO(text, newline=None)):
        original = binding.original.string
        blank = len(original) - len(original.lstrip())
        source = f"{shown} line {binding.original.line + original[:blank].count(chr(10))}"
        if fault := _fault(binding):
            faults.append(Fault(shown, _masked(original.strip(), public), source, fault))
            if len(faults) == MAX_FAULTS:
                break
        elif binding.key is not None and binding.value is not None:
            if binding.key in values:
                duplicates[binding.key] = None
            values[binding.key] = binding.value
            sources[binding.key] = source
    read_up = EnvFile(values, sources, list(duplicates), text if faults else "")
    if faults:
        raise InvalidConfig(faults, read_up)
    return read_up


def _fault(binding: "Binding") -> str | None:
    """What is wrong with the binding, if anything is."""
    if binding.error or (binding.key is not None and binding.value is None):
        return "is no assignment; write NAME=value, and close every quote"
    if "=" in (binding.key or ""):
        return "has a name that no variable can have; write NAME=value, and no = in the name"
    try:
        variable = os.fsencode(f"{binding.key}={binding.value}\0")
    except UnicodeEncodeError:
        return "holds a character that the locale cannot express; use one of UTF-8, such as LC_ALL=C.UTF-8"
    if binding.key and len(variable) > textfile.MAX_STRING_BYTES:
        return (
            f"is longer than {textfile.MAX_STRING_BYTES} bytes with its name, and so no process could be started; "
            "shorten it, or put it into a file"
        )
    return None


def _masked(written: str, public: Container[str]) -> str:
    """What may be shown of a faulty piece of the file: anything else than a public variable may be a secret."""
    line = written.partition("\n")[0]
    name = _NAME.match(line)
    if name is None:
        return "***"
    if name[1] in public:
        return line[:200]
    if name[0] == line:  # a name alone, or what a longer value has left there
        return line if name[1].startswith("JOBD_") else "***"
    return f"{name[0]}***"
