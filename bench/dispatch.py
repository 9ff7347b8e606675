"""What a run costs: an empty coroutine job, 1,000 of them due together, tick after tick.

Measured is the CPU time of the process between two ticks, and the instructions that some ticks more take, with two
JSON lines for each run into a pipe that is read, and without lines. The floor is bare asyncio on the same grid: a task
and its done callback for each run, and no log.
"""

from bench import counting, harness
from bench.figures import Figure, Goal

BARE = "bare create_task and done callback, no log"
GOALS = {
    "info": (
        Goal("CPU per run, two lines each", 4.0, "x", floor=BARE, steady=True),
        Goal("instructions per run, two lines each", 3.5, "x", floor=BARE, steady=True),
    ),
    "warning": (
        Goal("CPU per run, no lines (log level warning)", 2.0, "x", floor=BARE, steady=True),
        Goal("instructions per run, no lines", 2.0, "x", floor=BARE, steady=True),
    ),
}
#: Long enough for a tick to be done before the next one is due.
INTERVAL_S = 0.3


def measure(quick: bool) -> list[Figure]:
    """Time in alternating rounds, then instructions once, because they repeat."""
    return [*_time(quick), *(_instructions(quick) if counting.tool() else [])]


def _time(quick: bool) -> list[Figure]:
    ticks = 5 if quick else 20
    taken = harness.rounds(
        3 if quick else 7,
        {
            "info": lambda: _us(harness.jobs("empty"), ticks, jobd_log_level="info"),
            "warning": lambda: _us(harness.jobs("empty"), ticks, jobd_log_level="warning"),
            "floor": lambda: _us(harness.floor("empty"), ticks),
        },
    )
    return [Figure(GOALS[level][0], taken[level], "us", taken["floor"]) for level in GOALS]


def _us(command: tuple[str, ...], ticks: int, **asked: object) -> float:
    values = harness.run(command, jobs=1000, interval=INTERVAL_S, ticks=ticks, **asked)
    cpu_s: float = values["cpu_s"]
    return cpu_s / (ticks * 1000) * 1e6


def _instructions(quick: bool) -> list[Figure]:
    jobs, ticks, interval_s = (300, (1, 3), 3.0) if quick else (1000, (1, 5), 8.0)
    # A stop that takes its time under callgrind is no failure.
    asked = {"command": harness.jobs("empty"), "interval": interval_s, "jobd_cancel_timeout": "60s"}
    programs = {level: asked | {"jobd_log_level": level} for level in GOALS}
    programs["floor"] = {"command": harness.floor("empty"), "interval": 0.1}
    counted = counting.per_run(jobs, ticks, programs)
    return [Figure(GOALS[level][1], [counted[level]], "", [counted["floor"]]) for level in GOALS]


if __name__ == "__main__":
    harness.main(measure)
