"""The catalogue: small jobs, honest and hostile, each with what it excuses.

The daemon of a round imports this module and runs a few of these functions; the driver imports it for what they
declare. An entry says what its own runs may end with, and which effects it has on the rest of the round, so that what
to expect of a round follows from its plan alone.

Tricky: this runs as whoever runs the tests. A job attacks the process it runs in, and never another one that it has
not started itself.
"""

import asyncio
import ctypes
import gc
import itertools
import logging
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from enum import Flag, auto
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import structlog

from jobd import current_run

log = structlog.get_logger()
Body = TypeVar("Body", bound=Callable[[], Any])

#: What jobs print begins with this.
SAYS = "chaos says"
#: Longer than any round.
FOR_EVER_S = 60.0
#: So that an orphan is told from others that sleep.
ORPHAN_S = 61.0

SUCCEEDED = frozenset({"succeeded"})
FAILED = frozenset({"failed"})
EITHER = SUCCEEDED | FAILED
TIMED_OUT = frozenset({"timed_out"})
CANCELLED = frozenset({"cancelled"})


class Effect(Flag):
    """What a job does to its round, beside how its own runs end."""

    NONE = 0
    #: Its runs may go on when they are asked to end.
    REFUSES = auto()
    #: Holds the loop of the coroutines, for a while or for good.
    HOLDS_PLANE = auto()
    #: Computes without end.
    BUSY = auto()
    #: Holds the GIL for a while, so that nothing in Python can be on time.
    HOLDS_GIL = auto()
    #: Holds the GIL for good: only a last fence ends the process.
    HOLDS_GIL_FOR_GOOD = auto()
    #: Ends the process on the spot, in the way its exit codes tell.
    CRASHES = auto()
    #: Takes the signals away for a moment; one that comes then is lost.
    DEAFENS = auto()
    #: Asks the daemon to stop.
    STOPS = auto()
    #: Makes other jobs fail: changes what they rely on.
    SPOILS = auto()
    #: Takes away what everybody needs, the daemon included: memory, descriptors, threads.
    STARVES = auto()
    #: Ends runs of other coroutines.
    CANCELS_OTHERS = auto()
    #: Logs so much that a reader that is slow may lose lines.
    FLOODS = auto()
    #: Takes the log away.
    LOSES_LINES = auto()
    #: Takes all descriptors that are left; or closes those of others, so that the guard is not heard any more.
    TAKES_DESCRIPTORS = auto()
    CLOSES_DESCRIPTORS = auto()
    #: Leaves children behind, which only a crash of the daemon excuses.
    LEAVES_CHILDREN = auto()
    #: Leaves forked copies of the daemon. They hold pipes open, so that `subprocess` may wait for them in other jobs.
    LEAVES_COPIES = auto()


@dataclass(frozen=True)
class Entry:
    """A job of the catalogue."""

    name: str
    effects: Effect
    #: How a run of it may end, as long as nobody stops the daemon.
    ends: frozenset[str]
    #: Exit codes that it may cause, as `subprocess` shows them.
    exits: frozenset[int]
    #: The intervals that it bears.
    intervals: tuple[str, ...]
    #: How often it is drawn, compared to others.
    weight: float
    #: How the processes look that it leaves and that nobody can have seen while they had a parent; none, if empty.
    orphans: str = ""
    #: What it declares beside its interval: policies, or where it runs.
    declares: Mapping[str, Any] = field(default_factory=dict)
    #: What is executed, where it is a command and no function.
    command: tuple[str, ...] = ()


CATALOGUE: dict[str, Entry] = {}
OFTEN = ("100ms", "0.25", "0.5s", "1")
NOW_AND_THEN = ("0.7s", "1s", "2s", "1h")
SELDOM = ("500ms", "1s", "2s", "1h")
ONCE = ("1h",)


def entry(
    effects: Effect = Effect.NONE,
    *,
    ends: frozenset[str] = SUCCEEDED,
    exits: tuple[int, ...] = (),
    intervals: tuple[str, ...] = NOW_AND_THEN,
    weight: float = 1.0,
    orphans: str = "",
    **declares: Any,
) -> Callable[[Body], Body]:
    """Put the function into the catalogue; what the parameters mean stands in `Entry`."""

    def register(function: Body) -> Body:
        name = function.__name__
        CATALOGUE[name] = Entry(name, effects, ends, frozenset(exits), intervals, weight, orphans, declares)
        return function

    return register


def command(
    name: str,
    *arguments: str,
    effects: Effect = Effect.NONE,
    ends: frozenset[str] = SUCCEEDED,
    intervals: tuple[str, ...] = SELDOM,
    **declares: Any,
) -> None:
    """Put a command into the catalogue; what it leaves, jobd finds by its environment."""
    CATALOGUE[name] = Entry(name, effects, ends, frozenset(), intervals, 1.0, "", declares, arguments)


