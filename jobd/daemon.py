"""The daemon of one process: start, serve, stop.

May import everything below it. This file puts the parts together and decides in which thread each works; what they
do is in their own files. A signal goes from the pipe in `signals` to `_obey`, and from there to the stop sequence;
a tick from the spawner to the runner, and from there to the plane, thread or process that executes it.
"""

import asyncio
import contextlib
import os
import platform
import select
import selectors
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import NoReturn

from jobd import (
    __version__,
    clock,
    clockset,
    events,
    exits,
    faults,
    fence,
    garbage,
    hooks,
    interpreter,
    invoke,
    lifespans,
    log,
    notify,
    reload,
    render,
    runner,
    signals,
    spawner,
    starvation,
    stop,
    watch,
)
from jobd import settings as setting
from jobd.agenda import Agenda
from jobd.clock import Real, seconds
from jobd.errors import Fault, InvalidConfig
from jobd.exits import ExitCode
from jobd.job import Due
from jobd.loader import Loaded
from jobd.plane import STARVED_S, ControlLoop, JobPlane
from jobd.settings import Settings
from jobd.states import State

#: How often at most systemd is told the number of runs in flight.
STATUS_EVERY_S = 1.0
#: How often at most it is told that the machine has nothing to give.
TELL_STARVED_EVERY_S = 10.0

#: Reads the jobs and the settings, or raises `InvalidConfig`; modules that it has read before anew, if it is told so.
Load = Callable[[bool], tuple[Settings, Loaded]]


