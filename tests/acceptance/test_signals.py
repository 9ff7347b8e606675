"""Signals: which are obeyed, which are left alone, and under which start conditions."""

import ctypes
import os
import pty
import signal
import time
from collections.abc import Iterator
from functools import partial

import pytest

from .conftest import Launcher
from .harness import JOBD, PATIENCE_S, Daemon, becoming_jobd, poll

BEAT = """
@every("0.1")
async def beat(): pass
"""


def assert_goes_on(daemon: Daemon) -> None:
    """Runs go on being started, and the stop works."""
    daemon.wait_for("run.finished", count=len(daemon.events("run.finished")) + 3)
    assert daemon.stop(within=2) == 0
    daemon.assert_log_is_consistent()


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT], ids=lambda s: s.name)
def test_signal_ignored_at_start_stays_ignored(launch: Launcher, signum: signal.Signals) -> None:
    """Under `nohup`, or as a shell's background job, the signal does nothing; SIGTERM works."""
    ignore = f"trap '' {signum.name.removeprefix('SIG')}; exec \"$@\""
    daemon = launch(BEAT, program=("sh", "-c", ignore, "sh", JOBD))
    daemon.wait_for("run.started")
    for _ in range(3):
        os.kill(daemon.pid, signum)
    assert_goes_on(daemon)
    assert daemon.events("shutdown.requested", signal="SIGTERM")


def test_ignored_sigterm_is_caught_all_the_same(launch: Launcher) -> None:
    """SIGTERM is how a daemon is stopped, whatever its parent thought of it."""
    daemon = launch(BEAT, program=("sh", "-c", 'trap "" TERM; exec "$@"', "sh", JOBD))
    daemon.wait_for("run.started")
    assert_goes_on(daemon)


def test_blocked_signals_are_unblocked(launch: Launcher) -> None:
    """A mask inherited from the parent does not make the daemon deaf."""
    daemon = launch(BEAT, program=becoming_jobd("signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"))
    daemon.wait_for("run.started")
    daemon.signal(signal.SIGUSR1)
    daemon.wait_for("daemon.status")
    assert_goes_on(daemon)


def test_hangup_without_a_terminal_is_no_stop(launch: Launcher) -> None:
    """SIGHUP to a daemon without a terminal leaves it running."""
    daemon = launch(BEAT)
    daemon.wait_for("run.started")
    daemon.signal(signal.SIGHUP)
    assert_goes_on(daemon)


def test_status_names_every_run_and_where_it_stands(launch: Launcher) -> None:
    """SIGUSR1: one `run.in_flight` for each run, with age and the line of the job's own code."""
    daemon = launch(
        """
        async def inner():
            await asyncio.sleep(30)  # in the coroutine
        @every("1h")
        async def coroutine(): await inner()
        @every("1h")
        def function():
            current_run().stopping.wait()  # in the function
        """,
        JOBD_GRACE_PERIOD="0",
    )
    for job in ("coroutine", "function"):
        daemon.wait_for("run.started", job=job)

    def shows_line(job: str) -> bool:  # once it has come from the line of its start to the next one
        count = len(daemon.events("run.in_flight", job=job)) + 1
        daemon.signal(signal.SIGUSR1)
        daemon.wait_for("run.in_flight", job=job, count=count)
        line = daemon.line_of(f"# in the {job}")
        return any(line in place for place in daemon.events("run.in_flight", job=job)[-1]["stack"])

    for job in ("coroutine", "function"):
        poll(partial(shows_line, job), f"the line of the {job}")
        told = daemon.events("run.in_flight", job=job)[-1]
        assert told["age_s"] >= 0
        assert told["run_id"] == daemon.wait_for("run.started", job=job)["run_id"]
    assert {line["running"] for line in daemon.events("daemon.status")} == {2}
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_status_names_each_of_many_runs_once(launch: Launcher) -> None:
    """More of them than are told at a time."""
    jobs = "".join(f"@every('1h')\nasync def job_{n}(): await asyncio.sleep(60)\n" for n in range(300))
    daemon = launch(jobs, JOBD_GRACE_PERIOD="0")
    daemon.wait_for("run.started", count=300)
    daemon.signal(signal.SIGUSR1)
    daemon.wait_for("run.in_flight", count=300)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert len({line["run_id"] for line in daemon.events("run.in_flight")}) == 300


