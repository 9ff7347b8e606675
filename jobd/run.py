"""What a run is: one execution of a job, and what the job itself may know about it.

May import: bell, job, clock, states. A run is made on the control plane when its tick is due, begins
on the plane or thread that executes it, and ends once. `current_run` works wherever the context of the run reaches:
in the job's coroutine, in tasks that it creates, in `asyncio.to_thread`, in the thread of a plain function.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from jobd import clock
from jobd.bell import Bell
from jobd.states import Outcome

if TYPE_CHECKING:
    from jobd.job import Job


class Stopping:
    """An event that is set when the daemon begins to drain: a job that sees it should come to an end.

    In a plain function it is used like `threading.Event`, in a coroutine like `asyncio.Event`. It is neither: whoever
    sets the one may wait for ever, if memory has run out in the middle of it before.
    """

    def __init__(self) -> None:
        self._is_set = False
        #: What wakes each of those that wait.
        self._wakers: list[Callable[[], object]] = []

    def is_set(self) -> bool:
        """Whether the run has been asked to come to an end."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until the event is set, for `timeout` seconds at most; whether it is set.

        In a plain function this blocks its thread: ``stopping.wait(5)``. Where an event loop runs it blocks nothing
        and is to be awaited: ``await stopping.wait(5)``.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._wait_here(timeout)
        return self._wait_on(loop, timeout)

    def _wait_here(self, timeout: float | None) -> bool:
        bell = Bell()
        with self._woken_by(bell.ring):
            return self._is_set or bell.wait(-1 if timeout is None else max(0.0, timeout))

    async def _wait_on(self, loop: asyncio.AbstractEventLoop, timeout: float | None) -> bool:
        event = asyncio.Event()
        with self._woken_by(partial(loop.call_soon_threadsafe, event.set)):
            if not self._is_set:
                await _set_within(event, timeout)
        return self._is_set

    @contextmanager
    def _woken_by(self, waker: Callable[[], object]) -> Iterator[None]:
        self._wakers.append(waker)  # RACE: before the event is looked at, so that who sets it then sees this
        try:
            yield
        finally:
            self._wakers.remove(waker)

    def then(self, call: Callable[[], object]) -> None:
        """Have `call` called when the event is set, in the thread that sets it; now, if it is."""
        self._wakers.append(call)
        if self._is_set:
            call()

    def set(self) -> None:
        """Ask the run to come to an end; jobd does this itself when it begins to drain. From any thread, at once."""
        self._is_set = True
        for wake in list(self._wakers):
            try:
                wake()
            except MemoryError:
                raise
            except Exception:  # RACE: a loop of the job's own that has been closed meanwhile needs no waking
                pass


class Child(Protocol):
    """A process that executes a run."""

    def done(self) -> bool:
        """Whether it has ended."""

    def place(self) -> list[str]:
        """What there is to say of where it stands."""


async def _set_within(event: asyncio.Event, timeout: float | None) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        pass


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_making = threading.RLock()  # a finaliser that comes in between may ask for it too


class Run:
    """One execution of a job."""

    __slots__ = (
        "_stopping",
        "attempt",
        "attempt_at",
        "begun",
        "body",
        "cancel_as",
        "cancel_sent",
        "cancelled",
        "dropped",
        "due",
        "ended",
        "ending",
        "entered",
        "first_tick",
        "handed_over",
        "key",
        "of",
        "printed",
        "put_off_s",
        "resting",
        "run_id",
        "scheduled_ns",
        "started",
        "stop_asked",
        "tick",
        "timer",
        "why_skipped",
    )

    def __init__(self, of: "Job", run_id: str, first_tick: int, tick: int) -> None:
        #: The job itself.
        self.of = of
        #: Unique over all daemons.
        self.run_id = run_id
        #: The tick it is for, and the first one of the row of missed ticks that it stands for.
        self.tick = tick
        self.first_tick = first_tick
        #: The tick's instant and the actual start, in monotonic seconds.
        self.due = 0.0
        self.started = 0.0
        #: Whether it has its `run.started`, and whether a coroutine's code has come to its first line after that.
        self.begun = False
        self.entered = False
        #: When it was handed to whoever executes it, and when its code came to its end; 0 before that.
        self.handed_over = 0.0
        self.ended = 0.0
        #: How it ended, as `invoke` tells it.
        self.ending: Any = None
        self.scheduled_ns = 0
        #: By how much the job's jitter has put it off, in seconds.
        self.put_off_s = 0.0
        #: Why the ticks before its own that it stands for had no run: ``missed`` or ``overlap``.
        self.why_skipped = "missed"
        #: Under which key it is offered.
        self.key = of.name
        #: Whether its ticks have been skipped in the last moment, so that it never begins.
        self.dropped = False
        #: Which attempt this is, from 1, and when it began; and whether it rests between two of them.
        self.attempt = 1
        self.attempt_at = 0.0
        self.resting = False
        #: What is to be done about it at some instant: its timeout, or its next attempt.
        self.timer: Any = None
        #: What executes it: a task, a thread by its `threading.get_ident`, or a process.
        self.body: asyncio.Task[None] | int | Child | None = None
        #: The outcome that it has if it ends because jobd cancels it.
        self.cancel_as: Outcome | None = None
        #: The same, once it has been cancelled; set by whoever executes it, so that its outcome is told truthfully.
        self.cancelled: Outcome | None = None
        #: Whether the plane has been told to cancel it, and has not come to that.
        self.cancel_sent = False
        self.stop_asked = False
        #: What it has printed since its last end of a line, by thread and stream: what cuts that into lines.
        self.printed: dict[tuple[int, str, str], Any] | None = None
        self._stopping: Stopping | None = None

    @property
    def job(self) -> str:
        """The job's name."""
        return self.of.name

    @property
    def scheduled_at(self) -> datetime:
        """The tick's instant, in UTC."""
        return _EPOCH + timedelta(microseconds=self.scheduled_ns // 1000)

    @property
    def stopping(self) -> Stopping:
        """Set when the daemon begins to drain, or this run is cancelled."""
        if self._stopping is None:
            made = Stopping()
            with _making:  # two threads of one run may look for the first time at once
                self._stopping = self._stopping or made
        if self.stop_asked:
            self._stopping.set()
        return self._stopping

    def ask_to_stop(self) -> None:
        """Set `stopping`. From any thread."""
        self.stop_asked = True
        # RACE: an event made meanwhile either is seen here or sees `stop_asked`.
        if self._stopping is not None:
            self._stopping.set()

    def rest(self, timer: Any) -> None:
        """Be as before the first attempt, but for the number; `timer` wakes it up."""
        self.attempt += 1
        self.timer, self.resting, self.handed_over = timer, True, -1.0
        self.begun = self.entered = self.stop_asked = False
        self._stopping = None
        self.body = self.cancelled = self.cancel_as = None
        self.ended = 0.0

    @property
    def scheduled(self) -> str:
        """The tick's instant as the log shows it."""
        return clock.stamp(self.scheduled_ns)

    def end_printed(self) -> None:
        """Let a line that it has begun to print come out without an end; it has ended."""
        for start in list(self.printed.values()) if self.printed else ():
            start.end()

    def __repr__(self) -> str:
        return f"<run {self.run_id} of {self.job}, tick {self.tick}>"


current: ContextVar[Run] = ContextVar("jobd.run")


def current_run() -> Run:
    """The run that this code belongs to.

    Raises `RuntimeError` outside of any run.
    """
    try:
        return current.get()
    except LookupError:
        raise RuntimeError("current_run() works only inside a run of a jobd job") from None
