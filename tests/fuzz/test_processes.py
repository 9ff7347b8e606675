"""Real processes: `jobd check` and `jobd run` with a hostile environment, file and command line around them."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from acceptance.harness import JOBD, PATIENCE_S, parsed
from hypothesis import given
from hypothesis import strategies as st

from jobd.settings import DECLARED

from .grammar import examples, files, values

#: A job that asks for the stop as soon as it runs, so that every daemon ends by itself.
JOBS = """\
import os, signal
from jobd import every
@every("1h")
async def stop(): os.kill(os.getpid(), signal.SIGTERM)
"""
#: Becomes jobd with an environment that no shell can make: each argument up to `--` is one entry of it.
EXECVE = """\
import ctypes, os, sys
cut = sys.argv.index("--")
def array(texts):
    return (ctypes.c_char_p * (len(texts) + 1))(*map(os.fsencode, texts), None)
program = sys.argv[cut + 1 :]
ctypes.CDLL(None).execve(os.fsencode(program[0]), array(program), array(sys.argv[1:cut]))
"""
COMMANDS = pytest.mark.parametrize("command", ["check", "run"])


def jobd(
    directory: Path, *arguments: str, environment: dict[str, str] | None = None, program: Sequence[str] = (JOBD,)
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end."""
    (directory / "jobs.py").write_text(JOBS)
    done = subprocess.run(
        [*program, *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(directory)} | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr
    return done


def faults(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, object]]:
    """The faults that it has left with."""
    assert done.returncode == 78, done
    assert done.stderr == b""
    lines = [parsed(raw) for raw in done.stdout.splitlines(keepends=True)]
    found = [line for line in lines if line["event"] == "config.invalid"]
    assert found
    assert all(fault["setting"] and fault["source"] and fault["reason"] for fault in found)
    assert not [line for line in lines if line["event"] in ("run.started", "daemon.ready", "daemon.failed")]
    return found


def ended_well(done: subprocess.CompletedProcess[bytes], command: str) -> None:
    """It has done what it was asked for, or said what is wrong with the configuration."""
    if done.returncode == 78:
        faults(done)
        return
    assert done.returncode in (0, 3), done  # 3 where no time is allowed for anything
    if command == "run" and done.stdout.startswith(b"{"):
        events = [parsed(raw)["event"] for raw in done.stdout.splitlines(keepends=True)]
        assert "daemon.stopped" not in events[:-1]  # nor as the last one, where the level hides it
        assert "config.invalid" not in events


_names = st.sampled_from([s.name for key, s in DECLARED.items() if key != "jobs"] + ["JOBD_X", "JOBD_\udcff", "MY"])


def _fits(text: str) -> bool:
    """Whether the system can hand it to a process: no argument is longer than 128 KiB (`execve(2)`)."""
    return len(text) < 30_000 and not any(0xD800 <= ord(c) < 0xDC80 or 0xDD00 <= ord(c) < 0xE000 for c in text)


@examples(8, shrink=False)
@given(st.dictionaries(_names, values().filter(_fits), max_size=2), st.one_of(st.just(b""), files()))
@COMMANDS
def test_any_environment_and_file_are_taken_or_told(command: str, environment: dict[str, str], data: bytes) -> None:
    """0 or 78, whole JSON lines, nothing on stderr."""
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / ".env").write_bytes(data)
        ended_well(jobd(Path(made), command, "jobs", environment=environment), command)


@examples(6, shrink=False)
@given(st.sampled_from([s.flag for key, s in DECLARED.items() if key != "jobs"]), values().filter(_fits))
@COMMANDS
def test_any_flag_is_taken_or_told(command: str, flag: str, text: str) -> None:
    """However odd it is; what a shell could not pass on is left out."""
    with tempfile.TemporaryDirectory() as made:
        ended_well(jobd(Path(made), command, "jobs", f"{flag}={text}"), command)


@pytest.mark.parametrize("key", [key for key in DECLARED if key != "jobs"])
def test_the_first_of_a_variable_that_comes_twice_counts(directory: Path, key: str) -> None:
    """As for the rest of the process; and a value that is no UTF-8 is told as it is, escaped."""
    name = DECLARED[key].name
    path = f"PATH={os.environ['PATH']}"
    program = (sys.executable, "-c", EXECVE, path, f"{name}=\udcff\udc80", f"{name}=5", "--", JOBD)
    (fault,) = faults(jobd(directory, "run", "jobs", program=program))
    assert (fault["setting"], fault["source"]) == (name, "environment")
    assert "ff" in str(fault["value"])


