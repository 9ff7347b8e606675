"""1,000 jobs every second, due together, without a log: the CPU time of a run, and how late they start.

The floor is a heap and `create_task`; the peers do what their documentation shows, on the same grid where they let one
choose it. aiojobs runs what the heap finds due, because it has no schedules, so it stands beside the schedulers and is
not one of those that lateness is held against.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

from bench import harness
from bench.figures import Figure, Goal, percentile
from bench.precision import lateness_ms

Row = dict[str, Any]

HEAP = "heap and create_task"
REST = """\
What is said under `dispatch` of a run without lines, and here the thousand jobs are a thousand lines, each of
which is asked for its next tick."""
CPU = Goal("1,000 jobs every second, no log: CPU per run", 2.0, "x", floor=HEAP, held=2, rest=REST)
LATENESS: dict[str, Callable[[list[float]], float]] = {
    "median": median,
    "99 %": lambda late: percentile(late, 99),
    "most": max,
}
PEERS = {
    "aiojobs": "aiojobs_cadence",
    "aiomisc": "aiomisc_cadence",
    "APScheduler 3": "apscheduler3_cadence",
    "APScheduler 4": "apscheduler4_cadence",
    "taskiq": "taskiq_cadence",
}
NO_SCHEDULER = ("heap", "aiojobs")


def measure(quick: bool) -> list[Figure]:
    """All in turns; lateness is held against the best peer of each round."""
    commands = {"jobd": harness.jobs("metered"), "heap": harness.floor("heap")}
    if not quick:
        commands |= {"naive tasks": harness.floor("naive"), **harness.peers(PEERS)}
    ticks = 3 if quick else 4
    asked = {"jobs": 1000, "interval": 1, "ticks": ticks, "warm": 1, "jobd_log_level": "warning"}
    taken = harness.in_turns(1 if quick else 5, commands, **asked)
    us = {name: [row["cpu_s"] / (ticks * 1000) * 1e6 for row in rows] for name, rows in taken.items()}
    cpu = Figure(CPU, us.pop("jobd"), "us", us.pop("heap"), us)
    return [cpu, *([] if quick else _lateness(taken))]


def _lateness(taken: dict[str, list[Row]]) -> list[Figure]:
    figures = []
    for name, of in LATENESS.items():
        ms = {program: [of(lateness_ms(row)) for row in rows] for program, rows in taken.items()}
        jobd = ms.pop("jobd")
        best = [min(each) for each in zip(*(ms[peer] for peer in ms if peer not in NO_SCHEDULER), strict=True)]
        goal = Goal(f"the same: lateness, {name}", 1.0, "x", floor="the best scheduler")
        figures.append(Figure(goal, jobd, "ms", best, ms))
    return figures


if __name__ == "__main__":
    harness.main(measure)
