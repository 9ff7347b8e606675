"""What people and editors write where a setting or a `.env` file is asked for: right, nearly right, hostile."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hypothesis import HealthCheck, Phase
from hypothesis import settings as profile
from hypothesis import strategies as st

from jobd.settings import DECLARED

Test = TypeVar("Test", bound=Callable[..., object])

#: No input may cost more than this, in seconds of computing; on a fast machine the worst one takes half a second.
MOST_CPU_S = 8.0


def examples(number: int, *, shrink: bool = True) -> Callable[[Test], Test]:
    """So many examples, and `FUZZ=10` in the environment makes it ten times as many.

    To `shrink` what fails takes hundreds of examples more: too many where each is a process.
    """
    return profile(
        max_examples=number * int(os.environ.get("FUZZ", "1")),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])],
    )


@contextmanager
def bounded() -> Iterator[None]:
    """Fail if what is done here computes for too long. On the clock of the processor, so that a busy machine is none
    of it; what hangs without computing is ended by the time limit of the test.
    """
    began = time.process_time()
    yield
    assert time.process_time() - began < MOST_CPU_S


#: Values that are right for one setting or another.
RIGHT = [
    *("10", "0", "0.5", "250ms", "10s", "5m", "1h30m", "2d", "1", "7", "0s", "366d", "1ms", "999999999"),
    *("debug", "info", "warning", "error", "json", "console", "auto"),
    *("jobd.demo:run_job", "jobd.demo jobd.demo:run_job", *(s.default for s in DECLARED.values() if s.default)),
]
#: What turns a right value into one that somebody may take for right.
CHANGES: list[Callable[[str], str]] = [
    lambda text: f"+{text}",
    lambda text: f"-{text}",
    lambda text: f" {text}",
    lambda text: f"{text} ",
    lambda text: f"{text}\n",
    lambda text: f"\t{text}",
    lambda text: f"{text}\u200b",
    lambda text: f"\ufeff{text}",
    lambda text: f"{text}e3",
    lambda text: f"{text}E308",
    lambda text: f"{text}_000",
    lambda text: f"{text},5",
    lambda text: f"{text}.",
    lambda text: f".{text}",
    lambda text: f"0x{text}",
    lambda text: f"{text}#",
    lambda text: f"{text} # a comment",
    lambda text: f"'{text}'",
    lambda text: f'"{text}"',
    lambda text: f"\u201c{text}\u201d",
    lambda text: f"{text}${{HOME}}",
    lambda text: f"$({text})",
    lambda text: f"{text}\\n",
    lambda text: f"{text}%s{{}}",
    lambda text: f"{text}\x1b[31m\x07",
    lambda text: f"{text}\u2028{text}",
    lambda text: f"{text}\u202e",
    lambda text: f"{text}\x7f",
    lambda text: f"{text}\ud800",
    lambda text: f"{text}\udcff",
    lambda text: text * 2,
    lambda text: text * 100,
    lambda text: text.upper(),
    lambda text: text.title(),
    lambda text: text[:-1],
    lambda text: text[::-1],
    lambda text: text.translate({ord("0") + n: 0x660 + n for n in range(10)}),
    lambda text: text.translate({ord("0") + n: 0xFF10 + n for n in range(10)}),
    lambda text: text.replace("s", " parsecs"),
]
#: What has no right form to come from.
WRONG = [
    *("", " ", "\t", "nan", "NaN", "inf", "-inf", "infinity", "1e308", "1e-9", "-0.0", "0x10", "true", "null", "None"),
    *("()", "[]", "\u00b2", "\u0665", "\uff15", "1" * 400, "9" * 64, "x" * 100_000, "\U0001f600", "${X:-5}", "`id`"),
]

#: No NUL: neither the environment nor the command line can hold one.
_text = st.text(st.characters(exclude_characters="\0"), max_size=30)


@st.composite
def values(draw: st.DrawFn) -> str:
    """A value as somebody may write it for any of the settings."""
    text = draw(st.one_of(st.sampled_from(RIGHT), st.sampled_from(RIGHT), st.sampled_from(WRONG), _text))
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=2)):
        text = change(text)
    return text


def in_quotes(text: str) -> str:
    """The text as a `.env` file has to hold it so that exactly that is read."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_names = st.one_of(
    st.sampled_from([setting.name for setting in DECLARED.values()]),
    st.sampled_from(
        ["A", "MY_NAME", "jobd_interval", "JOBD_INTERVALL", "JOBD_", "a.b-c", "\u00c9T\u00c9", "1", "=", ""]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
_quoted = st.tuples(st.sampled_from(["'", '"', "", "`", "\u201c"]), _text, st.sampled_from(["'", '"', "", "\u201d"]))
_files_values = st.one_of(values(), _quoted.map("".join), _text.map(in_quotes))
_assignment = st.tuples(
    st.sampled_from(["", "", "", " ", "\t", "export ", "export\t", "EXPORT ", "set ", "- "]),
    st.one_of(_names, _names.map(in_quotes), _names.map(lambda name: f'"{name}"')),
    st.sampled_from(["=", "=", "=", " = ", "= ", ": ", ":", "", "==", "+="]),
    _files_values,
    st.sampled_from(["", "", " # why", "# why", " ", "  x"]),
).map("".join)
_lines = st.one_of(
    _assignment,
    _assignment,
    _assignment,
    _text,
    st.sampled_from(
        [*("", "# comment", "  # comment", "\ufeffA=1", "[section]", "---", '{"A": 1}', "A", "export"), "'", '"', "\\"]
    ),
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A `.env` file, or what somebody took for one."""
    lines = draw(st.lists(_lines, max_size=8))
    ends = draw(st.lists(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"]), min_size=1, max_size=3))
    text = "".join(line + ends[n % len(ends)] for n, line in enumerate(lines))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin-1"]))
    data = text.encode(encoding, "surrogateescape" if encoding == "utf-8" else "replace") if _fits(text) else b""
    where, what = (
        draw(st.integers(0, 200)),
        draw(st.sampled_from([b"", b"", b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\x85"])),
    )
    return data[:where] + what + data[where:]


def _fits(text: str) -> bool:
    return not any(0xD800 <= ord(character) < 0xDC80 or 0xDD00 <= ord(character) < 0xE000 for character in text)