# --- honest ones


@entry(intervals=("100ms",), weight=6)
async def beats() -> None:
    """The shortest coroutine."""
    await asyncio.sleep(0.01)


@entry(intervals=("100ms",), weight=6)
def beats_in_a_thread() -> None:
    """The shortest function."""
    time.sleep(0.01)


@entry(intervals=OFTEN, weight=2)
async def sleeps() -> None:
    """Overlaps with itself."""
    await asyncio.sleep(0.6)


@entry(weight=2)
async def sleeps_long() -> None:
    """Has to be cancelled."""
    await asyncio.sleep(FOR_EVER_S)


@entry(weight=2)
async def cleans_up() -> None:
    """Needs a moment after its cancellation."""
    try:
        await asyncio.sleep(FOR_EVER_S)
    finally:
        await asyncio.sleep(0.05)
        log.info("cleaned up")


@entry(weight=2)
def heeds_stopping() -> None:
    """Ends when it is asked to."""
    current_run().stopping.wait()


@entry()
async def heeds_stopping_in_a_coroutine() -> None:
    """Ends when it is asked to."""
    await current_run().stopping.wait()


@entry(intervals=OFTEN)
def computes_a_little() -> None:
    """Some honest work."""
    sum(number * number for number in range(100_000))


@entry()
def runs_a_command() -> None:
    """Waits for a subprocess."""
    subprocess.run(["/bin/sh", "-c", "exit 3"], check=False)


@entry()
async def runs_a_command_in_a_coroutine() -> None:
    """Awaits a subprocess."""
    child = await asyncio.create_subprocess_exec("/bin/sleep", "0.1")
    await child.wait()


@entry(intervals=OFTEN)
async def awaits_a_thread() -> None:
    """Uses the loop's pool of threads."""
    await asyncio.to_thread(time.sleep, 0.05)


@entry(intervals=OFTEN)
async def has_subtasks() -> None:
    """A group of tasks that ends with it."""
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(asyncio.sleep(0.01 * number))


@entry(intervals=OFTEN, weight=2)
def logs() -> None:
    """Lines of every usual kind."""
    for number in range(20):
        log.info("line", number=number)
        logging.getLogger("library").warning("stdlib %d", number)


@entry(Effect.FLOODS)
def logs_a_lot() -> None:
    """A megabyte."""
    for number in range(1000):
        log.info("line", number=number, pad="x" * 1000)


@entry(intervals=OFTEN, weight=2)
def prints() -> None:
    """Through every way that a job may print."""
    print(f"{SAYS} print")
    print(f"{SAYS} error", file=sys.stderr)
    os.write(1, f"{SAYS} descriptor 1\n".encode())
    os.write(2, f"{SAYS} descriptor 2\n".encode())
    subprocess.run(["/bin/echo", SAYS, "child"], check=False)


# --- runs that do not want to end


@entry(Effect.REFUSES)
async def swallows_cancellation() -> NoReturn:
    """For ever."""
    while True:
        try:
            await asyncio.sleep(FOR_EVER_S)
        except asyncio.CancelledError:
            log.info("refused")


@entry(Effect.REFUSES)
async def swallows_the_first_cancellation() -> None:
    """Ends at the second."""
    try:
        await asyncio.sleep(FOR_EVER_S)
    except asyncio.CancelledError:
        await asyncio.sleep(FOR_EVER_S)


@entry(Effect.REFUSES)
async def shields_itself() -> None:
    """Awaits in its clean-up what it has shielded."""
    task = asyncio.ensure_future(asyncio.sleep(FOR_EVER_S))
    try:
        await asyncio.shield(task)
    finally:
        await task


@entry(Effect.REFUSES)
async def cleans_up_for_ever() -> None:
    """Its clean-up swallows cancellation, too."""
    try:
        await asyncio.sleep(FOR_EVER_S)
    finally:
        for _ in range(5):
            try:
                await asyncio.sleep(FOR_EVER_S)
            except BaseException:
                log.info("still cleaning")


@entry(Effect.HOLDS_PLANE)
async def blocks_the_loop_for_a_while() -> None:
    """As a forgotten blocking call does."""
    time.sleep(0.8)


@entry(Effect.HOLDS_PLANE | Effect.REFUSES, intervals=ONCE)
async def blocks_the_loop_for_good() -> None:
    """No coroutine runs again."""
    time.sleep(FOR_EVER_S)


