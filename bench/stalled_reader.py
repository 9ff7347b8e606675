"""How late jobs start while nobody reads the log for 3 s, and whether their starts are all in it afterwards.

20 jobs are due every 50 ms, so the pipe is full within a moment. The rival writes its lines to the pipe itself, and
waits there for the reader.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from bench import harness
from bench.figures import Figure, Goal
from bench.harness import Program
from bench.precision import lateness_ms

Row = dict[str, Any]

PAUSE_S = 3.0
DIRECT = "heap, tasks, structlog as it comes"
REST = """\
The latest of 1,800 starts, so what the machine does meanwhile counts, not the reader: the median is 2 ms, and whoever
writes to the pipe himself is 2.2 s late."""
LATEST = Goal("nobody reads the log for 3 s: lateness of the latest start", 5.0, "ms", rest=REST)
MEDIAN = Goal("the same: lateness, median", 5.0, "ms", held=10)
MISSING = Goal("the same: starts missing in the log", 0, "starts", held=1)
JOBS, INTERVAL_S, TICKS = 20, 0.05, 90


def measure(quick: bool) -> list[Figure]:
    """Both in turns."""
    commands = {"jobd": harness.jobs("metered"), "rival": harness.floor("heap_structlog")}
    taken = harness.rounds(1 if quick else 5, {name: partial(_paused, each) for name, each in commands.items()})

    def figure(goal: Goal, of: Callable[[Row], float], unit: str) -> Figure:
        return Figure(goal, list(map(of, taken["jobd"])), unit, rivals={DIRECT: list(map(of, taken["rival"]))})

    return [
        figure(LATEST, lambda row: max(lateness_ms(row)), "ms"),
        figure(MEDIAN, lambda row: median(lateness_ms(row)), "ms"),
        Figure(MISSING, [row["missing"] for row in taken["jobd"]], "starts"),
    ]


def _paused(command: tuple[str, ...]) -> Row:
    asked = {"jobs": JOBS, "interval": INTERVAL_S, "ticks": TICKS, "warm": 0}
    with Program(command, keep=True, **asked) as program:
        program.wait_for(b"run.finished")
        program.reading.clear()
        time.sleep(PAUSE_S)
        program.reading.set()
        row = program.wait_for_report()
        if "jobd" in command:
            program.terminate()
            program.wait()
            row["missing"] = _missing(program)
    return row


def _missing(program: Program) -> int:
    """How many ticks of the jobs the log does not account for."""
    ticks: dict[str, set[int]] = defaultdict(set)
    for line in program.events("run.started"):
        ticks[line["job"]].add(line["tick"])
    for line in program.events("tick.skipped"):
        ticks[line["job"]].update(range(line["tick"], line["tick"] + line["count"]))
    return sum(max(each) + 1 - len(each) for each in ticks.values())


if __name__ == "__main__":
    harness.main(measure)
