"""Reading the jobs and the settings again while the daemon runs, on SIGHUP.

May import: agenda, job, stacks. Modules are imported in a thread of its own, because that runs user code, however
long it takes; what comes of it goes to the control plane.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jobd import stacks
from jobd.agenda import Agenda
from jobd.job import Job

#: A reload that takes longer is told, again each time that has doubled.
TELL_AFTER_S = 5.0


class Reload:
    """Reads everything again, once at a time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        read: Callable[[], Any],
        take: Callable[[Any], None],
        wait: Callable[[float, list[str]], None],
    ) -> None:
        """`read` is called in a thread; `take`, on `loop`, with what it has returned or raised.

        `wait` is told for how many seconds `read` has not come back, and where it stands.
        """
        self._loop = loop
        self._read = read
        self._take = take
        self._wait = wait
        self._agenda = Agenda(loop)
        self._thread: threading.Thread | None = None
        self._reading = False
        self._again = False

    def ask(self) -> None:
        """Read everything; if that is being done at this moment, then once more, when `end` is called."""
        if self._reading:
            self._again = True
            return
        self._reading = True
        try:
            self._thread = threading.Thread(target=self._work, name="jobd reload", daemon=True)
            self._thread.start()
        except Exception as error:  # no thread is to be had
            self._done(error)
            return
        self._agenda.after(TELL_AFTER_S, "tell", lambda: self._tell(TELL_AFTER_S))

    def _tell(self, waited_s: float) -> None:
        ident = self._thread.ident if self._thread else None
        self._wait(waited_s, stacks.of_thread(ident, frozenset()))
        self._agenda.after(waited_s, "tell", lambda: self._tell(2 * waited_s))

    def _work(self) -> None:
        try:
            result = self._read()
        except BaseException as error:  # whatever a module raises when it is imported
            result = error
        self._loop.call_soon_threadsafe(self._done, result, context=contextvars.Context())

    def _done(self, result: Any) -> None:
        self._agenda.clear()
        self._take(result)

    def end(self) -> None:
        """What was read is in use, or has been refused."""
        self._reading = False
        if self._again:
            self._again = False
            self.ask()


@dataclass(frozen=True, slots=True)
class Difference:
    """What a reload does to the jobs: their names."""

    added: list[str]
    changed: list[str]
    removed: list[str]


def difference(before: Sequence[Job], after: Sequence[Job]) -> Difference:
    """What is new, what is declared otherwise or has other code, and what has gone."""
    old = {job.name: job for job in before}
    new = {job.name: job for job in after}
    return Difference(
        [name for name in new if name not in old],
        [name for name, job in new.items() if name in old and _declares(job) != _declares(old[name])],
        [name for name in old if name not in new],
    )


def _declares(job: Job) -> tuple[Any, ...]:
    code = getattr(job.function, "__code__", job.function)
    return (job.schedule, job.kind, job.policies, job.command, job.target, code)
