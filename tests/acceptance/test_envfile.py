"""The `.env` file: what it gives, what it may not be, and who wins over it."""

import os
from pathlib import Path

import pytest

from .conftest import Launcher
from .harness import JOBD, Daemon
from .test_config import faults

SHOW = """
@every("1h")
def show(): log.info("environment", **{k: v for k, v in os.environ.items() if k.startswith("MY_")})
"""


def grace_of(daemon: Daemon) -> float:
    """The grace period that the daemon runs with, as its stop tells it."""
    daemon.wait_for("run.finished")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    grace: float = daemon.events("shutdown.requested")[0]["grace_period_s"]
    return grace


def test_flag_wins_over_environment_over_file(launch: Launcher) -> None:
    """Each place in turn: the file, then the environment over it, then the flag over both."""
    (launch.directory / ".env").write_text("JOBD_CANCEL_TIMEOUT=2\nJOBD_LOG_LEVEL=error\nJOBD_MAX_RUNNING=0\n")
    found = faults(launch(SHOW, JOBD_LOG_LEVEL="info"))
    assert [(fault["setting"], fault["source"]) for fault in found] == [("JOBD_MAX_RUNNING", ".env line 3")]
    daemon = launch(SHOW, "run", "jobs", "--max-running", "5", "--grace-period", "3", JOBD_LOG_LEVEL="info")
    assert grace_of(daemon) == 3


def test_file_gives_targets(launch: Launcher) -> None:
    """JOBD_JOBS may stand in the file, quoted or not."""
    (launch.directory / ".env").write_text("export JOBD_JOBS = 'jobs:show  jobs:other'\nJOBD_INTERVAL=\"1h\"\n")
    launch.write("jobs", SHOW, "def other(): pass")
    daemon = launch("", "run")
    assert daemon.wait_for("daemon.ready")["jobs"] == 2
    assert daemon.stop() == 0


def test_variables_of_the_jobs_reach_them(launch: Launcher) -> None:
    """What is no JOBD_ variable is in the jobs' environment; real variables win, and nothing is expanded."""
    text = (
        "MY_FILE=file\nMY_BOTH=file\nMY_EMPTY=\nMY_HOME=${HOME}\nMY_HASH=a#b\nMY_QUOTED='a # b'\nMY_LINES=\"a\\nb\"\n"
    )
    (launch.directory / ".env").write_text(text)
    daemon = launch(SHOW, MY_BOTH="real")
    shown = daemon.wait_for("environment")
    assert (shown["MY_FILE"], shown["MY_BOTH"], shown["MY_EMPTY"]) == ("file", "real", "")
    assert (shown["MY_HASH"], shown["MY_QUOTED"], shown["MY_LINES"]) == ("a#b", "a # b", "a\nb")
    assert daemon.stop() == 0


def test_variables_are_there_at_import(launch: Launcher) -> None:
    """A module that reads its environment while it is imported sees the file's variables."""
    (launch.directory / ".env").write_text("MY_TABLE=users\n")
    daemon = launch("log.info('imported', table=os.environ['MY_TABLE'])", beside=SHOW)
    assert daemon.wait_for("imported")["table"] == "users"
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfJOBD_MAX_RUNNING=x\n",
        b"JOBD_MAX_RUNNING=x\r\n",
        b"# comment\r\n\r\nJOBD_MAX_RUNNING=x\r\n",
        b"JOBD_MAX_RUNNING=x",
        b"  JOBD_MAX_RUNNING  =  x  # comment\n",
        b"JOBD_MAX_RUNNING='x'\n",
        b'export JOBD_MAX_RUNNING="x"\n',
        b"A=1\rJOBD_MAX_RUNNING=x\r",
    ],
    ids=["BOM", "CRLF", "CRLF and comments", "no end", "blanks", "quotes", "export", "CR"],
)
def test_ways_to_write_a_file(launch: Launcher, data: bytes) -> None:
    """Byte order marks, any end of line, blanks, quotes and `export` do not hide a variable."""
    (launch.directory / ".env").write_bytes(data)
    found = faults(launch(SHOW))
    assert [(fault["setting"], fault["value"]) for fault in found] == [("JOBD_MAX_RUNNING", "x")]


def test_good_file_with_every_line_end(launch: Launcher) -> None:
    """CRLF is not part of the value."""
    (launch.directory / ".env").write_bytes(b"\xef\xbb\xbfJOBD_MAX_RUNNING=5\r\nMY_NAME=x\r\n")
    daemon = launch(SHOW)
    assert daemon.wait_for("environment")["MY_NAME"] == "x"
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_missing_file_is_fine_unless_it_was_named(launch: Launcher) -> None:
    """No `.env` is the default; a file that the command line names must exist."""
    assert grace_of(launch(SHOW)) == 1
    found = faults(launch(SHOW, "run", "jobs", "--env-file", "absent.env"))
    assert "absent.env" in found[0]["value"]


