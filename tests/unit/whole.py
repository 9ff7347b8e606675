"""A whole daemon on virtual time: the real `Daemon`, with a pipe for its signals and a plane that can be held.

What is not real: time, the process (leaving it is an exception, because that does not come back either), the reader of
the log, and the thread of the job plane. Jobs are coroutines that wait on loop time.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn
from unittest import mock

from jobd import clock, daemon, exits, garbage, interpreter, reload, signals, stop
from jobd.job import Job
from jobd.loader import Loaded
from jobd.plane import JobPlane
from jobd.settings import Settings
from jobd.states import State

from .virtual import Log, Still, VirtualControlLoop, VirtualLoop, Wall, virtual_loop


class Left(SystemExit):
    """The process has been left. Nothing catches it: neither the loop nor what runs on it."""


class Plane(JobPlane):
    """A job plane on the loop of the control plane; while it is held it takes no calls."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__(loop)
        self._held_since: float | None = None
        self._kept: list[tuple[Callable[[Any], None], Any]] = []

    def call(self, function: Callable[[Any], None], batches: Iterable[Iterable[Any]]) -> None:
        if self._held_since is None:
            super().call(function, batches)
        else:
            self._kept += [(function, batch) for batch in batches]

    def held_for(self) -> float:
        return 0.0 if self._held_since is None else self.loop.time() - self._held_since

    def hold(self) -> None:
        """Take no calls from here on."""
        if self._held_since is None:
            self._held_since = self.loop.time()

    def release(self) -> None:
        """Take the calls that have come meanwhile, and those to come."""
        self._held_since = None
        kept, self._kept = self._kept, []
        for function, batch in kept:
            super().call(function, [batch])


class Fences:
    """Fences that remember how they were armed, and what their guard was asked for."""

    def __init__(self) -> None:
        self.armed: list[float] = []
        self.guard = mock.Mock()
        self.guard.end.return_value = []  # no job has left a child
        self.guard.daemon_name = "whole"

    def unread_s(self) -> float:
        return 0.0

    def arm(self, within_s: float) -> None:
        self.armed.append(within_s)

    def allow(self, bound_s: float) -> None:
        """The settings of these daemons stay as they are."""

    @property
    def asked(self) -> list[str]:
        """What the guard was asked for in the stop, in order."""
        names = [name for name, _, _ in self.guard.method_calls]
        return [name for name in names if name in ("note", "terminate", "end", "dismiss")]


class Traced(stop.StopSequence):
    """A stop sequence that remembers every state it has been in."""

    @property
    def state(self) -> State:
        return self.states[-1]

    @state.setter
    def state(self, to: State) -> None:
        self.states: list[State] = [*getattr(self, "states", []), to]


class AtOnce(reload.Reload):
    """Reads everything without a thread, and finds what is there already."""

    def ask(self) -> None:
        self._found = self._read()
        self._loop.call_soon(self._take_found)


class Whole:
    """A daemon, and what it has done so far."""

    def __init__(self, loop: VirtualLoop, settings: Settings, signal_pipe: int) -> None:
        """Make the daemon; a byte that is written to `signal_pipe` is a signal."""
        self.loop = loop
        self.plane = Plane(loop)
        self.fences = Fences()
        self.to = Log(loop)
        self.left: list[tuple[float, int]] = []
        #: Whether the test is over; then jobs should no longer refuse to end.
        self.over = False
        self._signal_pipe = signal_pipe
        with (
            mock.patch.object(daemon, "ControlLoop", return_value=loop),
            mock.patch.object(garbage, "Collector"),
            mock.patch.object(interpreter, "take"),
            mock.patch.object(daemon, "JobPlane", return_value=self.plane),
            mock.patch.object(clock, "Clock", Wall),
            mock.patch.object(stop, "StopSequence", Traced),
            mock.patch.object(reload, "Reload", AtOnce),
        ):
            self.daemon = daemon.Daemon(settings, self.to, self.fences)  # type: ignore[arg-type]
        self.daemon._load = lambda fresh: (settings, self.daemon._loaded)

    @property
    def states(self) -> list[State]:
        """Every state that the daemon has been in, in order."""
        assert isinstance(self.daemon._stop, Traced)
        return self.daemon._stop.states

    def send(self, signum: signal.Signals) -> None:
        """Send the daemon a signal."""
        os.write(self._signal_pipe, bytes([signum]))

    def serve(self, jobs: list[Job], until: float) -> None:
        """Run the jobs until the daemon leaves; it has to have left at `until`."""
        self.loop.still_after(until)
        error: BaseException | None = None
        try:
            self.daemon._serve(Loaded(jobs, []))
        except BaseException as raised:
            error = raised
        while not isinstance(error, Left):
            if isinstance(error, Still):
                raise AssertionError(f"has not left, is {self.states[-1].value}")
            error = self.daemon._turn(error)

    def obey(self, signum: signal.Signals) -> None:
        """Obey a signal as the thread does that listens while the jobs are being loaded."""
        try:
            self.daemon._obey(signum)
        except Left:
            pass

    def hear_no_more(self) -> None:
        """Forget what came from outside at the very moment of leaving, and let nothing more come."""
        self.loop.remove_reader(signals.fileno())
        for handle in self.loop.pending:
            if handle._callback == self.daemon._stop.failed:  # type: ignore[attr-defined]
                handle.cancel()

    def end(self) -> None:
        """Bring every job to its end, and let nothing else be called any more."""
        self.over = True
        self.loop.set_exception_handler(lambda *_: None)
        for handle in self.loop.pending:
            handle.cancel()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()

    def exit(self, code: int) -> NoReturn:
        """Be `exits.leave`."""
        self.left.append((self.loop.time(), int(code)))
        raise Left


@contextmanager
def whole(settings: Settings) -> Iterator[Whole]:
    """A daemon with these settings, STARTING."""
    interval = sys.getswitchinterval()
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with ExitStack() as undo:
        undo.callback(sys.setswitchinterval, interval)
        undo.callback(os.close, write_end)
        undo.callback(os.close, read_end)
        undo.enter_context(mock.patch.object(signals, "_read_end", read_end))
        undo.enter_context(mock.patch.object(signals, "_caught", signals.CAUGHT))
        undo.enter_context(mock.patch.object(signals, "handlers", {}))
        undo.enter_context(mock.patch.object(signals, "reassert"))  # the dispositions of this process are not ours
        leave = undo.enter_context(mock.patch.object(exits, "leave"))
        loop = undo.enter_context(virtual_loop(VirtualControlLoop))
        made = Whole(loop, settings, write_end)
        undo.callback(made.end)
        leave.side_effect = made.exit
        yield made
