"""The stop: drain, cancellation and abandonment, on time whatever the runs do."""

import signal
import time
from collections import Counter

import pytest

from .conftest import Launcher
from .harness import Daemon, in_session, instant, poll

SLEEPER = """
@every("0.1")
async def sleeper(): await asyncio.sleep(30)
"""
SIGNALS = pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)


def seconds_between(daemon: Daemon, first: str, second: str) -> float:
    """How long after the first event the second one came."""
    return (instant(daemon.events(second)[0]) - instant(daemon.events(first)[0])).total_seconds()


@SIGNALS
def test_idle_daemon_stops_at_once(launch: Launcher, signum: signal.Signals) -> None:
    """With nothing in flight there is nothing to wait for, however long the grace period."""
    daemon = launch("@every('1h')\nasync def quick(): pass", JOBD_GRACE_PERIOD="60")
    daemon.wait_for("run.finished")
    assert daemon.stop(signum, within=1) == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("shutdown.requested", signal=signum.name, running=0, grace_period_s=60)
    assert not daemon.events("shutdown.cancelling")
    assert daemon.lines[-1]["shutdown_s"] < 2


@pytest.mark.parametrize(
    ("job", "signum"),
    [("async def job(): await asyncio.sleep(0.8)", signal.SIGTERM), ("def job(): time.sleep(0.8)", signal.SIGINT)],
    ids=["coroutines, SIGTERM", "functions, SIGINT"],
)
def test_runs_that_end_within_the_grace_period_succeed(launch: Launcher, job: str, signum: signal.Signals) -> None:
    """A drain waits for the runs in flight, no longer, and cancels nothing."""
    daemon = launch(f"@every('0.2')\n{job}", JOBD_GRACE_PERIOD="10")
    daemon.wait_for("run.started", count=3)
    assert daemon.stop(signum, within=2) == 0
    daemon.assert_log_is_consistent()
    assert set(daemon.outcomes()) == {"succeeded"}
    assert not daemon.events("shutdown.cancelling")


@SIGNALS
def test_leftovers_are_cancelled_when_the_grace_period_ends(launch: Launcher, signum: signal.Signals) -> None:
    """Runs of 30 s are told as leftovers, cancelled at the end of the grace period, and logged; 0."""
    daemon = launch(SLEEPER)
    daemon.wait_for("run.started", count=3)
    assert daemon.stop(signum, within=2) == 0
    daemon.assert_log_is_consistent()
    assert set(daemon.outcomes()) == {"cancelled"}
    assert 0.9 <= seconds_between(daemon, "shutdown.requested", "shutdown.cancelling") < 2.5
    cancelling = daemon.events("shutdown.cancelling")[0]
    running = len(daemon.events("run.started"))
    assert (cancelling["reason"], cancelling["running"]) == ("grace_period", running)
    assert {run["run_id"] for run in cancelling["runs"]} <= {line["run_id"] for line in daemon.events("run.started")}


def test_drain_tells_what_it_waits_for(launch: Launcher) -> None:
    """`shutdown.waiting` names the runs with their ages, at once and at least every 5 s."""
    daemon = launch("@every('1h')\nasync def sleeper(): await asyncio.sleep(60)", JOBD_GRACE_PERIOD="7")
    run_id = daemon.wait_for("run.started")["run_id"]
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    waiting = daemon.events("shutdown.waiting")
    assert len(waiting) >= 2
    assert (instant(waiting[1]) - instant(waiting[0])).total_seconds() < 6.5  # and more on a busy machine
    for line in waiting:
        assert [(run["job"], run["run_id"]) for run in line["runs"]] == [("sleeper", run_id)]
        assert line["runs"][0]["age_s"] >= 0
        assert 0 <= line["remaining_s"] <= 7