class Daemon:
    """All parts of the daemon, ready to start."""

    def __init__(self, settings: Settings, to: log.Log, fences: fence.LastFences) -> None:
        """Make the parts; the threads that a stop needs exist from here on."""
        to.emit(events.DAEMON_STARTING, version=__version__, pid=os.getpid(), python=platform.python_version())
        hooks.install(to)
        interpreter.take()
        garbage.leave_be()
        self._settings = settings
        self._log = to
        self._fences = fences
        self._notifier = notify.Notifier.from_environment(os.environ)
        self._loop = ControlLoop(_selector())
        self._loop.set_debug(False)  # PYTHONDEVMODE is for the jobs' loop; here it would take time from every tick
        self._plane = JobPlane()
        self._runner = runner.Runner(self._loop, self._plane, to, name=fences.guard.daemon_name)
        self._runner.set_limits(settings.max_running, settings.cancel_timeout)
        self._spawner = spawner.Spawner(self._loop, clock.Clock(), self._offer, self._tell_step)
        self._lifespans = lifespans.Lifespans(self._plane, self._loop, to)
        self._watch = watch.Watch(self._loop, self._plane, self._runner, to, self._notifier, garbage.Collector())
        self._stop = stop.StopSequence(
            loop=self._loop,
            settings=settings,
            runner=self._runner,
            to=to,
            notifier=self._notifier,
            fence=fences,
            stop_spawning=lambda: self._runner.skip(self._spawner.stop()),
            leave=self._leave,
            children=fences.guard,
            lifespans=self._lifespans,
        )
        self._runner.on_change = self._lifespans.on_change = self._runs_changed
        self._plane.on_call = self._watch.look_after
        self._reload = reload.Reload(
            loop=self._loop,
            to=to,
            notifier=self._notifier,
            plane=self._plane,
            lifespans=self._lifespans,
            read=lambda: self._read(again=True),
            may_use=lambda: self._stop.state is State.RUNNING,
            in_use=lambda: self._loaded,
            use=self._use,
        )
        self._loaded = Loaded([], [])
        self._reload_when_ready = False
        self._to_handle: set[int] = set()
        self._ignored: Counter[int] = Counter()
        self._agenda = Agenda(self._loop)
        self._heard: list[int] = []
        self._heard_at = 0.0
        self._reserve = starvation.Reserve()
        self._serving = False
        self._is_ready = False
        self._taking_up = (
            self._listen,
            self._stop.resume,
            self._runner.resume,
            self._spawner.resume,
            self._watch.resume,
            self._agenda.resume,
            self._lifespans.resume,
            self._reload.resume,
        )
        self._starved = 0
        self._tell_starved_at = 0.0

    def run(self, load: Load) -> NoReturn:
        """Load the jobs, run them until a stop is asked for, and leave the process with an `ExitCode`."""
        self._load = load
        try:
            self._begin_or_refuse()
        except BaseException as error:
            self._go_on(error)
        self._go_on(None)

    def _begin_or_refuse(self) -> None:
        try:
            self._serve(self._start())
        except InvalidConfig as invalid:
            faults.tell(self._log, invalid.faults)
            self._stop.refuse()

    def _go_on(self, error: BaseException | None) -> NoReturn:
        """Turn the control loop to the end of the daemon, whatever comes out of it.

        What the machine has let us down in is done again. After any other error we stop, as well as that still can be
        done; each further one, such as a loop that cannot turn, takes the stop one state on.
        """
        while True:
            error = self._turn(error)

    def _turn(self, error: BaseException | None) -> BaseException | None:
        """Deal with an error, or turn the control loop; what came out of that."""
        try:
            if error is None:
                self._loop.run_forever()
            elif self._serving and starvation.lacking(error):
                self._recover(error)
            else:
                self._fail(error)
        except BaseException as again:
            return again
        return None

    def _recover(self, error: BaseException) -> None:
        """Take up everything that may have been left undone, because memory or the like was lacking."""
        Real.sleep(STARVED_S)
        if self._stop.overdue():
            self._leave(ExitCode.ABANDONED)
        interpreter.keep()
        self._reserve.spend()
        self._starved += 1
        starvation.do_all(self._taking_up)
        self._reserve.keep()
        self._tell_starved(error)

    def _tell_starved(self, error: BaseException) -> None:
        now = Real.monotonic()
        if now >= self._tell_starved_at:
            shown = render.failure(error)["error"]
            self._log.emit(events.DAEMON_STARVED, lacking=starvation.lacking(error), times=self._starved, error=shown)
            self._tell_starved_at = now + TELL_STARVED_EVERY_S
            self._starved = 0

    def _fail(self, error: BaseException) -> None:
        try:
            interpreter.keep()
            self._stop.failed(error)
        except BaseException as again:
            if not starvation.lacking(again):
                raise
            Real.sleep(STARVED_S)
            if self._stop.overdue():
                self._leave(ExitCode.INTERNAL)
            raise error from None  # and thus fail again

    def _warn_of_long_stop(self, bound_s: float) -> None:
        supervisor, limit_s = ("systemd", 90.0) if self._notifier.listening else ("Kubernetes", 30.0)
        if bound_s > limit_s:
            self._log.emit(events.CONFIG_LONG_STOP, bound_s=bound_s, supervisor=supervisor, limit_s=limit_s)

    def _start(self) -> Loaded:
        self._warn_of_long_stop(self._settings.grace_period + self._settings.cancel_timeout + 1)
        self._plane.start(self._stray, self._plane_broken)
        started, traced, profiled = exits.pid(), sys.gettrace(), sys.getprofile()
        with _Ears(self._listen, self._stop.resume):
            try:
                _, loaded = self._read(again=False)
            finally:
                if exits.pid() != started:
                    exits.leave(0)  # a module has forked and come back twice: the other one is the daemon
        sys.settrace(traced)  # what a module has set here would be called for every line of the control plane
        sys.setprofile(profiled)
        signals.reassert()
        return loaded

    def _read(self, *, again: bool) -> tuple[Settings, Loaded]:
        """Read everything, and import what is lacking for the jobs; in the thread that may wait for that."""
        settings, loaded = self._load(again)
        with contextlib.suppress(Exception):  # no memory, say; the first run of such a job tries again
            invoke.prepare(job.kind for job in loaded.jobs)
        return settings, loaded

    def _serve(self, loaded: Loaded) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.add_reader(signals.fileno(), self._listen)
        self._listen()
        self._loaded = loaded
        if loaded.lifespans:
            self._lifespans.open(loaded.lifespans, self._opened)
        else:
            self._begin()
        self._serving = True

    def _opened(self, fault: Fault | None) -> None:
        """What jobs share is open, or cannot be opened."""
        if fault is None:
            self._begin()
        elif self._stop.state is State.STARTING:
            faults.tell(self._log, [fault])
            self._stop.refuse()

    def _begin(self) -> None:
        if self._stop.ready():
            self._tell_ready()
            self._notifier.ready()
            self._tell_status()
            self._watch.start()
            self._spawn(self._loaded)
            if self._reload_when_ready:
                self._read_again()

    def _tell_ready(self) -> None:
        if not self._is_ready:  # else memory was lacking for what follows
            self._log.emit(events.DAEMON_READY, jobs=len(self._loaded.jobs), startup_s=_uptime_s())
            self._is_ready = True

    def _spawn(self, loaded: Loaded) -> None:
        self._spawner.start(loaded.jobs)
        if self._spawner.on_wall and not self._spawner.is_told_of_clock:
            self._spawner.is_told_of_clock = clockset.listen(self._loop, self._spawner.look_at_clock)

    def _tell_step(self, step_s: float) -> None:
        self._log.emit(events.CLOCK_STEPPED, step_s=seconds(step_s))

    def _read_again(self) -> None:
        if self._stop.state is State.STARTING:
            self._reload_when_ready = True  # what has been read may be older than what made somebody ask
        elif self._stop.state is State.RUNNING:
            self._reload.ask()

    def _use(self, settings: Settings, loaded: Loaded) -> None:
        """From here on these jobs and settings hold."""
        self._log.use(settings.log_level)
        self._runner.take_tellers()
        self._spawn(loaded)  # first: what that still offers is for the jobs as they were
        self._runner.use(loaded.jobs)
        self._runner.set_limits(settings.max_running, settings.cancel_timeout)
        self._stop.use(settings)
        self._fences.allow(stop.bound_s(settings))
        setting.in_use = settings
        self._lifespans.retire(self._runner.begun, but=loaded.lifespans)
        garbage.drop(self._loaded)
        loaded = Loaded(loaded.jobs, loaded.lifespans)  # and not what it takes to take it back
        self._loaded, self._settings = loaded, settings  # at last: where memory is lacking, all of it is done again
        self._runs_changed()

    def _listen(self) -> None:
        self._fences.guard.brace()
        if not self._heard:  # else these are still to be obeyed, because memory was lacking
            self._heard_at = self._loop.time()
            self._heard = signals.take()
        takes_its_time = any(map(signals.asks_for_stop, self._heard))
        self._obey_all()
        if takes_its_time:
            self._heard = signals.take()  # heard together with these: they came while these were being obeyed
            self._obey_all()
        self._fences.guard.relax()

    def _obey_all(self) -> None:
        while self._heard:
            signum = self._heard[0]
            self._obey(signum)
            # Each once: a storm of SIGUSR1 must not keep a stop waiting.
            self._heard = [other for other in self._heard if other != signum]

    def _obey(self, signum: int) -> None:
        """Every signal comes by here, in the order in which they came."""
        if signum in signals.handlers:
            self._handle_soon(signum)
        elif signals.asks_for_stop(signum):
            self._stop.signalled(signal.Signals(signum), self._heard_at)
        elif signum == signal.SIGHUP:
            self._read_again()
        elif signum == signal.SIGUSR1:
            self._log.emit(
                events.DAEMON_STATUS,
                state=self._stop.state.value,
                running=self._runner.running,
                uptime_s=_uptime_s(),
            )
            self._runner.flight.ask()
            self._tell_in_flight()
        elif signum == signal.SIGQUIT:
            self._fences.show_stacks()
        elif signum in signals.STRAY:
            self._ignore(signum)

    def _tell_in_flight(self) -> None:
        if self._runner.flight.tell():
            self._agenda.after(0, "runs in flight", self._tell_in_flight)

    def _handle_soon(self, signum: int) -> None:
        if signum not in self._to_handle:  # like the kernel: one that waits already is not counted
            self._to_handle.add(signum)  # RACE: first, because the plane may come to it at once
            try:
                self._plane.call(self._handle, [[signum]])
            except BaseException:
                self._to_handle.discard(signum)
                raise

    def _handle(self, signum: int) -> None:
        """On the job plane: call the handler that a jobs module has installed."""
        self._to_handle.discard(signum)
        try:
            signals.handlers[signum](signum, sys._getframe())
        except BaseException as error:
            self._stray(f"handler of {signals.name(signum)}", error)

    def _ignore(self, signum: int) -> None:
        """Tell of a signal without a meaning; when its count has doubled again, because a timer may send thousands."""
        self._ignored[signum] += 1
        if self._ignored[signum].bit_count() == 1:
            self._log.emit(events.SIGNAL_IGNORED, signal=signals.name(signum), count=self._ignored[signum])

    def _offer(self, ticks: deque[Due]) -> None:
        self._runner.offer(ticks)
        self._watch.look_after()
        self._tell_status_soon()

    def _runs_changed(self) -> None:
        if self._lifespans.retiring:
            self._lifespans.runs_ended(self._runner.begun)
        self._stop.runs_changed()
        self._tell_status_soon()

    def _tell_status_soon(self) -> None:
        if self._notifier.listening and not self._agenda.has("status"):
            self._agenda.after(STATUS_EVERY_S, "status", self._tell_status)

    def _tell_status(self) -> None:
        self._notifier.status(self._stop.status)

    def _plane_broken(self, error: BaseException) -> None:
        self._loop.call_soon_threadsafe(self._stop.failed, error)

    def _leave(self, code: ExitCode) -> NoReturn:
        """End the process at once: no thread is joined, nothing is finalised, nobody's exit handler can hold it."""
        try:
            self._fences.guard.end(0.0)
            self._fences.guard.dismiss()
        except Exception as error:  # a job has spoilt what that needs
            if starvation.lacking(error):
                raise
        exits.leave(code)

    def _stray(self, where: str, error: BaseException) -> None:
        hooks.stray(self._log, where, error)


