"""What the machine, or a job in its name, takes away: memory, descriptors, threads, disk; time that steps or stands."""

import os
import resource
import signal
import struct
import textwrap
from datetime import timedelta
from pathlib import Path

import pytest

from .conftest import Launcher
from .consistency import assert_consistent
from .harness import JOBD, Daemon, becoming_jobd, instant, poll
from .test_ticks import assert_on_grid, pause

HONEST = """
import gc, resource
@every("100ms")
async def beat(): pass
@every("100ms")
def tick(): pass
"""


def assert_goes_on(daemon: Daemon, *jobs: str) -> None:
    """From here on, each of the jobs has runs that succeed."""
    for job in jobs or ("beat", "tick"):
        before = len(daemon.events("run.finished", job=job, outcome="succeeded"))
        daemon.wait_for("run.finished", job=job, outcome="succeeded", count=before + 3)


@pytest.mark.parametrize("streams", ["", "exec <&-", "exec <&- 2>&-"], ids=["open", "no stdin", "only stdout"])
def test_a_machine_without_dev_null(launch: Launcher, streams: str) -> None:
    """An image that somebody made by hand may have no /dev."""
    if os.getuid() != 0:
        pytest.skip("to hide /dev needs root")
    hidden = f'mount -t tmpfs none /dev\n{streams}\nexec "$0" "$@"'
    daemon = launch(HONEST, program=("unshare", "--mount", "sh", "-ec", hidden, JOBD))
    assert_goes_on(daemon)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


# Memory: the limit lies so and so many MB above what the daemon has when it loads its jobs. Python prints to stderr
# what it has no memory to hand to us, so that is not looked at here.

GLUTTON = """
def limit(megabytes):
    pages = int(open("/proc/self/statm").read().split()[0])
    size = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))

@every("1s")
def glutton():
    kept = []
    end = time.monotonic() + 0.6
    for size in (1 << 24, 1 << 20, 1 << 16, 1 << 12):
        try:
            while True: kept.append(bytearray(size))
        except MemoryError:
            pass
    while time.monotonic() < end: time.sleep(0.01)
    raise MemoryError
"""


@pytest.mark.parametrize("megabytes", [40, 64, 150, 300])
def test_a_job_that_takes_all_the_memory_fails_and_the_others_go_on(launch: Launcher, megabytes: int) -> None:
    """Its runs fail; those of the others are late, fail or succeed, but they come, and every tick is told once."""
    daemon = launch(HONEST, beside=f"{GLUTTON}\nlimit({megabytes})")
    daemon.wait_for("run.finished", job="glutton", outcome="failed", count=2)
    assert_goes_on(daemon)
    assert daemon.stop() in (0, 3)
    assert not daemon.log.garbage
    assert_consistent(daemon.lines)


def test_a_stop_finds_its_way_out_while_there_is_no_memory(launch: Launcher) -> None:
    """The memory is held for longer than the time bound: the run is abandoned, and everything has its end."""
    daemon = launch(
        HONEST,
        beside=GLUTTON
        + """
        @every("1h")
        def miser():
            kept = []
            for size in (1 << 20, 1 << 12, 1 << 8):
                try:
                    while True: kept.append(bytearray(size))
                except MemoryError:
                    pass
            os.write(report, b"full")
            time.sleep(30)
        report = os.open("report", os.O_CREAT | os.O_WRONLY)
        del glutton
        limit(64)
        """.replace("\n        ", "\n"),
    )
    daemon.wait_for("run.started", job="miser")
    report = daemon.directory / "report"
    poll(lambda: report.exists() and report.read_bytes(), "the memory is all taken")
    assert daemon.stop() == 3
    assert not daemon.log.garbage
    assert_consistent(daemon.lines)
    assert daemon.outcomes("miser") == ["abandoned"]


# Descriptors.


def lives_and_stops(daemon: Daemon) -> bool:
    """Whether it has come to life; then it has to go on, and to stop in order."""
    ready = daemon.log.wait_until(lambda lines: any(line["event"] == "daemon.ready" for line in lines), 20)
    if ready:
        assert_goes_on(daemon)
        assert daemon.stop() == 0
        daemon.assert_log_is_consistent()
    return bool(ready)


