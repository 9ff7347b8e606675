"""The job plane: an event loop in a daemon thread of its own, which runs nothing but user code.

May import: clock, exits, interpreter, starvation. The control plane hands batches of calls over and asks how the plane
is; it never waits for it.

Tricky: a coroutine may block the loop for as long as it likes, call its ``stop()``, or let SystemExit through it; and
asyncio itself lets through what a callback raises where it cannot tell of that (a `repr` that fails, broken logging).
The loop is entered again then, which asyncio allows and which loses no callback. `busy_since` is how the other
plane sees a loop that is held: it is None exactly while the loop waits in its selector.
"""

import asyncio
import contextvars
import heapq
import selectors
import sys
import threading
import traceback
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any, TypeVar, TypeVarTuple

from jobd import exits, interpreter, starvation
from jobd.clock import Real

Item = TypeVar("Item")
_Ts = TypeVarTuple("_Ts")

#: Python's own, whatever a job puts into the module.
_Handle, _RUN, _walk = asyncio.Handle, asyncio.Handle._run.__code__, traceback.walk_tb
#: What asyncio has where it is not told otherwise.
_SLOW_CALLBACK_S = 0.1
#: How long to leave the machine alone when it has no memory to give.
STARVED_S = 0.02


class EventLoop(asyncio.SelectorEventLoop):
    """The loop of either plane; what a job does to the module `time` does not change what time it is here."""

    time = staticmethod(Real.monotonic)

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Do what asyncio's own does, without the calls that only a loop in debug mode needs: it is half of a task."""
        if self._debug or self._closed:  # type: ignore[attr-defined]
            return super().call_soon(callback, *args, context=context)
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle


class ControlLoop(EventLoop):
    """The loop of the control plane, which is left by whatever a callback raises."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Raise what asyncio would log: without memory, not even that can be done here."""
        error = context.get("exception")
        raise error if isinstance(error, BaseException) else RuntimeError(str(context.get("message")))


class _Selector(selectors.DefaultSelector):
    """The selector of the job plane, which knows whether it is being waited in."""

    def __init__(self) -> None:
        super().__init__()
        self.busy_since: float | None = None
        self._process = exits.pid()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if exits.pid() != self._process:
            # A child that a job has forked would take what wakes the daemon's loop, and run its jobs twice.
            exits.leave(0)
        self.busy_since = None
        interpreter.keep_untraced()
        try:
            return super().select(timeout)
        finally:
            self.busy_since = Real.monotonic()