class _Ears:
    """Obeys signals in a thread while the main thread imports the jobs, however long that takes."""

    def __init__(self, obey: Callable[[], None], resume: Callable[[], None]) -> None:
        """`resume` takes up what a lack of memory has left undone in `obey`."""
        self._obey = obey
        self._resume = resume
        self._lock = threading.Lock()
        self._handed_over = False
        self._thread = threading.Thread(target=self._listen, name="jobd signals", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        """Give the signals back; while the thread is obeying one, wait: a stop does not come back."""
        with self._lock:
            self._handed_over = True
        signals.nudge()

    def _listen(self) -> None:
        poller = select.poll()
        poller.register(signals.fileno(), select.POLLIN)
        undone = False
        while not self._handed_over:
            try:
                self._listen_once(poller, undone)
                undone = False
            except BaseException as error:
                if not starvation.lacking(error):
                    raise
                undone = True

    def _listen_once(self, poller: select.poll, undone: bool) -> None:
        if undone:  # nobody else takes it up while jobs are imported
            Real.sleep(STARVED_S)
        else:
            poller.poll()
        with self._lock:
            if not self._handed_over:
                if undone:
                    self._resume()
                self._obey()


def _selector() -> selectors.BaseSelector:
    """The control loop's: select(2) waits to the microsecond where epoll rounds up to milliseconds."""
    # It knows no descriptor above 1023, and whoever started us may have left that many open. Two are needed.
    highest = os.dup(signals.fileno())
    os.close(highest)
    fits = max(highest, signals.fileno()) < clockset.HIGHEST_FD
    return selectors.SelectSelector() if fits else selectors.DefaultSelector()


def _uptime_s() -> float:
    return seconds(Real.monotonic() - signals.held_since)