def test_lines_about_many_runs_name_the_twenty_oldest(launch: Launcher) -> None:
    """With hundreds in flight the lines of the stop stay short, and each run still has its end."""
    daemon = launch("@every('4ms')\nasync def sleeper(): await asyncio.sleep(30)", JOBD_GRACE_PERIOD="0.5")
    daemon.wait_for("run.started", count=300)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    started = [line["run_id"] for line in daemon.events("run.started")]
    assert len(started) >= 300
    for line in (*daemon.events("shutdown.waiting"), *daemon.events("shutdown.cancelling")):
        assert line["running"] == len(started)
        assert [run["run_id"] for run in line["runs"]] == started[:20]
    assert Counter(daemon.outcomes()) == {"cancelled": len(started)}


def test_three_hundred_threads_in_flight_each_have_their_end(launch: Launcher) -> None:
    """Threads that will not end are abandoned, every one of them named, within the time bound."""
    daemon = launch(
        """
        def hang(): time.sleep(60)
        for number in range(300):
            globals()[f"job{number}"] = every("1h", name=f"job{number}")(lambda: hang())
        """,
        JOBD_GRACE_PERIOD="0.3",
        JOBD_CANCEL_TIMEOUT="0.3",
    )
    daemon.wait_for("run.started", count=300)
    assert daemon.stop() == 3
    daemon.assert_log_is_consistent()
    assert Counter(daemon.outcomes()) == {"abandoned": 300}
    assert len(daemon.events("shutdown.abandoned")) == 300


def test_grace_period_of_zero_cancels_at_once(launch: Launcher) -> None:
    """With `0` there is no drain: leftovers are cancelled with the stop request."""
    daemon = launch(SLEEPER, JOBD_GRACE_PERIOD="0")
    daemon.wait_for("run.started", count=2)
    assert daemon.stop(within=1) == 0
    daemon.assert_log_is_consistent()
    assert set(daemon.outcomes()) == {"cancelled"}
    assert daemon.events("shutdown.cancelling", reason="grace_period")


def test_cancel_timeout_of_zero_abandons_at_once(launch: Launcher) -> None:
    """With no time to clean up, who does not end immediately is abandoned; the process leaves on time."""
    daemon = launch(
        "@every('1h')\nasync def job():\n    try: await asyncio.sleep(30)\n    finally: await asyncio.sleep(30)",
        JOBD_GRACE_PERIOD="0",
        JOBD_CANCEL_TIMEOUT="0",
    )
    daemon.wait_for("run.started")
    assert daemon.stop() in (0, 3)
    daemon.assert_log_is_consistent()


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)],
    ids=["SIGTERM SIGTERM", "SIGTERM SIGINT", "SIGINT SIGTERM"],
)
def test_second_signal_skips_the_rest_of_the_grace_period(
    launch: Launcher, first: signal.Signals, second: signal.Signals
) -> None:
    """A second stop signal cancels the leftovers now, and the log says why."""
    daemon = launch(SLEEPER, JOBD_GRACE_PERIOD="30")
    daemon.wait_for("run.started", count=2)
    daemon.signal(first)
    daemon.wait_for("shutdown.waiting")
    time.sleep(0.3)  # signals closer together count as one
    daemon.signal(second)
    assert daemon.exit_code(within=2) == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("shutdown.cancelling", reason="signal")
    assert set(daemon.outcomes()) == {"cancelled"}


@pytest.mark.alone
def test_second_signal_counts_from_when_the_first_one_came(launch: Launcher) -> None:
    """More than a quarter of a second after it, however long that one takes to be obeyed: a job holds the GIL then."""
    daemon = launch(
        SLEEPER,
        beside="""
        import ctypes
        @every("1h")
        def holds():
            current_run().stopping.wait()
            ctypes.PyDLL(None).usleep(200_000)
        """,
        JOBD_GRACE_PERIOD="30",
    )
    daemon.wait_for("run.started", job="holds")
    daemon.wait_for("run.started", job="sleeper")
    daemon.signal(signal.SIGTERM)
    time.sleep(0.3)
    daemon.signal(signal.SIGTERM)
    assert daemon.exit_code(within=2) == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("shutdown.cancelling", reason="signal")


