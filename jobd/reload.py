"""Reading jobs and settings again while the daemon runs, on SIGHUP: all that was read is used, or nothing of it.

May import: agenda, errors, events, faults, garbage, job, lifespans, loader, log, notify, plane, settings, stacks.
Modules are imported in a thread of its own, because that runs user code, however long it takes; what comes of it goes
to the control plane. There it waits until what the jobs share is open.

Tricky: memory may be lacking anywhere. So what has been read goes its way in steps, each of which can be done again:
the one that has failed is the next one when somebody calls `resume`. And a thread may die before its first line, for
which `threading` would wait for ever; so it is started without that, and taken for dead if it has not claimed its work
in `TELL_AFTER_S`.
"""

import asyncio
import contextvars
from _thread import LockType, allocate_lock, get_ident, start_new_thread
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any, cast

from jobd import events, faults, garbage, log, stacks
from jobd.agenda import Agenda
from jobd.errors import Fault, InvalidConfig
from jobd.job import Job
from jobd.lifespans import Lifespans
from jobd.loader import Loaded
from jobd.notify import Notifier
from jobd.plane import JobPlane, insist
from jobd.settings import Settings

#: A reload that takes longer is told, again each time that has doubled.
TELL_AFTER_S = 5.0

#: What is read, and what may come of it instead.
Read = tuple[Settings, Loaded]
_Found = Read | list[Fault]
#: What is done on the control plane, one after the other; each says what comes next.
_Step = Callable[["Reload"], "_Step | None"]

_UNBORN = [faults.of_reload(MemoryError("the thread that was to read has not begun"))]
_STARVED = [faults.of_reload(MemoryError("no memory was left to tell why"))]


class Reload:
    """Reads everything again, once at a time."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        to: log.Log,
        notifier: Notifier,
        plane: JobPlane,
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
        self._plane = plane
        self._lifespans = lifespans
        self._read = read
        self._may_use = may_use
        self._in_use = in_use
        self._use = use
        self._agenda = Agenda(loop)
        context = contextvars.Context()
        self._call = lambda: loop.call_soon_threadsafe(self._take_found, context=context)
        self._reading = False
        self._again = False
        #: The thread that reads, once it does; and what has come out of that, until the control plane takes it.
        self._reader: int | None = None
        self._found: _Found | None = None
        #: What is to be done next with what has been found.
        self._step: _Step | None = None
        self._result: _Found = _UNBORN
        self._changes: Difference
        #: Whether what the new jobs share is being opened; and why it cannot be, until all is as it was before.
        self._opening = False
        self._unopened: list[Fault] | None = None
        self._faults: deque[Fault] = deque()
        self._refused = 0

    def ask(self) -> None:
        """Read everything; if that is being done at this moment, then once more when it is done."""
        self._notifier.reloading()
        if self._reading:
            self._again = True
        else:
            self._begin()

    def resume(self) -> None:
        """Take up what a lack of memory has left undone."""
        self._agenda.resume()
        self._take_found()

    def _begin(self) -> None:
        self._reading, self._reader = True, None
        try:
            claim = allocate_lock()
            self._agenda.after(TELL_AFTER_S, "tell", partial(self._tell, claim, TELL_AFTER_S))
            start_new_thread(self._work, (claim,))
        except Exception as error:  # no thread is to be had
            self._found = _faults(error)
            self._take_found()

    def _tell(self, claim: LockType, waited_s: float) -> None:
        """It takes long: where it stands."""
        if self._found is None and claim.acquire(False):  # and so the thread never will
            self._found = _UNBORN
        if self._found is not None:
            self._take_found()
            return
        self._log.emit(events.RELOAD_WAITING, waited_s=waited_s, stack=stacks.of_thread(self._reader, frozenset()))
        self._agenda.after(waited_s, "tell", partial(self._tell, claim, 2 * waited_s))

    def _work(self, claim: LockType) -> None:
        if not claim.acquire(False):
            return
        try:
            self._reader = get_ident()
            found: _Found = self._read()
        except BaseException as error:  # whatever a module raises when it is imported
            found = _faults(error)
        self._hand_over(found)

    def _hand_over(self, found: _Found) -> None:
        """From another thread: give it to the control plane, whatever is lacking."""
        self._found = found
        insist(self._call)

    def _take_found(self) -> None:
        if self._found is not None:
            self._agenda.clear()
            self._result, self._step = self._found, Reload._sort
            self._found = None
        self._go_on()

    def _go_on(self) -> None:
        while self._step is not None and self._may_use():
            self._step = self._step(self)

    def _sort(self) -> _Step:
        result = self._result
        if isinstance(result, list):
            return self._refusing(result)
        loaded = result[1]
        self._changes = difference(self._in_use().jobs, loaded.jobs)
        return Reload._take if self._lifespans.are_in_use(loaded.lifespans) else Reload._open

    @property
    def _new(self) -> Read:
        """What has been read, where that is without a fault."""
        return cast(Read, self._result)

    def _open(self) -> None:
        """Open what the new jobs share, where it is not open."""
        self._agenda.after(TELL_AFTER_S, "tell", partial(self._tell_opening, TELL_AFTER_S))
        self._opening = True
        self._lifespans.open(self._new[1].lifespans, self._opened)

    def _tell_opening(self, waited_s: float) -> None:
        """It takes long: where it stands."""
        self._log.emit(events.RELOAD_WAITING, waited_s=waited_s, stack=self._lifespans.opening_stack())
        self._agenda.after(waited_s, "tell", partial(self._tell_opening, 2 * waited_s))

    def _opened(self, fault: Fault | None) -> None:
        if self._opening:  # else it has been told before
            self._agenda.clear()
            self._unopened = None if fault is None else [fault]
            self._step = Reload._take if fault is None else Reload._take_back
            self._opening = False
            self._loop.call_soon(self._go_on)

    def _take_back(self) -> None:
        """Have everything be as it was before; on the job plane, because a module may be anything."""
        self._plane.call(self._put_back, [[self._new[1].take_back]])

    def _put_back(self, take_back: Callable[[], None]) -> None:
        unopened, self._unopened = self._unopened, None
        if unopened is not None:  # else it has been called for once more
            try:
                take_back()
            finally:
                self._hand_over(unopened)

    def _take(self) -> _Step:
        self._use(*self._new)
        return Reload._tell_taken

    def _tell_taken(self) -> _Step:
        changes = self._changes
        self._log.emit(events.DAEMON_RELOADED, added=changes.added, changed=changes.changed, removed=changes.removed)
        return Reload._end

    def _refusing(self, found: list[Fault]) -> _Step:
        self._faults, self._refused = deque(found), len(found)
        return Reload._refuse

    def _refuse(self) -> _Step:
        while self._faults:
            faults.tell(self._log, [self._faults[0]])
            self._faults.popleft()
        self._log.emit(events.RELOAD_REFUSED, faults=self._refused)
        return Reload._end

    def _end(self) -> None:
        self._notifier.ready()
        garbage.drop(self._result)
        self._result = _UNBORN
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


def _faults(error: BaseException) -> list[Fault]:
    """What is told of the error; made where it was raised, because that runs the user's code."""
    try:
        return error.faults if type(error) is InvalidConfig else [faults.of_reload(error)]
    except Exception:  # no memory, say
        return _STARVED


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
    function: Any = job.function.__func__ if type(job.function) is MethodType else job.function
    # Other callables are the same where it is the same object: to compare them would run users' code.
    code = function.__code__ if type(function) is FunctionType else id(function)
    return (job.schedule, job.kind, job.policies, job.command, job.target, code)
