"""Memory runs out at every point of the control plane's code in turn: nothing is lost, told twice, or left standing."""

import asyncio
import dataclasses
import dis
import errno
import random
import signal
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from traceback import walk_stack
from types import CodeType, FrameType
from typing import Any, NoReturn

import pytest

import jobd
from jobd import clock, events, interpreter, starvation
from jobd.exits import ExitCode
from jobd.invoke import Executor
from jobd.job import Job
from jobd.notify import Notifier
from jobd.plane import ControlLoop, JobPlane
from jobd.policy import Missed, Overlap, Policies
from jobd.runner import Runner
from jobd.schedule import Every
from jobd.settings import DEFAULTS
from jobd.spawner import Spawner
from jobd.states import State
from jobd.stop import StopSequence
from jobd.watch import Watch

from .helpers import job_of, python
from .virtual import Log, VirtualLoop, Wall
from .whole import whole

JOBD = str(Path(jobd.__file__).parent)
#: Calls that only let go of something, or set what is there: they take no memory, so they do not fail for want of it.
LET_GO = {"release", "popleft", "clear", "pop", "__exit__", "cancel", "close", "rest"}
#: Into so many tests the points of failure are dealt, so that they may run side by side.
SHARES = 4
GRACE_S = CANCEL_S = 1.0
#: When the stop comes for runs that ought to have ended before.
ENDLESS_S = 1.55
#: What comes due in the life that these tests let the parts lead.
EXPECTED_TICKS = {"quick": [0, 1, 2, 3], "short": [0, 1, 2, 3, 4, 5], "stubborn": [0]}
POLICED_TICKS = {
    "retries": [0, 1],
    "replaces": [0, 1, 2, 3, 4],
    "times out": [0, 1],
    "makes up": [0, 1, 2, 3],
    "lets go": [0, 1, 2, 3],
}


class Loop(VirtualLoop):
    """A virtual loop that is left, like the control plane's, by what a callback raises."""

    call_exception_handler = ControlLoop.call_exception_handler


class Failure:
    """A callback that raises the error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self) -> NoReturn:
        raise self._error


class Failing:
    """Lets the n-th call that jobd's code makes fail for want of memory, before it has done anything.

    Or so many calls from that on; or of these, as many as `chance` will have it.
    """

    def __init__(self, at: int, times: int = 1, chance: float = 1.0) -> None:
        self.at = at
        self.calls = 0
        self.times = times
        self._fails = partial(_with_chance, random.Random(at), chance)
        # Kept, because CPython may call it once more after it has let go of it, which it does when it has raised.
        self._hook = self._called

    def begin(self) -> None:
        """From here on, in this thread; anew after each failure, because Python ends it then."""
        sys.setprofile(self._hook)

    def beginning(self, work: Callable[[], None]) -> Callable[[], None]:
        """The same work, and what is done in it may fail, whatever has failed before."""

        def begun() -> None:
            self.begin()
            work()

        return begun

    def _called(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            caller, name = frame, argument.__name__
        elif event == "call" and frame.f_back is not None:
            caller, name = frame.f_back, frame.f_code.co_name
        else:
            return
        if not caller.f_code.co_filename.startswith(JOBD) or name in LET_GO:
            return
        self.calls += 1
        if self.at <= self.calls < self.at + self.times and self._fails() and self._may_fail(frame):
            raise MemoryError

    def _may_fail(self, frame: FrameType) -> bool:
        return True


#: What the job plane does; and the rooms that see to timeouts, attempts and replacements on the control plane.
ON_JOB_PLANE = {JobPlane._take.__code__, Executor._coroutine.__code__, Executor._task_done.__code__}
ABOUT_ENDS = {f"{JOBD}/{room}.py" for room in ("admission", "attempts", "runner")}


class FailingOnControlPlane(Failing):
    """The same, where the control plane sees to the ends of runs."""

    def __init__(self, at: int = sys.maxsize) -> None:
        super().__init__(at)
        #: Where that may be, if it is to be measured.
        self.points: list[int] = []

    def _called(self, frame: FrameType, event: str, argument: Any) -> None:
        before = self.calls
        super()._called(frame, event, argument)
        if self.at == sys.maxsize and self.calls > before and self._may_fail(frame):
            self.points.append(self.calls)

    def _may_fail(self, frame: FrameType) -> bool:
        codes = {frame.f_code for frame, _ in walk_stack(frame)}
        return not codes & ON_JOB_PLANE and not ABOUT_ENDS.isdisjoint(code.co_filename for code in codes)


def _with_chance(source: random.Random, chance: float) -> bool:
    return source.random() < chance


class NoFence:
    """A fence that never falls."""

    def unread_s(self) -> float:
        return 0.0

    def arm(self, within_s: float) -> None: ...


class NoCollector:
    """Garbage is nobody's business here."""

    def look(self) -> None: ...


