"""How a run is executed: a coroutine as a task on the job plane, a plain function in a daemon thread of its own.

May import: exits, job, run, plane, render, states. Each way of executing does the same: `begin` the run (which may
refuse it), make it the current run, call the user's code, and tell `end` how that ended. Whatever the user's code
raises ends here.

Tricky: texts of exceptions are made here, on the thread of the user's code, because making them runs user code. And
threads are started by `_thread`: `threading.Thread.start` waits for the new thread, under a lock and through hooks
that belong to everybody in the process, so a job could hold the control plane there, or keep every function from its
first line.
"""

import asyncio
import inspect
import os
import threading
import weakref
from _thread import get_ident, start_new_thread
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import CodeType
from typing import Any

from jobd import exits, render
from jobd import run as runs
from jobd.job import Kind
from jobd.plane import FRAMES as PLANE_FRAMES
from jobd.plane import JobPlane
from jobd.run import Run
from jobd.states import Outcome


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    outcome: Outcome
    #: The fields `error` and `traceback`, where it failed.
    failure: dict[str, Any] | None = None
    #: With which code a child that the job has forked leaves, if it comes to this end.
    exit_code: int = 0


#: More coroutines than this that are due together begin in batches of so many, one batch in a turn of the loop: each
#: waits for the lines of the others before its first step, and together they leave in one write.
STARTED_TOGETHER = 16
#: How many are cancelled in one turn: more at once would delay what else is due.
CANCELLED_TOGETHER = 64

#: Python's own, whatever a job puts into the module.
_Task = asyncio.Task

SUCCEEDED = Ending(Outcome.SUCCEEDED)
CANCELLED = Ending(Outcome.CANCELLED)
ABANDONED = Ending(Outcome.ABANDONED)
#: Made beforehand, for a run whose end takes more memory to tell than there is.
STARVED = Ending(
    Outcome.FAILED,
    {"error": {"type": "MemoryError", "message": "no memory was left to tell how the run ended"}, "traceback": ""},
)


