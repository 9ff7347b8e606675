"""Watches that both planes turn, and tells who holds the one that does not.

May import: events, log, notify, plane, runner, invoke, signals, stacks, agenda, garbage, clock, interpreter. Runs on
the control loop: that it runs is the proof that this plane turns.

An idle daemon is not woken up for this: the job plane is looked at only while a run is in flight, or while something
is left on the loop that may run by itself. Between two looks a job may also have changed what becomes of our signals,
or settings of the interpreter, so each look takes them back; and runs that a lack of memory has made stand still are
helped on.
"""

import asyncio

from jobd import events, interpreter, log, signals, stacks
from jobd.agenda import Agenda
from jobd.clock import seconds
from jobd.garbage import Collector
from jobd.invoke import FRAMES
from jobd.notify import Notifier
from jobd.plane import JobPlane
from jobd.runner import Runner

#: How often to look, and for how long the plane may be held before that is told. Together less than a second.
LOOK_EVERY_S = 0.25
HELD_S = 0.5
#: A plane that stays held is told again each time it has been held so many times longer.
BACK_OFF = 2.0
#: After so many looks at a plane that waits and does not hear, it is taken for deaf; fewer could be a busy machine.
DEAF_LOOKS = 20
#: Now and then it is woken again before that: the call may have got lost for want of memory.
WAKE_AGAIN_LOOKS = 4
#: Runs in flight are looked through one by one only every so many looks, because there may be many.
ENDS_LOOKS = 4


class Watch:
    """Looks at the job plane while there may be code to run on it, and feeds systemd's watchdog."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plane: JobPlane,
        runner: Runner,
        to: log.Log,
        notifier: Notifier,
        collector: Collector,
    ) -> None:
        """Watch `plane` from `loop`, the control loop."""
        self._agenda = Agenda(loop)
        self._collector = collector
        self._plane = plane
        self._runner = runner
        self._log = to
        self._notifier = notifier
        self._looks = 0
        self._looking = False
        self._unheard: int | None = None
        self._unheard_looks = 0
        self._tell_at_s = HELD_S

    def start(self) -> None:
        """Begin to feed the watchdog, if systemd has asked for that."""
        if self._notifier.watchdog_s is not None:
            self._feed(self._notifier.watchdog_s)

    def look_after(self) -> None:
        """There are runs, or calls for the job plane; look after it until nothing is left."""
        if not self._looking:
            self._agenda.after(LOOK_EVERY_S, "look", self._look)
            self._looking = True

    def resume(self) -> None:
        """Go on after a lack of memory, wherever that has come in between."""
        if not self._agenda.has("look"):
            self._agenda.after(LOOK_EVERY_S, "look", self._look)
        self._looking = True
        self._agenda.resume()

    def _look(self) -> None:
        self._looks += 1
        signals.reassert()
        interpreter.keep()
        self._log.mend()
        self._collector.look()
        self._plane.wake()
        self._runner.start_again()
        self._runner.collect()
        if self._looks % ENDS_LOOKS == 0:
            self._runner.find_ends()
        held_s = self._plane.held_for()
        if held_s < HELD_S:
            self._tell_at_s = HELD_S
        elif held_s >= self._tell_at_s:
            self._tell_at_s = held_s * BACK_OFF
            self._tell(held_s)
        self._looking = held_s > 0 or self._runner.busy or self._plane.has_leftovers
        if self._looking:
            self._agenda.after(LOOK_EVERY_S, "look", self._look)
        self._listen_for_deafness(held_s)  # last: looks that fail half-way do not count

    def _listen_for_deafness(self, held_s: float) -> None:
        """A loop that nobody holds and no call wakes has been spoilt for good; better no daemon than one that idles."""
        unheard = self._plane.unheard
        same = unheard is not None and unheard == self._unheard and held_s == 0
        self._unheard, self._unheard_looks = unheard, self._unheard_looks + 1 if same else 0
        if self._unheard_looks and self._unheard_looks % WAKE_AGAIN_LOOKS == 0:
            self._plane.wake(again=True)
        if self._unheard_looks == DEAF_LOOKS:
            raise RuntimeError("the event loop of the jobs cannot be woken any more; a job has closed part of it")

    def _tell(self, held_s: float) -> None:
        holder = self._runner.flight.holder()
        self._log.emit(
            events.JOB_BLOCKING,
            job=holder.job if holder else None,
            run_id=holder.run_id if holder else None,
            blocked_s=seconds(held_s),
            stack=stacks.of_thread(self._plane.ident, FRAMES),
        )

    def _feed(self, watchdog_s: float) -> None:
        fed = self._plane.turns and self._plane.held_for() < watchdog_s / 2
        if fed:
            self._notifier.alive()
        # One that is released in time must not starve because nobody looked.
        self._agenda.after(watchdog_s / 2 if fed else watchdog_s / 10, "feed", lambda: self._feed(watchdog_s))
