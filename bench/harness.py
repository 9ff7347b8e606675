"""How a figure is taken: processes, and rounds in which subject and floor alternate.

A subject, a floor and a peer are programs that are asked for the same by their environment (`bench.load`). Each runs
as a process of its own whose stdout is a pipe that is read here, and reports its measurements in a file.

Tricky: where a program cannot tell what CPU time it has used, with its helpers, that is read from outside, from its CPU
clock: to the nanosecond, where /proc/PID/stat counts hundredths of a second.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from bench.figures import Figure, table
from bench.peers import environment

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
#: After this any program is killed, and the benchmark has failed.
LIMIT_S = 300.0
#: As much memory as no program needs, so that one that has gone mad does not take the machine along.
LIMIT_BYTES = 8 << 30


#: Those that run now, so that none is left behind when we are asked to end.
_running: set["Program"] = set()


class BenchError(Exception):
    """A program did not do what it was asked to do, so its figures mean nothing."""


def jobs(module: str) -> tuple[str, ...]:
    """The command that runs jobd, as its users do, with `bench.jobs.MODULE`."""
    return (sys.executable, "-m", "jobd", "run", f"bench.jobs.{module}")


def floor(module: str) -> tuple[str, ...]:
    """The command that runs `bench.floors.MODULE`."""
    return (sys.executable, "-m", f"bench.floors.{module}")


def peer(module: str) -> tuple[str, ...]:
    """The command that runs `bench.peers.MODULE`."""
    return (str(environment.PYTHON), "-m", f"bench.peers.{module}")


def peers(modules: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The commands of those peers that are installed, by their names."""
    installed = {name for name, version in environment.versions().items() if version}
    return {name: peer(module) for name, module in modules.items() if name in installed}


class Program:
    """A process under measurement, in a directory of its own; to be used in a `with`, which ends it by force."""

    def __init__(
        self, command: Sequence[str], *, limit_s: float = LIMIT_S, keep: bool = False, **asked: object
    ) -> None:
        """Start it with `asked` in its environment: settings of jobd by their names, all else for `bench.load`.

        `keep` keeps its lines; otherwise they are read and counted only.
        """
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        self.directory = Path(self._directory.name)
        self._report = self.directory / "report.json"
        self._keep = keep
        self._command = " ".join(["python" if part == command[0] else part for part in command])
        self._output: list[bytes] = []
        self._ended = False
        self._changed = threading.Condition()
        #: How many lines have been read.
        self.read = 0
        #: Cleared, it makes the reader of the lines pause.
        self.reading = threading.Event()
        self.reading.set()
        #: When it was started.
        self.started = time.monotonic()
        with (self.directory / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [part.replace("{directory}", str(self.directory)) for part in command],
                cwd=self.directory,
                env=_environment(self.directory, asked) | {"BENCH_REPORT": str(self._report)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        self.pid = self._process.pid
        resource.prlimit(self.pid, resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
        _running.add(self)
        self._limit = threading.Timer(limit_s, self._process.kill)
        self._limit.daemon = True
        self._limit.start()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *exception: object) -> None:
        self._limit.cancel()
        self.reading.set()
        self.kill()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()
        _running.discard(self)

    def terminate(self) -> float:
        """Ask it to stop; when that was."""
        asked = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        return asked

    def wait(self) -> float:
        """Wait for its end, which has to be a good one; when that was."""
        code = self._process.wait()
        ended = time.monotonic()
        self._reader.join()
        if code not in (0, -signal.SIGTERM):
            self.fail(f"left with {code}")
        return ended

    def wait_for(self, text: bytes) -> float:
        """Wait for a line with that text; when it was read. For programs whose lines are kept."""
        found = 0.0
        with self._changed:
            while not found and not self._ended:
                if any(text in data for data in self._output):
                    found = time.monotonic()
                else:
                    self._changed.wait()
        return found or self.fail(f"never said {text!r}")

    def wait_for_report(self) -> dict[str, Any]:
        """Wait until it has reported, and goes on."""
        while not self._report.exists() and self._process.poll() is None:
            time.sleep(0.1)  # rarely, because it is to have the machine for itself
        if not self._report.exists():
            self.fail("ended without a report")
        reported: dict[str, Any] = json.loads(self._report.read_text())
        return reported

    def wait_until_still(self) -> None:
        """Wait until it has done what it had to do at once, such as log what has begun."""
        used, seen, until = self.cpu_s(), -1.0, time.monotonic() + 10
        while used - seen > 0.001 and time.monotonic() < until:
            time.sleep(0.1)
            used, seen = self.cpu_s(), used

    def members(self) -> list[int]:
        """The process, and those that it has started to help it: all of its session."""
        found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in found if _session(pid) == self.pid]

    def cpu_s(self) -> float:
        """The CPU time that it has used, all threads, with its helpers."""
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.members())  # see clock_getcpuclockid(3)

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of jobd's log that tell of this event."""
        return [line for line in map(json.loads, b"".join(self._output).splitlines()) if line["event"] == event]

    def fail(self, reason: str) -> NoReturn:
        """Say what it has been doing."""
        said = (self.directory / "stderr").read_bytes()[-2000:].decode(errors="replace")
        shown = b"".join(self._output)[-2000:].decode(errors="replace")
        raise BenchError(f"{self._command} {reason}\n{said}\n{shown}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        while self.reading.wait() and (data := os.read(self._process.stdout.fileno(), 1 << 20)):
            self.read += data.count(b"\n")
            if self._keep:
                with self._changed:
                    self._output.append(data)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _environment(directory: Path, asked: Mapping[str, object]) -> dict[str, str]:
    """What the program finds in its environment; nothing of ours comes in that could change a figure."""
    own = {"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    return own | {n.upper() if n.startswith("jobd_") else f"BENCH_{n.upper()}": str(v) for n, v in asked.items()}


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def run(command: Sequence[str], **asked: Any) -> dict[str, Any]:
    """What the program reports. Then it is ended: jobd as one should, others by force, which is not about them."""
    with Program(command, **asked) as program:
        reported = program.wait_for_report()
        if "jobd" in command:
            program.terminate()
            program.wait()
        return reported


def rounds(count: int, subjects: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Measure all subjects `count` times, in turns; every other turn backwards, so that none always comes first."""
    taken: dict[str, list[T]] = {name: [] for name in subjects}
    for number in range(count):
        for name in list(subjects)[:: -1 if number % 2 else 1]:
            taken[name].append(subjects[name]())
    return taken


def in_turns(count: int, commands: Mapping[str, Sequence[str]], **asked: Any) -> dict[str, list[dict[str, Any]]]:
    """Ask the same of all programs, `count` times; what they have reported."""
    return rounds(count, {name: partial(run, command, **asked) for name, command in commands.items()})


def leave_nothing_behind() -> None:
    """See to it that who is asked to end, by Ctrl-C or SIGTERM, takes along what it has started."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _end_all)


def _end_all(signum: int, frame: object) -> NoReturn:
    for program in list(_running):
        program.kill()
    os._exit(128 + signum)  # other threads may be in the middle of a benchmark


def main(measure: Callable[[bool], list[Figure]]) -> None:
    """Run one benchmark alone; ``--quick`` for fewer rounds and smaller sizes."""
    leave_nothing_behind()
    print(table(measure("--quick" in sys.argv[1:])))