def test_entries_that_are_no_variables_are_passed_over(directory: Path) -> None:
    """An environment may hold anything: no `=`, no name, no text."""
    path = f"PATH={os.environ['PATH']}"
    program = (sys.executable, "-c", EXECVE, path, "=", "JOBD_INTERVAL", "=JOBD_INTERVAL=x", "", "\udcff=1", "--", JOBD)
    assert jobd(directory, "run", "jobs", program=program).returncode == 0


def test_a_command_gets_one_value_of_a_variable_that_comes_twice(directory: Path) -> None:
    """The first one; and names that are no text reach it as they are."""
    code = "import os, shutil; shutil.copy('/proc/self/environ', 'seen'); os.kill(os.getppid(), 15)"
    (directory / "jobs.toml").write_text(f"[jobs.seen]\ncommand = {json.dumps([sys.executable, '-c', code])}\n")
    path = f"PATH={os.environ['PATH']}"
    entries = "TWICE=first", "\udcff=1", "TWICE=second", "JOBD_\udcff=1"
    done = jobd(directory, "run", "jobs.toml", program=(sys.executable, "-c", EXECVE, path, *entries, "--", JOBD))
    assert done.returncode == 0, done
    seen = (directory / "seen").read_bytes().split(b"\0")
    assert sorted(entry for entry in seen if entry.startswith((b"TWICE", b"\xff"))) == [b"TWICE=first", b"\xff=1"]
    (unknown,) = (line for raw in done.stdout.splitlines(keepends=True) if (line := parsed(raw))["level"] == "warning")
    assert (unknown["event"], unknown["setting"]) == ("config.unknown", "JOBD_\\udcff")


def _directory(path: Path) -> None:
    path.mkdir()


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _endless_link(path: Path) -> None:
    path.symlink_to(path.name)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200 * 1024**2)


def _blanks(path: Path) -> None:
    path.write_bytes(b"A=x" + b" " * 260_000 + b"x")


def _many(path: Path) -> None:
    path.write_bytes(b"A\n" * 100_000)


def _utf_16(path: Path) -> None:
    path.write_bytes("JOBD_INTERVAL=5s\n".encode("utf-16"))


def _memory(path: Path) -> None:
    path.symlink_to("/proc/self/mem")


@COMMANDS
@pytest.mark.parametrize("named", [False, True], ids=["default", "named"])
@pytest.mark.parametrize(
    "make", [_directory, os.mkfifo, _device, _endless_link, _huge, _blanks, _many, _utf_16, _memory]
)
def test_what_is_no_file_of_settings_is_told(
    tmp_path: Path, make: Callable[[Path], None], named: bool, command: str
) -> None:
    """At once, with its name; by either command, whether the file was named or not."""
    name = "my.env" if named else ".env"
    make(tmp_path / name)
    found = faults(jobd(tmp_path, command, "jobs", *(["--env-file", name] if named else [])))
    assert all(name in f"{fault['value']}{fault['source']}" for fault in found)


@COMMANDS
@pytest.mark.parametrize("named", [False, True], ids=["default", "named"])
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, named: bool, command: str) -> None:
    """By root too, once it has given up its right to read everything."""
    name = "my.env" if named else ".env"
    (tmp_path / name).write_text("JOBD_INTERVAL=5s\n")
    (tmp_path / name).chmod(0)
    program: tuple[str, ...] = (JOBD,)
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root may read everything")
        program = (setpriv, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", JOBD)
    (fault,) = faults(
        jobd(tmp_path, command, "jobs", *(["--env-file", name] if named else []), program=program)
    )  # fmt: skip
    assert "Permission denied" in str(fault["reason"])


_words = st.sampled_from(["run", "check", "-h", "--", "", "--nope"])


@examples(8, shrink=False)
@given(st.lists(st.one_of(_words, values().filter(lambda text: _fits(text) and "demo" not in text)), max_size=3))
def test_any_arguments_are_done_or_refused(arguments: list[str]) -> None:
    """0, 2 with the usage on stderr, or 78; never a traceback."""
    with tempfile.TemporaryDirectory() as made:
        done = jobd(Path(made), *arguments, environment={"JOBD_JOBS": "jobs"})
        assert done.returncode in (0, 2, 78)
        assert (b"usage" in done.stderr) == (done.returncode == 2)
        assert done.returncode != 2 or done.stdout == b""