@entry(Effect.HOLDS_PLANE | Effect.REFUSES, intervals=ONCE)
async def blocks_the_loop_when_cancelled() -> None:
    """The clean-up is the blocking call."""
    try:
        await asyncio.sleep(FOR_EVER_S)
    finally:
        time.sleep(FOR_EVER_S)


@entry(Effect.HOLDS_PLANE | Effect.REFUSES | Effect.BUSY, intervals=ONCE)
async def computes_on_the_loop() -> NoReturn:
    """No coroutine runs again, and the GIL is wanted all the time."""
    while True:
        pass


@entry(Effect.REFUSES | Effect.BUSY, intervals=ONCE)
def computes_in_a_thread() -> NoReturn:
    """Wants the GIL all the time."""
    while True:
        pass


@entry(Effect.REFUSES)
def hangs_in_a_thread() -> None:
    """Looks at nothing."""
    time.sleep(FOR_EVER_S)


@entry(Effect.REFUSES)
def hangs_in_a_lock() -> None:
    """Waits for itself."""
    lock = threading.Lock()
    with lock:
        lock.acquire()


@entry(Effect.REFUSES)
def hangs_in_a_read() -> None:
    """Reads what nobody writes."""
    os.read(os.pipe()[0], 1)


@entry(Effect.REFUSES)
async def awaits_a_thread_that_hangs() -> None:
    """Cancellation does not reach the thread, yet the run ends."""
    await asyncio.to_thread(time.sleep, FOR_EVER_S)


@entry(Effect.REFUSES)
def swallows_everything_in_a_thread() -> NoReturn:
    """For ever."""
    while True:
        try:
            time.sleep(FOR_EVER_S)
        except BaseException:
            pass


@entry()
def leaves_threads() -> None:
    """Threads that Python would join at its exit."""
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(FOR_EVER_S,)).start()


@entry()
async def leaves_tasks() -> None:
    """Tasks that nobody awaits."""
    for _ in range(10):
        _kept.append(asyncio.ensure_future(asyncio.sleep(FOR_EVER_S)))


_kept: list[Any] = []


@entry(Effect.HOLDS_GIL)
def holds_the_gil_for_a_while() -> None:
    """As C code does that does not release it."""
    ctypes.PyDLL(None).usleep(500_000)


@entry(Effect.HOLDS_GIL_FOR_GOOD | Effect.REFUSES, exits=(1, -signal.SIGKILL), intervals=ONCE, weight=0.3)
def holds_the_gil_for_good() -> None:
    """Before anybody asks for the stop."""
    time.sleep(0.3)
    _ = -1 in itertools.count()


@entry(Effect.HOLDS_GIL_FOR_GOOD | Effect.REFUSES, exits=(1, -signal.SIGKILL), intervals=ONCE, weight=0.3)
def holds_the_gil_when_asked_to_stop() -> None:
    """The fence has been armed by then, or not."""
    current_run().stopping.wait()
    _ = -1 in itertools.count()


# --- runs that fail


class Rude(Exception):
    """An exception whose every word raises."""

    def __str__(self) -> str:
        raise SystemExit(5)

    __repr__ = __str__

    def __bool__(self) -> bool:
        raise KeyboardInterrupt

    def __eq__(self, other: object) -> bool:
        raise MemoryError

    __hash__ = None  # type: ignore[assignment]


