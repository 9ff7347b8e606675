"""Runs that are processes: all of them are started, read from, and ended by one thread.

May import: bell, clock, ending, interpreter, job, kin, launch, output, process, run, starvation. What is done to each
is in `process`; here they get their turns.

The thread is made with the first run. The control plane leaves orders to it and wakes it up, and never waits for it,
except at its very end. In each turn the thread waits until something happens or is due, but never without a limit;
takes orders and lets each process read, no more of either than is fair; looks around once for all that have to know who
is there; and tells the ends.

Tricky: memory or descriptors may be lacking at any line. Nothing is forgotten then, because an order leaves the queue
when it is done, and a run leaves the table when its end is told; the turn is just taken again.
"""

import math
import os
from _thread import allocate_lock, start_new_thread
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from select import POLLIN, poll

from jobd import ending, interpreter, kin, launch, starvation
from jobd.bell import Bell
from jobd.clock import Real
from jobd.ending import Ending
from jobd.job import Kind
from jobd.kin import Look
from jobd.output import Take
from jobd.process import Phase, Process
from jobd.run import Run

#: How long a turn may start processes, and how long it may read what they write: others wait to be asked, or killed.
TURN_S = 0.02
#: The longest that the thread sleeps.
LONGEST_S = 1.0
#: How long to leave the machine alone when it has nothing to give.
STARVED_S = 0.02
#: For how long at most nobody is ended, because without descriptors nobody can be found.
DARK_S = 1.0
#: How often at most an error of our own is told.
TELL_EVERY_S = 10.0