@pytest.mark.parametrize("limit", [14, 16, 20, 24, 32, 64])
def test_few_descriptors_are_enough_or_the_start_is_refused(launch: Launcher, limit: int) -> None:
    """A daemon that has what it needs runs; one that has not says so and leaves."""
    set_limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))"
    daemon = launch(HONEST, program=becoming_jobd(set_limit))
    if not lives_and_stops(daemon):
        assert daemon.exit_code() in (70, 78)


@pytest.mark.parametrize("megabytes", [30, 60, 90, 120, 200, 500])
def test_little_memory_is_enough_or_the_start_is_refused(launch: Launcher, megabytes: int) -> None:
    """Under `ulimit -v`: a daemon that has what it needs runs; one that has not says so, and leaves with a failure."""
    size = megabytes << 20
    set_limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({size}, {size}))"
    daemon = launch(HONEST, program=becoming_jobd(set_limit))
    if not lives_and_stops(daemon):
        code = daemon.exit_code()
        if not daemon.lines:  # it was Python that found too little
            assert code == 1
            assert daemon.stderr
        else:
            assert code == 70
            assert any(reason in str(daemon.lines) for reason in ("MemoryError", "start new thread", "allocate memory"))


def test_a_job_that_eats_up_the_descriptors_does_not_stop_the_others(launch: Launcher) -> None:
    """Those that need none go on; those that do fail, and succeed once they are given back."""
    daemon = launch(
        HONEST
        + """
        @every("100ms")
        def opens():
            with open("/dev/null"): pass
        @every("1h")
        def eats():
            resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
            eaten = []
            try:
                while True: eaten.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                log.info("full")
            current_run().stopping.wait(1.5)
            for fd in eaten: os.close(fd)
            log.info("given back")
        """.replace("\n        ", "\n")
    )
    daemon.wait_for("full")
    assert_goes_on(daemon)
    daemon.wait_for("run.finished", job="opens", outcome="failed")
    daemon.wait_for("given back")
    assert_goes_on(daemon, "opens")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_a_stop_needs_no_descriptor(launch: Launcher) -> None:
    """All are taken when the signal comes, and the job that has them does not let go."""
    daemon = launch(
        HONEST
        + """
        @every("1h")
        def eats():
            resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
            eaten = []
            try:
                while True: eaten.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                log.info("full")
            time.sleep(30)
        """.replace("\n        ", "\n")
    )
    daemon.wait_for("full")
    assert_goes_on(daemon)
    assert daemon.stop() == 3
    daemon.assert_log_is_consistent()


# Threads. The limit is on the threads of a user, and root has none; so the module becomes somebody else.