def test_status_is_told_while_the_loop_is_blocked(launch: Launcher) -> None:
    """SIGUSR1 shows which coroutine holds the loop, and in which line."""
    daemon = launch(
        """
        @every("1h")
        async def blocker():
            time.sleep(4)  # here
        """,
        JOBD_GRACE_PERIOD="5",
    )
    daemon.wait_for("job.blocking")
    daemon.signal(signal.SIGUSR1)
    stack = daemon.wait_for("run.in_flight", job="blocker")["stack"]
    assert daemon.line_of("# here") in stack[-1]
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_status_during_the_drain(launch: Launcher) -> None:
    """SIGUSR1 is answered while draining, and is no stop signal."""
    daemon = launch("@every('1h')\nasync def job(): await asyncio.sleep(1)", JOBD_GRACE_PERIOD="10")
    daemon.wait_for("run.started")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("shutdown.waiting")
    daemon.signal(signal.SIGUSR1)
    daemon.wait_for("run.in_flight")
    assert daemon.exit_code() == 0
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["succeeded"]


def test_storm_of_signals_is_survived(launch: Launcher) -> None:
    """Hundreds of SIGUSR1 and SIGHUP between the ticks neither kill the daemon nor cost a line."""
    daemon = launch(BEAT)
    daemon.wait_for("run.started")
    for _ in range(300):
        daemon.signal(signal.SIGUSR1)
        daemon.signal(signal.SIGHUP)
    daemon.wait_for("daemon.status")
    assert_goes_on(daemon)


@pytest.mark.parametrize("kind", ["async def", "def"], ids=["coroutine", "function"])
def test_job_that_signals_its_own_process_stops_it_in_order(launch: Launcher, kind: str) -> None:
    """`os.kill(os.getpid(), SIGTERM)` in a job is a stop request like any other."""
    daemon = launch(f"@every('1h')\n{kind} job():\n    os.kill(os.getpid(), signal.SIGTERM)\n    log.info('after')")
    assert daemon.exit_code(within=5) == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("after")
    assert daemon.outcomes() == ["succeeded"]


@pytest.mark.parametrize("how", ["child.terminate()", "os.kill(child.pid, signal.SIGINT)"], ids=["SIGTERM", "SIGINT"])
def test_signal_to_a_forked_child_is_the_childs(launch: Launcher, how: str) -> None:
    """A multiprocessing child that is ended by a signal does not take the daemon along."""
    daemon = launch(
        f"""
        import multiprocessing
        def wait():
            sys.stderr = open(os.devnull, "w")
            log.info("child")
            time.sleep(60)
        @every("1h")
        def parent():
            child = multiprocessing.get_context("fork").Process(target=wait)
            child.start()
            time.sleep(0.5)
            {how}
            child.join()
            log.info("joined", code=child.exitcode)
        """,
        beside=BEAT,
    )
    assert daemon.wait_for("joined")["code"] != 0
    daemon.wait_for("child")
    assert_goes_on(daemon)


def test_interrupt_of_the_whole_process_group(launch: Launcher) -> None:
    """Ctrl-C reaches children of jobs too; the daemon's own stop stays orderly."""
    daemon = launch(
        """
        @every("1h")
        def job():
            child = subprocess.Popen(["sleep", "60"])
            log.info("started")
            child.wait()
        """,
        JOBD_GRACE_PERIOD="10",
    )
    daemon.wait_for("started")
    os.killpg(daemon.pid, signal.SIGINT)
    assert daemon.exit_code(within=3) == 0
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["succeeded"]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a new terminal: ours, and the one for programs."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    for fd in (ours, theirs):
        try:
            os.close(fd)
        except OSError:  # the test has closed it
            pass