def test_named_file_is_read_instead(launch: Launcher) -> None:
    """`--env-file` replaces the `.env` of the current directory."""
    (launch.directory / ".env").write_text("JOBD_MAX_RUNNING=wrong\nMY_NAME=default\n")
    (launch.directory / "other.env").write_text("MY_NAME=other\n")
    daemon = launch(SHOW, "run", "jobs", "--env-file", "other.env")
    assert daemon.wait_for("environment")["MY_NAME"] == "other"
    assert daemon.stop() == 0


BROKEN = {
    "invalid UTF-8": b"A=1\nB=\xff\n",
    "UTF-16": "A=1\n".encode("utf-16"),
    "NUL": b"A=1\nB=a\0b\n",
    "unterminated quote": b"A='1\nJOBD_MAX_RUNNING=5\n",
    "unterminated double quote": b'A="1\nJOBD_MAX_RUNNING=5\n',
    "no assignment": b"A=1\nJOBD_MAX_RUNNING\n",
    "YAML": b"JOBD_MAX_RUNNING: 5\n",
    "too large": b"A=1\n" * 1_000_000,
    "too long a variable": b"A=1\nB=" + b"x" * 131_072,
}


@pytest.mark.parametrize("named", [False, True], ids=["default", "named"])
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_broken_file_stops_the_start(launch: Launcher, data: bytes, named: bool) -> None:
    """What cannot be read is a fault that names the file; never a traceback, never half a configuration."""
    name = "named.env" if named else ".env"
    (launch.directory / name).write_bytes(data)
    found = faults(launch(SHOW, "run", "jobs", *(("--env-file", name) if named else ())))
    assert any(name in fault["source"] + fault["value"] for fault in found)


def directory(path: Path) -> None:
    """A directory where the file should be."""
    path.mkdir()


def device(path: Path) -> None:
    """A device that never ends."""
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


@pytest.mark.parametrize("named", [False, True], ids=["default", "named"])
@pytest.mark.parametrize("make", [directory, os.mkfifo, device, loop], ids=["directory", "FIFO", "device", "loop"])
def test_what_is_no_file_stops_the_start(launch: Launcher, make: object, named: bool) -> None:
    """A directory, a FIFO or a device in its place is a fault, never an empty file and never a hang."""
    assert callable(make)
    name = "named.env" if named else ".env"
    make(launch.directory / name)
    faults(launch(SHOW, "run", "jobs", *(("--env-file", name) if named else ())))


@pytest.mark.parametrize("named", [False, True], ids=["default", "named"])
def test_unreadable_file_stops_the_start(launch: Launcher, named: bool) -> None:
    """A file that is there and may not be read is a fault that says so, and not silently left out."""
    file = launch.directory / ("named.env" if named else ".env")
    file.write_text("A=1")
    file.chmod(0)
    as_anybody = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    arguments = ("--env-file", file.name) if named else ()
    (fault,) = faults(launch(SHOW, "run", "jobs", *arguments, program=(*as_anybody, JOBD)))
    assert file.name in fault["value"]
    assert "Permission denied" in fault["reason"]


def test_duplicate_is_a_warning_and_the_last_one_counts(launch: Launcher) -> None:
    """A variable that the file gives twice is told."""
    (launch.directory / ".env").write_text("MY_NAME=first\nMY_NAME=second\nJOBD_MAX_RUNNING=x\nJOBD_MAX_RUNNING=5\n")
    daemon = launch(SHOW)
    assert daemon.wait_for("environment")["MY_NAME"] == "second"
    warned = [line for line in daemon.lines if line["level"] == "warning"]
    assert {line["setting"] for line in warned} == {"MY_NAME", "JOBD_MAX_RUNNING"}
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_unknown_variable_in_the_file_is_a_warning(launch: Launcher) -> None:
    """A typing error in the file is told with the nearest name and the place."""
    (launch.directory / ".env").write_text("\nJOBD_MAX_RUNING=5\n")
    daemon = launch(SHOW)
    told = daemon.wait_for("config.unknown")
    assert (told["setting"], told["nearest"]) == ("JOBD_MAX_RUNING", "JOBD_MAX_RUNNING")
    assert ".env" in told["source"]
    assert daemon.stop() == 0
