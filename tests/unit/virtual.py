"""Time that passes only when nothing else is left to do: a day of ticks takes as long as computing them.

`VirtualLoop` is an ordinary asyncio loop whose selector does not wait: asked to wait for a second, it moves the
loop's clock on by a second. So the order of events is the real one, and no test waits or races.

Virtual time goes with fake jobs only: what another thread or process does takes no time here.
"""

import asyncio
import math
import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from jobd import clock, events, log, plane


class Still(Exception):
    """Nothing is ready, and nothing is scheduled before the time is up; ends `run_forever`."""


class _Clock(selectors.SelectSelector):
    """The selector and the clock of a virtual loop."""

    now = 0.0
    until = math.inf

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        wake = math.inf if timeout is None else self.now + timeout
        if wake > self.until + 1e-9 or wake == math.inf:
            raise Still
        self.now = wake
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock of its own, which starts at 0."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def still_after(self, instant: float) -> None:
        """Let `run_forever` raise `Still` where it would have to wait beyond `instant`."""
        self._clock.until = instant

    def run_until(self, instant: float) -> None:
        """Run everything that is due by `instant`, which then is now, unless somebody stops the loop before."""
        self.still_after(instant)
        try:
            self.run_forever()
        except Still:
            self._clock.now = max(self._clock.now, instant)

    def pass_time(self, seconds: float) -> None:
        """Run everything that is due within the next `seconds`."""
        self.run_until(self.time() + seconds)

    def settle(self) -> None:
        """Run what can run now, without any time passing."""
        self.pass_time(0)

    def run_out(self) -> None:
        """Run until nothing is scheduled any more, at whatever time that is."""
        self._clock.until = math.inf
        try:
            self.run_forever()
        except Still:
            pass

    @property
    def pending(self) -> list[asyncio.Handle]:
        """What is still to be called, now or later."""
        handles: list[asyncio.Handle] = [*self._ready, *self._scheduled]  # type: ignore[attr-defined]
        return [handle for handle in handles if not handle.cancelled()]

    def stall(self, seconds: float) -> None:
        """Let time pass in which the loop does not turn: a process that was stopped, or a loop that was held."""
        self._clock.now += seconds


class VirtualControlLoop(VirtualLoop):
    """One that is left by whatever a callback raises, as the control plane's is."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if "handle" in context:  # not by what becomes of a job's task
            plane.ControlLoop.call_exception_handler(self, context)  # type: ignore[arg-type]


@contextmanager
def virtual_loop(kind: type[VirtualLoop] = VirtualLoop) -> Iterator[VirtualLoop]:
    """A loop that is closed at the end, when the tasks that are left have had an hour to come to theirs."""
    loop = kind()
    try:
        yield loop
    finally:
        if asyncio.all_tasks(loop):
            loop.pass_time(3600)
        loop.close()


class Wall(clock.Clock):
    """A wall clock that was at the epoch when virtual time began."""

    def watch(self) -> None:
        """Nobody sets this clock."""

    def wall_ns(self, instant: float) -> int:
        return round(instant * 1_000_000_000)


class Line(NamedTuple):
    """What a log was told."""

    event: str
    fields: dict[str, Any]


class Log(log.Log):
    """A log that remembers what it is told; it touches no descriptor."""

    def hold(self) -> None:
        """Nothing waits here."""

    def mend(self) -> None:
        """No job can reach it."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self.lines: list[Line] = []
        #: The instant of each line on the loop's clock, and the level that a line has been given expressly.
        self.times: list[float] = []
        self.levels: list[str | None] = []
        #: The events that were logged as the last line.
        self.last: list[str] = []

    def emit(self, event: events.Event, /, *, level: str | None = None, **fields: Any) -> None:
        self.lines.append(Line(event.name, fields))
        self.times.append(self._loop.time() if self._loop else 0.0)
        self.levels.append(level)

    def teller(self, level: str) -> Callable[..., None]:
        return partial(self.emit, level=level)

    def push(self) -> None:
        """Nothing waits here."""

    def finish(self, event: events.Event, timeout_s: float, /, **fields: Any) -> None:
        self.last.append(event.name)
        self.emit(event, **fields)

    @property
    def names(self) -> list[str]:
        """The events in order."""
        return [line.event for line in self.lines]

    def of(self, event: events.Event) -> list[dict[str, Any]]:
        """The fields of each line of this event."""
        return [line.fields for line in self.lines if line.event == event.name]

    def instants(self, event: events.Event) -> list[float]:
        """When each line of this event was logged."""
        return [at for line, at in zip(self.lines, self.times, strict=True) if line.event == event.name]