class Parts:
    """The parts of a daemon, put together on one virtual loop."""

    def __init__(self, loop: Loop, lasting_s: Iterable[float] = ()) -> None:
        """Each lack in turn lasts so long, before all is taken up again; those that follow last no time."""
        self.loop = loop
        self._lasting_s = iter(lasting_s)
        self.stopped_spawning = 0.0
        self.calls_before_stop = 0
        self.to = Log(loop)
        self.left: list[tuple[float, ExitCode]] = []
        plane = JobPlane(loop)
        notifier = Notifier(None)
        self.runner = Runner(loop, plane, self.to, max_running=5)
        self.watch = Watch(loop, plane, self.runner, self.to, notifier, NoCollector())  # type: ignore[arg-type]
        self.spawner = Spawner(loop, Wall(), self._offer)
        self.stop = StopSequence(
            loop=loop,
            settings=dataclasses.replace(DEFAULTS, grace_period=GRACE_S, cancel_timeout=CANCEL_S),
            runner=self.runner,
            to=self.to,
            notifier=notifier,
            fence=NoFence(),
            stop_spawning=self._stop_spawning,
            leave=lambda code: self.left.append((loop.time(), code)),
        )
        self.runner.on_change = self.stop.runs_changed
        self.signalled = False
        self.heard_at = 0.0
        self._resuming = (self._listen, self.stop.resume, self.runner.resume, self.spawner.resume, self.watch.resume)

    def _offer(self, rows: deque[Any]) -> None:
        self.runner.offer(rows)
        self.watch.look_after()

    def _stop_spawning(self) -> None:
        rows = self.spawner.stop()
        self.stopped_spawning = self.stopped_spawning or self.loop.time()
        self.runner.skip(rows)

    def run_until(self, instant: float, failing: Failing) -> None:
        """Turn the loop as the daemon does; first of all it hears a signal that has come."""
        starved = self.signalled
        while True:
            try:
                failing.begin()
                if starved:
                    starvation.do_all(failing.beginning(work) for work in self._resuming)
                starved = False
                self.loop.run_until(instant)
                return
            except MemoryError:
                starved = True
                self.loop.stall(next(self._lasting_s, 0.0))
            finally:
                sys.setprofile(None)

    def _listen(self) -> None:
        if self.signalled:
            self.stop.signalled(signal.SIGTERM, self.heard_at)
        self.signalled = False


async def _stubborn() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.3)


async def _short() -> None:
    await asyncio.sleep(0.4)


def _jobs() -> list[Job]:
    return [job_of(name="quick", interval_s=1), job_of(_short, "short", 0.6), job_of(_stubborn, "stubborn", 5)]


def _frequent_jobs() -> list[Job]:
    """Jobs of which ticks come due in every moment."""
    return [job_of(name="often", interval_s=0.1), job_of(_short, "short", 0.2), job_of(_stubborn, "stubborn", 1)]


async def _failing() -> None:
    raise ValueError


def _policed_jobs() -> list[Job]:
    """Jobs with policies: their runs rest, wait for each other, and have no time left."""
    return [
        _policed("retries", _failing, 2, Policies(retries=2, backoff=0.1)),
        _policed("replaces", _stubborn, 0.7, Policies(overlap=Overlap.REPLACE)),
        _policed("times out", _stubborn, 3, Policies(timeout=0.5, retries=1, backoff=0.2)),
        _policed("makes up", _short, 1, Policies(missed=Missed.ALL, max_running=2, grace_period=0.2)),
        _policed("lets go", _short, 1, Policies(missed=Missed.SKIP)),
    ]


async def _endless() -> None:
    await asyncio.sleep(60)