class Processes:
    """Executes runs, each as a process."""

    def __init__(
        self,
        begin: Callable[[Run], bool],
        end: Callable[[Run, Ending], None],
        says: Take,
        forward: Callable[[bytes], None],
        cancel_timeout_s: Callable[[], float],
        stray: Callable[[str, BaseException], None],
        how: Callable[[], dict[str, str]] = lambda: {"level": "info", "layout": "json"},
        here: str = "",
    ) -> None:
        """All but `here`, the directory in which jobd was started, are called on the thread of the processes.

        `begin` says whether a run may start, and `end` is told once how it has ended. `says` takes what it prints,
        `forward` what it logs, `how` says of which level and in which layout, and `stray` takes an error of our own.
        """
        self._begin = begin
        self._end = end
        self._process: Callable[[Run], Process] = lambda run: Process(run, here, says, forward, how())
        self._cancel_timeout_s = cancel_timeout_s
        self._stray = stray
        self._tell_at = -math.inf
        self._working = allocate_lock()
        self._wake: tuple[int, int] | None = None
        self._orders: deque[Callable[[], None]] = deque()
        #: The runs that are to be started by one of the orders.
        self._to_start: set[Run] = set()
        self._processes: dict[Run, Process] = {}
        self._look_not_before = -math.inf
        self._dark_since: float | None = None
        self._first = 0
        self._killing = False
        self._all_gone = Bell()

    def start(self, run: Run) -> None:
        """Execute the run as soon as can be, once if told twice. From the control plane; never waits."""
        try:
            self._see_to_thread()
        except Exception as error:  # no more threads are to be had, or no descriptors
            if self._begin(run):
                self._end(run, ending.failed(error))
            return
        if run not in self._to_start:
            self._to_start.add(run)  # RACE: first, because the thread may come to it at once
            try:
                self._order(partial(self._start, run))
            except BaseException:
                self._to_start.discard(run)
                raise

    def cancel(self, run: Run) -> None:
        """Ask the run to end, once, and kill it at the end of the cancel timeout. From the control plane."""
        self._order(partial(self._cancel, run))

    def kill_all(self, within_s: float) -> None:
        """Kill all that is left, and wait until each has its end, for `within_s` at most."""
        if self._working.locked():
            self._order(self._kill)
            self._all_gone.wait(max(0.0, within_s))

    def _see_to_thread(self) -> None:
        if self._wake is None:
            self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            launch.guard_forks()
        if not self._working.locked():
            start_new_thread(self._work, ())

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        if self._wake is not None:
            try:
                os.write(self._wake[1], b"\0")
            except BlockingIOError:  # it is full, so the thread is awake
                pass

    def _work(self) -> None:
        if not self._working.acquire(False):
            return  # RACE: two runs came before the first thread was there
        try:
            while True:
                try:
                    self._turn()
                except Exception as error:
                    self._tell(error)
                    Real.sleep(STARVED_S)
        finally:
            self._working.release()  # and the next run gets another thread

    def _tell(self, error: Exception) -> None:
        now = Real.monotonic()
        if not starvation.lacking(error) and now >= self._tell_at:
            self._tell_at = now + TELL_EVERY_S
            self._stray("thread of the processes", error)

    def _turn(self) -> None:
        interpreter.keep_untraced()
        ready = self._wait()
        self._do_all([self._take_orders])
        now = Real.monotonic()
        self._do_all(partial(process.look, ready, now) for process in self._processes.values())
        self._do_all([self._step])
        self._do_all(self._readings(ready, now))
        self._do_all([self._tell_ends])

    def _readings(self, ready: set[int], began: float) -> Iterator[Callable[[], None]]:
        """Reading from each process, one after the other, until the turn has taken its time; then from the next on."""
        processes = list(self._processes.values())
        for place in range(len(processes)):
            yield partial(processes[(self._first + place) % len(processes)].read, ready)
            if Real.monotonic() > began + TURN_S:
                self._first += place + 1
                return

    def _do_all(self, works: Iterable[Callable[[], None]]) -> None:
        """Do each of the works, whatever becomes of the others."""
        let_down = False
        for work in works:
            try:
                work()
            except Exception as error:
                self._tell(error)
                let_down = True
        if let_down:
            Real.sleep(STARVED_S)

    def _wait(self) -> set[int]:
        """Wait until something happens or is due; what is ready."""
        poller = poll()
        if self._wake is not None:
            poller.register(self._wake[0], POLLIN)
        now = Real.monotonic()
        until = now if self._orders else now + LONGEST_S  # some may be left, for want of time or memory
        for process in self._processes.values():
            for fd in process.descriptors():
                poller.register(fd, POLLIN)
            until = min(until, process.next_at(now, self._look_not_before))
        return {fd for fd, _ in poller.poll(max(0.0, until - now) * 1000)}

    def _take_orders(self) -> None:
        if self._wake is not None:
            try:
                os.read(self._wake[0], 4096)  # RACE: before the orders are looked at, so that who comes then wakes us
            except BlockingIOError:
                pass
        until = Real.monotonic() + TURN_S
        while self._orders and Real.monotonic() < until:
            self._orders[0]()
            self._orders.popleft()

    def _start(self, run: Run) -> None:
        if run.body is None:  # else it has been handed over a second time
            self._start_now(run)
        self._to_start.discard(run)

    def _start_now(self, run: Run) -> None:
        process = self._process(run)
        if run.of.kind is Kind.PROCESS:
            run.stopping.then(partial(self._order, process.stop))
        self._processes[run] = run.body = process
        if self._begins(run):
            process.start(Real.monotonic())

    def _begins(self, run: Run) -> bool:
        begins = False
        try:
            begins = self._begin(run)
        finally:
            if not begins:
                del self._processes[run]
                run.body = None
        return begins

    def _cancel(self, run: Run) -> None:
        if process := self._processes.get(run):
            process.cancel(Real.monotonic(), self._cancel_timeout_s())

    def _kill(self) -> None:
        self._killing, self._look_not_before = True, -math.inf
        for process in self._processes.values():
            process.kill(Real.monotonic(), at_once=True)

    def _step(self) -> None:
        now = Real.monotonic()
        due = [process for process in self._processes.values() if process.step_at <= now]
        if not due or now < self._look_not_before:
            return
        look = self._look(min(process.since for process in due))
        now = Real.monotonic()
        if not self._killing:
            self._look_not_before = now + look.took_s  # half of the time is left to everybody else
        self._do_all(partial(process.step, look, now) for process in due)

    def _look(self, since: int) -> Look:
        """Look at everybody; where that cannot be done, raise, but not for ever."""
        try:
            look = kin.look(since)
        except Exception:
            now = Real.monotonic()
            if self._dark_since is None:
                self._dark_since = now
            if now < self._dark_since + DARK_S:
                raise
            return kin.DARK
        self._dark_since = None
        return look

    def _tell_ends(self) -> None:
        for process in [each for each in self._processes.values() if each.phase is Phase.ENDED]:
            self._end(process.run, process.ending or ending.STARVED)
            del self._processes[process.run]
            process.run.body = None
        if self._killing and not self._processes:
            self._all_gone.ring()
