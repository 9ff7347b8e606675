"""Signals: which are obeyed, which are left alone, and under which start conditions."""

import os
import pty
import signal
from collections.abc import Iterator

import pytest

from .conftest import Launcher
from .harness import JOBD, Daemon, becoming_jobd

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
    daemon.signal(signal.SIGUSR1)
    assert daemon.wait_for("daemon.status")["running"] == 2
    for job in ("coroutine", "function"):
        told = daemon.wait_for("run.in_flight", job=job)
        assert told["age_s"] >= 0
        assert told["run_id"] == daemon.wait_for("run.started", job=job)["run_id"]
        assert any(daemon.line_of(f"# in the {job}") in place for place in told["stack"]), told["stack"]
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_status_is_told_while_the_loop_is_blocked(launch: Launcher) -> None:
    """SIGUSR1 shows which coroutine holds the loop, and in which line."""
    daemon = launch(
        """
        @every("1h")
        async def blocker():
            time.sleep(1.5)  # here
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