def test_third_signal_leaves_now(launch: Launcher) -> None:
    """A third stop signal abandons whoever has not cleaned up yet; the others keep their outcome."""
    daemon = launch(
        SLEEPER,
        beside="""
        @every("1h")
        async def stubborn():
            while True:
                try: await asyncio.sleep(60)
                except asyncio.CancelledError: log.info("refused")
        """,
        JOBD_GRACE_PERIOD="30",
        JOBD_CANCEL_TIMEOUT="30",
    )
    daemon.wait_for("run.started", job="stubborn")
    daemon.wait_for("run.started", job="sleeper")
    for told in ("shutdown.waiting", "refused"):
        daemon.signal(signal.SIGINT)
        daemon.wait_for(told)
        time.sleep(0.3)  # signals closer together count as one
    daemon.signal(signal.SIGINT)
    assert daemon.exit_code(within=3) == 3
    daemon.assert_log_is_consistent()
    assert daemon.outcomes("stubborn") == ["abandoned"]
    assert set(daemon.outcomes("sleeper")) == {"cancelled"}


def test_third_signal_with_nothing_left_to_abandon_is_no_failure(launch: Launcher) -> None:
    """Signals that come when everything has ended change nothing about the exit code."""
    daemon = launch("@every('1h')\nasync def quick(): pass")
    daemon.wait_for("run.finished")
    daemon.signal(signal.SIGTERM)
    for _ in range(3):
        if daemon.process.poll() is None:
            daemon.signal(signal.SIGTERM)
    assert daemon.exit_code(within=1) == 0
    daemon.assert_log_is_consistent()


def test_signals_close_together_count_as_one(launch: Launcher) -> None:
    """A supervisor's and a terminal's signal within a quarter of a second are one request."""
    daemon = launch("@every('1h')\nasync def job(): await asyncio.sleep(1.2)", JOBD_GRACE_PERIOD="10")
    daemon.wait_for("run.started")
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        daemon.signal(signum)
    assert daemon.exit_code(within=3) == 0
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["succeeded"]
    assert not daemon.events("shutdown.cancelling")


#: Runs that refuse to end, and whether jobd must abandon them (or may get them to end after all).
REFUSING = {
    "swallows cancellation": """
async def job():
    while True:
        try: await asyncio.sleep(60)  # here
        except asyncio.CancelledError: pass
""",
    "swallows everything": """
async def job():
    while True:
        try: await asyncio.sleep(60)  # here
        except BaseException: pass
""",
    "hangs in a thread": "def job():\n    time.sleep(60)  # here",
    "hangs in a lock": "def job():\n    threading.Event().wait()  # here",
    "computes in a thread": "def job():\n    while True: pass  # here",
    "blocks the loop": "async def job():\n    time.sleep(60)  # here",
    "computes in the loop": "async def job():\n    while True: pass  # here",
    "blocks the loop when cancelled": """
async def job():
    try: await asyncio.sleep(60)
    finally:
        time.sleep(60)  # here
""",
    "hangs when asked to stop": """
def job():
    current_run().stopping.wait()
    time.sleep(60)  # here
""",
    "waits in C for a lock": """
def job():
    lock = threading.Lock()
    with lock:
        lock.acquire()  # here
""",
    "reads a pipe": "def job():\n    os.read(os.pipe()[0], 1)  # here",
    "swallows everything in a thread": """
def job():
    while True:
        try: time.sleep(60)  # here
        except BaseException: pass
""",
}


