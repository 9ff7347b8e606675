"""What a program under measurement is asked to do, and what it hands back; every jobs module, floor and peer has it.

It comes in by the environment and goes out as a file: stdout is measured, so it cannot be used for this. Imports the
standard library only, because the peers live in an environment of their own.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

#: How many jobs are due together, and how often.
JOBS = int(os.environ.get("BENCH_JOBS", "1"))
INTERVAL_S = float(os.environ.get("BENCH_INTERVAL", "1"))
#: How many ticks are measured.
TICKS = int(os.environ.get("BENCH_TICKS", "10"))
#: How many ticks come before these, because the first ones fill caches and pools.
WARM_TICKS = int(os.environ.get("BENCH_WARM", "2"))
#: How many jobs are registered besides, and not due again.
IDLE = int(os.environ.get("BENCH_IDLE", "0"))


def report(**values: Any) -> None:
    """Hand the values back, whole or not at all."""
    path = Path(os.environ["BENCH_REPORT"])
    written = path.with_suffix(".part")
    written.write_text(json.dumps(values))
    written.rename(path)


def stop() -> None:
    """End this process as its user would."""
    os.kill(os.getpid(), signal.SIGTERM)


def resident_bytes() -> int:
    """The memory of this process, as the kernel counts it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Marks:
    """The CPU time of this process, all threads, between the first and the last measured tick."""

    def __init__(self) -> None:
        self._ticks = 0
        self._first_s = 0.0

    def tick(self) -> bool:
        """Count a tick, from whatever runs last in each; whether that was the last one, and all is reported."""
        if self._ticks == WARM_TICKS:
            self._first_s = time.process_time()
        self._ticks += 1
        last = self._ticks == WARM_TICKS + TICKS + 1
        if last:
            report(cpu_s=time.process_time() - self._first_s)
        return last


class Meter:
    """How late each run starts, and the CPU time that the measured ones take."""

    def __init__(self) -> None:
        self._first = WARM_TICKS * JOBS
        self._last = (WARM_TICKS + TICKS) * JOBS
        self._taken: list[tuple[float, float]] = []
        self._first_s = 0.0

    def run(self, due: float) -> None:
        """To be called in the first line of each run, with the instant of its tick."""
        self._taken.append((due, time.monotonic()))
        if len(self._taken) == self._first:
            self._first_s = time.process_time()
        elif len(self._taken) == self._last:
            cpu_s = time.process_time() - self._first_s
            report(cpu_s=cpu_s, starts=self._taken[self._first :])


class Sleepers:
    """Counts runs that sleep on, and the memory that they take from the end of the first tick to that of the last."""

    def __init__(self) -> None:
        self._wanted = JOBS * TICKS
        self._asleep = 0
        self._first_bytes = 0

    def more(self) -> bool:
        """Whether the run that asks is to sleep on, too."""
        if self._asleep >= self._wanted:
            return False
        self._asleep += 1
        if self._asleep == JOBS:
            self._first_bytes = resident_bytes()
        elif self._asleep == self._wanted:
            grown = resident_bytes() - self._first_bytes
            report(bytes_each=grown / (self._wanted - JOBS))
        return True


def grid(start: float) -> float:
    """The last instant of the grid from `start`, for peers whose jobs are not told which tick they run for.

    It flatters them: who is late by more than an interval looks punctual.
    """
    now = time.monotonic()
    return now - (now - start) % INTERVAL_S