NO_THREADS = """
def limit(more):
    os.setresgid(65_432, 65_432, 65_432)
    os.setresuid(65_432, 65_432, 65_432)
    threads = len(os.listdir("/proc/self/task"))
    resource.setrlimit(resource.RLIMIT_NPROC, (threads + more, most))
most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user that nobody else is")
def test_without_threads_functions_fail_and_coroutines_go_on(launch: Launcher) -> None:
    """And once there are threads again, functions run again; the stop needs none that does not exist already."""
    daemon = launch(
        HONEST
        + """
        @every("1h")
        async def lets():
            await asyncio.sleep(1.5)
            resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
            log.info("let")
        """.replace("\n        ", "\n"),
        beside=f"{NO_THREADS}\nlimit(-1)",
    )
    failed = daemon.wait_for("run.finished", job="tick", outcome="failed")
    assert failed["error"]["message"] == "can't start new thread"
    assert_goes_on(daemon, "beat")
    daemon.wait_for("let")
    assert_goes_on(daemon, "beat", "tick")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user that nobody else is")
def test_a_stop_needs_no_new_thread(launch: Launcher) -> None:
    """Not even for a run that has to be abandoned."""
    daemon = launch(
        HONEST + "@every('1h')\nasync def stubborn(): time.sleep(30)",
        beside=f"{NO_THREADS}\nlimit(-1)",
    )
    daemon.wait_for("run.started", job="stubborn")
    daemon.wait_for("run.finished", job="tick", outcome="failed", count=3)
    assert daemon.stop() == 3
    daemon.assert_log_is_consistent()


@pytest.mark.parametrize("kilobytes", [256, 1024])
def test_a_small_stack_is_enough(launch: Launcher, kilobytes: int) -> None:
    """Threads get stacks as large as RLIMIT_STACK says."""
    size = kilobytes << 10
    set_limit = f"import resource; resource.setrlimit(resource.RLIMIT_STACK, ({size}, {size}))"
    daemon = launch(HONEST, program=becoming_jobd(set_limit))
    assert_goes_on(daemon)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_a_log_file_that_may_not_grow_stops_nothing(launch: Launcher) -> None:
    """The jobs go on, and so does the log once the limit is gone: what waited is in it."""
    path = launch.directory / "log"
    with path.open("ab") as file:
        daemon = launch(
            HONEST
            + """
            soft = resource.RLIMIT_FSIZE
            @every("100ms")
            def marks():
                with open("marks", "ab") as marks: marks.write(b".")
            @every("1h")
            async def limits():
                await asyncio.sleep(0.5)
                resource.setrlimit(soft, (os.path.getsize("log"), resource.RLIM_INFINITY))
                before = os.path.getsize("marks")
                while os.path.getsize("marks") < before + 5: await asyncio.sleep(0.05)
                resource.setrlimit(soft, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                log.info("let")
            """.replace("\n            ", "\n"),
            read=False,
            stdout=file.fileno(),
        )
    with path.open("rb") as lines:
        poll(lambda: b'"let"' in path.read_bytes(), "the limit is gone")
        assert daemon.stop() == 0
        daemon.log.read(lines)
        assert daemon.log.wait_for_end(20)
    daemon.assert_log_is_consistent()


# Time. The wall clock of a machine cannot be set for one process; so Python finds a module when it starts that moves
# what `time` says by as much as stands in a file. It runs before jobd is imported, so to jobd it is the real time.

MOVED = """
import mmap, struct, time
_file = open({path!r}, "rb")
_offset = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)
_time_ns = time.time_ns
def _moved_ns(): return _time_ns() + struct.unpack_from("q", _offset)[0]
time.time_ns = _moved_ns
time.time = lambda: _moved_ns() / 1e9
"""


class Clock:
    """The wall clock of a daemon, which a test can set."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "offset"
        self._path.write_bytes(bytes(8))
        site = directory / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(MOVED.format(path=str(self._path)))
        self.env = {"PYTHONPATH": str(site)}
        self._offset_s = 0.0

    def step(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._offset_s += seconds
        with self._path.open("r+b") as file:
            file.write(struct.pack("q", round(self._offset_s * 1e9)))


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 0.5, -0.5, 0.02, -0.02])
def test_a_step_of_the_wall_clock_fires_repeats_and_loses_nothing(launch: Launcher, step_s: float) -> None:
    """Ticks, lateness and durations do not notice; what people read follows the new time, unless it is a hair."""
    clock = Clock(launch.directory)
    daemon = launch(HONEST, env=clock.env)
    before = daemon.wait_for("run.started", job="beat", count=5)
    clock.step(step_s)
    after = daemon.wait_for_run(before["tick"] + 15, "beat")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    passed_s = 0.1 * (after["tick"] - before["tick"])
    shown_s = (instant(after, "scheduled_at") - instant(before, "scheduled_at")).total_seconds()
    if abs(step_s) > 0.1:
        assert shown_s == pytest.approx(passed_s + step_s, abs=0.05)
    else:
        assert shown_s == pytest.approx(passed_s, abs=1e-6)
    written_s = (instant(after) - instant(before)).total_seconds()
    assert written_s == pytest.approx(passed_s + step_s, abs=1)
    assert all(0 <= line["lateness_s"] < 30 for line in daemon.events("run.started"))
    assert all(0 <= line["duration_s"] < 30 for line in daemon.events("run.finished"))


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_step_of_the_wall_clock_in_the_drain_changes_no_time_limit(launch: Launcher, step_s: float) -> None:
    """The grace period is as long as it is."""
    clock = Clock(launch.directory)
    daemon = launch("@every('1h')\nasync def long(): await asyncio.sleep(60)", env=clock.env, JOBD_GRACE_PERIOD="2")
    daemon.wait_for("run.started")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("shutdown.waiting")
    clock.step(step_s)
    assert daemon.exit_code() == 0
    daemon.assert_log_is_consistent()
    assert 1.9 < daemon.lines[-1]["shutdown_s"] < 4


