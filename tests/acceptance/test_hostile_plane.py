"""Coroutines that hold the job plane or flood it: who it is, is told within a second, and nobody else is harmed."""

import signal

import pytest

from .conftest import Launcher
from .harness import Daemon, instant
from .hostile import FUNCTION_HEART, HEARTS, SHORT, assert_hearts_beat, assert_unharmed, jobs_of

HELPERS = """
async def inner(): hold()
def hold():
    time.sleep(3)  # holds
class Final:
    def __del__(self): hold()
async def hold_in_a_timer(): asyncio.get_running_loop().call_later(0.1, hold)
"""
IDLE = """
@every('1h')
async def idle(): pass
async def hold_later():
    await asyncio.sleep(1.5)
    hold()
"""
#: Ways in which a job's code comes to hold the loop; the job is named whichever it is.
HOLDING = {
    "task that nobody awaits": "asyncio.create_task(inner())",
    "timer": "await hold_in_a_timer()",
    "callback of a task": "asyncio.current_task().add_done_callback(lambda task: hold())",
    "finaliser": "final = Final()\ndel final",
    "log call": "class Slow:\n    def __repr__(self): hold(); return 'slow'\nlog.info('slow', value=Slow())",
}


@pytest.mark.parametrize("body", HOLDING.values(), ids=HOLDING)
def test_whoever_holds_the_plane_is_named_with_the_line(launch: Launcher, body: str) -> None:
    """`job.blocking` within a second, with job, run and line, from a task, a callback or a finaliser too."""
    daemon = launch(HELPERS + jobs_of("async def", {"job": body}), beside=HEARTS)
    run_id = daemon.wait_for("run.started", job="job")["run_id"]
    blocking = daemon.wait_for("job.blocking")
    assert (blocking["job"], blocking["run_id"]) == ("job", run_id)
    assert any(daemon.line_of("# holds") in place for place in blocking["stack"]), blocking["stack"]
    assert blocking["blocked_s"] < 2.5  # within a second, and some more on a busy machine
    assert_hearts_beat(daemon, (FUNCTION_HEART,))
    assert_unharmed(daemon)
    assert_no_burst(daemon)


#: Ways to come to hold the loop when no run is in flight, as a module's code; the job, if one is to be named.
HOLDING_LATER = {
    "timer": ("@every('1h')\nasync def job(): asyncio.get_running_loop().call_later(1.5, hold)", "job"),
    "task": (
        "async def later():\n    await asyncio.sleep(1.5)\n    hold()\n"
        "@every('1h')\nasync def job(): asyncio.create_task(later())",
        "job",
    ),
    "reader of a socket": (
        "@every('1h')\nasync def job():\n    near, far = os.pipe()\n"
        "    threading.Timer(1.5, os.write, (far, b'x')).start()\n"
        "    def read():\n        os.read(near, 1)\n        hold()\n"
        "    asyncio.get_running_loop().add_reader(near, read)",
        "job",
    ),
    "lifespan that opens": ("@lifespan\nasync def shared():\n    hold()\n    yield", None),
    "task of a lifespan": (
        "@lifespan\nasync def shared():\n    task = asyncio.create_task(hold_later())\n    yield",
        None,
    ),
}


@pytest.mark.parametrize(("code", "job"), HOLDING_LATER.values(), ids=HOLDING_LATER)
def test_whoever_holds_the_plane_of_an_idle_daemon_is_named(launch: Launcher, code: str, job: str | None) -> None:
    """No run is in flight, and nothing is due for an hour: the line is there within a second all the same."""
    daemon = launch(f"from jobd import lifespan\n{HELPERS}{IDLE}{code}", JOBD_GRACE_PERIOD="10")
    blocking = daemon.wait_for("job.blocking")
    assert blocking["job"] == job
    assert any(daemon.line_of("# holds") in place for place in blocking["stack"]), blocking["stack"]
    assert blocking["blocked_s"] < 2.5  # within a second, and some more on a busy machine
    daemon.wait_for("daemon.ready")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_a_handler_of_signals_that_holds_the_plane_is_named(launch: Launcher) -> None:
    """A handler that a module has installed is called on the plane, whatever else is to be done there."""
    daemon = launch(
        f"import signal\n{HELPERS}signal.signal(signal.SIGUSR2, lambda *args: hold())\n{IDLE}", JOBD_GRACE_PERIOD="10"
    )
    daemon.wait_for("run.finished", job="idle")
    daemon.signal(signal.SIGUSR2)
    blocking = daemon.wait_for("job.blocking")
    assert any(daemon.line_of("# holds") in place for place in blocking["stack"]), blocking["stack"]
    assert daemon.stop() == 0