def _endless_jobs() -> list[Job]:
    """Jobs whose runs end because they have had their time, or give way to another one."""
    return [
        _policed("times out", _endless, 60, Policies(timeout=0.3, retries=1, backoff=0.2)),
        _policed("replaces", _endless, 0.8, Policies(overlap=Overlap.REPLACE)),
    ]


def _endless_life(failing: Failing) -> Parts:
    """A life in which nothing is late, and nothing ends with the stop that ought to have ended before."""
    parts = Parts(Loop())
    try:
        parts.stop.ready()
        parts.spawner.start(_endless_jobs())
        parts.run_until(ENDLESS_S, failing)
        parts.signalled, parts.heard_at = True, parts.loop.time()
        parts.run_until(30, Failing(at=sys.maxsize))
    finally:
        parts.loop.pass_time(100)
        parts.loop.close()
    return parts


def _policed(name: str, function: Callable[[], Any], interval_s: float, policies: Policies) -> Job:
    return dataclasses.replace(job_of(function, name, interval_s), policies=policies)


def _life(failing: Failing, jobs: Callable[[], list[Job]] = _jobs, lasting_s: Iterable[float] = ()) -> Parts:
    loop = Loop()
    parts = Parts(loop, lasting_s)
    try:
        parts.stop.ready()
        parts.spawner.start(jobs())
        parts.run_until(1.3, failing)
        loop.stall(1.9)  # so that there are rows of missed ticks, and some that are due when the stop comes
        parts.signalled, parts.heard_at, parts.calls_before_stop = True, loop.time(), failing.calls
        parts.run_until(30, failing)
    finally:
        loop.pass_time(100)
        loop.close()
    return parts


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the daemon does to this interpreter is kept away from these tests."""
    monkeypatch.setattr(interpreter, "_TRACED", True)
    monkeypatch.setattr(interpreter, "_set_switch_interval", lambda interval: None)


def _faults(parts: Parts, expected: dict[str, list[int]] = EXPECTED_TICKS, late_s: float = 0.0) -> list[str]:
    """What is wrong with the life that these parts have led; a lack may have made its stop `late_s` late."""
    started = Counter(fields["run_id"] for fields in parts.to.of(events.RUN_STARTED))
    finished = Counter(fields["run_id"] for fields in parts.to.of(events.RUN_FINISHED))
    names = parts.to.names
    latest = 3.2 + GRACE_S + CANCEL_S + 0.5 + late_s
    wrong = {
        f"starts {started}, ends {finished}": started != finished or set(started.values()) != {1},
        f"ticks {_ticks(parts)}": _ticks(parts) != expected,
        f"the end is {names[-3:]}": (parts.to.last, names[-1:]) != (["daemon.stopped"], ["daemon.stopped"]),
        "the request is not told once": names.count("shutdown.requested") != 1,
        f"left {parts.left}": [at <= latest and code in (0, 3) for at, code in parts.left] != [True],
        f"stands in {parts.stop.state}": parts.stop.state is not State.STOPPED,
    }
    return [what for what, is_wrong in wrong.items() if is_wrong]


def _endless_faults(parts: Parts) -> list[str]:
    """What is wrong with that life: how the runs ended before its stop, and what was told of attempts."""
    ended = {
        (fields["job"], fields["tick"]): fields["outcome"]
        for at, fields in zip(parts.to.instants(events.RUN_FINISHED), parts.to.of(events.RUN_FINISHED), strict=True)
        if at < ENDLESS_S
    }
    names, retrying = parts.to.names, parts.to.of(events.RUN_RETRYING)
    started, finished = names.count("run.started"), names.count("run.finished")
    wrong = {
        f"ended {ended}": ended != {("times out", 0): "timed_out", ("replaces", 0): "cancelled"},
        f"retrying {retrying}": [fields["attempt"] for fields in retrying] != [1],
        f"{started} starts, {finished} ends": (started, finished) != (3, 3),
        f"left {parts.left}": [code for _, code in parts.left] != [0],
    }
    return [what for what, is_wrong in wrong.items() if is_wrong]


def _ticks_until(instant: float, job: Job) -> Iterator[int]:
    """The numbers of the ticks that are due by then."""
    schedule = job.schedule
    assert isinstance(schedule, Every)
    return takewhile(lambda tick: schedule.due(tick, 0.0) <= instant, count())


def _ticks(parts: Parts) -> dict[str, list[int]]:
    """Every tick that the log tells of, sorted."""
    ticks: defaultdict[str, list[int]] = defaultdict(list)
    for line in parts.to.lines:
        if line.event in ("run.started", "tick.skipped"):
            first = line.fields["tick"]
            ticks[line.fields["job"]] += range(first, first + line.fields.get("count", 1))
    return {job: sorted(seen) for job, seen in ticks.items()}


def test_nothing_is_wrong_where_memory_suffices() -> None:
    """The measure of the tests below; it also says how many points there are."""
    failing = Failing(at=sys.maxsize)
    assert _faults(_life(failing)) == []
    assert failing.calls > 300


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of tasks that were half made
@pytest.mark.parametrize("times", [1, 4, 30])
@pytest.mark.parametrize("share", range(SHARES))
def test_memory_may_run_out_at_any_point(times: int, share: int) -> None:
    """Whichever call fails: each tick is told once, each run has one end, and the stop comes to its own in time.

    Where a burst of them fails, one in three is where it begins.
    """
    measure = Failing(at=sys.maxsize)
    _life(measure)
    points = range(1 + share, measure.calls + 1, SHARES if times == 1 else 3 * SHARES)
    wrong = {at: faults for at in points if (faults := _faults(_life(Failing(at, times))))}
    assert not wrong, f"{len(wrong)} of {len(points)}: {dict(list(wrong.items())[:5])}"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of tasks that were half made
@pytest.mark.parametrize("share", range(SHARES))
def test_ticks_come_due_while_there_is_no_memory(share: int) -> None:
    """When a stop begins, one call in seven fails for a while, and ticks come due after each: none is lost."""
    lasting_s = [0.3] * 6
    begins = _life(Failing(at=sys.maxsize), _frequent_jobs).calls_before_stop
    wrong = {}
    for at in range(begins + 1 + share, begins + 400, SHARES):
        parts = _life(Failing(at, 80, chance=1 / 7), _frequent_jobs, lasting_s)
        due = {job.name: list(_ticks_until(parts.stopped_spawning, job)) for job in _frequent_jobs()}
        if faults := _faults(parts, due, late_s=sum(lasting_s)):
            wrong[at] = faults
    assert not wrong, f"{len(wrong)}: {dict(list(wrong.items())[:5])}"


def test_nothing_is_wrong_with_policies_where_memory_suffices() -> None:
    """The measure of the test below."""
    assert _faults(_life(Failing(at=sys.maxsize), _policed_jobs), POLICED_TICKS) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of tasks that were half made
@pytest.mark.parametrize("times", [1, 30])
@pytest.mark.parametrize("share", range(SHARES))
def test_memory_may_run_out_whatever_the_policies(times: int, share: int) -> None:
    """The same, where runs rest between attempts, wait for each other, and have no time left."""
    measure = Failing(at=sys.maxsize)
    _life(measure, _policed_jobs)
    points = range(1 + share, measure.calls + 1, SHARES * (2 if times == 1 else 6))
    wrong = {
        at: faults for at in points if (faults := _faults(_life(Failing(at, times), _policed_jobs), POLICED_TICKS))
    }
    assert not wrong, f"{len(wrong)} of {len(points)}: {dict(list(wrong.items())[:5])}"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of tasks that were half made
@pytest.mark.parametrize("share", range(SHARES))
def test_a_lack_of_memory_lets_no_run_go_on_for_ever(share: int) -> None:
    """Whichever call fails: a run has its timeout, in each of its attempts, and gives way where it is to."""
    measure = FailingOnControlPlane()
    assert _endless_faults(_endless_life(measure)) == []
    points = measure.points[share::SHARES]
    wrong = {at: faults for at in points if (faults := _endless_faults(_endless_life(FailingOnControlPlane(at))))}
    assert not wrong, f"{len(wrong)} of {len(points)}: {dict(list(wrong.items())[:5])}"


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.ENOMEM, "no"), "memory"),
        (OSError(errno.EMFILE, "no"), "descriptors"),
        (OSError(errno.ENFILE, "no"), "descriptors"),
        (BlockingIOError(errno.EAGAIN, "no"), "threads"),
        (RuntimeError("can't start new thread"), "threads"),
        (RecursionError("deep"), "stack"),
        (OSError(errno.EBADF, "no"), None),
        (RuntimeError("broken"), None),
        (OSError("without a number"), None),
        (SystemError("error return without exception set"), "memory"),
        (SystemError("<function f> returned NULL without setting an exception"), "memory"),
        (SystemError("bad argument to internal function"), None),
        (SystemExit(1), None),
    ],
    ids=repr,
)
def test_what_the_machine_lacks_is_told_from_faults(error: BaseException, lacking: str | None) -> None:
    """Only what passes by itself is survived."""
    assert starvation.lacking(error) == lacking


def test_all_is_done_before_a_lack_is_raised() -> None:
    """What one work lacks, the others may have; a fault stops at once."""
    done: list[str] = []

    def starved() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        starvation.do_all([starved, lambda: done.append("other")])
    assert done == ["other"]

    def broken() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        starvation.do_all([broken, lambda: done.append("never")])
    assert done == ["other"]


def test_the_reserve_can_be_spent_and_kept_again() -> None:
    """In any order, any number of times."""
    reserve = starvation.Reserve()
    for _ in range(3):
        reserve.spend()
        reserve.spend()
        reserve.keep()
        reserve.keep()


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


@pytest.mark.parametrize(
    "module",
    [
        "admission", "agenda", "attempts", "children", "daemon", "flight", "garbage", "guard", "hooks", "invoke",
        "kin", "launch", "lifespans", "line", "lineup", "log", "output", "plane", "process", "processes", "reload",
        "run", "runner", "sink", "spawner", "stacks", "stop", "timetable", "watch", "wires",
    ],
)  # fmt: skip
def test_no_handler_needs_memory_itself(module: str) -> None:
    """Where Python begins to clean up after an exception, it makes an int of the place, and where that fails it begins
    again, for ever and with the GIL. Ints up to 256 are there already: functions that clean up are no longer than that.
    """
    source = (Path(JOBD) / f"{module}.py").read_text()
    for code in _codes(compile(source, module, "exec")):
        for entry in dis._parse_exception_table(code):  # type: ignore[attr-defined]
            short = entry.end // 2 <= 257 or code.co_qualname == "Daemon._start"  # without memory, a start may fail
            assert not entry.lasti or short, code.co_qualname


def test_what_is_lacking_is_told_every_ten_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """What, in which words, and how often since the last line; the daemon goes on, and stops in order."""
    lacks = {1: MemoryError("no room"), 2: OSError(errno.EMFILE, "too many"), 4: MemoryError(), 12: RecursionError()}
    with whole(DEFAULTS) as daemon:
        monkeypatch.setattr(clock.Real, "monotonic", daemon.loop.time)
        for instant, error in lacks.items():
            daemon.loop.call_at(instant, Failure(error))
        daemon.loop.call_at(20, daemon.send, signal.SIGTERM)
        daemon.serve([], until=21)
    told = daemon.to.of(events.DAEMON_STARVED)
    assert [(fields["lacking"], fields["times"], fields["error"]["type"]) for fields in told] == [
        ("memory", 1, "MemoryError"),
        ("stack", 3, "RecursionError"),
    ]
    assert told[0]["error"]["message"] == "no room"
    assert daemon.to.instants(events.DAEMON_STARVED) == pytest.approx([1, 12], abs=0.5)
    assert [code for _, code in daemon.left] == [ExitCode.OK]


def test_a_lack_of_memory_during_the_import_loses_no_signal() -> None:
    """The thread that hears signals while jobs are imported goes on, and does again what has failed."""
    heard = python(
        """
        import os, signal, threading
        from jobd import daemon, signals
        signals.hold()
        heard, twice, done = [], iter([MemoryError("no"), OSError(12, "no")]), threading.Event()
        def obey():
            heard.extend(signals.take())
            if error := next(twice, None): raise error
            done.set()
        with daemon._Ears(obey, lambda: heard.append("resumed")):
            os.kill(os.getpid(), signal.SIGTERM)
            assert done.wait(10)
        print(heard)
        """
    )
    assert heard == "[15, 'resumed', 'resumed']\n"
