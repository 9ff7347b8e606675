"""What a program under measurement is asked to do, and what it hands back; every jobs module, floor and peer has it.

It comes in by the environment and goes out as a file: stdout is measured, so it cannot be used for this. Imports the
standard library only, because the peers live in an environment of their own.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

JOBS = int(os.environ.get("BENCH_JOBS", "1"))
INTERVAL_S = float(os.environ.get("BENCH_INTERVAL", "1"))
#: How many ticks are measured.
TICKS = int(os.environ.get("BENCH_TICKS", "10"))
#: How many ticks come before these, because the first ones fill caches and pools.
WARM_TICKS = int(os.environ.get("BENCH_WARM", "2"))


def report(**values: Any) -> None:
    """Hand the values back, whole or not at all."""
    path = Path(os.environ["BENCH_REPORT"])
    written = path.with_suffix(".part")
    written.write_text(json.dumps(values))
    written.rename(path)


def stop() -> None:
    """End this process as its user would."""
    os.kill(os.getpid(), signal.SIGTERM)


class Marks:
    """The CPU time of this process, all threads, at the first and the last measured tick."""

    def __init__(self) -> None:
        self._ticks = 0
        self._first_s = 0.0

    def tick(self) -> bool:
        """Count a tick, from whatever runs last in each; whether that was the last one."""
        if self._ticks == WARM_TICKS:
            self._first_s = time.process_time()
        self._ticks += 1
        last = self._ticks == WARM_TICKS + TICKS + 1
        if last:
            report(cpu_s=time.process_time() - self._first_s)
        return last