def test_steps_to_and_fro_leave_the_grid_where_it_was(launch: Launcher) -> None:
    """After as many steps forward as back, ticks are shown on the grid of the first one."""
    clock = Clock(launch.directory)
    daemon = launch(HONEST, env=clock.env)
    for number in range(6):
        daemon.wait_for("run.started", job="beat", count=4 * (number + 1))
        clock.step(3600.0 if number % 2 else -3600.0)
    last = daemon.wait_for("run.started", job="beat", count=30)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    first = daemon.events("run.started", job="beat")[0]
    off = instant(last, "scheduled_at") - instant(first, "scheduled_at") - last["tick"] * timedelta(seconds=0.1)
    assert abs(off) < timedelta(milliseconds=50)


CLOCK_THIEVES = {
    "the module time": """
        time.time = time.monotonic = lambda: 0.0
        time.time_ns = time.monotonic_ns = lambda: 0
        time.sleep = lambda seconds: None
        """,
    "every module that has imported from it": """
        import datetime
        class Frozen(datetime.datetime):
            @classmethod
            def now(cls, tz=None): return cls(2012, 1, 14, tzinfo=tz)
            @classmethod
            def fromtimestamp(cls, *args): return cls(2012, 1, 14)
        fakes = {id(getattr(time, name)): (lambda: 0.0) for name in ("time", "monotonic", "perf_counter")}
        fakes |= {id(getattr(time, name)): (lambda: 0) for name in ("time_ns", "monotonic_ns")}
        fakes[id(time.sleep)] = lambda seconds: None
        fakes[id(datetime.datetime)] = Frozen
        for module in list(sys.modules.values()):
            for name, value in list(getattr(module, "__dict__", {}).items()):
                if id(value) in fakes: setattr(module, name, fakes[id(value)])
        """,
}


@pytest.mark.parametrize("where", CLOCK_THIEVES)
def test_a_job_that_replaces_the_clock_functions_does_not_move_the_daemon(launch: Launcher, where: str) -> None:
    """Ticks, lateness, timestamps, durations and the time bound stay true."""
    thief = textwrap.indent(textwrap.dedent(CLOCK_THIEVES[where]), "    ")
    daemon = launch(
        HONEST + "@every('1h')\nasync def stubborn():\n"
        "    while True:\n        try: await asyncio.sleep(60)\n        except asyncio.CancelledError: pass\n",
        beside=f"@every('1h')\ndef thief():\n{thief}\n    log.info('stolen')",
    )
    daemon.wait_for("stolen")
    assert_goes_on(daemon)
    assert daemon.stop() == 3
    daemon.assert_log_is_consistent()
    assert_on_grid(daemon, "beat", timedelta(seconds=0.1))
    assert all(line["timestamp"] > "2020" for line in daemon.lines)
    assert 1.9 < daemon.lines[-1]["shutdown_s"] < 4
    assert all(0 <= line["lateness_s"] < 10 for line in daemon.events("run.started"))


def test_after_a_suspend_each_job_has_one_late_run(launch: Launcher) -> None:
    """One row of missed ticks, one late run, and the old phase; of functions and of coroutines."""
    daemon = launch(HONEST)
    assert_goes_on(daemon)
    before = len(daemon.events("tick.skipped"))
    os.kill(daemon.pid, signal.SIGSTOP)
    pause(3.0)
    os.kill(daemon.pid, signal.SIGCONT)
    for job in ("beat", "tick"):
        row = daemon.log.wait_until(
            lambda lines, job=job: [  # type: ignore[misc]
                line
                for line in lines[before:]
                if line["event"] == "tick.skipped" and line["job"] == job and line["count"] >= 20
            ],
            20,
        )
        assert len(row) == 1
        daemon.wait_for("run.started", job=job, tick=row[0]["tick"] + row[0]["count"])
    assert_goes_on(daemon)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert_on_grid(daemon, "beat", timedelta(seconds=0.1))


# The interpreter: what holds for all threads, and whose code runs where.

SPOILT = {
    "gc.disable()": "gc.isenabled()",
    "gc.set_threshold(1, 1, 1)": "gc.get_threshold()[0] == 0",
    "sys.setswitchinterval(1000)": "sys.getswitchinterval() < 0.01",
    "sys.setrecursionlimit(50)": "sys.getrecursionlimit() >= 1000",
    "sys.settrace(lambda *args: time.sleep(0.01))": "sys.gettrace() is None",
    "threading.settrace(lambda *args: time.sleep(0.01))": "threading.gettrace() is None",
    "threading.setprofile(lambda *args: time.sleep(0.01))": "threading.getprofile() is None",
}


