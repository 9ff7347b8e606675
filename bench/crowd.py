"""1,000 jobs due together, with two lines for each run: how late the first of them starts, and how late the last.

The rivals are what one would write oneself, a heap of tasks that log by structlog as it comes, and APScheduler 3,
whose runs log the same.
"""

from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

from bench import harness
from bench.figures import Figure, Goal

Row = dict[str, Any]

HEAP = "heap, tasks, structlog as it comes"
FIRST_REST = """\
The first start is as late as that of a single job, see `precision`, and by what the rows of three more cost: the first
four leave by themselves, and the control plane gives way to them for half a millisecond before it makes the others."""
LAST_REST = """\
A thousand times what a run costs with its lines. It falls with that figure only; a quarter of what the same runs take
that log with structlog as it comes."""
FIRST = Goal("1,000 jobs due together: lateness of the first start", 0.5, "ms", floor=HEAP, rest=FIRST_REST)
LAST = Goal(
    "1,000 jobs due together: lateness of the last start", 12.0, "ms", floor=HEAP, reached=80, held=4, rest=LAST_REST
)
RIVALS = {"APScheduler 3": "apscheduler3_logged"}


def measure(quick: bool) -> list[Figure]:
    """The median tick of each round."""
    commands = {"jobd": harness.jobs("metered"), "floor": harness.floor("heap_structlog")}
    rivals = {} if quick else harness.peers(RIVALS)
    taken = harness.in_turns(
        1 if quick else 5, commands | rivals, jobs=1000, interval=1, warm=1, ticks=3 if quick else 5
    )

    def figure(goal: Goal, of: Callable[[Row], float]) -> Figure:
        figures = {name: list(map(of, rows)) for name, rows in taken.items()}
        return Figure(goal, figures.pop("jobd"), "ms", figures.pop("floor"), figures)

    return [figure(FIRST, lambda row: _of_ticks(row, min)), figure(LAST, lambda row: _of_ticks(row, max))]


def _of_ticks(row: Row, which: Callable[[list[float]], float]) -> float:
    ticks: dict[float, list[float]] = defaultdict(list)
    for due, started in row["starts"]:
        ticks[round(due, 3)].append((started - due) * 1000)
    return median(map(which, ticks.values()))


if __name__ == "__main__":
    harness.main(measure)