@pytest.mark.parametrize("text", REFUSING.values(), ids=REFUSING)
def test_run_that_refuses_to_end_is_abandoned_and_named(launch: Launcher, text: str) -> None:
    """The process is gone within the time bound, leaves with 3, and says which run stands in which line."""
    daemon = launch(f"@every('1h')\n{text.strip()}", JOBD_GRACE_PERIOD="0.2", JOBD_CANCEL_TIMEOUT="0.3")
    run_id = daemon.wait_for("run.started")["run_id"]
    assert daemon.stop() == 3
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["abandoned"]
    abandoned = daemon.events("shutdown.abandoned")[0]
    assert (abandoned["job"], abandoned["run_id"]) == ("job", run_id)
    assert any(daemon.line_of("# here") in place for place in abandoned["stack"]), abandoned["stack"]


def test_computing_threads_do_not_delay_the_stop(launch: Launcher) -> None:
    """Eight threads that compute without end do not keep the daemon from leaving on time."""
    daemon = launch(
        """
        @every("20ms")
        def job():
            while True: pass
        """,
        JOBD_MAX_RUNNING="8",
        JOBD_GRACE_PERIOD="0.5",
        JOBD_CANCEL_TIMEOUT="0.5",
    )
    daemon.wait_for("run.started", count=8)
    assert daemon.stop() == 3
    daemon.assert_log_is_consistent()
    assert Counter(daemon.outcomes()) == {"abandoned": 8}


def test_blocked_loop_does_not_delay_the_drain_of_functions(launch: Launcher) -> None:
    """While a coroutine holds the loop, functions still end by themselves and are told so."""
    daemon = launch(
        """
        @every("1h")
        async def blocker(): time.sleep(60)
        @every("1h")
        def polite(): current_run().stopping.wait()
        """,
        JOBD_GRACE_PERIOD="0.5",
        JOBD_CANCEL_TIMEOUT="0.5",
    )
    daemon.wait_for("run.started", job="blocker")
    daemon.wait_for("run.started", job="polite")
    assert daemon.stop() == 3
    daemon.assert_log_is_consistent()
    assert daemon.outcomes("polite") == ["succeeded"]
    assert daemon.outcomes("blocker") == ["abandoned"]


#: Clean-ups within a cancel timeout of 1 s, and how their runs may end: they are all over in time.
CLEANING = {
    "short clean-up": "async def job():\n    try: await asyncio.sleep(60)\n    finally:\n"
    "        await asyncio.sleep(0.4)\n        log.info('cleaned')",
    "clean-up in a thread": "async def job():\n    try: await asyncio.sleep(60)\n    finally:\n"
    "        await asyncio.to_thread(time.sleep, 0.4)\n        log.info('cleaned')",
    "clean-up in a group": "async def job():\n    async with asyncio.TaskGroup() as group:\n"
    "        group.create_task(inner())\nasync def inner():\n    try: await asyncio.sleep(60)\n    finally:\n"
    "        await asyncio.sleep(0.4)\n        log.info('cleaned')",
}


@pytest.mark.parametrize("text", CLEANING.values(), ids=CLEANING)
def test_clean_up_within_the_cancel_timeout_completes(launch: Launcher, text: str) -> None:
    """What a cancelled run does in `finally` is done if there is time for it; 0."""
    daemon = launch(f"@every('1h')\n{text}", JOBD_GRACE_PERIOD="0.2", JOBD_CANCEL_TIMEOUT="1")
    daemon.wait_for("run.started")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("cleaned")
    assert daemon.outcomes() == ["cancelled"]


#: What takes longer than it may. The log says either that it ended, or that it was abandoned.
TOO_LONG = {
    "long clean-up": "async def job():\n    try: await asyncio.sleep(60)\n    finally: await asyncio.sleep(30)",
    "shielded": "async def job():\n    inner = asyncio.ensure_future(asyncio.sleep(30))\n"
    "    try: await asyncio.shield(inner)\n    finally: await inner",
    "in a thread": "async def job(): await asyncio.to_thread(time.sleep, 30)",
    "in an executor": "async def job(): await asyncio.get_running_loop().run_in_executor(None, time.sleep, 30)",
    "own tasks": "async def job():\n    tasks = [asyncio.create_task(asyncio.sleep(30)) for _ in range(9)]\n"
    "    await asyncio.wait(tasks)",
    "async generator": "async def job():\n    async for _ in numbers(): pass\nasync def numbers():\n"
    "    try:\n        while True: yield await asyncio.sleep(0.05)\n    finally: await asyncio.sleep(30)",
}


