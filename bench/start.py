"""From the start of the process to `daemon.ready`, with one job. The floor is Python that imports what jobd cannot do
without.
"""

import sys
from functools import partial

from bench import harness
from bench.figures import Figure, Goal
from bench.harness import Program

REST = """\
What is left are jobd's own modules, argparse, the guard, which is forked, and five threads. An image with its bytecode
compiled starts no faster: it is compiled here, too."""
GOAL = Goal("process start to daemon.ready", 1.5, "x", floor='python -c "import asyncio, structlog"', held=2, rest=REST)
IMPORTS = (sys.executable, "-c", "import asyncio, structlog; print('ready', flush=True)")


def measure(quick: bool) -> list[Figure]:
    """Both until the first line that says so has been read."""
    taken = harness.rounds(
        5 if quick else 15,
        {
            "jobd": partial(_ms_to, b"daemon.ready", harness.jobs("metered")),
            "floor": partial(_ms_to, b"ready", IMPORTS),
        },
    )
    return [Figure(GOAL, taken["jobd"], "ms", taken["floor"])]


def _ms_to(line: bytes, command: tuple[str, ...]) -> float:
    with Program(command, keep=True, interval=3600) as program:
        return (program.wait_for(line) - program.started) * 1000


if __name__ == "__main__":
    harness.main(measure)