def _exceptions() -> list[BaseException]:
    chained = ValueError("last")
    for number in range(300):
        following = ValueError(number)
        following.__cause__ = chained
        chained = following
    circular = ValueError("circular")
    circular.__context__ = ValueError("inner")
    circular.__context__.__context__ = circular
    return [
        SystemExit(3),
        SystemExit(),
        KeyboardInterrupt(),
        GeneratorExit(),
        BaseException("base"),
        asyncio.CancelledError(),
        asyncio.CancelledError("by myself"),
        StopIteration(1),
        StopAsyncIteration(1),
        TimeoutError(),
        MemoryError(),
        RecursionError(),
        Rude(),
        ExceptionGroup("many", [ValueError("first"), Rude()]),
        BaseExceptionGroup("many", [KeyboardInterrupt(), SystemExit(1)]),
        OSError(5, "\udcff\u2028\n{}"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
        SyntaxError("no", ("file", 1, 2, "text")),
        ValueError("x" * 300_000),
        chained,
        circular,
    ]


def _next_exception() -> BaseException:
    exceptions = _exceptions()
    return exceptions[next(_raised) % len(exceptions)]


_raised = itertools.count()


@entry(ends=FAILED, intervals=OFTEN, weight=2)
async def raises() -> NoReturn:
    """Each run another exception."""
    raise _next_exception()


@entry(ends=FAILED, intervals=OFTEN, weight=2)
def raises_in_a_thread() -> NoReturn:
    """Each run another exception."""
    raise _next_exception()


@entry(ends=FAILED)
def needs_too_much_memory() -> None:
    """A MemoryError that is none of Python's making."""
    _kept.append(bytearray(1 << 60))


@entry(ends=FAILED)
async def recurses() -> None:
    """Until Python has enough."""
    await recurses()


@entry(ends=FAILED, intervals=OFTEN)
async def cancels_itself() -> None:
    """That was not us."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


@entry(ends=FAILED)
def returns_a_coroutine() -> Any:
    """Without being one."""
    return beats()


@entry()
def returns_much() -> bytes:
    """Which nobody wants."""
    return bytes(50_000_000)


class Final:
    """A finaliser that raises."""

    def __del__(self) -> None:
        """Raise."""
        raise ValueError("in the finaliser")


@entry(intervals=OFTEN)
async def leaves_errors() -> None:
    """Errors that belong to no run."""
    loop = asyncio.get_running_loop()
    Final()
    beats()  # type: ignore[unused-coroutine]
    loop.call_soon(lambda: 1 / 0)
    _kept.append(loop.create_task(_fails_alone()))
    threading.Thread(target=lambda: 1 / 0).start()
    loop.create_future().set_exception(Rude())


async def _fails_alone() -> NoReturn:
    raise KeyError("alone")


# --- attacks on the process


@entry(intervals=OFTEN)
async def stops_the_loop() -> None:
    """As a script would at its end."""
    asyncio.get_running_loop().stop()


@entry(intervals=OFTEN)
async def leaves_the_loop() -> None:
    """SystemExit and KeyboardInterrupt go through an event loop."""
    loop = asyncio.get_running_loop()
    loop.call_soon(sys.exit)
    _kept.append(loop.create_task(_interrupts()))


async def _interrupts() -> NoReturn:
    raise KeyboardInterrupt


@entry(Effect.SPOILS)
async def configures_the_loop() -> None:
    """Factories and handlers that break."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda *args, **kwargs: None)  # type: ignore[arg-type]
    loop.set_exception_handler(lambda *args: 1 / 0)
    loop.set_debug(True)
    asyncio.set_event_loop(None)


@entry(Effect.CANCELS_OTHERS, ends=FAILED)
async def cancels_everybody() -> None:
    """Itself included."""
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(1)


@entry(Effect.STARVES | Effect.REFUSES, exits=(70,), intervals=ONCE, weight=0.3)
async def breaks_the_loop() -> None:
    """Closes what wakes it; then there is no daemon to go on with."""
    loop: Any = asyncio.get_running_loop()
    loop._csock.close()
    loop._ssock.close()


@entry(Effect.DEAFENS, weight=2)
def ignores_the_stop_signals() -> None:
    """As a C library may: what Python would only allow the main thread."""
    libc = ctypes.CDLL(None)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        libc.signal(int(signum), ctypes.c_void_p(int(signal.SIG_IGN)))


@entry()
def blocks_signals_in_its_thread() -> None:
    """Other threads hear them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(0.1)


@entry(intervals=OFTEN)
def asks_for_the_status() -> None:
    """A storm from within."""
    for _ in range(20):
        os.kill(os.getpid(), signal.SIGUSR1)


@entry(Effect.STOPS, weight=0.5)
def asks_for_the_stop() -> None:
    """As if a supervisor had."""
    time.sleep(0.7)
    os.kill(os.getpid(), signal.SIGTERM)


@entry(Effect.STOPS, intervals=ONCE, weight=0.3)
def asks_its_group_to_stop() -> None:
    """Children of other jobs are hit, too."""
    time.sleep(1)
    os.killpg(0, signal.SIGTERM)


@entry(Effect.CRASHES, exits=(7,), intervals=ONCE, weight=0.2)
def leaves_the_process() -> None:
    """Nothing can be done."""
    time.sleep(0.5)
    log.info("last words")
    os._exit(7)


@entry(Effect.CRASHES, exits=(-signal.SIGABRT, -signal.SIGSEGV), intervals=ONCE, weight=0.2)
def aborts_the_process() -> None:
    """Nothing can be done."""
    time.sleep(0.5)
    log.info("last words")
    os.abort()


@entry(Effect.CRASHES, exits=(-signal.SIGSEGV,), intervals=ONCE, weight=0.2)
def breaks_memory() -> None:
    """Nothing can be done."""
    time.sleep(0.5)
    log.info("last words")
    ctypes.string_at(0)


@entry()
def closes_its_streams() -> None:
    """Python's."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        getattr(stream, "close", str)()  # another job may have taken it away


@entry(Effect.SPOILS)
def takes_the_streams_away() -> None:
    """Python's."""
    sys.stdout = sys.stderr = None


@entry(Effect.SPOILS, intervals=ONCE)
def closes_the_standard_descriptors() -> None:
    """The kernel's; who opens something next gets their numbers."""
    for fd in (0, 1, 2):
        os.close(fd)


@entry(intervals=ONCE)
async def changes_the_interpreter() -> None:
    """Settings that hold for every thread."""
    gc.disable()
    sys.setswitchinterval(0.3)
    sys.settrace(lambda *args: None)
    threading.settrace(lambda *args: None)
    sys.setprofile(lambda *args: None)


@entry(Effect.SPOILS, intervals=ONCE)
async def takes_the_hooks_away() -> None:
    """No `threading.Thread` can be made, until they are put back."""
    sys.excepthook = threading.excepthook = sys.unraisablehook = None  # type: ignore[assignment]


@entry(Effect.SPOILS, intervals=ONCE)
async def lowers_the_recursion_limit() -> None:
    """Other jobs may fail on it, until it is put back."""
    sys.setrecursionlimit(60)


@entry(Effect.SPOILS, intervals=ONCE)
def forgets_modules() -> None:
    """Whoever imports them next gets others."""
    for name in ("asyncio", "logging", "structlog", "jobd.log", "threading"):
        sys.modules.pop(name, None)


@entry(Effect.SPOILS, intervals=ONCE)
def moves_the_process() -> None:
    """Directory, mask, environment, locale."""
    os.chdir("/")
    os.umask(0o777)
    os.environ.clear()
    time.tzset()


@entry(Effect.SPOILS, intervals=ONCE)
def configures_logging() -> None:
    """As if the process were its own. structlog then shows the lines of all jobs by itself, and fails at odd values."""
    logging.shutdown()
    logging.disable()
    logging.getLogger().handlers.clear()
    logging.basicConfig(stream=sys.stderr, force=True)
    structlog.reset_defaults()


@entry(intervals=ONCE)
def stops_the_clock() -> None:
    """What a test's helper does that is left switched on."""
    instant = time.monotonic()
    time.monotonic = lambda: instant
    time.time = lambda: 0.0
    time.time_ns = lambda: 0


@entry(intervals=ONCE)
def moves_the_clock() -> None:
    """An hour ahead."""
    monotonic, wall = time.monotonic, time.time
    time.monotonic = lambda: monotonic() + 3600
    time.time = lambda: wall() - 3600


@entry(intervals=ONCE)
def disarms_the_fence() -> None:
    """What faulthandler does for us."""
    import faulthandler

    faulthandler.cancel_dump_traceback_later()
    faulthandler.disable()
    faulthandler.unregister(signal.SIGQUIT)


@entry(Effect.STARVES | Effect.TAKES_DESCRIPTORS, ends=FAILED, intervals=ONCE)
def uses_up_the_descriptors() -> NoReturn:
    """All that are to be had."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    while True:
        os.dup(0)


@entry(Effect.STARVES, intervals=ONCE)
def uses_up_the_memory() -> None:
    """Nothing is to be had any more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(),) * 2)


