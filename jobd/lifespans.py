"""What the jobs of a module share, opened before their first run and closed after their last.

May import: errors, events, faults, log, plane, stacks. An asynchronous context manager is entered and left by one and
the same task on the job plane, as libraries want it, and each lifespan has a task of its own; here stands what the
control plane knows of these tasks.

A lifespan has one life at a time, because both halves of it change the globals of one module: a reload opens those that
are not open yet, before those that are not needed any more close; these are left when the runs that may use them have
ended.

Tricky: memory may be lacking anywhere. What has become of a life stands in it; the control plane is only told to look,
and looks again where it could not see to it.
"""

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import CodeType
from typing import Any, Protocol

from jobd import events, faults, log, stacks
from jobd.errors import Fault
from jobd.plane import FRAMES as PLANE_FRAMES
from jobd.plane import JobPlane, insist


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
        self._lives: list[_Life] = []  # in the order in which they were opened
        self._in_use = _Group()
        self._opening: _Opening | None = None
        context = contextvars.Context()
        self._call: Callable[[], object] = lambda: loop.call_soon_threadsafe(self.resume, context=context)
        self._untold = False
        #: Called on the control plane when one has closed.
        self.on_change: Callable[[], None] = lambda: None

    def open(self, lifespans: Sequence[Lifespan], opened: Opened) -> None:
        """Open those that are not open yet, in order. Where one raises, those before it are closed again.

        One that was to close, and has not been asked to, is in use again, whatever becomes of the others; one that is
        closing is opened anew when that is done.
        """
        opening = _Opening(lifespans, opened)
        self._call()
        self._opening = opening

    def are_in_use(self, lifespans: Iterable[Lifespan]) -> bool:
        """Whether all of these are open, and stay so."""
        in_use = [life.lifespan for life in self._lives if life.is_open and life.group is self._in_use]
        return all(lifespan in in_use for lifespan in lifespans)

    @property
    def closed(self) -> bool:
        """Whether none is open, or about to be."""
        return all(life.has_ended for life in self._lives)

    def close(self) -> None:
        """Ask all of them to close, the last one first; one that has not opened yet is cancelled."""
        if self._opening is not None:
            self._opening.group.closing = True
        for life in self._lives:
            life.group.closing = True
        self._close_in_turn()

    def cancel(self) -> None:
        """Cancel those that have been asked to close and have not; ask the others."""
        asked = [life for life in self._lives if life.is_asked]
        self.close()
        for life in asked:
            life.close(self._plane, again=True)

    def retire(self, runs: Iterable[str], *, but: Collection[Lifespan]) -> None:
        """Close all but those when none of these runs is in flight any more."""
        retired = [life for life in self._lives if life.group is self._in_use and life.lifespan not in but]
        if retired:
            group = _Group(set(runs))
            for life in retired:
                life.group = group

    @property
    def retiring(self) -> bool:
        """Whether any waits for runs to end before it closes."""
        return any(life.group.needed_by is not None for life in self._lives)

    def runs_ended(self, in_flight: Collection[str]) -> None:
        """Only these runs are in flight now."""
        for life in self._lives:
            if life.group.needed_by is not None and not any(run in in_flight for run in life.group.needed_by):
                life.group.closing = True
        self._close_in_turn()

    def opening_stack(self) -> list[str]:
        """Where that stands in the code which those that are being opened wait for."""
        lifespans = [] if self._opening is None else self._opening.lifespans
        awaited = [life for life in map(self._life_of, lifespans) if life is not None and not life.is_open]
        if not awaited:
            return []
        *_, life = [life for life in self._lives if life.group is awaited[0].group]  # where they close, the last one
        return life.stack(self._plane.ident)

    def abandon(self) -> None:
        """Tell of those that have not closed, and how the others have that nobody has come to see off."""
        for life in self._lives:
            if life.has_ended:
                self._tell_failure(life)
            else:
                stack = life.stack(self._plane.ident)
                self._log.emit(events.LIFESPAN_ABANDONED, module=life.lifespan.module, stack=stack)

    def _tell(self) -> None:
        """On the job plane: something has become of one of them."""
        insist(self._call)

    def resume(self) -> None:
        """Look what has become of each, and see to it."""
        for life in [life for life in self._lives if life.has_ended]:
            self._see_off(life)
        if self._opening is not None:
            self._go_on(self._opening)
        self._close_in_turn()
        if self._untold:
            self.on_change()
            self._untold = False

    def _see_off(self, life: "_Life") -> None:
        opening = self._opening
        if opening is not None and life.group is opening.group and not opening.group.closing:
            opening.fault = life.fault or faults.of_lifespan_closed(life.lifespan.module)
            opening.group.closing = True
        else:
            self._tell_failure(life)
        self._untold = True
        self._lives.remove(life)

    def _tell_failure(self, life: "_Life") -> None:
        """Tell, once, what one has raised that had opened; who wants it open is told the rest."""
        if life.has_opened and life.fault is not None:
            self._log.emit(events.LIFESPAN_FAILED, module=life.lifespan.module, **(life.fault.failure or {}))
            life.fault = None

    def _go_on(self, opening: "_Opening") -> None:
        """Open the next one; tell when all are open, or when those that had opened before one failed have closed."""
        mine = [life for life in self._lives if life.group is opening.group]
        if opening.group.closing:
            if not mine:
                self._end(opening, opening.fault or faults.of_lifespan_closed(opening.lifespans[-1].module))
        elif self._have_opened(opening):
            for life in mine:
                life.group = self._in_use
            self._end(opening, None)

    def _end(self, opening: "_Opening", fault: Fault | None) -> None:
        opening.opened(fault)
        self._opening = None

    def _have_opened(self, opening: "_Opening") -> bool:
        """Whether all are open; else the first one that is not is opened, once its earlier life has ended."""
        for lifespan in opening.lifespans:
            life = self._life_of(lifespan)
            if life is None:
                self._start(_Life(lifespan, opening.group))
                return False
            if not life.may_stay:
                return False
            if life.group is not opening.group:
                life.group = self._in_use
        return True

    def _life_of(self, lifespan: Lifespan) -> "_Life | None":
        return next((life for life in self._lives if life.lifespan == lifespan), None)

    def _start(self, life: "_Life") -> None:
        self._lives.append(life)
        try:
            life.start(self._plane, self._tell)
        except BaseException:
            life.dropped = True  # it may be on its way to the plane all the same
            self._lives.remove(life)
            raise

    def _close_in_turn(self) -> None:
        """Of each group that is to close, ask the life that is the last one now."""
        for group, life in {life.group: life for life in self._lives}.items():
            if group.closing:
                life.close(self._plane)


