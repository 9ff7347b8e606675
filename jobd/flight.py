"""The runs in flight: which they are, how old, and where each stands in the code.

May import: clock, events, garbage, invoke, job, log, plane, run, stacks.

Tricky: runs come in on the threads that execute them, under the runner's gate, and whoever looks through them does so
under it, too.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

from jobd import events, garbage, invoke, log, stacks
from jobd import run as runs
from jobd.clock import seconds
from jobd.plane import JobPlane
from jobd.run import Run

#: How many runs a line about many names.
_NAMED = 20
#: Of how many it is told at once where each stands: that takes a tenth of a millisecond for each, and a stop must not
#: wait for thousands.
TOLD_TOGETHER = 50


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
        self._to_tell: deque[Run] = deque()

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

    def ask(self) -> None:
        """From here on, `tell` is to log all the runs that are in flight now."""
        self._to_tell = deque(self.oldest())

    def tell(self) -> bool:
        """Log some of the runs that were asked for, each with its age and where it stands; whether more are left."""
        frames = stacks.of_all_threads()
        try:
            for _ in range(min(TOLD_TOGETHER, len(self._to_tell))):
                self._tell(self._to_tell[0], frames)
                self._to_tell.popleft()
        finally:
            garbage.drop(frames)
        return bool(self._to_tell)

    def _tell(self, run: Run, frames: dict[int, FrameType]) -> None:
        age_s, stack = self.age_s(run), self.stack(run, frames)
        with self._gate:
            if run.run_id in self.runs:  # RACE: it may have ended, and that has been told
                self._log.emit(events.RUN_IN_FLIGHT, job=run.job, run_id=run.run_id, age_s=age_s, stack=stack)

    def give_up(self, run: Run, frames: dict[int, FrameType] | None) -> None:
        """Tell of a run that will not end, and where it stands; nothing of that without the `frames` of all threads."""
        if run.printed:
            run.end_printed()
        self._log.emit(
            events.SHUTDOWN_ABANDONED,
            job=run.job,
            run_id=run.run_id,
            age_s=self.age_s(run),
            stack=[] if frames is None else self.stack(run, frames),
        )


def lives(run: Run) -> bool:
    """Whether whoever executes the run is still at it."""
    body = run.body  # None again when it has come to its end, however it has
    return isinstance(body, int) or (body is not None and not body.done())