@pytest.mark.parametrize("text", TOO_LONG.values(), ids=TOO_LONG)
def test_what_takes_longer_than_it_may_does_not_hold_the_process(launch: Launcher, text: str) -> None:
    """Whatever a cancelled run leaves hanging: gone within the bound, and the exit code agrees with the log."""
    jobs = text.replace("async def job()", "@every('1h')\nasync def job()")
    daemon = launch(jobs, JOBD_GRACE_PERIOD="0.2", JOBD_CANCEL_TIMEOUT="0.3")
    daemon.wait_for("run.started")
    code = daemon.stop()
    daemon.assert_log_is_consistent()
    assert (code, set(daemon.outcomes())) in [(0, {"cancelled"}), (3, {"abandoned"})]


def test_exception_in_the_clean_up_is_a_failure(launch: Launcher) -> None:
    """A cancelled run that raises something else on its way out has failed, and that is told."""
    daemon = launch(
        "@every('1h')\nasync def job():\n    try: await asyncio.sleep(9)\n    finally: raise OSError('on the way out')",
        JOBD_GRACE_PERIOD="0.2",
    )
    daemon.wait_for("run.started")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("run.finished", outcome="failed")[0]["error"]["message"] == "on the way out"


#: C code that keeps the GIL, for good or for a while, as an extension may that never gives it back.
HOLD = "ctypes.PyDLL(None).sleep(60)  # here"
#: How a fence ends the process: `faulthandler`, and the guard.
FENCED = (1, -signal.SIGKILL)


@pytest.mark.alone  # the second fence falls two tenths of a second after the first one
def test_gil_held_from_the_stop_on_ends_at_the_last_fence(launch: Launcher) -> None:
    """C code that holds the GIL once the stop has begun: the process still ends in time, with 1."""
    daemon = launch(
        """
        @every("1h")
        def job():
            current_run().stopping.wait()
            -1 in itertools.count()
        """,
        JOBD_GRACE_PERIOD="0.3",
        JOBD_CANCEL_TIMEOUT="0.5",
    )
    daemon.wait_for("run.started")
    assert daemon.stop() == 1
    assert not daemon.log.garbage
    assert "jobs.py" in daemon.stderr


@pytest.mark.alone  # the stacks have a tenth of a second
@pytest.mark.parametrize("place", ["def job(): ", "async def job(): "], ids=["function", "coroutine"])
def test_gil_held_from_before_the_signal_on_ends_at_the_last_fence(launch: Launcher, place: str) -> None:
    """Nobody in the daemon can hear the signal: the guard does, and ends it in time, with its stacks on stderr."""
    daemon = launch(f"import ctypes\n@every('1h')\n{place}{HOLD}", JOBD_GRACE_PERIOD="0.3", JOBD_CANCEL_TIMEOUT="0.5")
    daemon.wait_for("run.started")
    time.sleep(0.2)  # until it is held, which nothing can tell us
    assert daemon.stop() in FENCED
    assert daemon.line_of("# here").split(":")[1] in daemon.stderr


def test_gil_held_by_an_import_ends_at_the_last_fence(launch: Launcher) -> None:
    """The same while the jobs are imported."""
    daemon = launch(
        "log.info('importing')\n-1 in itertools.count()  # holds", JOBD_GRACE_PERIOD="0.3", JOBD_CANCEL_TIMEOUT="0.5"
    )
    daemon.wait_for("importing")
    time.sleep(0.2)  # until it is held, which nothing can tell us
    assert daemon.stop() in FENCED


