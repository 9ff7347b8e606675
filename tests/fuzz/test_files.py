"""The `.env` file: what it holds is read as python-dotenv reads it, or refused with its line; never anything else."""

import argparse
import logging
import os
import re
import sys
from pathlib import Path
from unittest import mock

import dotenv
from hypothesis import example, given
from hypothesis import strategies as st

from jobd import cli, envfile
from jobd.envfile import EnvFile
from jobd.errors import Fault, InvalidConfig
from jobd.settings import DECLARED, PREFIX

from .grammar import bounded, examples, files, in_quotes

FLAGS = argparse.Namespace(env_file=None, targets=[], **dict.fromkeys(DECLARED))
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read(data: bytes) -> tuple[EnvFile | None, list[Fault]]:
    """The file of the current directory with this content, or its faults."""
    Path(".env").write_bytes(data)
    try:
        with bounded():
            return envfile.read(None), []
    except InvalidConfig as invalid:
        return None, invalid.faults


def lines_of(data: bytes) -> int:
    """How many lines an editor shows."""
    return len((data + b".").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))


def theirs() -> dict[str, str | None]:
    """What python-dotenv reads in the file of the current directory."""
    logging.getLogger("dotenv").setLevel(logging.CRITICAL)
    return dict(dotenv.dotenv_values(".env", interpolate=False, encoding="utf-8"))


@examples(700)
@given(st.one_of(files(), files(), st.binary(max_size=300)))
@example(b"A=x" + b" " * 260_000 + b"x")
@example(b"'A=B'=C\n")
@example(b'A=\'\\\\\'\nB="\\""\n')
@example(b"A=\n" * 80_000)
@example(b"'" * 262_144)
def test_any_file_is_read_as_written_or_refused(data: bytes) -> None:
    """What is accepted is what python-dotenv reads, every name and value of it can be in an environment, and every
    fault and every source names a line that the file has.
    """
    found, faults = read(data)
    if found is None:
        assert 0 < len(faults) <= envfile.MAX_FAULTS
        assert all(fault.reason and fault.reason.isprintable() for fault in faults)
        said = [fault.source for fault in faults if fault.source != "current directory"]
    else:
        if data.count(BYTE_ORDER_MARK) < 2:  # of several in a row, other versions of the parser leave all but one
            assert theirs() == found.values
        assert found.sources.keys() == found.values.keys() >= set(found.duplicates)
        said = list(found.sources.values())
    numbers = [int(match[1]) for source in said if (match := re.fullmatch(r"\.env line (\d+)", source))]
    assert len(numbers) == len(said)
    assert all(1 <= number <= lines_of(data) for number in numbers)


@examples(300)
@given(files())
@example(b'"JOBD_INTERVAL"=5\n')
@example(b"A=1\n\xef\xbb\xbfJOBD_INTERVAL=5\n")
@example(b"JOBD_INTERVAL\xe2\x80\x8b=5\n")
@example(b"'=A'=1\n")
def test_any_file_is_a_configuration_or_faults(data: bytes) -> None:
    """All the way to the jobs and their environment; a name of ours is a setting, or told as unknown."""
    found, _ = read(data)
    with mock.patch.dict(os.environ), mock.patch.object(sys, "path", [*sys.path]), bounded():
        configuration = cli._configuration(FLAGS, cli._Start("", os.environ))
        try:
            assert configuration.load()
        except InvalidConfig:
            return
        assert found is not None
        ours = {setting.name for setting in DECLARED.values()}
        for name, value in found.values.items():
            assert name.startswith(PREFIX) or os.environ[name] == value or name in os.environ
            assert PREFIX not in name or name[0].isalnum() or name in ours | configuration.resolved.unknown.keys()


_harmless = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)


@examples(200)
@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,10}", fullmatch=True), _harmless, max_size=6))
def test_what_is_written_in_quotes_reads_back(variables: dict[str, str]) -> None:
    """Any text at all, line ends and quotes included, survives its way through the file."""
    content = "".join(f"{name}={in_quotes(value)}\n" for name, value in variables.items())
    found, faults = read(content.encode())
    assert faults == []
    assert found is not None
    assert found.values == variables


_pieces = st.sampled_from(
    [*(" ", "\t", "\u2003", "'", '"', "\\", "\\'", "#", "=", "\n", "\r", "$", "${", "x", " x", "A=", "\nA=", "\nA='")]
)


@examples(15)
@given(st.lists(st.tuples(_pieces, st.sampled_from([1, 2, 100, envfile.MAX_BLANKS, 65_536])), min_size=1, max_size=4))
@example([("A=x", 1), (" ", envfile.MAX_BLANKS)])
@example([("A=x", 1), (" ", envfile.MAX_BLANKS), ("x\n", 1)])
def test_no_repetition_costs_more_than_a_moment(pieces: list[tuple[str, int]]) -> None:
    """A file as large as it may be, of a pattern that repeats itself."""
    pattern = "".join(piece * count for piece, count in pieces).encode()
    read((pattern * (envfile.MAX_BYTES // len(pattern) + 1))[: envfile.MAX_BYTES])
