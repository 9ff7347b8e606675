"""How a run is executed: a coroutine as a task on the job plane, a plain function in a daemon thread of its own, a
command or an isolated function as a process.

May import: exits, job, log, run, ending, plane, processes, states. Each way of executing does the same: `begin` the
run (which may refuse it), make it the current run, call the user's code, and tell `end` how that ended. Whatever the
user's code raises ends here.

Tricky:

- Threads are started by `_thread`: `threading.Thread.start` waits for the new thread, under a lock and through hooks
  that belong to everybody in the process, so a job could hold the control plane there, or keep every function from its
  first line.
- Locks of imports belong to everybody, too. What runs of some kinds take is imported by `prepare`, before there is any.
"""

import asyncio
import contextvars
import inspect
import os
import sys
import threading
import weakref
from _thread import get_ident, start_new_thread
from collections.abc import Callable, Iterable
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any

from jobd import ending, exits, hooks, log
from jobd import run as runs
from jobd.ending import Ending
from jobd.job import Kind
from jobd.plane import FRAMES as PLANE_FRAMES
from jobd.plane import JobPlane
from jobd.run import Run
from jobd.states import Outcome

if TYPE_CHECKING:
    from jobd.processes import Processes


#: More coroutines than this that are due together begin in batches of so many, one batch in a turn of the loop: each
#: waits for the lines of the others before its first step, and together they leave in one write.
STARTED_TOGETHER = 16
#: How many are cancelled in one turn: more at once would delay what else is due.
CANCELLED_TOGETHER = 64
#: How long the end of a stop waits for processes that it has killed.
KILL_S = 0.3
_COROUTINE = Kind.COROUTINE  # looked up once: in a class of Enum's that takes ten times as long
_PROCESSES = frozenset({Kind.PROCESS, Kind.COMMAND})
#: What executes runs of those, once it has been imported.
_processes: "type[Processes] | None" = None


def prepare(kinds: Iterable[Kind]) -> None:
    """Import what runs of these kinds take; in a thread that may wait, because jobs may hold locks of imports."""
    if not _PROCESSES.isdisjoint(kinds):
        _import_processes()


def _import_processes() -> "type[Processes]":
    global _processes
    if _processes is None:
        from jobd.processes import Processes  # only where a job needs it: it takes a while

        _processes = Processes
    return _processes


class _Task(asyncio.Task[None]):  # Python's own, whatever a job puts into the module
    """A task that knows its run, so that what is called at its end can be the same for all of them."""

    __slots__ = ("run",)
    run: Run