def on_terminal(theirs: int) -> tuple[str, ...]:
    """A program that becomes jobd with this terminal as its controlling terminal."""
    return becoming_jobd(f"os.close(os.open({os.ttyname(theirs)!r}, os.O_RDWR))")


@pytest.mark.parametrize("how", ["signal", "close"])
def test_hangup_of_the_terminal_is_a_stop(launch: Launcher, terminal: tuple[int, int], how: str) -> None:
    """The terminal closes, or SIGHUP says so: an orderly stop."""
    ours, theirs = terminal
    daemon = launch("@every('1h')\nasync def job(): await asyncio.sleep(0.5)", program=on_terminal(theirs))
    daemon.wait_for("run.started")
    if how == "close":
        os.close(theirs)
        os.close(ours)
    else:
        daemon.signal(signal.SIGHUP)
    assert daemon.exit_code(within=3) == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("shutdown.requested", signal="SIGHUP")
    assert daemon.outcomes() == ["succeeded"]


def test_hangup_of_the_terminal_while_a_job_holds_the_gil(launch: Launcher, terminal: tuple[int, int]) -> None:
    """Nobody in the daemon can hear it: the time bound holds all the same."""
    ours, theirs = terminal
    daemon = launch(
        "import ctypes\n@every('1h')\ndef job(): ctypes.PyDLL(None).sleep(60)",
        program=on_terminal(theirs),
        JOBD_GRACE_PERIOD="0.3",
        JOBD_CANCEL_TIMEOUT="0.5",
    )
    daemon.wait_for("run.started")
    time.sleep(0.2)  # until it is held, which nothing can tell us
    os.close(theirs)
    os.close(ours)
    assert daemon.exit_code(within=daemon.bound_s) == -signal.SIGKILL


def test_interrupt_that_is_a_modules_takes_no_time_from_a_later_stop(launch: Launcher) -> None:
    """It waits while a job holds the GIL; the stop that comes much later has its whole grace period."""
    daemon = launch(
        """
        import ctypes
        signal.signal(signal.SIGINT, lambda *_: log.info("handled"))
        @every("1h")
        def holds():
            log.info("holding")
            ctypes.PyDLL(None).usleep(700_000)
        @every("1h")
        def job():
            current_run().stopping.wait()
            time.sleep(0.5)
        """,
        program=("sh", "-c", "trap '' INT; exec \"$@\"", "sh", JOBD),
        JOBD_GRACE_PERIOD="2",
    )
    daemon.wait_for("holding")
    time.sleep(0.2)  # until it is held, which nothing can tell us
    os.kill(daemon.pid, signal.SIGINT)
    daemon.wait_for("handled")
    time.sleep(2.5)
    daemon.signal(signal.SIGTERM)
    assert daemon.exit_code() == 0
    daemon.assert_log_is_consistent()
    assert set(daemon.outcomes()) == {"succeeded"}
    assert not daemon.events("shutdown.cancelling")


def test_gil_that_is_held_time_and_again_after_a_question(launch: Launcher) -> None:
    """However long the daemon takes to answer SIGUSR1, nobody ends it for that."""
    daemon = launch(
        """
        import ctypes
        def hold():
            for _ in range(3):
                log.info("holding")
                ctypes.PyDLL(None).usleep(1_200_000)
                time.sleep(0)  # lets one thread in, until that gives way
        @every("1h")
        def one(): hold()
        @every("1h")
        def two(): hold()
        """,
        JOBD_GRACE_PERIOD="0.1",
        JOBD_CANCEL_TIMEOUT="0.1",
    )
    daemon.wait_for("holding")
    time.sleep(0.2)  # until it is held, which nothing can tell us
    daemon.signal(signal.SIGUSR1)
    daemon.wait_for("daemon.status")
    daemon.wait_for("run.finished", count=2, outcome="succeeded")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_control_c_on_a_terminal(launch: Launcher, terminal: tuple[int, int]) -> None:
    """Ctrl-C typed on the controlling terminal is a stop request."""
    ours, theirs = terminal
    daemon = launch(BEAT, program=on_terminal(theirs))
    daemon.wait_for("run.started")
    os.write(ours, b"\x03")
    assert daemon.exit_code(within=3) == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("shutdown.requested", signal="SIGINT")


