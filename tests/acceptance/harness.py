"""A daemon under test: the `jobd` console script as a process of its own, its signals, its exit code and its log.

Knows the contract and nothing of the code. Nothing here sleeps to pass: tests wait for lines and for the end of the
process, and every wait has an outer limit, generous because machines are noisy.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals
from typing import IO, Any, NoReturn

import pytest

from .consistency import Line, assert_consistent

JOBD = str(Path(sys.executable).parent / "jobd")
#: How long to wait for something that has no limit of its own.
PATIENCE_S = 20.0
#: What a noisy machine may add to the time bound before we hear of the process's end.
SLACK_S = 1.0
#: Short, so that tests of the stop are; a test that is about them says so itself.
SETTINGS = {"JOBD_GRACE_PERIOD": "1", "JOBD_CANCEL_TIMEOUT": "1"}
#: Stands at the top of every jobs module.
PRELUDE = """\
import asyncio, itertools, logging, os, signal, subprocess, sys, threading, time
import structlog
from jobd import current_run, every
log = structlog.get_logger()
"""


class Log:
    """Reads a log line by line in a thread, and lets a test wait for what is in it."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        #: The same lines as they came.
        self.raw: list[bytes] = []
        #: Lines that are no JSON object; there may be none.
        self.garbage: list[bytes] = []
        self.ended = False
        self._changed = threading.Condition()

    def read(self, stream: IO[bytes]) -> None:
        """Read until the writer has closed the stream, in a thread of our own."""
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def wait_until(self, found: Callable[[list[Line]], Any], timeout: float) -> Any:
        """What `found` finds in the lines, as soon as that is true; None if the log ends or time is up before."""
        with self._changed:
            self._changed.wait_for(lambda: self.garbage or self.ended or found(self.lines), timeout)
            return found(self.lines) or None

    def wait_for_end(self, timeout: float) -> bool:
        """Wait until everything has been read."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ended, timeout)

    def _read(self, stream: IO[bytes]) -> None:
        try:
            for raw in stream:
                self._take(raw)
        except OSError:  # the other side of a terminal has gone
            pass
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _take(self, raw: bytes) -> None:
        with self._changed:
            self.raw.append(raw)
            try:
                self.lines.append(parsed(raw))
            except ValueError:
                self.garbage.append(raw)
            self._changed.notify_all()


class Daemon:
    """A running `jobd`, or one that has run."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        settings: Mapping[str, str],
        *,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> None:
        """Start the command in `directory`, as the leader of a session of its own, in an environment made for it."""
        self.directory = directory
        self.log = Log()
        self.settings = SETTINGS | dict(settings)
        self._stderr: list[bytes] = []
        self._first_stop: float | None = None
        self._reading = False
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env={"PATH": os.environ["PATH"], "HOME": str(directory)} | self.settings,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        #: Who gets the signals; somebody else if the daemon was started through a command that stays.
        self.pid = self.process.pid
        if self.process.stderr is not None:
            self._collector = threading.Thread(target=self._collect, args=(self.process.stderr,), daemon=True)
            self._collector.start()

    @property
    def lines(self) -> list[Line]:
        """The log so far."""
        return list(self.log.lines)

    @property
    def stderr(self) -> str:
        """What came on stderr so far; everything, once the process has ended."""
        if self.process.poll() is not None and self.process.stderr is not None:
            self._collector.join(PATIENCE_S)
        return b"".join(self._stderr).decode("utf-8", "backslashreplace")

    @property
    def bound_s(self) -> float:
        """From the first stop signal to the end of the process, at most."""
        return float(self.settings["JOBD_GRACE_PERIOD"]) + float(self.settings["JOBD_CANCEL_TIMEOUT"]) + 1

    def read(self) -> None:
        """Begin to read the log."""
        assert self.process.stdout is not None
        self._reading = True
        self.log.read(self.process.stdout)

    def events(self, event: str, **fields: object) -> list[Line]:
        """The lines so far that tell of this event, with these fields."""
        return matching(self.lines, event, fields)

    def wait_for(self, event: str, *, count: int = 1, timeout: float = PATIENCE_S, **fields: object) -> Line:
        """The `count`-th line that tells of this event, with these fields; the test fails if it does not come."""

        hits: list[Line] = []
        seen = 0

        def found(lines: list[Line]) -> Line | None:
            nonlocal seen  # each line is looked at once, because there may be hundreds of thousands
            hits.extend(matching(lines[seen:], event, fields))
            seen = len(lines)
            return hits[count - 1] if len(hits) >= count else None

        line: Line | None = self.log.wait_until(found, timeout)
        if line is None or self.log.garbage:
            self.fail(f"{event} {fields or ''} has not come {count} times within {timeout} s")
        return line

    def wait_for_run(self, tick: int, job: str) -> Line:
        """The start of the first run of this tick or a later one, because a busy machine may have missed some."""

        def found(lines: list[Line]) -> Line | None:
            started = matching(lines, "run.started", {"job": job})
            return next((line for line in started if line["tick"] >= tick), None)

        line: Line | None = self.log.wait_until(found, PATIENCE_S)
        if line is None:
            self.fail(f"no run of {job} has started at tick {tick} or later")
        return line

    def wait_for_missed(self, job: str, at_least: int) -> Line:
        """The first row of so many missed ticks, because a busy machine may have made shorter ones."""

        def found(lines: list[Line]) -> Line | None:
            skipped = matching(lines, "tick.skipped", {"job": job, "reason": "missed"})
            return next((line for line in skipped if line["count"] >= at_least), None)

        line: Line | None = self.log.wait_until(found, PATIENCE_S)
        if line is None:
            self.fail(f"{job} has not missed {at_least} ticks in a row")
        return line

    def signal(self, signum: Signals) -> None:
        """Send the signal."""
        if signum in (SIGTERM, SIGINT) and self._first_stop is None:
            self._first_stop = time.monotonic()
        os.kill(self.pid, signum)

    def exit_code(self, within: float | None = None) -> int:
        """Wait for the end of the process: for `within` seconds, else the time bound if we asked it to stop."""
        if within is None:
            within = PATIENCE_S if self._first_stop is None else self.bound_s
        asked = time.monotonic() if self._first_stop is None else self._first_stop
        try:
            code = self.process.wait(max(0.0, asked + within + SLACK_S - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.fail(f"still there {time.monotonic() - asked:.1f} s after the stop signal; {within} s are allowed")
        if self._reading:
            assert self.log.wait_for_end(PATIENCE_S), "the log has no end"
        return code

    def stop(self, signum: Signals = SIGTERM, within: float | None = None) -> int:
        """Ask for the stop and wait for it; the exit code."""
        self.signal(signum)
        return self.exit_code(within)

    def line_of(self, code: str, module: str = "jobs") -> str:
        """Where the module has this code, as a stack shows it: ``jobs.py:12``."""
        text = (self.directory / f"{module}.py").read_text()
        numbers = [number for number, line in enumerate(text.splitlines(), 1) if code in line]
        assert len(numbers) == 1, f"{code!r} is not in exactly one line"
        return f"{module}.py:{numbers[0]}"

    def outcomes(self, job: str | None = None) -> list[str]:
        """How the runs ended, in that order."""
        return [line["outcome"] for line in self.events("run.finished") if job in (None, line["job"])]

    def assert_log_is_consistent(self, *, stderr: str = "") -> None:
        """The log keeps the contract's promises, the process left with the code it tells, and stderr is as it was."""
        assert not self.log.garbage, self.log.garbage[:3]
        assert_consistent(self.lines)
        assert self.lines[-1]["exit_code"] == self.process.returncode
        assert self.stderr == stderr

    def fail(self, what: str) -> NoReturn:
        """Fail the test, and show what the daemon has said."""
        pytest.fail(f"{what}\n{self.told()}")

    def told(self) -> str:
        """What it has said last, for whoever looks into a failure."""
        log = b"".join(raw[:1000] for raw in self.log.raw[-25:]).decode("utf-8", "backslashreplace")
        stderr = b"".join(self._stderr).decode("utf-8", "backslashreplace")[-4000:]
        garbage = f"no JSON: {self.log.garbage[:3]}\n" if self.log.garbage else ""
        return f"{garbage}exit code so far: {self.process.poll()}\nlog:\n{log}\nstderr:\n{stderr}"

    def end(self) -> list[int]:
        """End what the test has left behind, by pid; who that was, the daemon itself apart."""
        if self.process.poll() is None:
            os.kill(self.pid, SIGKILL)
            self.process.kill()
            self.process.wait()
        deadline = time.monotonic() + 5
        while (left := in_session(self.process.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        for pid in left:
            os.kill(pid, SIGKILL)
        return left

    def _collect(self, stream: IO[bytes]) -> None:
        for raw in stream:
            self._stderr.append(raw)


def becoming_jobd(code: str) -> tuple[str, ...]:
    """A program that does something to itself in Python and then becomes jobd."""
    return (sys.executable, "-c", f"import os, signal, sys\n{code}\nos.execv(sys.argv[1], sys.argv[1:])", JOBD)


def on_terminal(path: str) -> tuple[str, ...]:
    """A program that becomes jobd as the leader of the terminal's session, as `docker run -it` or a shell starts it."""
    return becoming_jobd(f"os.getsid(0) == os.getpid() or os.setsid()\nos.close(os.open({path!r}, os.O_RDWR))")


def parsed(raw: bytes) -> Line:
    """One line of the log: a JSON object, in UTF-8, strictly as RFC 8259 says, on one line for every kind of reader."""
    text = raw.decode()
    if len(text.splitlines()) != 1 or not text.endswith("\n"):
        raise ValueError("not exactly one line")
    line = json.loads(text, parse_constant=_refuse)
    if not isinstance(line, dict) or not isinstance(line.get("event"), str):
        raise ValueError("no object with an event")
    return line


def matching(lines: Sequence[Line], event: str, fields: Mapping[str, object]) -> list[Line]:
    """The lines that tell of the event, with these fields."""
    return [line for line in lines if line["event"] == event and all(line.get(k) == v for k, v in fields.items())]


def instant(line: Line, field: str = "timestamp") -> datetime:
    """The instant that a field of the line tells."""
    return datetime.fromisoformat(line[field])


def in_session(session: int) -> list[int]:
    """The living processes of a session."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _session_of(pid) == session]


def has_ended(pid: int) -> bool:
    """Whether the process is no more; that nobody has waited for it yet does not matter."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except OSError:
        return True


def children_of(pid: int) -> list[int]:
    """The direct children of a process; none of one that is no more."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def catches(pid: int, signum: Signals) -> bool:
    """Whether the process has a handler for the signal, or makes it wait for one, as the kernel sees it."""
    caught, blocked = (int(_status(pid).get(mask, "0"), 16) for mask in ("SigCgt", "SigBlk"))
    # jobd blocks all of them; who starts it may block some until then, and what comes for PID 1 meanwhile is lost.
    waits = blocked if blocked >> (Signals.SIGUSR2 - 1) & 1 else 0
    return bool((caught | waits) >> (signum - 1) & 1)


def poll(condition: Callable[[], Any], what: str, timeout: float = PATIENCE_S) -> None:
    """Wait for something that no line tells; the test fails if it does not come."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(0.005)


def _session_of(pid: int) -> int | None:
    try:
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:4]
    except OSError:  # it has ended meanwhile
        return None
    return int(session) if state not in "ZX" else None


def _status(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
