"""What the jobs of a module share, opened before their first run and closed after their last.

May import: errors, events, faults, log, plane, stacks. An asynchronous context manager is entered and left by one and
the same task on the job plane, as libraries want it; here stands what the control plane knows of that task.

A reload opens new ones before the old ones close: these are left when the runs that may use them have ended.

Tricky: memory may be lacking anywhere. What has become of a life stands in it; the control plane is only told to look,
and looks again where it could not see to it.
"""

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Protocol

from jobd import events, faults, log, stacks
from jobd.errors import Fault
from jobd.plane import FRAMES, JobPlane, insist


class Lifespan(Protocol):
    """What a module has declared."""

    @property
    def module(self) -> str:
        """The module's name."""

    @property
    def function(self) -> Callable[[], Any]:
        """Makes the context manager; or an asynchronous generator function that one is made of."""


#: Told once: that they are open, or why they cannot be.
Opened = Callable[[Fault | None], None]

#: Made beforehand, for an end that takes more memory to tell than there is.
_STARVED = faults.of_lifespan("", MemoryError("no memory was left to tell what it raised"))


class Lifespans:
    """The lifespans of all modules, and whether they have closed."""

    def __init__(self, plane: JobPlane, loop: asyncio.AbstractEventLoop, to: log.Log) -> None:
        """They live on `plane`; what becomes of them is told on `loop`, the control loop."""
        self._plane = plane
        self._log = to
        self._lives: list[_Life] = []
        context = contextvars.Context()
        self._call = lambda: loop.call_soon_threadsafe(self.resume, context=context)
        self._untold = False
        #: Called on the control plane when one has closed.
        self.on_change: Callable[[], None] = lambda: None

    def open(self, lifespans: Sequence[Lifespan], opened: Opened) -> None:
        """Open them, in order, beside those that are open. Where one raises, those before it are closed again."""
        life = _Life(lifespans, opened)
        self._lives.append(life)
        try:
            life.start(self._plane, self._tell)
        except BaseException:
            life.dropped = True  # it may be on its way to the plane all the same
            self._lives.remove(life)
            raise

    @property
    def closed(self) -> bool:
        """Whether none is open, or about to be."""
        return all(life.has_ended for life in self._lives)

    def close(self) -> None:
        """Ask all of them to close, the last one first; one that has not opened yet is cancelled."""
        for life in self._lives:
            life.close(self._plane)

    def cancel(self) -> None:
        """Cancel those that have been asked to close and have not; ask the others."""
        for life in self._lives:
            life.close(self._plane, again=True)

    def retire(self, runs: Iterable[str], *, but_last: bool) -> None:
        """Close them, but for those opened last, when none of these runs is in flight any more."""
        for life in self._lives[:-1] if but_last else self._lives:
            if life.needed_by is None:
                life.needed_by = set(runs)

    @property
    def retiring(self) -> bool:
        """Whether any waits for runs to end before it closes."""
        return any(life.needed_by is not None for life in self._lives)

    def runs_ended(self, in_flight: Collection[str]) -> None:
        """Only these runs are in flight now."""
        for life in list(self._lives):
            if life.needed_by is not None and not any(run in in_flight for run in life.needed_by):
                life.close(self._plane)

    def newest_stack(self) -> list[str]:
        """Where those that have been opened last stand in the code."""
        return self._lives[-1].stack(self._plane.ident) if self._lives else []

    def abandon(self) -> None:
        """Tell of those that have not closed, and how the others have that nobody has come to see off."""
        for life in self._lives:
            if life.has_ended:
                self._tell_failure(life)
            else:
                self._log.emit(events.LIFESPAN_ABANDONED, stack=life.stack(self._plane.ident))

    def _tell(self) -> None:
        """On the job plane: something has become of one of them."""
        insist(self._call)

    def resume(self) -> None:
        """Look what has become of each, and see to it."""
        for life in list(self._lives):
            if life.has_opened:
                life.opened(None)
            if life.has_ended:
                self._see_off(life)
        if self._untold:
            self.on_change()
            self._untold = False

    def _see_off(self, life: "_Life") -> None:
        if not life.is_told:
            life.opened(life.fault or faults.of_lifespan_closed(life.module))
        else:
            self._tell_failure(life)
        self._untold = True
        self._lives.remove(life)

    def _tell_failure(self, life: "_Life") -> None:
        """Tell, once, what one has raised that had opened; who has had it opened is told the rest."""
        if life.is_told and life.fault is not None:
            self._log.emit(events.LIFESPAN_FAILED, module=life.module, **(life.fault.failure or {}))
            life.fault = None