def test_gil_held_across_the_signal_costs_no_more_than_that(launch: Launcher) -> None:
    """The GIL comes back two seconds after the signal: an orderly stop, counted from when the signal came."""
    daemon = launch(
        """
        import ctypes
        @every("1h")
        def job():
            log.info("holding")
            ctypes.PyDLL(None).usleep(2_000_000)
            current_run().stopping.wait()
        """,
        JOBD_GRACE_PERIOD="10",
    )
    daemon.wait_for("holding")
    time.sleep(0.2)  # until it is held, which nothing can tell us
    assert daemon.stop(within=5) == 0
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["succeeded"]
    assert 1 < daemon.lines[-1]["shutdown_s"] < 4


#: What jobs do to the timer that `faulthandler` has only one of.
TAMPERING = {
    "cancelled": "faulthandler.cancel_dump_traceback_later()",
    "used for something else": "faulthandler.dump_traceback_later(3600)",
    "cancelled, and the handlers gone": "faulthandler.cancel_dump_traceback_later(); faulthandler.disable()",
}


@pytest.mark.parametrize("tampering", TAMPERING.values(), ids=TAMPERING)
def test_gil_held_by_a_job_that_has_taken_the_first_fence_away(launch: Launcher, tampering: str) -> None:
    """The second fence does not depend on anything in the process: gone in time all the same."""
    daemon = launch(
        f"""
        import ctypes, faulthandler
        @every("1h")
        def job():
            current_run().stopping.wait()
            time.sleep(0.1)
            {tampering}
            {HOLD}
        """,
        JOBD_GRACE_PERIOD="0.5",
        JOBD_CANCEL_TIMEOUT="0.5",
    )
    daemon.wait_for("run.started")
    assert daemon.stop() == -signal.SIGKILL


@pytest.mark.parametrize(
    "wait", ["current_run().stopping.wait()", "time.sleep(0.3)"], ids=["from the stop on", "before"]
)
def test_fence_that_falls_takes_the_children_along(launch: Launcher, wait: str) -> None:
    """Whoever has to end the daemon from outside ends what its jobs have started, too."""
    daemon = launch(
        f"""
        import ctypes
        @every("1h")
        def job():
            child = subprocess.Popen("trap '' TERM; sleep 600; true", shell=True)
            log.info("children", pid=child.pid)
            {wait}
            {HOLD}
        """,
        JOBD_GRACE_PERIOD="0.3",
        JOBD_CANCEL_TIMEOUT="0.5",
    )
    daemon.wait_for("children")
    poll(lambda: len(in_session(daemon.process.pid)) >= 4, "the daemon, its guard, a shell and its child")
    time.sleep(0.5)  # until the GIL is held, which nothing can tell us
    assert daemon.stop() in FENCED
    poll(lambda: not in_session(daemon.process.pid), "the end of the children")


def test_short_grace_period_and_a_held_gil(launch: Launcher) -> None:
    """With no time at all for runs, a second is all there is."""
    daemon = launch(f"import ctypes\n@every('1h')\ndef job(): {HOLD}", JOBD_GRACE_PERIOD="0", JOBD_CANCEL_TIMEOUT="0")
    daemon.wait_for("run.started")
    time.sleep(0.2)  # until it is held, which nothing can tell us
    assert daemon.stop() in FENCED


def test_gil_that_is_held_time_and_again_does_not_hold_the_stop(launch: Launcher) -> None:
    """Half a second at a time, with a gap that lets one thread in: in time, one way or the other."""
    daemon = launch(
        """
        import ctypes
        @every("1h")
        def job():
            while True:
                ctypes.PyDLL(None).usleep(500_000)
                time.sleep(0.0001)
        """,
        JOBD_GRACE_PERIOD="0.5",
        JOBD_CANCEL_TIMEOUT="0.5",
    )
    daemon.wait_for("run.started")
    assert daemon.stop() in (3, *FENCED)


