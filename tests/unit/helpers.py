"""Small things that several tests make."""

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from jobd import job
from jobd.job import Due, Job
from jobd.schedule import Every

#: Nothing that a test waits for takes this long unless it is broken.
LIMIT_S = 20.0


async def nothing() -> None:
    """A job that is done at once."""


async def stubborn() -> None:
    """A job that takes a minute and cannot be cancelled."""
    left = asyncio.get_running_loop().time() + 60
    while (wait := left - asyncio.get_running_loop().time()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(wait)


def job_of(function: Callable[[], Any] = nothing, name: str = "job", interval_s: float = 10.0) -> Job:
    """A job around the function."""
    return Job(name, Every(interval_s), function, job.kind_of(function), "tests:job")


def row(of: Job, first: int, last: int | None = None) -> Due:
    """Ticks of a job as the spawner offers them, with its anchor at 0."""
    last = first if last is None else last
    assert isinstance(of.schedule, Every)
    return Due(of, first, last, of.schedule.due(last, 0.0), of.schedule.offset_ns(last))


def python(code: str, *arguments: str, **environment: str) -> str:
    """What a Python of its own, with these variables beside ours, prints when it runs the code; its failure is the
    test's.
    """
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    env = os.environ | environment
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