class JobPlane:
    """An event loop for coroutines, in a thread that nobody ever joins."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Make the plane; it turns once `start` is called. A `loop` that is given turns by itself (for tests)."""
        self._selector = None if loop else _Selector()
        self.loop = loop or EventLoop(self._selector)
        self._calls: deque[tuple[Callable[[Any], None], deque[Any]]] = deque()
        self._taking = False
        self._turns_taken = 0
        self._thread: threading.Thread | None = None
        #: Is called before anything is handed over to the plane, so that somebody looks what becomes of it.
        self.on_call: Callable[[], None] = lambda: None

    def start(self, stray: Callable[[str, BaseException], None], broken: Callable[[BaseException], None]) -> None:
        """Let the plane turn.

        `stray` is told what left the loop without harm, `broken` what made it unusable; both in the plane's thread.
        """
        self._thread = threading.Thread(target=self._turn, args=(stray, broken), name="jobd jobs", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[Item], None], batches: Iterable[Iterable[Item]]) -> None:
        """Call `function` with each item, in order, one batch of them in each turn of the loop, as soon as it turns.

        In one hop for all. From the control plane.
        """
        self.on_call()
        for batch in batches:
            self._calls.append((function, deque(batch)))
        self.wake()

    def wake(self, again: bool = False) -> None:
        """See to it that the plane takes what waits for it; `again` even if it has been told already."""
        if self._calls and (again or not self._taking):
            self._taking = True
            try:
                self.loop.call_soon_threadsafe(self._take)
            except BaseException:  # no memory, say; who comes next tries again
                self._taking = False
                raise

    def step(self, task: asyncio.Task[Any]) -> None:
        """On the plane: let the task, which has just been made, take its first step now instead of in the next turn."""
        handle: asyncio.Handle = self.loop._ready[-1]  # type: ignore[attr-defined]
        # RACE: another thread may have called by; then it steps in the next turn after all.
        if getattr(handle._callback, "__self__", None) is task:  # type: ignore[attr-defined]
            try:
                handle._run()
            finally:
                handle.cancel()

    def held_for(self) -> float:
        """For how many seconds one callback has held the loop; 0 while it turns."""
        since = self._selector.busy_since if self._selector else None
        return 0.0 if since is None else max(0.0, Real.monotonic() - since)

    @property
    def unheard(self) -> int | None:
        """Which waking is still to be heard, as a number that rises; None if the plane has heard all."""
        return self._turns_taken if self._taking else None

    def leave_turn(self) -> None:
        """In a child that a job has forked on the plane: of this turn of the loop, nothing of other jobs is run."""
        if get_ident() == self.ident:
            for handle in list(self.loop._ready):  # type: ignore[attr-defined]
                handle.cancel()

    @property
    def idle(self) -> bool:
        """Whether the plane has been told of everything and has taken it."""
        return not self._calls and not self._taking

    @property
    def has_leftovers(self) -> bool:
        """Whether the loop has callbacks, timers or descriptors of somebody's, and may come to run code by itself."""
        if self._selector is None:
            return False
        loop: Any = self.loop
        return bool(loop._ready or loop._scheduled or len(self._selector.get_map()) > 1)  # one wakes the loop

    @property
    def ident(self) -> int | None:
        """The plane's thread, as `threading.get_ident` names it."""
        return self._thread.ident if self._thread else None

    @property
    def turns(self) -> bool:
        """Whether the plane's thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def _take(self) -> None:
        self._turns_taken += 1
        self._taking = False  # RACE: before the queue is looked at, so that who appends later calls again
        try:
            if self._calls:
                function, items = self._calls[0]
                while items:  # where one raises, the others come in the next turn
                    function(items.popleft())
        finally:
            self._take_on()

    def _take_on(self) -> None:
        if self._calls and not self._calls[0][1]:
            self._calls.popleft()
        if self._calls and not self._taking:
            self._taking = True
            self.loop.call_soon(self._take)

    def _mend(self) -> bool:
        """Take off the loop what a job has put there that is no number where it has to be one; whether it has."""
        timers: list[asyncio.TimerHandle] = self.loop._scheduled  # type: ignore[attr-defined]
        sound = [timer for timer in timers if _is_number(timer.when())]
        spoilt = len(sound) < len(timers)
        heapq.heapify(sound)
        timers[:] = sound
        if not _is_number(self.loop.slow_callback_duration):  # which debug mode compares with
            self.loop.slow_callback_duration = _SLOW_CALLBACK_S
            spoilt = True
        return spoilt

    def _turn(self, stray: Callable[[str, BaseException], None], broken: Callable[[BaseException], None]) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
                error: BaseException = RuntimeError("a job stopped the event loop; jobd goes on with it")
            except (SystemExit, KeyboardInterrupt) as left:
                error = left
            except BaseException as fault:
                error = fault
                if starvation.lacking(fault):  # in the loop's own code; it comes back with the memory, or the stack
                    Real.sleep(STARVED_S)
                elif not (_is_of_callback(fault) or self._mend()):
                    broken(fault)
                    return
            _tell(stray, error)
            del error  # with its frames, and all that these hold


def _is_number(value: object) -> bool:
    """Whether the loop can compute with it: an instant or a duration."""
    return type(value) is float or (type(value) is int and abs(value) <= sys.float_info.max)


def _is_of_callback(fault: BaseException) -> bool:
    """Whether a callback of a job has raised it, or asyncio in telling of that: the loop itself is sound."""
    return any(frame.f_code is _RUN for frame, _ in _walk(fault.__traceback__))


def insist(call: Callable[[], object]) -> None:
    """Call it from a thread where it may take its time, again and again while the machine lets us down in it."""
    while True:
        try:
            call()
            return
        except Exception as error:
            if not starvation.lacking(error):
                raise
        Real.sleep(STARVED_S)


def _tell(stray: Callable[[str, BaseException], None], error: BaseException) -> None:
    try:
        interpreter.keep()  # a recursion limit that is too low for the loop is too low for the log
        stray("event loop of the jobs", error)
    except Exception:  # without its line in the log, rather than without the thread
        pass


_LOOP = asyncio.BaseEventLoop
#: Code that stands below every callback of the loop.
FRAMES: frozenset[CodeType] = frozenset(
    function.__code__
    for function in (
        JobPlane._turn,
        JobPlane._take,
        JobPlane.step,
        _LOOP.run_forever,
        _LOOP._run_once,  # type: ignore[attr-defined]
        asyncio.Handle._run,
    )
)