class Executor:
    """Executes runs, each by the kind of its job."""

    def __init__(
        self,
        plane: JobPlane,
        begin: Callable[[Run], bool],
        begin_all: Callable[[list[Run]], None],
        end: Callable[[Run, Ending], None],
    ) -> None:
        """All three are called on whichever thread executes the run; `begin` says whether it may start."""
        self._plane = plane
        self._begin = begin
        self._begin_all = begin_all
        self._end = end
        forked = weakref.WeakMethod(self._forked)  # what is registered stays for ever, and is not to keep us
        os.register_at_fork(after_in_child=lambda: (method := forked()) and method())

    def start(self, batch: list[Run]) -> None:
        """Execute the runs as soon as can be. From the control plane."""
        coroutines = [run for run in batch if run.of.kind is Kind.COROUTINE]
        if len(coroutines) > STARTED_TOGETHER:
            self._plane.call(self._start_tasks, [[together] for together in _dealt(coroutines, STARTED_TOGETHER)])
        elif coroutines:  # or the plane would be woken up for nothing
            self._plane.call(self._make_task, [coroutines])
        for run in batch:
            if run.of.kind is Kind.FUNCTION:
                self._start_thread(run)

    def cancel(self, batch: list[Run]) -> None:
        """Cancel the runs; may be called again for those that did not end. From the control plane.

        A thread cannot be interrupted: all that a plain function gets is its `stopping` event.
        """
        for run in batch:
            run.ask_to_stop()
        coroutines = [run for run in batch if run.of.kind is Kind.COROUTINE]
        self._plane.call(self._cancel_task, _dealt(coroutines, CANCELLED_TOGETHER))

    def _start_tasks(self, batch: list[Run]) -> None:
        """Begin all of them, with one write of their lines, and have the loop take their first steps next."""
        for run in batch:
            self._make_task(run)
        self._begin_all(batch)

    def _make_task(self, run: Run) -> None:
        if run.body is not None:
            return  # handed over a second time
        # Not `create_task`: a job may have given the loop a task factory of its own.
        coroutine = self._coroutine(run)
        try:
            task = _Task(coroutine, loop=self._plane.loop, name=run.run_id)
        except Exception as error:  # no memory, say
            coroutine.close()
            if self._begin(run):
                self._end(run, _failed(error))
            return
        run.body = task
        task.add_done_callback(partial(self._task_done, run))

    def _task_done(self, run: Run, task: asyncio.Task[None]) -> None:
        """The run ends with its task, even where `_coroutine` was not let come to its end, or to its first line."""
        try:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is not None:
                self._begin(run)
                self._end(run, CANCELLED if run.cancelled and task.cancelled() else _failed(error))
        finally:
            run.body = None  # here: with the task goes its context, and with that what a job has left there

    def _forked(self) -> None:
        """In a child that a job has forked: it is no daemon, even if it comes back from the job."""
        self._begin = lambda run: False
        self._begin_all = lambda batch: None
        self._end = lambda run, ending: exits.leave(ending.exit_code)
        self._plane.leave_turn()
        _mend_main_thread()

    def _cancel_task(self, run: Run) -> None:
        if isinstance(run.body, _Task) and not run.body.done():
            run.cancelled = True
            run.body.cancel()

    async def _coroutine(self, run: Run) -> None:
        if not (run.begun or self._begin(run)):  # it has not been begun if memory ran out over the others
            return
        run.entered = True
        runs.current.set(run)
        try:
            await run.of.function()
        except asyncio.CancelledError as error:
            ending = CANCELLED if run.cancelled else _failed(error)
        except BaseException as error:
            ending = _failed(error)
        else:
            ending = CANCELLED if run.cancelled else SUCCEEDED
        self._end(run, ending)

    def _start_thread(self, run: Run) -> None:
        try:
            start_new_thread(self._function, (run,))
        except Exception as error:  # no more threads are to be had
            if self._begin(run):
                self._end(run, _failed(error))

    def _function(self, run: Run) -> None:
        run.body = run.body or get_ident()
        if not self._begin(run):
            return
        ending = STARVED
        try:
            run.body = get_ident()  # where it has been handed over twice, the one that has begun
            runs.current.set(run)
            _name_this_thread(run.run_id)
            ending = _returned(run.of.function())
        except BaseException as error:
            ending = _failed(error)
        finally:
            self._leave_thread(run, ending)

    def _leave_thread(self, run: Run, ending: Ending) -> None:
        try:
            self._end(run, ending)
        finally:
            run.body = None


#: Code that stands between the bottom of a stack and the job, and is of no interest there.
FRAMES: frozenset[CodeType] = PLANE_FRAMES | {
    Executor._coroutine.__code__,
    Executor._function.__code__,
}


def _dealt(runs: list[Run], together: int) -> list[list[Run]]:
    """The runs in batches of so many."""
    return [runs[start : start + together] for start in range(0, len(runs), together)]


def _name_this_thread(name: str) -> None:
    try:
        threading.current_thread().name = name
    except Exception:  # a job has spoilt the module
        pass


def _mend_main_thread() -> None:
    """In a forked child: give the thread that is its only one what `multiprocessing` looks for at the end.

    A thread that `threading` has not started has no such lock up to Python 3.12.
    """
    main = threading.main_thread()
    if getattr(main, "_tstate_lock", main) is None:
        main._set_tstate_lock()  # type: ignore[attr-defined]


def _failed(error: BaseException) -> Ending:
    exit_code = 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        exit_code = error.code or 0
    return Ending(Outcome.FAILED, render.failure(error, skip=1), exit_code)  # from the job's own first line on


def _returned(result: Any) -> Ending:
    try:
        return _refused(result) if inspect.isawaitable(result) else SUCCEEDED
    except BaseException:  # a proxy that cannot be asked what it is
        return SUCCEEDED


def _refused(result: Any) -> Ending:
    if inspect.iscoroutine(result):
        result.close()
    return _failed(
        TypeError("the function is no coroutine function, yet it returned an awaitable; declare it with `async def`")
    )
