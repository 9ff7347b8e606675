"""What the tests of the planes stand on beside virtual time. Fake jobs only: what another thread does takes no time."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from jobd import events, log, plane
from jobd.virtual import Still as Still
from jobd.virtual import VirtualLoop as VirtualLoop
from jobd.virtual import Wall as Wall


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

    def use(self, level: str) -> None:
        """Everything is remembered, whatever its level."""

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

    def teller(self, level: str, *, brief: bool = False) -> Callable[..., None]:
        return partial(self.emit, level=level)

    def push(self) -> None:
        """Nothing waits here."""

    def finish(self, event: events.Event, timeout_s: float, longest_s: float, /, **fields: Any) -> None:
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