@entry(Effect.STARVES, intervals=ONCE)
def asks_for_huge_stacks() -> None:
    """No thread starts any more."""
    threading.stack_size(1 << 40)


@entry(
    Effect.STARVES | Effect.LOSES_LINES | Effect.REFUSES | Effect.CLOSES_DESCRIPTORS,
    exits=(70,),
    intervals=ONCE,
    weight=0.2,
)
def closes_every_descriptor() -> None:
    """As code that makes a daemon of its own does."""
    os.closerange(3, 256)


@entry(intervals=ONCE)
def registers_an_exit_that_hangs() -> None:
    """At the exit of a process that never exits that way."""
    import atexit

    atexit.register(time.sleep, FOR_EVER_S)


# --- children


def _child(*command: str, **options: Any) -> None:
    _kept.append(subprocess.Popen(command, **options))


@entry(Effect.LEAVES_CHILDREN)
def leaves_a_child() -> None:
    """A command that goes on."""
    _child("/bin/sleep", str(FOR_EVER_S))


@entry(Effect.LEAVES_CHILDREN)
def leaves_a_child_that_ignores_signals() -> None:
    """SIGTERM does not do."""
    _child("/bin/sh", "-c", f"trap '' TERM INT HUP; sleep {FOR_EVER_S}; sleep {FOR_EVER_S}")


@entry(Effect.LEAVES_CHILDREN)
def leaves_a_pipeline() -> None:
    """Grandchildren."""
    _child("/bin/sh", "-c", f"sleep {FOR_EVER_S} | cat", stdin=subprocess.DEVNULL)