class Executor:
    """Executes runs, each by the kind of its job."""

    def __init__(
        self,
        plane: JobPlane,
        to: log.Log,
        begin: Callable[[Run], bool],
        begin_all: Callable[[list[Run]], None],
        end: Callable[[Run, Ending], None],
        settle: Callable[[], None],
    ) -> None:
        """The last four are called on whichever thread executes the run.

        `begin` says whether it may start; `settle` follows on `end`, once for all that end in one turn of the plane.

        What processes say goes to the log.
        """
        self._plane = plane
        self._log = to
        self._processes: Processes | None = None
        self._here = _here()  # before any job can go elsewhere
        #: How long a cancelled process gets to end before it is killed, in seconds.
        self.cancel_timeout_s = 5.0
        self._begin = begin
        self._begin_all = begin_all
        self._end = end
        self._settle = settle
        #: One for all tasks, in one context for all: a method that is bound anew would be kept for each.
        self._when_done, self._context = self._task_done, contextvars.Context()
        forked = weakref.WeakMethod(self._forked)  # what is registered stays for ever, and is not to keep us
        os.register_at_fork(after_in_child=lambda: (method := forked()) and method())

    def start(self, batch: list[Run]) -> None:
        """Execute the runs as soon as can be. From the control plane."""
        coroutines = [run for run in batch if run.of.kind is _COROUTINE]
        if len(coroutines) > STARTED_TOGETHER:
            self._plane.call(self._start_tasks, [[together] for together in _dealt(coroutines, STARTED_TOGETHER)])
        elif coroutines:  # or the plane would be woken up for nothing
            self._plane.call(self._start_task, [coroutines])
        if len(coroutines) < len(batch):
            self._start_others(batch)

    def _start_others(self, batch: list[Run]) -> None:
        for run in batch:
            if run.of.kind is Kind.FUNCTION:
                self._start_thread(run)
            elif run.of.kind in _PROCESSES:
                self._start_process(run)

    def cancel(self, batch: list[Run]) -> None:
        """Cancel the runs; may be called again for those that did not end. From the control plane.

        A thread cannot be interrupted: all that a plain function gets is its `stopping` event.
        """
        for run in batch:
            run.ask_to_stop()
            if run.of.kind in _PROCESSES and self._processes is not None:
                self._processes.cancel(run)
        self._cancel_tasks([run for run in batch if run.of.kind is _COROUTINE and not run.cancel_sent])

    def _cancel_tasks(self, batch: list[Run]) -> None:
        """Each once until the plane has come to it: a plane that was held must not cancel clean-up right away, too."""
        try:
            for run in batch:
                run.cancel_sent = True  # RACE: first, because the plane may come to it at once
            if batch:
                self._plane.call(self._cancel_task, _dealt(batch, CANCELLED_TOGETHER))
        except BaseException:
            for run in batch:
                run.cancel_sent = False
            raise

    def kill_all(self) -> None:
        """Kill every process that executes a run, and wait a moment for their ends. From the control plane."""
        if self._processes is not None:
            self._processes.kill_all(KILL_S)

    def _start_process(self, run: Run) -> None:
        try:
            processes = self._processes = self._processes or self._make_processes()
        except Exception as error:  # no memory, say
            self._fail_to_start(run, error)
            return
        processes.start(run)

    def _make_processes(self) -> "Processes":
        return _import_processes()(
            lambda run: self._begin(run),
            self._end_one,
            self._log.printed,
            self._log.forward,
            lambda: self.cancel_timeout_s,
            partial(hooks.stray, self._log),
            lambda: {"level": self._log.level, "layout": self._log.layout},
            self._here,
        )

    def _fail_to_start(self, run: Run, error: BaseException) -> None:
        if self._begin(run):
            self._end_one(run, ending.failed(error))

    def _end_one(self, run: Run, how: Ending) -> None:
        self._end(run, how)
        self._settle()

    def _start_tasks(self, batch: list[Run]) -> None:
        """Begin all of them, with one write of their lines, and have the loop take their first steps next."""
        for run in batch:
            self._make_task(run)
        self._begin_all(batch)

    def _start_task(self, run: Run) -> None:
        """Make its task and have it take its first step at once: another turn of the loop would make it later."""
        if task := self._make_task(run):
            self._plane.step(task)

    def _make_task(self, run: Run) -> _Task | None:
        if run.body is not None or run.begun or run.dropped:
            return None  # handed over a second time, which may be long after it has ended, or too late
        # Not `create_task`: a job may have given the loop a task factory of its own.
        coroutine = self._coroutine(run)
        try:
            task = _Task(coroutine, loop=self._plane.loop, name=run.run_id)
            task.run = run
        except Exception as error:  # no memory, say
            coroutine.close()
            self._fail_to_start(run, error)
            return None
        run.body = task
        task.add_done_callback(self._when_done, context=self._context)
        return task

    def _task_done(self, task: _Task) -> None:
        """The run ends with its task, even where `_coroutine` was not let come to its end, or to its first line."""
        run = task.run
        try:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is not None:
                self._begin(run)
                self._end(run, _cancelled(run, error) if run.cancelled and task.cancelled() else ending.failed(error))
        finally:
            if run.body is task:  # RACE: its next attempt may have one already
                run.body = None  # here: with the task goes its context, and with that what a job has left there
            self._settle()

    def _forked(self) -> None:
        """In a child that a job has forked: it is no daemon, even if it comes back from the job."""
        self._begin = lambda run: False
        self._begin_all = lambda batch: None
        self._end = lambda run, ending: exits.leave(ending.exit_code)
        self._settle = lambda: None
        self._plane.leave_turn()
        _mend_main_thread()
        _leave_pool()

    def _cancel_task(self, run: Run) -> None:
        if not run.cancel_sent:
            return  # sent twice, because memory was lacking for waking the plane
        run.cancel_sent = False
        if isinstance(run.body, _Task) and not run.body.done():
            run.cancelled = run.cancel_as or Outcome.CANCELLED
            run.body.cancel()

    async def _coroutine(self, run: Run) -> None:
        if not (run.begun or self._begin(run)):  # it has not been begun if memory ran out over the others
            return
        if run.of.policies.timeout is not None:
            run.attempt_at = self._plane.loop.time()  # its timeout counts from here, not from when many began at once
        run.entered = True
        runs.current.set(run)
        try:
            how = _returned(run, await run.of.function())
        except BaseException as error:
            how = _raised_on_plane(run, error)
        self._end(run, how)

    def _start_thread(self, run: Run) -> None:
        try:
            start_new_thread(self._function, (run,))
        except Exception as error:  # no more threads are to be had
            if not run.handed_over:  # else another one may have it already
                self._fail_to_start(run, error)

    def _function(self, run: Run) -> None:
        run.body = run.body or get_ident()
        if not self._begin(run):
            return
        how = ending.STARVED
        try:
            _enter_thread(run)
            how = _returned(run, run.of.function())
        except BaseException as error:
            how = _raised(run, error)
        finally:
            self._leave_thread(run, how)

    def _leave_thread(self, run: Run, how: Ending) -> None:
        me = get_ident()
        try:
            self._end_one(run, how)
        finally:
            if run.body == me:  # RACE: its next attempt may have a thread already
                run.body = None


