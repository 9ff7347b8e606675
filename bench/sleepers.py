"""What runs in flight cost: the memory of each, and the time that a stop takes that has to cancel them all.

A stop is the time from SIGTERM to the process's end, with a grace period of 0; each run is logged as cancelled, which
is checked. The floor is bare asyncio: sleeping tasks, and a handler that cancels and gathers them, without a log.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from bench import harness
from bench.figures import Figure, Goal
from bench.harness import Program

TASKS = "bare asyncio, no log"
REST = """\
Beside the task and the job's own coroutine, a run is an object with twenty-six fields, its id, a variable of its
context, and a coroutine that begins and ends it. That could go, for a callback at either end of the task; then what a
job raises would no longer be told on the thread that raised it, and a coroutine that swallows its cancellation looks
like one that ended."""
MEMORY = Goal("memory per run in flight, 100,000 sleeping", 1.5, "x", floor=TASKS, held=2, rest=REST)
STOPS = {
    10_000: Goal("stop with 10,000 sleeping runs, grace period 0", 3.0, "x", floor=TASKS, reached=3.4, held=2),
    100_000: Goal("stop with 100,000 sleeping runs, grace period 0", 3.0, "x", floor=TASKS),
}
IDLE_STOP = Goal("stop with nothing in flight", 20.0, "more", floor="bare asyncio with a handler", held=4)
#: What can be asked to sleep and stop, for comparison.
RIVALS = {"aiojobs": "aiojobs_sleepers", "APScheduler 3": "apscheduler3_sleepers"}
#: They come in so many ticks, which are so far apart.
TICKS = 5
INTERVALS_S = {10_000: 0.5, 100_000: 2}


def measure(quick: bool) -> list[Figure]:
    """The more there are, the fewer rounds."""
    if quick:
        return [_idle_stop(5), *_sleeping(10_000, 1)]
    return [_idle_stop(10), *_sleeping(10_000, 5, harness.peers(RIVALS))[1:], *_sleeping(100_000, 5)]


def _sleeping(runs: int, count: int, rivals: Mapping[str, tuple[str, ...]] = MappingProxyType({})) -> list[Figure]:
    commands = {"jobd": harness.jobs("sleepers"), "floor": harness.floor("sleepers"), **rivals}
    taken = harness.rounds(count, {name: partial(_stop, command, runs) for name, command in commands.items()})
    bytes_each, stop_ms = ({name: [row[n] for row in rows] for name, rows in taken.items()} for n in (0, 1))
    return [
        Figure(MEMORY, bytes_each.pop("jobd"), "bytes", bytes_each.pop("floor"), bytes_each),
        Figure(STOPS[runs], stop_ms.pop("jobd"), "ms", stop_ms.pop("floor"), stop_ms),
    ]


def _stop(command: tuple[str, ...], runs: int) -> tuple[float, float]:
    """Bytes for each run, and milliseconds for the stop."""
    asked = {"jobs": runs // TICKS, "ticks": TICKS, "interval": INTERVALS_S[runs]}
    with Program(command, keep=True, jobd_grace_period=0, jobd_cancel_timeout="120s", **asked) as program:
        bytes_each = float(program.wait_for_report()["bytes_each"])
        program.wait_until_still()
        stop_ms = _ms_to_end(program)
        if "jobd" in command:
            _check(program, runs)
    return bytes_each, stop_ms


def _check(program: Program, runs: int) -> None:
    """Every run that has started is to have its end in the log."""
    started = {line["run_id"] for line in program.events("run.started")}
    ended = [line["outcome"] for line in program.events("run.finished")]
    if len(started) != len(ended) or ended.count("cancelled") != runs:
        program.fail(f"logged {len(started)} starts, {len(ended)} ends and {ended.count('cancelled')} cancellations")


def _idle_stop(count: int) -> Figure:
    taken = harness.rounds(
        count,
        {
            "jobd": partial(_stop_idle, harness.jobs("sleepers"), b"run.finished"),
            "floor": partial(_stop_idle, harness.floor("sleepers"), b"ready"),
        },
    )
    return Figure(IDLE_STOP, taken["jobd"], "ms", taken["floor"])


def _stop_idle(command: tuple[str, ...], ready: bytes) -> float:
    with Program(command, keep=True, jobs=1, ticks=0, interval=3600) as program:
        program.wait_for(ready)
        return _ms_to_end(program)


def _ms_to_end(program: Program) -> float:
    asked = program.terminate()
    return (program.wait() - asked) * 1000


if __name__ == "__main__":
    harness.main(measure)