def test_whoever_goes_on_holding_the_plane_is_named_again(launch: Launcher) -> None:
    """With back-off: the second line comes when the plane has been held for twice as long as the first one says."""
    daemon = launch("@every('1h')\nasync def holds(): time.sleep(2.5)", beside=HEARTS)
    first, second = daemon.wait_for("job.blocking"), daemon.wait_for("job.blocking", count=2)
    assert (second["job"], second["run_id"]) == ("holds", first["run_id"])
    assert second["blocked_s"] >= 2 * first["blocked_s"]
    assert_unharmed(daemon)
    assert len(daemon.events("job.blocking", job="holds")) <= 3


def assert_no_burst(daemon: Daemon) -> None:
    """For all ticks that came due while the plane was held, the coroutine had one run; the others are accounted for."""
    skipped = max(daemon.events("tick.skipped", job="coroutine_heart"), key=lambda line: line["count"])
    assert skipped["count"] >= 3
    late = daemon.wait_for("run.started", job="coroutine_heart", tick=skipped["tick"] + skipped["count"])
    following = daemon.wait_for_run(late["tick"] + 1, "coroutine_heart")
    apart_s = (instant(following, "scheduled_at") - instant(late, "scheduled_at")).total_seconds()
    assert apart_s == pytest.approx(0.1 * (following["tick"] - late["tick"]))


#: What keeps the loop turning and still does not let it come to rest.
FLOODING = {
    "callbacks": "loop = asyncio.get_running_loop()\ndef again(): loop.call_soon(again)\nagain()",
    "many callbacks": "for _ in range(300_000): asyncio.get_running_loop().call_soon(int)",
    "many timers": "for number in range(100_000): asyncio.get_running_loop().call_later(number, int)",
    "a descriptor that is always ready": "asyncio.get_running_loop().add_writer(os.pipe()[1], int)",
    "tasks that never rest": "async def spin():\n    while True: await asyncio.sleep(0)\n"
    "for _ in range(50): asyncio.create_task(spin())",
    "slices below the limit": "async def slice():\n    while True:\n        time.sleep(0.02)\n"
    "        await asyncio.sleep(0)\nasyncio.create_task(slice())",
}


def test_whoever_floods_the_plane_stops_nobody(launch: Launcher) -> None:
    """Callbacks, timers and tasks without end, all at once: honest coroutines are late, and go on."""
    daemon = launch(jobs_of("async def", FLOODING), beside=HEARTS, env=SHORT)
    for name in FLOODING:
        daemon.wait_for("run.finished", job=name, outcome="succeeded")
    assert_unharmed(daemon)


#: What jobs may set on the loop that all of them share.
SETTINGS = {
    "factory of tasks that raises": "def fail(*args, **kwargs): raise ValueError\nloop.set_task_factory(fail)",
    "factory of nothing": "loop.set_task_factory(lambda *args, **kwargs: None)",
    "handler of errors that exits": "loop.set_exception_handler(lambda *args: sys.exit(3)); loop.call_soon(int, 'x')",
    "debugging": "loop.set_debug(True); loop.slow_callback_duration = 0",
    "no executor": "await loop.shutdown_default_executor()",
    "no generators": "await loop.shutdown_asyncgens()",
    "stop": "for _ in range(10): loop.call_soon(loop.stop)",
    "close": "loop.call_soon(loop.close)",
    "entered again": "loop.call_soon(loop.run_forever)",
    "no loop": "asyncio.set_event_loop(None); asyncio.set_event_loop_policy(None)",
    "another policy": "asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())",
    "everybody cancelled": "[task.cancel() for task in asyncio.all_tasks()]; await asyncio.sleep(9)",
    "handler of signals": "loop.add_signal_handler(signal.SIGUSR1, int)",
    "handler of signals without a loop": "signal.signal(signal.SIGUSR2, int)",
    "descriptor for signals": "signal.set_wakeup_fd(-1)",
    "interrupted from outside": "loop.call_later(0.05, signal.raise_signal, signal.SIGUSR2)",
}


#: What Python refuses off the main thread.
REFUSED = ["handler of signals", "handler of signals without a loop", "descriptor for signals"]