def test_a_storm_of_questions_does_not_hold_up_the_stop(launch: Launcher) -> None:
    """Many SIGUSR1 at once are one question, however many runs there are to tell of."""
    daemon = launch("".join(f"@every('1h')\nasync def job_{n}(): await asyncio.sleep(60)\n" for n in range(300)))
    daemon.wait_for("run.started", count=300)
    for _ in range(300):
        os.kill(daemon.pid, signal.SIGUSR1)
    assert daemon.stop(within=5) == 0
    daemon.assert_log_is_consistent()


STRAY = [
    *("SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGSTKFLT", "SIGXCPU"),
    *("SIGRTMIN", "SIGRTMIN+5", "SIGRTMAX"),
]


def number(name: str) -> int:
    """The number of a signal that may have no name of its own."""
    base, _, offset = name.partition("+")
    return signal.Signals[base] + int(offset or 0)


def test_signals_without_a_meaning_are_told_and_end_nothing(launch: Launcher) -> None:
    """A stray `kill -USR2` and its like: one `signal.ignored` line with the name, and the daemon goes on."""
    daemon = launch(BEAT)
    daemon.wait_for("run.started")
    for name in STRAY:
        os.kill(daemon.pid, number(name))
        assert daemon.wait_for("signal.ignored", signal=name)["count"] == 1
    assert_goes_on(daemon)
    assert len(daemon.events("signal.ignored")) == len(STRAY)


def test_all_of_them_at_once(launch: Launcher) -> None:
    """However many handlers are entered one within the other, the stack of the main thread is large enough."""
    daemon = launch(BEAT)
    daemon.wait_for("run.started")
    libc = ctypes.CDLL(None)
    daemon.signal(signal.SIGSTOP)
    for name in ["SIGUSR1", "SIGHUP", *STRAY, *(f"SIGRTMIN+{offset}" for offset in range(1, 30))]:
        assert libc.tgkill(daemon.pid, daemon.pid, number(name)) == 0  # they wait for the main thread
    daemon.signal(signal.SIGCONT)
    for name in STRAY:
        daemon.wait_for("signal.ignored", signal=name)
    assert_goes_on(daemon)


def test_alarm_that_a_job_has_set(launch: Launcher) -> None:
    """`signal.alarm` without a handler ends a program; not the daemon."""
    daemon = launch("@every('1h')\ndef job(): signal.setitimer(signal.ITIMER_REAL, 0.05)", beside=BEAT)
    daemon.wait_for("signal.ignored", signal="SIGALRM")
    assert_goes_on(daemon)


def test_signal_that_comes_a_thousand_times_a_second_is_no_flood_in_the_log(launch: Launcher) -> None:
    """It is told again each time its count has doubled."""
    daemon = launch("@every('1h')\ndef job(): signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)", beside=BEAT)
    daemon.wait_for("signal.ignored", count=8)
    assert_goes_on(daemon)
    told = [line["count"] for line in daemon.events("signal.ignored")]
    assert told == [2**n for n in range(len(told))]


def test_soft_limit_of_processor_time_ends_nothing(launch: Launcher) -> None:
    """SIGXCPU is told; the hard limit stays the kernel's."""
    daemon = launch(
        """
        import resource
        @every("1h")
        def job():
            used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
            resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 1, resource.RLIM_INFINITY))
            while not current_run().stopping.is_set(): pass
        """,
        beside=BEAT,
    )
    daemon.wait_for("signal.ignored", signal="SIGXCPU")
    assert_goes_on(daemon)


PHASES = {
    "importing": "log.info('reached'); time.sleep(60)",
    "idle": "@every('1h')\nasync def job(): log.info('reached')",
    "running": "@every('1h')\nasync def job(): log.info('reached'); await asyncio.sleep(60)",
    "draining": "@every('1h')\nasync def job(): await asyncio.sleep(60)",
    "cancelling": """
        @every("1h")
        async def job():
            try: await asyncio.sleep(60)
            finally: await asyncio.sleep(60)
        """,
}


