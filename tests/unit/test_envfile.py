"""The `.env` file: what is in it is taken as written, or refused with its line; nothing hangs, nothing is dropped."""

import os
import re
import socket
import textwrap
import time
from collections.abc import Container
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from jobd import envfile, textfile
from jobd.envfile import EnvFile
from jobd.errors import Fault, InvalidConfig

from .helpers import python

#: Reading the largest file that is allowed, on a slow machine, in time of its processor.
BOUND_S = 8.0
NEWLINES = ["\n", "\r\n", "\r"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the file will be."""
    return tmp_path / "env"


def read(file: Path, content: str | bytes, public: Container[str] = ()) -> EnvFile:
    """The file with this content."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return envfile.read(str(file), public=public)


def faults(file: Path, content: str | bytes | None = None, public: Container[str] = ()) -> list[Fault]:
    """The faults of the file, which must have some."""
    with pytest.raises(InvalidConfig) as refused:
        envfile.read(str(file)) if content is None else read(file, content, public)
    assert refused.value.faults
    return refused.value.faults


def outcome(file: Path, content: bytes) -> tuple[EnvFile | None, list[Fault]]:
    """What is in a file with this content, or its faults."""
    try:
        return read(file, content), []
    except InvalidConfig as refused:
        return None, refused.faults


def lines(found: dict[str, str]) -> dict[str, str]:
    """The sources without the path."""
    return {key: source.rpartition(" line ")[2] for key, source in found.items()}


def test_no_file_is_no_fault_unless_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `.env` the defaults hold; a file that somebody asked for must be there."""
    monkeypatch.chdir(tmp_path)
    assert envfile.read(None) == EnvFile()
    with pytest.raises(InvalidConfig) as refused:
        envfile.read("missing.env")
    (fault,) = refused.value.faults
    assert (fault.setting, fault.value) == ("--env-file", "missing.env")
    assert "no such file" in fault.reason


def test_the_file_of_the_current_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values are said to come from `.env`, with the line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("# ours\nJOBD_INTERVAL=5s\n")
    found = envfile.read(None)
    assert found.values == {"JOBD_INTERVAL": "5s"}
    assert found.sources == {"JOBD_INTERVAL": ".env line 2"}


def test_a_directory_is_refused(file: Path) -> None:
    """It is not taken for an empty file."""
    file.mkdir()
    assert "directory" in faults(file)[0].reason.lower()


def test_a_fifo_is_refused_at_once(file: Path) -> None:
    """Nobody waits for a writer that never comes."""
    os.mkfifo(file)
    began = time.monotonic()
    assert "no regular file" in faults(file)[0].reason
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/full"])
def test_a_device_is_refused(device: str) -> None:
    """Not even an endless one is read."""
    assert "no regular file" in faults(Path(device))[0].reason


def test_a_socket_is_refused(file: Path) -> None:
    """It cannot even be opened; that is told like everything else."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(file))
        assert "cannot be used" in faults(file)[0].reason


def test_a_link_that_leads_nowhere_or_to_itself_is_refused(file: Path) -> None:
    """A named file that is not there is a fault, however it is not there."""
    file.symlink_to(file)
    assert faults(file)[0].value == str(file)
    file.unlink()
    file.symlink_to("nowhere")
    assert "no such file" in faults(file)[0].reason


def test_a_path_with_a_nul_is_refused() -> None:
    """What no file can be called is a fault, not a traceback."""
    assert "null" in faults(Path("a\0b"))[0].reason


def test_a_byte_order_mark_is_no_part_of_the_first_name(file: Path) -> None:
    """Files from Windows editors work."""
    assert read(file, b"\xef\xbb\xbfA=1\nB=2\n").values == {"A": "1", "B": "2"}


@pytest.mark.parametrize("newline", NEWLINES)
def test_every_kind_of_line_end_is_one(file: Path, newline: str) -> None:
    """Values carry no carriage return, and lines are counted alike."""
    found = read(file, newline.join(["# c", "A=1", "", "", "B='2'", ' export C = "3" # c', "D=4"]))
    assert found.values == {"A": "1", "B": "2", "C": "3", "D": "4"}
    assert lines(found.sources) == {"A": "2", "B": "5", "C": "6", "D": "7"}


@pytest.mark.parametrize("newline", NEWLINES)
def test_each_faulty_line_is_told_with_its_number(file: Path, newline: str) -> None:
    """Several faults do not shift one another's lines."""
    found = faults(file, newline.join(["A=1", "KEY: value", "B=2", "", "bare", "C=3", "'quoted'x=1", ""]))
    assert [(fault.source.rpartition(" line ")[2], fault.value) for fault in found] == [
        ("2", "KEY:***"),
        ("5", "***"),
        ("7", "***"),
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_another_encoding_is_refused(file: Path, encoding: str) -> None:
    """UTF-16 is told by its first bytes or by its NULs."""
    found = faults(file, "JOBD_INTERVAL=5s\n".encode(encoding))
    assert "line 1" in found[0].reason


def test_invalid_utf_8_is_refused_with_its_line(file: Path) -> None:
    """The line is that of the byte that cannot be read."""
    assert "line 3 is not UTF-8" in faults(file, b"A=1\nB=2\nC=\xff\nD=4\n")[0].reason


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_nul_is_refused_with_its_line(file: Path, newline: bytes) -> None:
    """A NUL byte cannot be in a variable, so it is not let in."""
    assert "line 2 holds a NUL" in faults(file, b"A=1" + newline + b"B=\0")[0].reason


@pytest.mark.parametrize("quote", ["'", '"'])
def test_an_unclosed_quote_is_refused_with_its_line(file: Path, quote: str) -> None:
    """What follows it is not silently dropped."""
    found = faults(file, f"A=1\nB={quote}two\nC=3\n")
    assert found[0].source.endswith(" line 2")
    assert found[0].value == "B=***"


def test_a_faulty_line_is_shown_whole_only_where_it_is_a_settings(file: Path) -> None:
    """Others may hold secrets, with jobd's prefix or without; an unclosed quote takes no line below it along."""
    public = {"JOBD_INTERVAL", "JOBD_JOBS"}
    found = faults(file, "JOBD_INTERVAL: 5s\nTOKEN: abc\n  export TOKEN abc\nJOBD_JOBS='a\nTOKEN=abc\n", public)
    assert [fault.value for fault in found] == ["JOBD_INTERVAL: 5s", "TOKEN:***", "***", "JOBD_JOBS='a"]
    found = faults(file, "JOBD_TOKEN: abc\nJOBD_TOKEN='abc\n", public)
    assert [fault.value for fault in found] == ["JOBD_TOKEN:***", "JOBD_TOKEN=***"]


def test_a_name_without_a_value_is_refused(file: Path) -> None:
    """A name alone is neither empty nor unset; it is shown where it cannot be the rest of a value that is too long."""
    written = "JOBD_A\nexport JOBD_B\nAKIAIOSFODNN7EXAMPLE\nexport B\nC=\n"
    assert [fault.value for fault in faults(file, written)] == ["JOBD_A", "export JOBD_B", "***", "***"]


def test_an_empty_value_is_a_value(file: Path) -> None:
    """It is kept as empty, for the setting to refuse."""
    assert read(file, "A=\nB=''\nC= # nothing\n").values == {"A": "", "B": "", "C": ""}


def test_a_name_that_comes_twice_counts_the_last_time(file: Path) -> None:
    """And it is known to have come twice, so that somebody can be told."""
    found = read(file, "A=1\nB=2\nA=3\n")
    assert found.values == {"A": "3", "B": "2"}
    assert found.duplicates == ["A"]
    assert lines(found.sources) == {"A": "3", "B": "2"}


def test_a_name_that_comes_often_is_told_once(file: Path) -> None:
    """However often a file repeats itself, the warning is one for each name."""
    assert read(file, "A=1\n" * 1000 + "B=1\n" * 2).duplicates == ["A", "B"]


def test_a_name_that_no_variable_can_have_is_refused(file: Path) -> None:
    """The parser takes anything between single quotes for a name; the environment takes no `=` in one."""
    (fault,) = faults(file, "A=1\n'B=C'=2\n")
    assert (fault.value, fault.source) == ("***", f"{file} line 2")


@pytest.mark.parametrize("text", ["A=\u20ac", "\u00c9=1"])
def test_what_the_locale_cannot_express_is_refused(file: Path, text: str) -> None:
    """Where the environment cannot hold it, a character in a name or a value is a fault with its line."""
    file.write_text(f"# first\n{text}\n", encoding="utf-8")
    code = f"""
        import sys
        from jobd import envfile, errors
        assert sys.getfilesystemencoding() == "ascii"
        try:
            envfile.read({str(file)!r})
        except errors.InvalidConfig as invalid:
            print(invalid.faults[0].source, invalid.faults[0].reason)
    """
    said = python(textwrap.dedent(code), LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert said.startswith(f"{file} line 2 ")
    assert "UTF-8" in said


def test_values_are_taken_as_they_are(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is put in for what looks like a variable."""
    monkeypatch.setenv("HOME", "/expanded")
    found = read(file, "A=${HOME}\nB=$HOME\nC=\"${X:-5}\"\nD='${HOME}'\nE=`id`\n")
    assert found.values == {"A": "${HOME}", "B": "$HOME", "C": "${X:-5}", "D": "${HOME}", "E": "`id`"}


def test_quotes_comments_and_blanks_are_as_in_python_dotenv(file: Path) -> None:
    """A comment needs a blank before it; quotes are taken off; `export` is allowed."""
    found = read(
        file,
        'A=5# seconds\nB=5 # seconds\n  export C = x y \nD="a\\nb"\nE=\'a\\nb\'\nF="two\nlines"\nG=“5”\n#H=1\n',
    )
    assert found.values == {
        "A": "5# seconds",
        "B": "5",
        "C": "x y",
        "D": "a\nb",
        "E": "a\\nb",
        "F": "two\nlines",
        "G": "“5”",
    }
    assert lines(found.sources)["G"] == "8"


def test_a_long_row_of_blanks_is_refused_with_its_line(file: Path) -> None:
    """As many as are allowed are read; more would keep the parser busy for minutes."""
    most = envfile.MAX_BLANKS
    assert read(file, f"A=x{' ' * most}x\n").values == {"A": f"x{' ' * most}x"}
    assert "line 3 holds more than" in faults(file, f"A=1\n\nB=x{' ' * (most + 1)}x\n")[0].reason


def test_a_file_that_is_too_large_is_refused(file: Path) -> None:
    """One byte more than allowed is refused; the allowed size itself is read."""
    assert read(file, b"A=1\n" + b"#" * (envfile.MAX_BYTES - 4)).values == {"A": "1"}
    assert "larger than" in faults(file, b"#" * (envfile.MAX_BYTES + 1))[0].reason


@pytest.mark.parametrize("letter", ["x", "\u20ac"])
def test_a_variable_that_no_process_could_have_is_refused_with_its_line(file: Path, letter: str) -> None:
    """One that is as long as may be can be handed on; the limit is told, and the value not shown."""
    bytes_left = textfile.MAX_STRING_BYTES - len("KEY=\0")
    longest = "x" * (bytes_left % len(letter.encode())) + letter * (bytes_left // len(letter.encode()))
    values = read(file, f"A=1\nKEY='{longest}'\n").values
    assert values["KEY"] == longest
    assert python("import os; print(len(os.environb[b'KEY']))", **values) == f"{bytes_left}\n"
    (fault,) = faults(file, f"A=1\nKEY='{longest}x'\n")
    assert (fault.value, fault.source) == ("KEY=***", f"{file} line 2")
    assert "131072 bytes" in fault.reason


def test_a_file_that_is_far_too_large_is_not_even_read(file: Path) -> None:
    """Ten gigabytes cost no time and no memory."""
    file.touch()
    os.truncate(file, 10 * 1024**3)
    began = time.process_time()
    assert "larger than" in faults(file)[0].reason
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "content",
    [
        b"A=1\n" * 50_000,
        b"A='\n" * 65_000,
        b'A="' + b"x" * 262_000,
        b"\n" * 262_144,
        b"'" * 262_144,
        b"A=x" + b" " * 262_000 + b"x",
        b"A=x" + "\u2003".encode() * 87_000,
        (b"A=x" + b" " * envfile.MAX_BLANKS) * 260,
        (b"A=x" + b" " * envfile.MAX_BLANKS + b"x\n") * 260,
        b"A=" + b"\\'" * 131_000,
        b"A='" + b"\\'" * 131_000,
        b"".join(b"JOBD_%d=\n" % n for n in range(20_000)),
    ],
    ids=[
        *("assignments", "unclosed quotes", "one unclosed quote", "nothing", "quotes", "blanks", "wide blanks"),
        *("one line of blanks", "lines of blanks", "backslashes", "quoted backslashes", "names"),
    ],
)
def test_the_worst_files_are_read_in_bounded_time(file: Path, content: bytes) -> None:
    """No content keeps the daemon from starting, or from refusing to, for long."""
    began = time.process_time()
    _, found = outcome(file, content)
    assert time.process_time() - began < BOUND_S
    assert len(found) <= envfile.MAX_FAULTS


_pieces = st.sampled_from(
    ["A", "JOBD_X", "=", "'", '"', "\\", "#", " ", "\n", "\r\n", "\r", "\t", "export ", "$", "{", "}", ":", "é", "\x0b"]
)


@profile(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200), st.lists(_pieces, max_size=40).map("".join)))
def test_any_content_is_read_or_refused(file: Path, content: bytes | str) -> None:
    """There is no other exception, and every source and every fault names a line that the file has."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    found, refused = outcome(file, data)
    assert bool(found) != bool(refused)
    sources = [fault.source for fault in refused] if found is None else found.sources.values()
    numbers = [int(match[1]) for source in sources if (match := re.search(r"env line (\d+)$", source))]
    last = len((data + b".").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
    assert all(1 <= number <= last for number in numbers)


_name = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True)
_value = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'\"#\\"), max_size=12)


@profile(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(st.one_of(st.tuples(_name, _value), st.none(), st.just("# comment")), max_size=12))
@pytest.mark.parametrize("newline", NEWLINES)
def test_each_assignment_is_found_with_its_line(
    file: Path, content: list[tuple[str, str] | str | None], newline: str
) -> None:
    """Blank lines and comments between assignments neither hide them nor shift their numbers."""
    written = [line if isinstance(line, str) else "=".join(line or ()) for line in content]
    found = read(file, newline.join(written))
    expected = {line[0]: (line[1], str(n)) for n, line in enumerate(content, 1) if isinstance(line, tuple)}
    assert {key: (found.values[key], number) for key, number in lines(found.sources).items()} == expected
