"""The runs in flight: which they are, how old, and where each stands in the code.

May import: clock, events, invoke, job, log, plane, run, stacks.

Tricky: runs come in on the threads that execute them, under the runner's gate, and whoever looks through them does so
under it, too.
"""

import asyncio
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from jobd import events, invoke, log, stacks
from jobd import run as runs
from jobd.clock import seconds
from jobd.plane import JobPlane
from jobd.run import Run

#: How many runs a line about many names.
_NAMED = 20


class Flight:
    """The runs in flight."""

    def __init__(self, gate: threading.Lock, plane: JobPlane, now: Callable[[], float], to: log.Log) -> None:
        """`gate` is held by whoever adds one; `now` is the time on which they are measured."""
        self._gate = gate
        self._plane = plane
        self._now = now
        self._log = to
        #: By their ids.
        self.runs: dict[str, Run] = {}

    def oldest(self) -> list[Run]:
        """The runs, the oldest first."""
        with self._gate:
            return list(self.runs.values())

    def named(self) -> list[dict[str, Any]]:
        """The oldest, as the log names them."""
        return [{"job": r.job, "run_id": r.run_id, "age_s": self.age_s(r)} for r in self.oldest()[:_NAMED]]

    def age_s(self, run: Run) -> float:
        """Seconds since its start."""
        return seconds(self._now() - run.started)

    def stack(self, run: Run, frames: dict[int, FrameType] | None = None) -> list[str]:
        """Where the run stands in the code, outermost first; of a process, what there is to say."""
        body = run.body
        if isinstance(body, int):
            return stacks.of_thread(body, invoke.FRAMES, frames)
        if body is None:
            return []
        if not isinstance(body, asyncio.Task):
            return body.place()
        return stacks.of_task(body, invoke.FRAMES, self._plane.ident)

    def holder(self) -> Run | None:
        """The run on whose behalf the job plane is executing something at this moment, if one can be named."""
        context = stacks.context_of(self._plane.ident)
        return context.get(runs.current) if context else None

    def tell(self) -> None:
        """Log every run, with its age and where it stands."""
        frames = stacks.of_all_threads()
        for run in self.oldest():
            stack = self.stack(run, frames)
            self._log.emit(events.RUN_IN_FLIGHT, job=run.job, run_id=run.run_id, age_s=self.age_s(run), stack=stack)

    def give_up(self, run: Run, frames: dict[int, FrameType]) -> None:
        """Tell where a run stands that will not end."""
        if run.printed:
            run.end_printed()
        self._log.emit(
            events.SHUTDOWN_ABANDONED,
            job=run.job,
            run_id=run.run_id,
            age_s=self.age_s(run),
            stack=self.stack(run, frames),
        )


def lives(run: Run) -> bool:
    """Whether whoever executes the run is still at it."""
    body = run.body  # None again when it has come to its end, however it has
    return isinstance(body, int) or (body is not None and not body.done())