@pytest.mark.parametrize("phase", PHASES)
def test_signals_that_are_no_stop_change_nothing_in_any_phase(launch: Launcher, phase: str) -> None:
    """SIGHUP without a terminal, questions and strays are answered or told, and the phase goes on; SIGTERM ends it."""
    daemon = launch(
        PHASES[phase],
        JOBD_GRACE_PERIOD="0" if phase == "cancelling" else "60",
        JOBD_CANCEL_TIMEOUT="60" if phase == "cancelling" else "0.5",
    )
    if phase in ("draining", "cancelling"):
        daemon.wait_for("run.started")
        os.kill(daemon.pid, signal.SIGTERM)
        daemon.wait_for({"draining": "shutdown.waiting", "cancelling": "shutdown.cancelling"}[phase])
    else:
        daemon.wait_for("reached")
    for signum in (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2, signal.SIGUSR1):
        os.kill(daemon.pid, signum)
    daemon.wait_for("signal.ignored", signal="SIGUSR2")
    told = {"importing": "starting", "idle": "running"}.get(phase, phase)
    assert daemon.wait_for("daemon.status")["state"] == told
    poll(lambda: "Current thread" in daemon.stderr, "the stacks")
    assert daemon.process.poll() is None
    if phase == "running":
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("shutdown.waiting")
    time.sleep(0.3)  # closer together two stop signals are one
    daemon.signal(signal.SIGTERM)
    assert daemon.exit_code(within=3) == (3 if phase == "cancelling" else 0)


def test_handler_that_a_module_has_installed_is_called(launch: Launcher) -> None:
    """It is called for each signal, with number and frame, and the signal is not told as ignored."""
    daemon = launch(
        """
        def handler(signum, frame): log.info("handled", number=signum, line=frame.f_lineno)
        signal.signal(signal.SIGUSR2, handler)
        signal.signal(signal.SIGCHLD, handler)
        @every("1h")
        def job(): log.info("code", code=subprocess.run(["sh", "-c", "exit 7"]).returncode)
        """,
        beside=BEAT,
    )
    daemon.wait_for("handled", number=signal.SIGCHLD)
    assert daemon.wait_for("code")["code"] == 7
    for count in (1, 2, 3):
        os.kill(daemon.pid, signal.SIGUSR2)
        assert daemon.wait_for("handled", count=count, number=signal.SIGUSR2)["line"] > 0
    assert_goes_on(daemon)
    assert not daemon.events("signal.ignored")


def test_handler_that_raises_fails_nothing(launch: Launcher) -> None:
    """What it raises is logged as an error outside any run."""
    daemon = launch(
        """
        def too_late(signum, frame): raise TimeoutError("too late")
        signal.signal(signal.SIGALRM, too_late)
        @every("1h")
        def job():
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            time.sleep(0.2)
        """,
        beside=BEAT,
    )
    stray = daemon.wait_for("stray.error")
    assert stray["where"] == "handler of SIGALRM"
    assert stray["error"] == {"type": "TimeoutError", "message": "too late"}
    assert_goes_on(daemon)


def test_handler_that_blocks_does_not_hold_up_ticks_or_the_stop(launch: Launcher) -> None:
    """Handlers are user code: they may hold the plane of the jobs, never the daemon's."""
    daemon = launch(
        """
        signal.signal(signal.SIGUSR2, lambda *args: time.sleep(60))
        @every("0.1")
        def beat(): pass
        """
    )
    daemon.wait_for("run.started")
    os.kill(daemon.pid, signal.SIGUSR2)
    daemon.wait_for("job.blocking")
    daemon.wait_for("run.finished", count=len(daemon.events("run.finished")) + 3)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_loop_of_a_module_that_takes_signals_at_import(launch: Launcher) -> None:
    """`add_signal_handler` and `asyncio.run` at import take the wake-up descriptor; the stop works all the same."""
    daemon = launch(
        """
        async def main():
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, lambda: log.info("theirs"))
            log.info("importing")
            await asyncio.sleep(60)
        asyncio.run(main())
        """
    )
    daemon.wait_for("importing")
    assert daemon.stop(within=2) == 0
    daemon.assert_log_is_consistent()