def test_what_jobs_set_on_their_common_loop_harms_nobody(launch: Launcher) -> None:
    """A loop that is stopped, entered, reconfigured and emptied of its tasks goes on with the honest jobs."""
    bodies = {name: f"loop = asyncio.get_running_loop()\n{body}" for name, body in SETTINGS.items()}
    daemon = launch("import signal\n" + jobs_of("async def", bodies), beside=HEARTS, env=SHORT)
    for name in SETTINGS:
        daemon.wait_for("run.finished", job=name)
    assert [daemon.outcomes(name) for name in REFUSED] == [["failed"]] * len(REFUSED)
    daemon.signal(signal.SIGUSR1)
    daemon.wait_for("daemon.status")
    assert_unharmed(daemon)


#: What makes asyncio itself raise, once it has called somebody.
UNTELLABLE = {
    "callback without a text": """
class Callback:
    def __repr__(self): return 1 / 0
    def __call__(self): return 1 / 0
loop.call_soon(Callback())
""",
    "broken logging": "logging.setLogRecordFactory(lambda *args, **kwargs: 1 / 0)\nloop.call_soon(int, 'x')",
    "debugging with no number": "loop.set_debug(True)\nloop.slow_callback_duration = '1s'",
}


@pytest.mark.parametrize("body", UNTELLABLE.values(), ids=UNTELLABLE)
def test_what_asyncio_cannot_tell_of_is_told_all_the_same(launch: Launcher, body: str) -> None:
    """The loop is left by an exception that no job has let out, and is sound: it goes on, with nobody's run lost."""
    sleeper = "@every('1h')\nasync def sleeper():\n    await asyncio.sleep(0.5)\n"
    body = f"loop = asyncio.get_running_loop()\n{body}\nawait asyncio.sleep(0)\nlog.info('goes on')"
    daemon = launch(sleeper + jobs_of("async def", {"job": body}), beside=HEARTS)
    daemon.wait_for("stray.error")
    for job in ("job", "sleeper"):
        daemon.wait_for("run.finished", job=job, outcome="succeeded")
    assert_unharmed(daemon)


def test_an_exhausted_executor_keeps_nobody_from_starting(launch: Launcher) -> None:
    """Coroutines share asyncio's threads: one that uses them all up delays who waits for one, and no tick."""
    daemon = launch(
        """
        @every("1h")
        async def greedy(): await asyncio.gather(*(asyncio.to_thread(time.sleep, 60) for _ in range(100)))
        """,
        beside=HEARTS,
        env=SHORT,
    )
    daemon.wait_for("run.started", job="greedy")
    assert_unharmed(daemon)
    assert daemon.outcomes("greedy") == ["cancelled"]


def test_who_waits_behind_a_holder_is_not_taken_for_one(launch: Launcher) -> None:
    """Of many that begin together, only the one that holds the loop is named; the others are cancelled or skipped."""
    daemon = launch(
        """
        def make():
            async def job(): pass
            return job
        for number in range(40): globals()[f"job{number}"] = every("1h", name=f"job{number}")(make())
        @every("1h")
        async def holds(): time.sleep(60)
        for number in range(40, 60): globals()[f"job{number}"] = every("1h", name=f"job{number}")(make())
        """
    )
    daemon.wait_for("job.blocking", job="holds")
    assert daemon.stop() == 3
    daemon.assert_log_is_consistent()
    assert [line["job"] for line in daemon.events("shutdown.abandoned")] == ["holds"]
    assert {line["outcome"] for line in daemon.events("run.finished") if line["job"] != "holds"} <= {
        "succeeded",
        "cancelled",
    }


def test_lateness_is_true_beside_a_job_that_holds_the_loop(launch: Launcher) -> None:
    """A few jobs that are due together each start when their own first line is run."""
    daemon = launch(
        """
        @every("1h")
        async def holds(): time.sleep(3)
        @every("1h")
        async def waits(): log.info("here")
        """
    )
    started, here = daemon.wait_for("run.started", job="waits"), daemon.wait_for("here")
    assert started["lateness_s"] > 0.9
    assert (instant(here, "timestamp") - instant(started, "timestamp")).total_seconds() < 2
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_an_end_is_told_although_another_job_holds_the_loop(launch: Launcher) -> None:
    """Its line does not wait until the holder lets go."""
    daemon = launch(
        """
        import pathlib
        @every("1h")
        async def short(): pass
        @every("1h")
        async def holds():
            while not pathlib.Path("let go").exists(): time.sleep(0.01)
        """
    )
    assert daemon.wait_for("run.finished", job="short")["outcome"] == "succeeded"
    assert not daemon.events("run.finished", job="holds")
    (launch.directory / "let go").touch()
    daemon.wait_for("run.finished", job="holds")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