@entry(Effect.LEAVES_CHILDREN)
def leaves_a_child_that_starts_others() -> None:
    """One after the other, as long as it lives."""
    _child("/bin/sh", "-c", f"for _ in 1 2 3 4 5 6 7 8 9; do sleep {FOR_EVER_S} & sleep 0.3; done; wait")


@entry(Effect.LEAVES_CHILDREN, orphans=f"sleep (/bin/sleep {ORPHAN_S})")
def leaves_a_command_without_a_parent() -> None:
    """As a shell's `( ... & )` does, and in the daemon's session."""
    _child("/bin/sh", "-c", f"(/bin/sleep {ORPHAN_S} &)", stdin=subprocess.DEVNULL)


@entry(Effect.LEAVES_CHILDREN | Effect.REFUSES)
def waits_for_a_child() -> None:
    """The run ends when the child does."""
    subprocess.run(["/bin/sleep", str(FOR_EVER_S)], check=False)


@entry(Effect.LEAVES_CHILDREN)
async def waits_for_a_child_in_a_coroutine() -> None:
    """Is cancelled while the child goes on."""
    child = await asyncio.create_subprocess_exec("/bin/sleep", str(FOR_EVER_S))
    await child.wait()


@entry(Effect.LEAVES_CHILDREN)
def leaves_a_child_that_prints() -> None:
    """Now and then."""
    _child("/bin/sh", "-c", f"while :; do echo {SAYS} child; sleep 0.2; done")


@entry(Effect.LEAVES_CHILDREN)
def leaves_a_child_that_is_stopped() -> None:
    """It hears nothing but SIGKILL."""
    _child("/bin/sh", "-c", "kill -STOP $$")


@entry(Effect.LEAVES_CHILDREN | Effect.LEAVES_COPIES)
def leaves_a_forked_child() -> None:
    """A copy of the daemon that sleeps."""
    if os.fork() == 0:
        time.sleep(FOR_EVER_S)
        os._exit(0)


def _sleep_as_an_orphan() -> NoReturn:
    Path("/proc/self/comm").write_text("orphan")
    time.sleep(FOR_EVER_S)
    os._exit(0)


@entry(Effect.LEAVES_COPIES, orphans="orphan (")
def leaves_an_orphan() -> None:
    """Double-forked, in the daemon's session."""
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            _sleep_as_an_orphan()
        os._exit(0)
    os.waitpid(child, 0)


@entry(Effect.LEAVES_COPIES, orphans="orphan (", intervals=ONCE, weight=0.5)
def detaches_a_grandchild() -> None:
    """Double-forked, in a session of its own: only a control group would hold it."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            _sleep_as_an_orphan()
        os._exit(0)
    os.waitpid(child, 0)


@entry(Effect.LEAVES_CHILDREN, intervals=ONCE, weight=0.5)
def detaches_a_command() -> None:
    """In a session of its own, and still a child."""
    _child("/bin/sleep", str(FOR_EVER_S), start_new_session=True)


@entry(ends=EITHER, intervals=OFTEN)
async def comes_back_from_a_fork_twice() -> None:
    """The child is no second daemon."""
    os.fork()


@entry(ends=EITHER, intervals=OFTEN)
def comes_back_from_a_fork_twice_in_a_thread() -> None:
    """The child is no second daemon."""
    os.fork()


@entry()
def forks_a_child_that_raises() -> None:
    """What the child raises is its own business."""
    child = os.fork()
    if child == 0:
        sys.exit(5)
    os.waitpid(child, 0)


@entry(Effect.LEAVES_CHILDREN, intervals=OFTEN)
def ends_its_child_with_a_signal() -> None:
    """The child's signal is not the daemon's."""
    child = os.fork()
    if child == 0:
        time.sleep(FOR_EVER_S)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)


@entry(Effect.LEAVES_CHILDREN | Effect.LEAVES_COPIES, intervals=ONCE)
def leaves_a_pool_of_processes() -> None:
    """With work to do."""
    pool = ProcessPoolExecutor(2)
    _kept.append((pool, pool.submit(time.sleep, FOR_EVER_S)))


@entry(Effect.LEAVES_CHILDREN | Effect.LEAVES_COPIES, intervals=ONCE)
def leaves_a_multiprocessing_child() -> None:
    """Which Python would join at its exit."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(FOR_EVER_S,))
    child.start()
    _kept.append(child)


@entry(Effect.LEAVES_CHILDREN | Effect.LEAVES_COPIES, intervals=ONCE)
def leaves_a_multiprocessing_pool() -> None:
    """Workers that wait, and threads that keep them."""
    _kept.append(multiprocessing.get_context("fork").Pool(2))