#: How C code has Python code called in the main thread.
CLEAR_WAKEUP = """
import ctypes
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
def pending(_):
    signal.set_wakeup_fd(-1)
    log.info("cleared")
    return 0
def clear_wakeup():
    ctypes.pythonapi.Py_AddPendingCall(pending, None)
    os.kill(os.getpid(), signal.SIGUSR1)  # wakes the main thread up
"""
ATTACKS = {
    "ignored by C code": "ctypes.CDLL(None).signal(signal.SIGTERM, 1)",
    "default by C code": "ctypes.CDLL(None).signal(signal.SIGTERM, 0)",
    "interrupt ignored by C code": "ctypes.CDLL(None).signal(signal.SIGINT, 1)",
    "wake-up descriptor cleared": "clear_wakeup()",
    "child interpreter": """
            try: import _interpreters as interpreters
            except ImportError: import _xxsubinterpreters as interpreters
            child = interpreters.create()
            interpreters.run_string(child, "import signal")
            interpreters.destroy(child)""",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_signals_that_a_job_has_taken_are_taken_back(launch: Launcher, attack: str) -> None:
    """Soon, as long as a run is in flight."""
    daemon = launch(
        f"""
        @every("1h")
        def attack():
            {attack.strip()}
            time.sleep(1)
        """,
        beside=CLEAR_WAKEUP + BEAT,
    )
    daemon.wait_for("run.finished", job="attack", outcome="succeeded")
    seen = len(daemon.events("run.finished", job="beat"))
    daemon.wait_for("run.finished", job="beat", count=seen + 2)
    assert daemon.stop(signal.SIGINT if "SIGINT" in attack else signal.SIGTERM, within=2) == 0
    daemon.assert_log_is_consistent()


def test_signals_without_a_meaning_that_c_code_has_taken_are_taken_back(launch: Launcher) -> None:
    """What would end the daemon by default does not for longer than a moment."""
    daemon = launch(
        f"""
        import ctypes
        @every("1h")
        def attack():
            for signum in {[number(name) for name in STRAY]}: ctypes.CDLL(None).signal(signum, 0)
            time.sleep(1)
        """,
        beside=BEAT,
    )
    daemon.wait_for("run.finished", job="attack", outcome="succeeded")
    for name in STRAY:
        os.kill(daemon.pid, number(name))
        daemon.wait_for("signal.ignored", signal=name)
    assert_goes_on(daemon)


def test_wake_up_descriptor_is_taken_back_even_in_an_idle_daemon(launch: Launcher) -> None:
    """A thread that a job has left behind clears it when nobody looks any more; the next signal sets it again."""
    daemon = launch(
        """
        def later():
            time.sleep(1)
            clear_wakeup()
        @every("1h")
        def job(): threading.Thread(target=later, daemon=True).start()
        """,
        beside=CLEAR_WAKEUP,
    )
    daemon.wait_for("cleared")
    assert daemon.stop(within=2) == 0
    daemon.assert_log_is_consistent()


def test_ignored_children_keep_their_exit_codes(launch: Launcher) -> None:
    """SIGCHLD ignored, by a module or by whoever started the daemon, would throw the exit codes away."""
    daemon = launch(
        """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        @every("0.1")
        def job(): log.info("code", code=subprocess.run(["sh", "-c", "exit 7"]).returncode)
        """,
        program=becoming_jobd("signal.signal(signal.SIGCHLD, signal.SIG_IGN)"),
    )
    assert daemon.wait_for("code", count=3)["code"] == 7
    assert_goes_on(daemon)
    assert {line["code"] for line in daemon.events("code")} == {7}


def test_reader_that_goes_away_kills_nobody(launch: Launcher) -> None:
    """Also if a module has given SIGPIPE its deadly default back, as command-line tools do."""
    daemon = launch(
        """
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        @every("0.1")
        def beat(): open("beats", "a").write(".")
        """,
        read=False,
    )
    beats = daemon.directory / "beats"
    poll(beats.exists, "the first run")
    assert daemon.process.stdout is not None
    daemon.process.stdout.close()
    before = beats.stat().st_size
    poll(lambda: beats.stat().st_size > before + 5, "runs without a reader")
    assert daemon.stop(within=2) == 0


LOOK = (
    "import signal; print(len(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "
    "[s for s in range(1, 65) if s in signal.valid_signals() and signal.getsignal(s) not in "
    "(signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)])"
)


@pytest.mark.parametrize("kind", ["async def", "def"], ids=["coroutine", "function"])
def test_children_have_an_empty_mask_and_no_handlers(launch: Launcher, kind: str) -> None:
    """Whoever started the daemon has blocked everything, and so has the module: threads and children do not."""
    daemon = launch(
        f"""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        @every("1h")
        {kind} job():
            log.info("mask", blocked=len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
            look = subprocess.run([sys.executable, "-c", {LOOK!r}], capture_output=True, text=True)
            log.info("executed", seen=look.stdout)
            ours, theirs = os.pipe()
            child = os.fork()
            if child == 0:
                os.dup2(theirs, 1)
                exec({LOOK!r}, {{"print": lambda *seen: os.write(1, " ".join(map(str, seen)).encode())}})
                os._exit(0)
            os.waitpid(child, 0)
            log.info("forked", seen=os.read(ours, 1000).decode())
        """,
        program=becoming_jobd("signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"),
    )
    assert daemon.wait_for("mask")["blocked"] == 0
    assert daemon.wait_for("executed")["seen"] == "0 []\n"
    assert daemon.wait_for("forked")["seen"] == "0 []"
    assert daemon.stop() == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2", "SIGALRM", "SIGQUIT", "SIGRTMIN"])
@pytest.mark.parametrize(
    "start",
    [
        "subprocess.Popen(['sleep', '60']); code = child.wait",
        "multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,)); child.start(); "
        "code = lambda: child.join() or child.exitcode",
    ],
    ids=["executed", "forked"],
)
def test_children_answer_signals_as_any_process_does(launch: Launcher, start: str, name: str) -> None:
    """What the daemon catches for itself ends its children as it always would."""
    daemon = launch(
        f"""
        import multiprocessing
        @every("1h")
        def job():
            child = {start}
            time.sleep(0.3)
            os.kill(child.pid, signal.{name})
            log.info("ended", code=code())
        """
    )
    assert daemon.wait_for("ended", timeout=PATIENCE_S)["code"] == -number(name)
    assert daemon.stop() == 0


def test_stacks_are_shown_and_the_daemon_goes_on(launch: Launcher) -> None:
    """SIGQUIT prints every thread to the real stderr, as often as it is asked to."""
    daemon = launch(BEAT)
    daemon.wait_for("run.finished")
    for count in (1, 2):
        daemon.signal(signal.SIGQUIT)
        poll(lambda: daemon.stderr.count("Current thread") == count, "the stacks")  # noqa: B023 - called at once
    daemon.wait_for("run.finished", count=len(daemon.events("run.finished")) + 3)
    assert daemon.stop(within=2) == 0


def test_stacks_of_a_busy_daemon(launch: Launcher) -> None:
    """Threads that come and go while their stacks are shown do not crash the process."""
    daemon = launch(
        """
        def deep(n): return deep(n - 1) if n else [x * x for x in range(200)]
        @every("5ms")
        def function(): deep(50)
        @every("5ms")
        async def coroutine(): deep(50); await asyncio.sleep(0.01)
        """
    )
    daemon.wait_for("run.started", count=20)
    for count in range(1, 101):
        daemon.signal(signal.SIGQUIT)
        daemon.wait_for("run.finished", count=4 * count)
    assert daemon.stop(within=2) == 0
    assert "Current thread" in daemon.stderr
