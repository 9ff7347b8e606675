"""How a figure is taken: processes, rounds in which subject and floor alternate, goals, medians and their spread.

A subject, a floor and a peer are programs that are asked for the same by their environment (`bench.load`). Each runs
as a process of its own whose stdout is a pipe that is read here, and reports its measurements in a file.

Tricky: the CPU time of a process can be read from outside through its CPU clock, to the nanosecond and with threads
that have ended, which /proc/PID/stat gives in hundredths of a second only.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
#: jobd as its users start it; the module of jobs follows.
JOBD = (PYTHON, "-m", "jobd", "run")
#: After this any program is killed, and the benchmark has failed.
LIMIT_S = 300.0


class BenchError(Exception):
    """A program did not do what it was asked to do, so its figures mean nothing."""


class Program:
    """A process under measurement, in a directory of its own; to be used in a `with`, which ends it by force."""

    def __init__(
        self, command: Sequence[str], *, limit_s: float = LIMIT_S, keep: bool = False, **asked: object
    ) -> None:
        """Start it with `asked` in its environment: in capitals, JOBD_ settings as they are, all else as BENCH_.

        `keep` keeps its lines, which costs CPU on this side; otherwise they are read and only counted.
        """
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        self.directory = Path(self._directory.name)
        self._report = self.directory / "report.json"
        self._keep = keep
        self._output: list[bytes] = []
        self.lines_read = 0
        #: Clear it, and the reader of the lines pauses.
        self.reading = threading.Event()
        self.reading.set()
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [part.replace("{directory}", str(self.directory)) for part in command],
            cwd=self.directory,
            env=_environment(self.directory, asked) | {"BENCH_REPORT": str(self._report)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(self.directory / "stderr").open("wb"),
            start_new_session=True,
        )
        self.pid = self._process.pid
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
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._directory.cleanup()

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> dict[str, Any]:
        """Wait for its end, which has to be a good one; what it has reported, if anything."""
        code = self._process.wait()
        self._reader.join()
        if code not in (0, -signal.SIGTERM):
            self.fail(f"left with {code}")
        return json.loads(self._report.read_text()) if self._report.exists() else {}

    def cpu_s(self) -> float:
        """The CPU time that it has used, all threads."""
        return time.clock_gettime((~self.pid << 3) | 2)  # how clock_getcpuclockid(3) names the clock

    @property
    def lines(self) -> list[bytes]:
        """Its lines so far, if they are kept."""
        return b"".join(self._output).splitlines()

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of jobd's log that tell of this event."""
        return [line for line in map(json.loads, self.lines) if line["event"] == event]

    def fail(self, reason: str) -> NoReturn:
        """Say what it has been doing."""
        said = (self.directory / "stderr").read_bytes()[-2000:].decode(errors="replace")
        shown = b"\n".join(self.lines[-5:]).decode(errors="replace")
        raise BenchError(f"{self._process.args!r} {reason}\n{said}\n{shown}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        while self.reading.wait() and (data := os.read(self._process.stdout.fileno(), 1 << 20)):
            self.lines_read += data.count(b"\n")
            if self._keep:
                self._output.append(data)


def _environment(directory: Path, asked: Mapping[str, object]) -> dict[str, str]:
    """What the program finds in its environment; nothing comes in from ours that could change a figure."""
    settings = {
        name.upper() if name.startswith("jobd_") else f"BENCH_{name.upper()}": str(v) for name, v in asked.items()
    }
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "0",
    } | settings


def run(command: Sequence[str], **asked: Any) -> dict[str, Any]:
    """Run the program to its end; what it has reported."""
    with Program(command, **asked) as program:
        return program.wait()


def jobs(module: str) -> tuple[str, ...]:
    """The command that runs jobd with `bench.jobs.MODULE`."""
    return (*JOBD, f"bench.jobs.{module}")


def floor(module: str) -> tuple[str, ...]:
    """The command that runs `bench.floors.MODULE`."""
    return (PYTHON, "-m", f"bench.floors.{module}")


def rounds(count: int, subjects: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Measure all subjects `count` times, in turns; every other turn backwards, so that none always comes first."""
    taken: dict[str, list[T]] = {name: [] for name in subjects}
    for number in range(count):
        for name in list(subjects)[:: -1 if number % 2 else 1]:
            taken[name].append(subjects[name]())
    return taken


@dataclass(frozen=True)
class Goal:
    """What a figure should be: a ratio to the floor if the unit is "x", otherwise a value in that unit."""

    what: str
    at_most: float
    unit: str = "x"
    #: What the floor is.
    floor: str = ""
    #: What was reached where the goal is not; the quick form takes the larger of the two, times two.
    reached: float | None = None
    #: Whether the quick form can hold it on a noisy machine.
    steady: bool = False

    @property
    def gross(self) -> float:
        """Where the quick form sees a gross regression."""
        return 2 * max(self.at_most, self.reached or 0.0)


@dataclass(frozen=True)
class Figure:
    """What was measured for a goal, round by round, in `unit`; the floor likewise, and rivals by their names."""

    goal: Goal
    taken: list[float]
    unit: str = ""
    floor: list[float] = field(default_factory=list)
    rivals: dict[str, list[float]] = field(default_factory=dict)

    @property
    def compared(self) -> list[float]:
        """What the goal is about, for each round."""
        return self.ratios(self.taken) if self.goal.unit == "x" else self.taken

    @property
    def value(self) -> float:
        """What is held against the goal."""
        return median(self.compared)

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        return self.value <= self.goal.at_most

    def ratios(self, taken: Sequence[float]) -> list[float]:
        """To the floor, round by round."""
        return [one / other for one, other in zip(taken, self.floor, strict=True)]


def spread(values: Sequence[float]) -> str:
    """The median, and from where to where the rounds go."""
    shown = f"{median(values):.3g}"
    return f"{shown} ({min(values):.3g} .. {max(values):.3g})" if len(values) > 1 else shown


def table(figures: Sequence[Figure]) -> str:
    """The figures as rows of Markdown."""
    rows = ["| what | measured | floor | compared | goal | |", "|---|---|---|---|---|---|"]
    for figure in figures:
        goal = figure.goal
        floor = f"{spread(figure.floor)} {figure.unit}, {goal.floor}" if figure.floor else goal.floor
        rows.append(
            f"| {goal.what} | {spread(figure.taken)} {figure.unit} | {floor} | {spread(figure.compared)} {goal.unit} "
            f"| <= {goal.at_most:g} {goal.unit} | {'met' if figure.met else 'not met'} |"
        )
        for name, taken in figure.rivals.items():
            ratio = f"{spread(figure.ratios(taken))} x" if figure.floor else ""
            rows.append(f"| - {name} | {spread(taken)} {figure.unit} | | {ratio} | | |")
    return "\n".join(rows)


def main(measure: Callable[[bool], list[Figure]]) -> None:
    """Run one benchmark alone; ``--quick`` for fewer rounds and smaller sizes."""
    print(table(measure("--quick" in sys.argv[1:])))