#: Code that stands between the bottom of a stack and the job, and is of no interest there.
FRAMES: frozenset[CodeType] = PLANE_FRAMES | {
    Executor._start_task.__code__,
    Executor._coroutine.__code__,
    Executor._function.__code__,
}


def _here() -> str:
    """The directory in which this process is; empty if there is none."""
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return ""


def _dealt(runs: list[Run], together: int) -> list[list[Run]]:
    """The runs in batches of so many."""
    return [runs[start : start + together] for start in range(0, len(runs), together)]


def _enter_thread(run: Run) -> None:
    run.body = get_ident()  # where it has been handed over twice, the one that has begun
    runs.current.set(run)
    try:
        threading.current_thread().name = run.run_id
    except Exception:  # a job has spoilt the module
        pass


def _mend_main_thread() -> None:
    """In a forked child: give the thread that is its only one what `multiprocessing` looks for at the end.

    A thread that `threading` has not started has no such lock up to Python 3.12.
    """
    main = threading.main_thread()
    if getattr(main, "_tstate_lock", main) is None:
        main._set_tstate_lock()  # type: ignore[attr-defined]


class _Leave:
    """The last call that a pool's worker is given in a forked child: it ends the process."""

    def __init__(self, worker: int, left: list[object]) -> None:
        self._worker = worker
        self._left = left  # held, so that nobody's finaliser is called for it
        self.future = self  # which is what a pool looks for that is shut down

    def run(self, *_: object) -> None:
        if get_ident() == self._worker:  # and not a thread that the child has added to its copy of the pool
            exits.leave(0)

    def cancel(self) -> None:
        """Leave all the same: the worker will come to it."""


def _leave_pool() -> None:
    """In a forked child: where a worker of a thread pool has forked, it does nothing else that waits for the pool."""
    pools = sys.modules.get("concurrent.futures.thread")  # not there unless somebody has a pool
    waiting = getattr(pools, "_threads_queues", {}).get(threading.current_thread())
    if waiting is not None:
        left = [waiting.get_nowait() for _ in range(waiting.qsize())]
        waiting.put(_Leave(get_ident(), left))


def _cancelled(run: Run, error: BaseException | None = None) -> Ending:
    return ending.cancelled(run.cancelled or run.cancel_as or Outcome.CANCELLED, run.of.policies.timeout, error)


def _raised(run: Run, error: BaseException) -> Ending:
    """What the job has raised; where it had no time left, that is what its end is about."""
    return _cancelled(run, error) if run.cancel_as is Outcome.TIMED_OUT else ending.failed(error)


def _raised_on_plane(run: Run, error: BaseException) -> Ending:
    """The same for a coroutine, which may have been cancelled by us."""
    if isinstance(error, asyncio.CancelledError):
        return _cancelled(run, error) if run.cancelled else ending.failed(error)
    return _raised(run, error)


def _returned(run: Run, result: Any) -> Ending:
    if run.cancelled or run.cancel_as is Outcome.TIMED_OUT:
        return _cancelled(run)
    if result is None:
        return ending.SUCCEEDED
    try:
        return _refused(result, run.of.kind) if inspect.isawaitable(result) else ending.SUCCEEDED
    except BaseException:  # a proxy that cannot be asked what it is
        return ending.SUCCEEDED


def _refused(result: Any, kind: Kind) -> Ending:
    if inspect.iscoroutine(result):
        result.close()
    if kind is Kind.COROUTINE:
        return ending.failed(TypeError("the coroutine returned an awaitable that nobody awaits; await it in the job"))
    return ending.failed(
        TypeError("the function is no coroutine function, yet it returned an awaitable; declare it with `async def`")
    )