class _Group:
    """Lives that close one after the other, the last one first, because it may use those before it."""

    def __init__(self, needed_by: set[str] | None = None) -> None:
        #: The runs that are to end before they are closed; None: they are in use.
        self.needed_by = needed_by
        self.closing = False


class _Opening:
    """What somebody wants open, and what has come in between."""

    def __init__(self, lifespans: Sequence[Lifespan], opened: Opened) -> None:
        self.lifespans = lifespans
        self.opened = opened
        #: Those that are opened for it, until all are open.
        self.group = _Group()
        self.fault: Fault | None = None


class _Life:
    """One lifespan that is opened and closed, and the task that does it."""

    def __init__(self, lifespan: Lifespan, group: _Group) -> None:
        self.lifespan = lifespan
        #: With which others it is closed.
        self.group = group
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        #: Whether it has been asked to close.
        self.is_asked = False
        #: Whether handing it to the plane has failed; if it has got there all the same, it is to be left alone.
        self.dropped = False
        #: Whether it has opened, once; and whether the task has ended.
        self.has_opened = False
        self.has_ended = False
        #: What has come out of it.
        self.fault: Fault | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has opened, and is not to close."""
        return self.has_opened and not self.has_ended and not self.group.closing

    @property
    def may_stay(self) -> bool:
        """Whether it has opened, and has not been asked to close: one behind it may be taking its time over that."""
        return self.has_opened and not self.has_ended and not self.is_asked

    def start(self, plane: JobPlane, tell: Callable[[], None]) -> None:
        """Open it on the plane; `tell` is called there when it is open, and when it has closed."""
        plane.call(self._start, [[(partial(self._begin, plane.loop, tell), tell)]])

    def close(self, plane: JobPlane, *, again: bool = False) -> None:
        """Have the task leave what it has entered; `again`: cancel it if it has been asked before."""
        asked = self.is_asked
        if again or not asked:
            cancel = asked or not self.has_opened
            self.is_asked = True  # RACE: first, because the plane may come to it at once
            try:
                plane.call(lambda _: self._close(cancel), [[None]])
            except BaseException:
                self.is_asked = asked
                raise

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
        entered = AsyncExitStack()
        try:
            await self._enter(entered)
            self.has_opened = True
            tell()
            await self._closing.wait()
        finally:
            await entered.aclose()  # without the exception of being cancelled: it is none of theirs

    async def _enter(self, entered: AsyncExitStack) -> None:
        function = self.lifespan.function
        enter = asynccontextmanager(function) if inspect.isasyncgenfunction(function) else function
        await entered.enter_async_context(enter())

    def _close(self, cancel: bool) -> None:
        if cancel and self._task is not None:
            self._task.cancel()
        else:
            self._closing.set()

    def _end(self, task: asyncio.Task[None], tell: Callable[[], None]) -> None:
        if not task.cancelled():
            self.fault = self._fault(task.exception())
        elif not self.is_asked:
            self.fault = self._fault(asyncio.CancelledError("something in it has been cancelled"))
        self._task = None  # here: with the task goes what it has raised, and with that what a job has left there
        self.has_ended = True
        tell()

    def _fault(self, error: BaseException | None) -> Fault | None:
        """What is told of the error; made here, because that runs the user's code."""
        try:
            return None if error is None else faults.of_lifespan(self.lifespan.module, error)
        except Exception:  # no memory, say
            return _STARVED


#: Code of ours that stands below a lifespan's.
FRAMES: frozenset[CodeType] = PLANE_FRAMES | {_Life._live.__code__, _Life._enter.__code__}