@pytest.mark.parametrize("attack", SPOILT)
@pytest.mark.parametrize("kind", ["async def", "def"])
def test_what_a_job_does_to_the_interpreter_is_undone_soon(launch: Launcher, attack: str, kind: str) -> None:
    """The other jobs find it as it should be, and the daemon goes on."""
    daemon = launch(
        f"""
        import gc
        @every("1h")
        {kind} spoils():
            {attack}
        @every("100ms")
        {kind} looks():
            if {SPOILT[attack]}: log.info("as it should be")
        """
    )
    daemon.wait_for("run.finished", job="spoils")
    seen = len(daemon.events("as it should be"))
    daemon.wait_for("as it should be", count=seen + 3)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_a_long_switch_interval_does_not_give_the_gil_to_one_job(launch: Launcher) -> None:
    """A job that computes keeps nobody waiting, whatever it has asked for."""
    daemon = launch(
        HONEST
        + """
        @every("1h")
        def hog():
            sys.setswitchinterval(1000)
            log.info("set")
            while not current_run().stopping.is_set(): pass
        """.replace("\n        ", "\n")
    )
    daemon.wait_for("set")
    assert_goes_on(daemon)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


FINALISERS = {
    "__del__ in a cycle": "Thing().me = None",
    "callback of a weak reference in a cycle": "weak()",
    "finally of a generator in a cycle": "generated()",
}


@pytest.mark.parametrize("how", FINALISERS)
def test_no_finaliser_of_a_job_runs_on_the_control_plane(launch: Launcher, how: str) -> None:
    """One that sleeps for long holds neither ticks nor the stop; it runs in a thread that has nothing else to do."""
    daemon = launch(
        HONEST
        + f"""
        import weakref
        def ends(*args):
            log.info("dies", thread=threading.current_thread().name)
            time.sleep(30)
        class Thing:
            def __init__(self): self.self = self
        class Dying(Thing):
            __del__ = ends
        kept = []
        def weak():
            thing = Thing()
            kept.append(weakref.ref(thing, ends))
        def generated():
            def generator():
                try:
                    me = yield
                    yield
                finally:
                    ends()
            made = generator()
            next(made)
            made.send([made])
        @every("1h")
        def litters():
            {"Dying()" if how.startswith("__del__") else FINALISERS[how]}
            litter = [Thing() for _ in range(100_000)]
        """.replace("\n        ", "\n")
    )
    dies = daemon.wait_for("dies")
    assert dies["thread"] != "MainThread"
    assert_goes_on(daemon)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_cyclic_garbage_is_collected_while_jobs_make_it(launch: Launcher) -> None:
    """A job that makes much of it for long makes the daemon grow by a part of that, however little time others get."""
    daemon = launch(
        """
        @every("1h")
        def litters():
            made, until = 0, time.monotonic() + 5
            while time.monotonic() < until:
                for _ in range(1_000):
                    cycle = []
                    cycle.append([cycle, bytearray(100)])
                made += 300  # kilobytes and more
            # Not getrusage(2): what it says outlives execve(2), so it may be what the tests themselves have grown to.
            most = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
            log.info("grown", made=made, kilobytes=int(most.split()[1]))
        """
    )
    grown = daemon.wait_for("grown", timeout=60)
    assert grown["kilobytes"] < 100_000 + grown["made"] / 2
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


@pytest.mark.parametrize("limit", ["256", "unlimited"])
def test_recursion_without_end_fails_its_run_however_small_stacks_are(launch: Launcher, limit: str) -> None:
    """With the stack limit of some system managers and shells, `RecursionError` comes before the stack's end."""
    daemon = launch(
        """
        @every("1h")
        async def coroutine(): await coroutine()
        @every("1h")
        def function(): function()
        """,
        program=("sh", "-c", f'ulimit -s {limit}; exec "$@"', "sh", JOBD),
    )
    for job in ("coroutine", "function"):
        assert daemon.wait_for("run.finished", job=job)["error"]["type"] == "RecursionError"
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_the_limits_of_this_machine_let_these_tests_prove_something() -> None:
    """Where a hard limit forbids more, the limits above would not be what stops the daemon."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 256
