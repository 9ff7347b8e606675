"""What a run costs: an empty coroutine job, 1,000 of them due together, tick after tick.

Measured is the CPU time of the process between two ticks, with two JSON lines for each run into a pipe that is read,
and without lines. The floor is bare asyncio on the same grid: a task and its done callback for each run, and no log.
"""

from functools import partial

from bench import harness
from bench.figures import Figure, Goal

BARE = "bare create_task and done callback, no log"
LINES_REST = """\
What comes on top of a run without lines are the two lines. One is 17,000 instructions where it is made and nothing else
happens: a fifth of that is orjson, a fifth the time, as much a probe for memory that orjson itself does not make; the
rest is structlog's call with nine named values, the dictionary and the queue. A template for each job instead of
structlog would save about a third of a line; and every line would be made in two ways."""
REST = """\
The run itself (its id, its two instants, its place in three registers), a coroutine around the job's own, the gate
that makes the start and its line one step with the stop, and the hop to the job plane. In instructions it is within
the goal; in time, two threads take the interpreter's lock in turn. On one loop a job could hold the signals up."""
LINES = Goal("CPU per run, two lines each", 4.0, "x", floor=BARE, reached=4.8, held=2, rest=LINES_REST)
NO_LINES = Goal("CPU per run, no lines (log level warning)", 2.0, "x", floor=BARE, reached=2.4, held=2, rest=REST)
JOBS = 1000
#: Long enough for a tick to be done before the next one is due.
INTERVAL_S = 0.2


def measure(quick: bool) -> list[Figure]:
    """All in turns."""
    ticks = 10 if quick else 20
    asked = {"jobs": JOBS, "interval": INTERVAL_S, "ticks": ticks, "warm": 4}
    calls = {
        level: partial(harness.run, harness.jobs("empty"), jobd_log_level=level, **asked)
        for level in ("info", "warning")
    }
    calls["floor"] = partial(harness.run, harness.floor("empty"), **asked)
    taken = harness.rounds(2 if quick else 5, calls)
    us = {name: [row["cpu_s"] / (ticks * JOBS) * 1e6 for row in rows] for name, rows in taken.items()}
    return [Figure(LINES, us["info"], "us", us["floor"]), Figure(NO_LINES, us["warning"], "us", us["floor"])]


if __name__ == "__main__":
    harness.main(measure)
