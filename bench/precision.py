"""How late one job starts that is due every 50 ms, on a machine that does nothing else.

The job notes it itself, in its first line: now minus the tick's instant. The floor is an asyncio loop that sleeps to
each instant of the same grid, which wakes late because epoll counts milliseconds; what the kernel can do is shown by C.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench import harness
from bench.figures import Figure, Goal, percentile

Row = dict[str, Any]

LOOP = "asyncio loop on the same grid"
LATE_REST = """\
The control plane wakes up 0.2 to 0.4 ms after the tick (select(2) and the machine) and wakes the job plane, which has
to get up and to get the interpreter's lock before the job's first line. To wake it before the row of the tick is made
was tried and gained 0.04 ms at most. To wake it before the tick would spare more, and wake two threads twice for every
tick; a single loop would, too."""
CPU_REST = """\
A tick wakes two threads up, and each of them is a turn of an event loop in Python, where the floor is one turn of one;
four times a second there is a look whether a job holds the other plane. It is the price of two planes."""
P50 = Goal("1 job every 50 ms: lateness, median", 0.15, "ms", floor=LOOP, reached=0.8, held=10, rest=LATE_REST)
P99 = Goal("the same: lateness, 99 %", 0.5, "ms", floor=LOOP, rest="as the median.")
EARLY = Goal("the same: starts before their tick", 0, "runs", floor=LOOP, held=1)
CPU = Goal("the same: CPU per tick, two lines each", 1.5, "x", floor=LOOP, reached=3.7, held=2, rest=CPU_REST)
CPU_NO_LINES = Goal("the same: CPU per tick, no lines", 1.5, "x", floor=LOOP, reached=2.9, held=2, rest="likewise.")
KERNEL = "clock_nanosleep in C"


def measure(quick: bool) -> list[Figure]:
    """All in turns."""
    ticks = 40 if quick else 100
    asked = {"jobs": 1, "interval": 0.05, "ticks": ticks}
    calls = {
        "jobd": partial(harness.run, harness.jobs("metered"), **asked),
        "no lines": partial(harness.run, harness.jobs("metered"), jobd_log_level="warning", **asked),
        "loop": partial(harness.run, harness.floor("heap"), **asked),
    }
    with tempfile.TemporaryDirectory() as directory:
        if not quick and (compiled := _compiled(Path(directory))):
            calls[KERNEL] = partial(harness.run, compiled, **asked)
        taken = harness.rounds(1 if quick else 5, calls)

    def figure(goal: Goal, of: Callable[[Row], float], unit: str, subject: str = "jobd") -> Figure:
        rivals = {name: list(map(of, taken[name])) for name in taken if name == KERNEL}
        return Figure(goal, list(map(of, taken[subject])), unit, list(map(of, taken["loop"])), rivals)

    def cpu_us(row: Row) -> float:
        return float(row["cpu_s"]) / ticks * 1e6

    return [
        figure(P50, lambda row: median(lateness_ms(row)), "ms"),
        figure(P99, lambda row: percentile(lateness_ms(row), 99), "ms"),
        figure(EARLY, lambda row: sum(late < 0 for late in lateness_ms(row)), "runs"),
        figure(CPU, cpu_us, "us"),
        figure(CPU_NO_LINES, cpu_us, "us", "no lines"),
    ]


def lateness_ms(row: Row) -> list[float]:
    """How late each run of a round was."""
    return [(started - due) * 1000 for due, started in row["starts"]]


def _compiled(directory: Path) -> tuple[str, ...] | None:
    """The program in C, where there is a compiler."""
    program = directory / "nanosleep"
    source = harness.ROOT / "bench" / "floors" / "nanosleep.c"
    if shutil.which("cc") is None:
        return None
    subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    return (str(program),)


if __name__ == "__main__":
    harness.main(measure)