def test_no_tick_is_forgotten_when_the_stop_comes_in_a_burst(launch: Launcher) -> None:
    """Jobs every millisecond or few: whatever is due when the stop comes is started or told as skipped."""
    daemon = launch(
        """
        @every("1ms")
        async def one(): pass
        @every("3ms")
        def two(): pass
        @every("7ms")
        async def three(): await asyncio.sleep(0.05)
        """
    )
    daemon.wait_for("run.started", count=500)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.25, 0.4])
def test_daemon_that_was_frozen_counts_from_the_delivery(launch: Launcher, delay_s: float) -> None:
    """SIGTERM to a stopped process is obeyed when it goes on, with its whole grace period."""
    daemon = launch("@every('0.1')\nasync def job(): await asyncio.sleep(0.4)", JOBD_GRACE_PERIOD="5")
    daemon.wait_for("run.started", count=2)
    daemon.signal(signal.SIGSTOP)
    daemon.signal(signal.SIGTERM)
    time.sleep(delay_s)
    daemon.signal(signal.SIGCONT)
    assert daemon.exit_code() == 0
    daemon.assert_log_is_consistent()
    assert set(daemon.outcomes()) == {"succeeded"}


def test_daemon_that_was_frozen_for_longer_than_its_stop_may_take(launch: Launcher) -> None:
    """The time that it stood still is not counted: the runs have all of the grace period from then on."""
    daemon = launch(
        "@every('0.1')\nasync def job(): await asyncio.sleep(0.6)", JOBD_GRACE_PERIOD="1", JOBD_CANCEL_TIMEOUT="1"
    )
    daemon.wait_for("run.started", count=3)
    daemon.signal(signal.SIGSTOP)
    daemon.signal(signal.SIGTERM)
    time.sleep(3.5)
    daemon.signal(signal.SIGCONT)
    assert daemon.exit_code(within=6) == 0
    daemon.assert_log_is_consistent()
    assert set(daemon.outcomes()) == {"succeeded"}


def test_a_daemon_that_was_killed_leaves_nothing_that_the_next_one_minds(launch: Launcher) -> None:
    """Amid a run, by SIGKILL: the log has its start, and a daemon in the same place starts as if nothing had been."""
    jobs = "@every('0.1')\ndef job(): time.sleep(0.3)"
    killed = launch(jobs)
    killed.wait_for("run.started", count=3)
    killed.process.kill()
    assert killed.process.wait() == -signal.SIGKILL
    assert killed.log.wait_for_end(5)
    assert not killed.log.garbage
    daemon = launch(jobs)
    daemon.wait_for("run.finished", outcome="succeeded", count=3)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_on_a_terminal_what_hangs_is_told_and_abandoned_all_the_same(launch: Launcher) -> None:
    """Lines for people hold a stack, too: being asked, being blocked and being abandoned change nothing."""
    daemon = launch(
        "@every('1h')\ndef hangs(): time.sleep(60)\n"
        "@every('1h')\nasync def blocks():\n    await asyncio.sleep(0.1)\n    time.sleep(60)\n",
        JOBD_LOG_FORMAT="console",
        JOBD_GRACE_PERIOD="0.2",
        JOBD_CANCEL_TIMEOUT="0.2",
        read=False,
    )
    assert daemon.process.stdout is not None
    shown = ""
    for raw in daemon.process.stdout:
        shown += raw.decode()
        if "run.started" in shown and "run.in_flight" not in shown:
            daemon.signal(signal.SIGUSR1)
        if "job.blocking" in shown:
            break
    daemon.signal(signal.SIGTERM)
    shown += daemon.process.stdout.read().decode()
    assert daemon.process.wait(10) == 3
    for event in ("run.in_flight", "shutdown.abandoned", "run.finished", "daemon.stopped"):
        assert event in shown
    assert "daemon.failed" not in shown