# --- what goes into the log


class RudeText:
    """A value that has no text."""

    def __repr__(self) -> NoReturn:
        sys.exit(5)


def _values() -> Iterator[Any]:
    circular: list[Any] = []
    circular.append(circular)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    yield from (math.nan, [math.inf, -math.inf], circular, deep, RudeText(), Rude(), {(1, 2): 3, None: 4})
    yield from (b"\xff\x00\n", "\ud800", 2**70, 10**5000, object(), {1, 2}, threading.Lock(), Final())
    yield from ("x" * 10_000_000, list(range(200_000)), {f"key{n}": n for n in range(5000)})
    yield '\n{"event":"run.finished","run_id":"x"}\n\u2028\x85\r\x1b[2J'


@entry(Effect.FLOODS)
def logs_odd_values() -> None:
    """In every place of a line."""
    for value in _values():
        log.info("odd", value=value)
        log.info(value)
        logging.info("odd %s", value)
        logging.info("odd", extra={"value": value})
        log.error("odd", exc_info=value)


@entry(intervals=OFTEN)
def logs_wrongly() -> None:
    """Arguments that do not fit, and names that are taken."""
    logging.info("%d %d", "one")
    logging.info(None)
    log.info(None, timestamp=1, level=2, job=3, run_id=4, event_=5)
    log.exception("without one")
    log.warning("group", exc_info=ExceptionGroup("many", [ValueError()]))


@entry(Effect.FLOODS, intervals=ONCE)
def logs_from_many_threads() -> None:
    """All at once."""
    for number in range(8):
        threading.Thread(target=lambda n=number: [log.info("thread", number=n, line=i) for i in range(200)]).start()


@entry(Effect.FLOODS, intervals=ONCE)
async def logs_errors_for_ever() -> NoReturn:
    """Without end."""
    while True:
        try:
            raise ValueError("again")
        except ValueError:
            log.exception("again", pad="x" * 500)
        await asyncio.sleep(0.0005)


@entry(intervals=OFTEN)
def prints_half_lines() -> None:
    """And bytes that are no text."""
    sys.stdout.write(SAYS)
    os.write(1, SAYS.encode() + b' \xff\x00{"event": "forged"}\n')


# --- jobs with policies


@entry(intervals=SELDOM, ends=TIMED_OUT, timeout=0.2)
async def has_too_little_time() -> None:
    """Cancelled before it is done."""
    await asyncio.sleep(FOR_EVER_S)


@entry(Effect.REFUSES, intervals=SELDOM, ends=TIMED_OUT, timeout=0.2)
async def refuses_to_time_out() -> NoReturn:
    """Stays in flight; it is told again and again."""
    while True:
        try:
            await asyncio.sleep(FOR_EVER_S)
        except asyncio.CancelledError:
            pass


@entry(Effect.REFUSES, intervals=ONCE, ends=TIMED_OUT, timeout=0.2)
def has_too_little_time_in_a_thread() -> None:
    """Nobody can end it."""
    time.sleep(FOR_EVER_S)


@entry(intervals=OFTEN, ends=FAILED, retries=2, backoff=0.1)
async def fails_three_times() -> NoReturn:
    """Rests in between."""
    raise ValueError("again")


@entry(intervals=OFTEN, ends=EITHER, retries=3, backoff=0.05)
def fails_at_first() -> None:
    """Comes through at the third attempt, unless a stop comes first."""
    if next(_attempts.setdefault(current_run().run_id, itertools.count())) < 2:
        raise ValueError("not yet")


_attempts: dict[str, Iterator[int]] = {}


@entry(intervals=SELDOM, ends=FAILED, retries=5, backoff=60.0)
async def rests_when_the_stop_comes() -> NoReturn:
    """Its second attempt is further away than any stop."""
    raise ValueError("once")


@entry(intervals=SELDOM, ends=TIMED_OUT, timeout=0.1, retries=2, backoff=0.05)
async def times_out_three_times() -> None:
    """Attempt by attempt."""
    await asyncio.sleep(FOR_EVER_S)


@entry(intervals=("100ms", "0.25"), overlap="skip")
async def runs_alone() -> None:
    """Longer than its interval."""
    await asyncio.sleep(0.4)


@entry(intervals=("100ms", "0.25"), ends=SUCCEEDED | CANCELLED, overlap="replace")
async def gives_way() -> None:
    """To its next run."""
    await asyncio.sleep(0.4)


@entry(Effect.REFUSES, intervals=("100ms", "0.25"), ends=SUCCEEDED | CANCELLED, overlap="replace")
async def gives_way_slowly() -> None:
    """Cleans up for longer than its interval."""
    try:
        await asyncio.sleep(FOR_EVER_S)
    finally:
        await asyncio.sleep(0.3)


