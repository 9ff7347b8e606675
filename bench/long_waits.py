"""How late one job starts that is due every 10 s, and one that is due every 60 s: the kernel lets long waits on epoll
end late by a thousandth of their length.

All wait at the same time, each in a process of its own, begun one after the other; so the rounds are side by side.
"""

import time
from contextlib import ExitStack
from statistics import median

from bench import harness
from bench.figures import Figure, Goal
from bench.harness import Program
from bench.precision import lateness_ms

LOOP = "asyncio loop on the same grid"
REST = """\
What one job every 50 ms is late, see `precision`, and what a machine adds that has been idle for a minute. The wait is
already made in two steps; a loop that sleeps to its tick in one is forty times as late."""
GOALS = {
    10: Goal("lateness of one job every 10 s", 1.0, "ms", floor=LOOP, held=10),
    60: Goal("lateness of one job every 60 s", 1.0, "ms", floor=LOOP, rest=REST),
}
PEERS = {"uvloop": "uvloop_long"}
#: Far enough from one process to the next that they do not wake together.
APART_S = 0.3


def measure(quick: bool) -> list[Figure]:
    """In the quick form, only the shorter wait."""
    commands = {"jobd": harness.jobs("metered"), "floor": harness.floor("heap")}
    commands |= {} if quick else harness.peers(PEERS)
    with ExitStack() as stack:
        begun: dict[tuple[int, str], list[Program]] = {}
        for interval_s in (10,) if quick else (60, 10):
            for _ in range(3 if quick else 5):
                for name, command in commands.items():
                    ticks = 1 if quick else 60 // interval_s
                    program = stack.enter_context(Program(command, jobs=1, interval=interval_s, ticks=ticks, warm=1))
                    begun.setdefault((interval_s, name), []).append(program)
                    time.sleep(APART_S)
        taken = {each: [_ms(program) for program in programs] for each, programs in begun.items()}
    return [_figure(interval_s, taken) for interval_s in GOALS if (interval_s, "jobd") in taken]


def _ms(program: Program) -> float:
    return median(lateness_ms(program.wait_for_report()))


def _figure(interval_s: int, taken: dict[tuple[int, str], list[float]]) -> Figure:
    rows = {name: row for (interval, name), row in taken.items() if interval == interval_s}
    return Figure(GOALS[interval_s], rows.pop("jobd"), "ms", rows.pop("floor"), rows)


if __name__ == "__main__":
    harness.main(measure)
