"""Where the grid is after 10,000 ticks: the instant of the last minus that of the first, minus 10,000 intervals.

It is taken from the log, which gives each tick's number and instant. The rival is a loop that starts a run and sleeps:
what one would write first.
"""

from datetime import datetime, timedelta
from typing import Any

from bench import harness
from bench.figures import Figure, Goal
from bench.harness import Program

GOAL = Goal("drift of the grid after 10,000 ticks", 0.0, "ms", held=1)
INTERVAL_S = 0.002
#: Each of them is a round: a grid of its own, in one daemon.
JOBS = 5


def measure(quick: bool) -> list[Figure]:
    """One daemon with some jobs, then the rival; drift adds up whatever the machine does meanwhile."""
    ticks = 1_000 if quick else 10_000
    taken = _drifts_ms(ticks)
    if quick:
        return [Figure(GOAL, taken, "ms")]
    asked = {"jobs": 1, "interval": INTERVAL_S, "ticks": ticks, "warm": 0}
    naive = [_last_lateness_ms(harness.run(harness.floor("naive"), **asked))]
    return [Figure(GOAL, taken, "ms", rivals={"create_task and sleep": naive})]


def _drifts_ms(ticks: int) -> list[float]:
    asked = {"jobs": JOBS, "interval": INTERVAL_S, "ticks": ticks}
    with Program(harness.jobs("metered"), keep=True, **asked) as program:
        program.wait_for_report()
        program.terminate()
        program.wait()
        lines = program.events("run.started")
    return [_drift_ms([line for line in lines if line["job"] == f"job{number}"]) for number in range(JOBS)]


def _drift_ms(lines: list[dict[str, Any]]) -> float:
    first, last = lines[0], lines[-1]
    expected = int(last["tick"] - first["tick"]) * timedelta(seconds=INTERVAL_S)
    return (_instant(last) - _instant(first) - expected) / timedelta(milliseconds=1)


def _instant(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["scheduled_at"])


def _last_lateness_ms(row: dict[str, Any]) -> float:
    due, started = row["starts"][-1]
    return float(started - due) * 1000


if __name__ == "__main__":
    harness.main(measure)