@entry(intervals=("100ms", "0.25"), max_running=2, jitter=0.05)
async def comes_in_pairs() -> None:
    """And not quite at its instants."""
    await asyncio.sleep(0.6)


@entry(intervals=("100ms", "0.25"), missed="all")
async def makes_up_for_everything() -> None:
    """Has a run for each tick, however late."""


@entry(intervals=("100ms", "0.25"), missed="skip")
async def does_not_look_back() -> None:
    """Has none for a tick that was missed."""


@entry(intervals=SELDOM, ends=SUCCEEDED | CANCELLED, grace_period=0.1)
async def gets_less_time() -> None:
    """Than the daemon gives to everybody."""
    await asyncio.sleep(1)


# --- functions and commands with a process of their own


@entry(intervals=SELDOM, isolation="process")
def is_isolated() -> None:
    """In an interpreter of its own."""
    log.info("isolated")
    current_run().stopping.wait(0.3)


@entry(intervals=SELDOM, isolation="process", ends=FAILED)
def leaves_its_own_process() -> None:
    """And nobody else's."""
    os._exit(5)


@entry(intervals=ONCE, isolation="process")
def holds_its_own_gil() -> None:
    """Is killed for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    -1 in itertools.count()  # noqa: B015


@entry(intervals=ONCE, isolation="process", ends=TIMED_OUT, timeout=0.8)
def hangs_in_its_own_process() -> None:
    """Is killed when its time is up."""
    time.sleep(FOR_EVER_S)


command("is_a_command", "sh", "-c", f"echo {SAYS} command; sleep 0.2")
command("is_a_command_that_fails", "false", ends=FAILED, intervals=OFTEN)
command("is_no_command", "/nonexistent/program", ends=FAILED, intervals=OFTEN)
command("is_a_command_that_hangs", "sleep", "62")
command("is_a_command_that_refuses", "sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1; done", intervals=ONCE)
command("is_a_command_that_floods", "yes", SAYS, effects=Effect.FLOODS | Effect.BUSY, intervals=ONCE)
command("is_a_command_that_times_out", "sleep", "62", ends=TIMED_OUT, timeout=0.3)
command(
    "is_a_command_that_leaves_others",
    "sh",
    "-c",
    "sleep 62 & setsid sleep 62 & exit 0",
)
command("is_a_command_that_is_replaced", "sleep", "62", ends=CANCELLED, intervals=("0.25", "500ms"), overlap="replace")
command("is_a_command_that_is_tried_again", "false", ends=FAILED, retries=2, backoff=0.1)


# --- modules


@dataclass(frozen=True)
class Importing:
    """What the module of the jobs does when it is imported."""

    code: str
    #: Exit codes that follow from it; none if the jobs run.
    exits: frozenset[int] = frozenset()
    #: Whether it takes the signals away for the time of the import, so that one that comes then may be lost.
    deafens: bool = False
    #: Whether the import comes to an end.
    ends: bool = True
    #: Whether it takes away what jobs need.
    spoils: bool = False
    weight: float = 1.0


IMPORTS = {
    "quick": Importing("", weight=20),
    "slow": Importing("time.sleep(0.5)", weight=4),
    "hangs": Importing("time.sleep(60)", frozenset({0}), ends=False),
    "swallows everything": Importing(
        "while True:\n    try: time.sleep(60)\n    except BaseException: pass", frozenset({0}), ends=False
    ),
    "computes": Importing("while True: pass", frozenset({0}), ends=False),
    "holds the GIL": Importing("-1 in itertools.count()", frozenset({1, -signal.SIGKILL}), ends=False, weight=0.5),
    "raises": Importing("1 / 0", frozenset({78})),
    "exits": Importing("sys.exit(3)", frozenset({78})),
    "interrupts": Importing("raise KeyboardInterrupt", frozenset({78})),
    "handles signals itself": Importing(
        "for s in (2, 15, 10, 1): signal.signal(s, signal.SIG_IGN)\nsignal.set_wakeup_fd(-1)", deafens=True
    ),
    "blocks signals": Importing(
        "signal.pthread_sigmask(signal.SIG_BLOCK, {1, 2, 3, 10, 15})\ntime.sleep(0.2)", deafens=True
    ),
    "wants to die of SIGPIPE": Importing("signal.signal(signal.SIGPIPE, signal.SIG_DFL)", weight=2),
    "ignores its children": Importing("signal.signal(signal.SIGCHLD, signal.SIG_IGN)", spoils=True),
    "leaves a thread": Importing("threading.Thread(target=time.sleep, args=(60,)).start()"),
}