class _Life:
    """Lifespans that are opened together, and the task that does it."""

    def __init__(self, lifespans: Sequence[Lifespan], opened: Opened) -> None:
        self._lifespans = lifespans
        self._opened = opened
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._asked = False
        #: Whether handing it to the plane has failed; if it has got there all the same, it is to be left alone.
        self.dropped = False
        #: Whether they have opened, once; and whether the task has ended.
        self.has_opened = False
        self.has_ended = False
        #: Whether anybody has been told that they have opened, or not.
        self.is_told = False
        #: At which module the task is, and what has come out of it.
        self.module = ""
        self.fault: Fault | None = None
        #: The runs that are to end before they are closed; None: they are in use.
        self.needed_by: set[str] | None = None

    def opened(self, fault: Fault | None) -> None:
        """Tell whoever has had them opened, once."""
        if not self.is_told:
            self._opened(fault)
            self.is_told = True

    def start(self, plane: JobPlane, tell: Callable[[], None]) -> None:
        """Open them on the plane; `tell` is called there when they are open, and when they have closed."""
        plane.call(self._start, [[(partial(self._begin, plane.loop, tell), tell)]])

    def close(self, plane: JobPlane, *, again: bool = False) -> None:
        """Have the task leave what it has entered; `again`: cancel it if it has been asked before."""
        if again or not self._asked:
            cancel = self._asked or not self.has_opened
            self._asked = True
            plane.call(lambda _: self._close(cancel), [[None]])

    def stack(self, ident: int | None) -> list[str]:
        """Where the task stands; `ident` is the plane's thread."""
        task = self._task
        return stacks.of_task(task, FRAMES, ident) if task is not None else []

    def _start(self, calls: tuple[Callable[[], None], Callable[[], None]]) -> None:
        begin, tell = calls
        if self.dropped:
            return
        try:
            insist(begin)
        except Exception as error:  # a job has spoilt asyncio, say
            self.fault = self._fault(error)
            self.has_ended = True
            tell()

    def _begin(self, loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> None:
        life = self._live(tell)
        try:
            task = asyncio.Task(life, loop=loop, name="lifespans")
        except BaseException:
            life.close()
            raise
        try:
            task.add_done_callback(lambda task: self._end(task, tell))
        except BaseException:
            task.cancel()  # before its first step
            raise
        self._task = task

    async def _live(self, tell: Callable[[], None]) -> None:
        stack = AsyncExitStack()
        try:
            for each in self._lifespans:
                await self._enter(each, stack)
            self.has_opened = True
            tell()
            await self._closing.wait()
        finally:
            await stack.aclose()  # without the exception of another one, or of being cancelled: it is none of theirs

    async def _enter(self, each: Lifespan, stack: AsyncExitStack) -> None:
        self.module = each.module
        function = each.function
        enter = asynccontextmanager(function) if inspect.isasyncgenfunction(function) else function
        entered = AsyncExitStack()
        await entered.enter_async_context(enter())
        stack.push_async_callback(self._leave, each.module, entered)

    async def _leave(self, module: str, entered: AsyncExitStack) -> None:
        try:
            await entered.aclose()
        except BaseException:
            self.module = module
            raise

    def _close(self, cancel: bool) -> None:
        if cancel and self._task is not None:
            self._task.cancel()
        else:
            self._closing.set()

    def _end(self, task: asyncio.Task[None], tell: Callable[[], None]) -> None:
        if not task.cancelled():
            self.fault = self._fault(task.exception())
        elif not self._asked:
            self.fault = self._fault(asyncio.CancelledError("something in it has been cancelled"))
        self._task = None  # here: with the task goes what it has raised, and with that what a job has left there
        self.has_ended = True
        tell()

    def _fault(self, error: BaseException | None) -> Fault | None:
        """What is told of the error; made here, because that runs the user's code."""
        try:
            return None if error is None else faults.of_lifespan(self.module, error)
        except Exception:  # no memory, say
            return _STARVED
