"""Reading jobs and settings again while the daemon runs, on SIGHUP: all that was read is used, or nothing of it.

May import: agenda, errors, events, faults, job, lifespans, loader, log, notify, settings, stacks. Modules are imported
in a thread of its own, because that runs user code, however long it takes; what comes of it goes to the control plane.
There it waits until what the jobs share is open.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobd import events, faults, log, stacks
from jobd.agenda import Agenda
from jobd.errors import Fault, InvalidConfig
from jobd.job import Job
from jobd.lifespans import Lifespans
from jobd.loader import Loaded
from jobd.notify import Notifier
from jobd.settings import Settings

#: A reload that takes longer is told, again each time that has doubled.
TELL_AFTER_S = 5.0

#: What is read.
Read = tuple[Settings, Loaded]


class Reload:
    """Reads everything again, once at a time."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        to: log.Log,
        notifier: Notifier,
        lifespans: Lifespans,
        read: Callable[[], Read],
        may_use: Callable[[], bool],
        in_use: Callable[[], Loaded],
        use: Callable[[Settings, Loaded], None],
    ) -> None:
        """`read` is called in a thread, and everything else on `loop`.

        `may_use` says whether the daemon still runs, `in_use` what it has, and `use` has it use something else.
        """
        self._loop = loop
        self._log = to
        self._notifier = notifier
        self._lifespans = lifespans
        self._read = read
        self._may_use = may_use
        self._in_use = in_use
        self._use = use
        self._agenda = Agenda(loop)
        self._thread: threading.Thread | None = None
        self._reading = False
        self._again = False

    def ask(self) -> None:
        """Read everything; if that is being done at this moment, then once more when it is done."""
        self._notifier.reloading()
        if self._reading:
            self._again = True
        else:
            self._begin()

    def _begin(self) -> None:
        self._reading = True
        try:
            self._thread = threading.Thread(target=self._work, name="jobd reload", daemon=True)
            self._thread.start()
        except Exception as error:  # no thread is to be had
            self._done(error)
            return
        self._agenda.after(TELL_AFTER_S, "tell", partial(self._tell, TELL_AFTER_S))

    def _tell(self, waited_s: float) -> None:
        """It takes long: where it stands."""
        ident = self._thread.ident if self._thread else None
        self._log.emit(events.RELOAD_WAITING, waited_s=waited_s, stack=stacks.of_thread(ident, frozenset()))
        self._agenda.after(waited_s, "tell", partial(self._tell, 2 * waited_s))

    def _work(self) -> None:
        try:
            result: Read | BaseException = self._read()
        except BaseException as error:  # whatever a module raises when it is imported
            result = error
        self._loop.call_soon_threadsafe(self._done, result, context=contextvars.Context())

    def _done(self, result: Read | BaseException) -> None:
        self._agenda.clear()
        if not self._may_use():
            return
        if isinstance(result, BaseException):
            self._refuse(result.faults if isinstance(result, InvalidConfig) else [faults.of_reload(result)])
        else:
            self._open(*result)

    def _open(self, settings: Settings, loaded: Loaded) -> None:
        """Open what the new jobs share, if that is not open already."""
        if loaded.lifespans and loaded.lifespans != self._in_use().lifespans:
            self._lifespans.open(loaded.lifespans, partial(self._opened, settings, loaded))
        else:
            self._take(settings, loaded)

    def _opened(self, settings: Settings, loaded: Loaded, fault: tuple[str, BaseException] | None) -> None:
        if not self._may_use():
            return
        if fault is None:
            self._take(settings, loaded)
        else:
            self._refuse([faults.of_lifespan(*fault)])

    def _take(self, settings: Settings, loaded: Loaded) -> None:
        changes = difference(self._in_use().jobs, loaded.jobs)
        self._use(settings, loaded)
        self._log.emit(events.DAEMON_RELOADED, added=changes.added, changed=changes.changed, removed=changes.removed)
        self._end()

    def _refuse(self, found: list[Fault]) -> None:
        faults.tell(self._log, found)
        self._log.emit(events.RELOAD_REFUSED, faults=len(found))
        self._end()

    def _end(self) -> None:
        self._notifier.ready()
        self._reading = False
        if self._again:
            self._again = False
            self._begin()


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
