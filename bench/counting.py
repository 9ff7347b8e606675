"""How many instructions a program executes: by the processor's own counter, or by callgrind where there is none.

Both count what runs in user space, all threads, and repeat to about 1 %. The difference of two programs that differ
in their number of ticks only is the cost of the ticks: the start is in both. Never measured together with time,
because callgrind is some fifty times slower and runs one thread at a time.
"""

import functools
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.harness import BenchError, Program

_PERF = ("perf", "stat", "-x,", "-e", "instructions:u", "-o", "{directory}/instructions")
_CALLGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file={directory}/instructions.%p")

#: No tick takes longer than that, however slow the counting is.
LONGEST_S = 20.0


@functools.cache
def tool() -> str | None:
    """What counts here: ``perf``, ``callgrind`` or nothing."""
    if shutil.which("perf"):
        counted = subprocess.run(
            ["perf", "stat", "-x,", "-e", "instructions:u", "true"], capture_output=True, text=True
        )
        if re.match(r"\d+,", counted.stderr):
            return "perf"
    return "callgrind" if shutil.which("valgrind") else None


def instructions(command: Sequence[str], **asked: Any) -> int:
    """How many instructions the program executes until its end."""
    by_perf = tool() == "perf"
    with Program((*(_PERF if by_perf else _CALLGRIND), *command), keep=True, **asked) as program:
        program.wait()
        # A process that it forks counts for itself.
        name, pattern = ("instructions", r"^(\d+),") if by_perf else (f"instructions.{program.pid}", r"^totals: (\d+)")
        found = re.search(pattern, (program.directory / name).read_text(), re.MULTILINE)
        late = "jobd" in command and bool(program.events("tick.skipped"))
    if found is None:
        raise BenchError(f"{command!r} left no count of its instructions")
    # Who cannot keep up makes one run of several ticks; the interval itself costs nothing.
    return instructions(command, **asked | {"interval": _longer(asked["interval"])}) if late else int(found[1])


def _longer(interval_s: float) -> float:
    if interval_s > LONGEST_S:
        raise BenchError(f"the machine is too slow for a tick every {interval_s} s")
    return 2 * interval_s


def per_run(jobs: int, ticks: tuple[int, int], programs: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Instructions for a run of one of the jobs that are due together in a tick, for each of the programs.

    Each is given by its command and what it is asked for beside. They are counted two at a time, which changes nothing.
    """
    with ThreadPoolExecutor(2) as pool:
        counts = {
            name: [pool.submit(instructions, jobs=jobs, ticks=number, warm=0, **asked) for number in reversed(ticks)]
            for name, asked in programs.items()
        }
    runs = jobs * (ticks[1] - ticks[0])
    return {name: (more.result() - fewer.result()) / runs for name, (more, fewer) in counts.items()}
