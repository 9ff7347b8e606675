"""How the cost of a tick grows with the number of jobs that are registered, and how long registering them takes.

A tick is ten empty jobs that are due together, among 100 and among 100,000 others that are not. The rival is `heapq`;
the logarithm itself grows 2.5-fold. Registering is what the start takes longer with so many jobs: from the start of
the process to `daemon.ready`.
"""

import math
from functools import partial

from bench import harness
from bench.figures import Figure, Goal
from bench.harness import Program

FEW, MANY = 100, 100_000
GROWTH = Goal("growth of a tick's CPU from 100 to 100,000 jobs", math.log(MANY, FEW), "fold", held=2)
REST = """\
Half of it is Python that makes a hundred thousand functions and calls the decorator; the rest looks at each (is it a
generator, does it take arguments, is it asynchronous) and gives it a job and a line."""
REGISTERED = Goal("100,000 jobs registered: time for each (20 us are 2 s for all)", 20.0, "us", held=4, rest=REST)
JOBS, TICKS, INTERVAL_S = 10, 50, 0.02
RIVALS = {"APScheduler 3": "apscheduler3_registered", "taskiq": "taskiq_registered"}


def measure(quick: bool) -> list[Figure]:
    """Few and many in turns; in the quick form, not quite so many."""
    many = MANY // 10 if quick else MANY
    calls = {name: partial(_costs, *each) for name, each in _programs(many).items()}
    taken = harness.rounds(1 if quick else 5, calls)
    us, ready_s = ({name: [row[n] for row in rows] for name, rows in taken.items()} for n in (0, 1))
    heap = {"heapq": _divided(us["heapq, many"], us["heapq, few"])}
    registered_us = [(late - early) / many * 1e6 for early, late in zip(ready_s["few"], ready_s["many"], strict=True)]
    return [
        Figure(GROWTH, _divided(us["many"], us["few"]), "fold", rivals=heap),
        Figure(REGISTERED, registered_us, "us", rivals={} if quick else _rivals_us(many)),
    ]


def _programs(many: int) -> dict[str, tuple[tuple[str, ...], int]]:
    jobd, heap = harness.jobs("registered"), harness.floor("registered")
    return {"few": (jobd, FEW), "heapq, few": (heap, FEW), "many": (jobd, many), "heapq, many": (heap, many)}


def _costs(command: tuple[str, ...], idle: int) -> tuple[float, float]:
    """The CPU time of a tick in microseconds, and when the program was ready."""
    asked = {"idle": idle, "jobs": JOBS, "ticks": TICKS, "interval": INTERVAL_S}
    with Program(command, keep=True, **asked) as program:
        ready_s = program.wait_for(b"daemon.ready") - program.started if "jobd" in command else 0.0
        us = program.wait_for_report()["cpu_s"] / TICKS * 1e6
    return us, ready_s


def _divided(many: list[float], few: list[float]) -> list[float]:
    return [one / other for one, other in zip(many, few, strict=True)]


def _rivals_us(many: int) -> dict[str, list[float]]:
    taken = harness.in_turns(5, harness.peers(RIVALS), idle=many)
    return {name: [row["registered_s"] / many * 1e6 for row in rows] for name, rows in taken.items()}


if __name__ == "__main__":
    harness.main(measure)
