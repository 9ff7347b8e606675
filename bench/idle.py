"""What a daemon costs that has next to nothing to do: CPU time and wake-ups in a minute, and memory, with one job every
10 s. Whatever helps it counts, too: its threads, its guard.

The floor is bare asyncio that logs with structlog. All are idle at the same time, so the rounds are side by side.
"""

import time
from contextlib import ExitStack
from pathlib import Path

from bench import harness
from bench.figures import Figure, Goal
from bench.harness import Program

BARE = "bare asyncio and structlog"
REST = """\
Each tick wakes the control plane twice, because the kernel ends a long wait late by a thousandth of it: a wait that is
a little too short, and then the rest. Then the job plane for the run, and the control plane once more 0.25 s later to
look whether the other one turns. A daemon that woke up once would be 10 ms late on 10 s, or would not see a job that
blocks the loop."""
CPU = Goal("idle: CPU a minute", 1.5, "x", floor=BARE, rest=REST)
WAKE_UPS = Goal("idle: wake-ups a minute", 1.5, "x", floor=BARE, reached=5.2, held=2, rest=REST)
MEMORY = Goal("idle: resident memory", 1.5, "x", floor=BARE, held=2)
#: What the start has begun has come to rest after that.
SETTLE_S = 3.0


def measure(quick: bool) -> list[Figure]:
    """A minute, or a part of it that has as many ticks for both."""
    for_s = 10.0 if quick else 60.0
    with ExitStack() as stack:
        programs: dict[str, list[Program]] = {"jobd": [], "floor": []}
        for _ in range(2 if quick else 5):
            for name, command in (("jobd", harness.jobs("metered")), ("floor", harness.floor("idle"))):
                programs[name].append(stack.enter_context(Program(command, jobs=1, interval=10, ticks=1000)))
        time.sleep(SETTLE_S)
        before = {name: [_used(program) for program in each] for name, each in programs.items()}
        time.sleep(for_s)
        after = {name: [_used(program) for program in each] for name, each in programs.items()}
        kib = {name: [float(_kib(program)) for program in each] for name, each in programs.items()}
    cpu, wake_ups = (
        {
            name: [(late[n] - early[n]) * 60 / for_s for early, late in zip(before[name], after[name], strict=True)]
            for name in programs
        }
        for n in (0, 1)
    )
    return [
        Figure(CPU, cpu["jobd"], "ms", cpu["floor"]),
        Figure(WAKE_UPS, wake_ups["jobd"], "", wake_ups["floor"]),
        Figure(MEMORY, kib["jobd"], "KiB", kib["floor"]),
    ]


def _used(program: Program) -> tuple[float, float]:
    """CPU time in milliseconds and wake-ups so far."""
    return program.cpu_s() * 1000, float(sum(map(_wake_ups, program.members())))


def _wake_ups(pid: int) -> int:
    """How often any of its threads has waited for something."""
    return sum(_status(task / "status", "voluntary_ctxt_switches") for task in Path(f"/proc/{pid}/task").iterdir())


def _kib(program: Program) -> int:
    """What the process has in memory, and what those that help it do not share with it."""
    helpers = [pid for pid in program.members() if pid != program.pid]
    own = _status(Path(f"/proc/{program.pid}/status"), "VmRSS")
    return own + sum(_status(Path(f"/proc/{pid}/smaps_rollup"), "Private_Dirty") for pid in helpers)


def _status(path: Path, name: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


if __name__ == "__main__":
    harness.main(measure)
