"""What a run costs in instructions: an empty coroutine job, many of them due together, as in `dispatch`.

Counts repeat to about 1 %, where times do not, so these are the figures that a regression shows in. The floor is the
same as there: a task and its done callback for each run, and no log.
"""

from bench import counting, harness
from bench.dispatch import BARE
from bench.figures import Figure, Goal

SAME = "what is said of it under `dispatch`."
GOALS = {
    "info": Goal("instructions per run, two lines each", 3.5, "x", floor=BARE, reached=4.0, held=2, rest=SAME),
    "warning": Goal("instructions per run, no lines", 2.0, "x", floor=BARE, reached=2.3, held=2, rest=SAME),
}


def measure(quick: bool) -> list[Figure]:
    """Once, because they repeat; nothing where nothing counts them."""
    if counting.tool() is None:
        return []
    jobs, ticks, interval_s = (100, (1, 5), 2.0) if quick else (1000, (1, 5), 8.0)
    levels = ["info"] if quick else list(GOALS)
    # A stop that takes its time under callgrind is no failure.
    asked = {"command": harness.jobs("empty"), "interval": interval_s, "jobd_cancel_timeout": "60s"}
    programs = {level: asked | {"jobd_log_level": level} for level in levels}
    programs["floor"] = {"command": harness.floor("empty"), "interval": 0.1}
    counted = counting.per_run(jobs, ticks, programs)
    return [Figure(GOALS[level], [counted[level]], "", [counted["floor"]]) for level in levels]


if __name__ == "__main__":
    harness.main(measure)
