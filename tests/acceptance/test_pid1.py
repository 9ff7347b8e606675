"""jobd as PID 1, the first process of a container: signals without default actions, and other people's orphans."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Launcher
from .harness import JOBD, PATIENCE_S, Daemon, becoming_jobd, children_of, on_terminal, poll

NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
BEAT = """
@every("0.1")
async def beat(): pass
"""
LONG = "@every('1h')\nasync def job(): await asyncio.sleep(60)"
#: Leaves a child to PID 1, dead or alive for a moment, and then asks for the exit code of its own.
ORPHANING = """
@every("0.1")
def orphaning():
    subprocess.run(["sh", "-c", "true & sleep 0.05 &"], check=True)
    log.info("code", code=subprocess.run(["sh", "-c", "exit 7"]).returncode)
"""

First = Callable[..., Daemon]


def may_unshare() -> bool:
    """Whether this machine lets us make a PID namespace."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def namespace() -> tuple[str, ...]:
    """What starts a program as PID 1 of a namespace of its own, and ends with its exit code."""
    if not may_unshare():
        pytest.skip("PID namespaces need root and unshare(1)")
    return NAMESPACE


@pytest.fixture
def first(launch: Launcher, namespace: tuple[str, ...]) -> First:
    """Starts daemons as PID 1; `pid` is that process, seen from here."""

    def start(
        jobs: str = "", *arguments: str, beside: str = "", program: tuple[str, ...] = (JOBD,), **settings: str
    ) -> Daemon:
        daemon = launch(jobs, *arguments, beside=beside, program=(*namespace, *program), env=settings)
        poll(lambda: children_of(daemon.process.pid) or daemon.process.poll() is not None, "the namespace")
        daemon.pid = next(iter(children_of(daemon.process.pid)), daemon.pid)
        return daemon

    return start


def status(pid: int, name: str) -> str:
    """A field of the process's status (`proc(5)`)."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(f"{name}:"))


def holds(pid: int, signum: signal.Signals) -> bool:
    """Whether a signal that comes to PID 1 now is not lost."""
    if not status(pid, "Name").startswith("jobd"):  # who starts it may have blocked signals as well
        return False
    waits = bool(int(status(pid, "SigBlk"), 16) >> (signum - 1) & 1)
    return waits or bool(children_of(pid))  # while it waits for signals, it does not block them


def child_of(daemon: Daemon) -> int:
    """The daemon proper: PID 1's first child."""
    daemon.wait_for("daemon.starting")
    return children_of(daemon.pid)[0]


def has_no_orphans(daemon: Daemon) -> bool:
    """Whether PID 1 has no children, dead or alive, but the daemon proper and its guard."""
    return len(children_of(daemon.pid)) == 2


def assert_goes_on(daemon: Daemon) -> None:
    """Runs go on being started, and the stop works."""
    daemon.wait_for("run.finished", count=len(daemon.events("run.finished")) + 3)
    assert daemon.stop(within=2) == 0
    daemon.assert_log_is_consistent()


def test_a_stop_lets_runs_finish(first: First) -> None:
    """SIGTERM to PID 1 is a stop as anywhere else; the daemon is a process beside it."""
    daemon = first("@every('0.2')\nasync def job(): await asyncio.sleep(0.3)")
    assert daemon.wait_for("daemon.starting")["pid"] != 1
    daemon.wait_for("run.started", count=3)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert set(daemon.outcomes()) == {"succeeded"}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_a_stop_cancels_leftovers(first: First, signum: signal.Signals) -> None:
    """When the grace period is over, leftovers are cancelled and logged, and the exit code is 0."""
    daemon = first(LONG)
    daemon.wait_for("run.started")
    assert daemon.stop(signum) == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("shutdown.requested", signal=signum.name)
    assert daemon.outcomes() == ["cancelled"]


def test_second_and_third_signal_hurry_the_stop(first: First) -> None:
    """The second cancels at once, the third abandons; PID 1 hands each on."""
    daemon = first(
        """
        @every("1h")
        async def job():
            while True:
                try: await asyncio.sleep(60)
                except asyncio.CancelledError: pass
        """,
        JOBD_GRACE_PERIOD="60",
        JOBD_CANCEL_TIMEOUT="60",
    )
    daemon.wait_for("run.started")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("shutdown.waiting")
    time.sleep(0.3)  # closer together they would be one request
    daemon.signal(signal.SIGINT)
    assert daemon.wait_for("shutdown.cancelling")["reason"] == "signal"
    time.sleep(0.3)
    daemon.signal(signal.SIGTERM)
    assert daemon.exit_code(within=3) == 3
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["abandoned"]


@pytest.mark.parametrize(
    "text",
    ["time.sleep(60)", "while True: pass", "threading.Event().wait()", "subprocess.run(['sleep', '60'])"],
    ids=["sleeps", "computes", "waits", "waits for a child"],
)
def test_stop_during_an_import_that_never_ends(first: First, text: str) -> None:
    """PID 1 obeys a stop while its jobs are still being imported."""
    daemon = first(f"log.info('importing')\n{text}", JOBD_GRACE_PERIOD="30")
    daemon.wait_for("importing")
    assert daemon.stop(within=2) == 0
    daemon.assert_log_is_consistent()


@pytest.mark.parametrize("delay_s", [0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5])
def test_stop_at_any_moment_of_the_start(first: First, delay_s: float) -> None:
    """From the moment in which PID 1 holds its signals none is lost: before, in and after the fork."""
    daemon = first(BEAT)
    poll(lambda: holds(daemon.pid, signal.SIGTERM), "SIGTERM waits")
    time.sleep(delay_s)
    assert daemon.stop(within=3) == 0
    if daemon.lines:
        daemon.assert_log_is_consistent()
    assert daemon.stderr == ""


def test_orphans_are_reaped_and_exit_codes_stay_right(first: First) -> None:
    """What loses its parent is PID 1's to reap; what the daemon has started is its own."""
    daemon = first(ORPHANING, beside=BEAT)
    daemon.wait_for("code", count=10)
    poll(lambda: has_no_orphans(daemon), "the orphans have been reaped")
    assert {line["code"] for line in daemon.events("code")} == {7}
    assert_goes_on(daemon)


def test_a_job_that_forks_twice(first: First) -> None:
    """The child's code is the job's, the grandchild is PID 1's, whoever ends first."""
    daemon = first(
        """
        @every("0.1")
        def forking():
            child = os.fork()
            if child == 0:
                if os.fork() == 0:
                    time.sleep(0.02)
                    os._exit(9)
                os._exit(5)
            log.info("code", code=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    daemon.wait_for("code", count=5)
    poll(lambda: has_no_orphans(daemon), "the grandchildren have been reaped")
    assert {line["code"] for line in daemon.events("code")} == {5}
    assert_goes_on(daemon)


def test_thousands_of_orphans(first: First) -> None:
    """No zombie is left, and the daemon goes on meanwhile."""
    daemon = first(
        """
        @every("1h")
        def flood():
            subprocess.run(["sh", "-c", "n=0; while [ $n -lt 3000 ]; do (true &); n=$((n+1)); done"], check=True)
            log.info("flooded")
        """,
        beside=BEAT,
    )
    daemon.wait_for("flooded", timeout=60)
    poll(lambda: has_no_orphans(daemon), "the orphans have been reaped")
    assert_goes_on(daemon)


@pytest.mark.parametrize("code", [0, 1, 70, 255])
def test_the_daemons_exit_code_is_pid_1s(first: First, code: int) -> None:
    """Whatever it is."""
    daemon = first(f"@every('1h')\ndef job(): os._exit({code})")
    assert daemon.exit_code() == code


def test_exit_code_of_a_stop_that_abandons(first: First) -> None:
    """3, as anywhere else."""
    daemon = first("@every('1h')\ndef job(): time.sleep(60)", JOBD_GRACE_PERIOD="0", JOBD_CANCEL_TIMEOUT="0.1")
    daemon.wait_for("run.started")
    assert daemon.stop() == 3
    daemon.assert_log_is_consistent()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("run", "--interval", "never"), 78), (("run", "no_such_module"), 78), (("walk",), 2), (("--version",), 0)],
    ids=["faulty setting", "faulty target", "wrong command line", "version"],
)
def test_exit_code_of_a_command_that_ends_at_once(first: First, arguments: tuple[str, ...], code: int) -> None:
    """78, 2 and 0, as anywhere else."""
    # Not read: two of them print no log.
    assert first("", *arguments).process.wait(PATIENCE_S) == code


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV], ids=lambda s: s.name)
def test_a_daemon_that_is_killed(first: First, signum: signal.Signals) -> None:
    """The exit code is 128 and the signal's number, as shells tell it; what was logged before is out."""
    daemon = first(LONG)
    daemon.wait_for("run.started")
    # faulthandler shows the stacks first, without the GIL: of threads that run meanwhile it may crash (SIGSEGV).
    poll(lambda: all_sleep(child_of(daemon)), "nothing to do")
    os.kill(child_of(daemon), signum)
    assert daemon.exit_code() == 128 + signum


def all_sleep(pid: int) -> bool:
    """Whether every thread of the process waits for something."""
    stats = [thread.joinpath("stat").read_text() for thread in Path(f"/proc/{pid}/task").iterdir()]
    return all(stat.rpartition(") ")[2].startswith("S") for stat in stats)


def test_the_exit_code_is_known_also_if_children_were_ignored(first: First) -> None:
    """An inherited SIGCHLD that is ignored would have the kernel throw exit codes away, PID 1's child's included."""
    daemon = first(ORPHANING, program=becoming_jobd("signal.signal(signal.SIGCHLD, signal.SIG_IGN)"))
    assert daemon.wait_for("code", count=3)["code"] == 7
    os.kill(child_of(daemon), signal.SIGKILL)
    assert daemon.exit_code() == 137


def test_questions_are_handed_on(first: First) -> None:
    """SIGUSR1 is answered in the log, SIGQUIT with the stacks of all threads on stderr; the daemon goes on."""
    daemon = first(BEAT)
    daemon.wait_for("run.started")
    daemon.signal(signal.SIGUSR1)
    daemon.wait_for("daemon.status")
    daemon.signal(signal.SIGQUIT)
    poll(lambda: "Current thread" in daemon.stderr, "the stacks")
    daemon.wait_for("run.finished", count=len(daemon.events("run.finished")) + 3)
    assert daemon.stop(within=2) == 0


def test_every_other_signal_is_handed_on(first: First) -> None:
    """Those without a meaning end neither PID 1 nor the daemon."""
    daemon = first(BEAT)
    daemon.wait_for("run.started")
    for signum in (signal.SIGHUP, signal.SIGPIPE, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT, signal.SIGCHLD):
        daemon.signal(signum)
    for signum in (signal.SIGUSR2, signal.SIGALRM, signal.SIGRTMIN):
        daemon.signal(signum)
        daemon.wait_for("signal.ignored", signal=signum.name)
    assert_goes_on(daemon)


def test_a_storm_of_signals(first: First) -> None:
    """Whatever comes between the ticks costs neither a process nor a line, nor does it hide the stop."""
    daemon = first(ORPHANING, beside=BEAT)
    daemon.wait_for("run.started")
    for _ in range(500):
        for signum in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD, signal.SIGRTMIN):
            daemon.signal(signum)
    daemon.wait_for("daemon.status")
    assert_goes_on(daemon)


def test_a_daemon_that_was_suspended_stops_all_the_same(first: First) -> None:
    """SIGSTOP to the daemon; the stop signal to PID 1 also lets it go on."""
    daemon = first(BEAT)
    daemon.wait_for("run.started")
    proper = child_of(daemon)
    os.kill(proper, signal.SIGSTOP)
    poll(lambda: status(proper, "State").startswith("T"), "the daemon is suspended")
    assert daemon.stop(within=3) == 0
    daemon.assert_log_is_consistent()


def test_nothing_outlives_it(first: First, tmp_path: Path) -> None:
    """Neither what a job has left in a session of its own, nor what ignores signals."""
    daemon = first(
        """
        @every("1h")
        def job():
            for ignore in "", "trap '' TERM HUP INT; ":
                subprocess.Popen(["sh", "-c", ignore + "sleep 1000; true"], start_new_session=True)
            log.info("left")
        """
    )
    daemon.wait_for("left")
    here = namespace_of(Path(f"/proc/{daemon.pid}"))
    assert len(in_namespace(here)) >= 4
    assert daemon.stop() == 0
    poll(lambda: not in_namespace(here), "the namespace is empty")


def namespace_of(process: Path) -> Path | None:
    """The PID namespace of a process in /proc; None if it has ended."""
    try:
        return (process / "ns/pid").readlink()
    except OSError:
        return None


def in_namespace(namespace: Path | None) -> list[Path]:
    """The processes whose PID namespace this is."""
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and namespace_of(entry) == namespace]


def test_pid_1_does_nothing_by_itself(first: First) -> None:
    """It has one thread, no descriptor of the log, a name of its own, and is not woken up by the daemon's work."""
    daemon = first(BEAT)
    daemon.wait_for("run.finished", count=2)
    before = status(daemon.pid, "voluntary_ctxt_switches")
    daemon.wait_for("run.finished", count=10)
    assert status(daemon.pid, "voluntary_ctxt_switches") == before
    assert status(daemon.pid, "Threads") == "1"
    assert status(daemon.pid, "Name") == "jobd-init"
    assert not list(Path(f"/proc/{daemon.pid}/fd").iterdir())
    assert_goes_on(daemon)


def test_the_watchdog_of_pid_1_is_fed_by_the_daemon(first: First, tmp_path: Path) -> None:
    """A manager that means PID 1 by WATCHDOG_PID hears of the daemon."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(PATIENCE_S)
        daemon = first(BEAT, NOTIFY_SOCKET=address, WATCHDOG_USEC="200000", WATCHDOG_PID="1")
        poll(lambda: b"WATCHDOG=1" in manager.recv(4096), "the watchdog is fed")
        assert daemon.stop() == 0
        poll(lambda: b"STOPPING=1" in manager.recv(4096), "the stop is told")


def test_control_c_is_one_request(first: First, terminal: tuple[int, str]) -> None:
    """The terminal signals both processes; the daemon hears of it once, and twice of two."""
    ours, path = terminal
    daemon = first(LONG, program=on_terminal(path), JOBD_GRACE_PERIOD="60")
    daemon.wait_for("run.started")
    os.write(ours, b"\x03")
    daemon.wait_for("shutdown.waiting")
    time.sleep(0.5)  # time enough to hear of it once more
    assert not daemon.events("shutdown.cancelling")
    os.write(ours, b"\x03")
    assert daemon.exit_code(within=3) == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("shutdown.requested", signal="SIGINT")
    assert daemon.outcomes() == ["cancelled"]


def test_control_c_is_one_request_however_late_pid_1_hears_of_it(first: First, terminal: tuple[int, str]) -> None:
    """On a machine that is busy, or has swapped it out, PID 1 may be the later one by more than a moment."""
    ours, path = terminal
    daemon = first(LONG, program=on_terminal(path), JOBD_GRACE_PERIOD="60")
    daemon.wait_for("run.started")
    os.kill(daemon.pid, signal.SIGSTOP)  # which the kernel allows from outside the namespace
    os.write(ours, b"\x03")
    daemon.wait_for("shutdown.waiting")
    time.sleep(0.5)  # closer together two would be one in any case
    os.kill(daemon.pid, signal.SIGCONT)
    daemon.signal(signal.SIGUSR2)
    daemon.wait_for("signal.ignored")  # what came before it has been handed on
    assert not daemon.events("shutdown.cancelling")
    daemon.signal(signal.SIGTERM)
    assert daemon.exit_code(within=3) == 0
    daemon.assert_log_is_consistent()


@pytest.mark.parametrize("delay_s", [0, 0.005, 0.02, 0.1])
def test_control_c_during_the_start(first: First, terminal: tuple[int, str], delay_s: float) -> None:
    """What is typed before the fork reaches PID 1 alone, and so it is handed on."""
    ours, path = terminal
    daemon = first(BEAT, program=on_terminal(path))
    poll(lambda: holds(daemon.pid, signal.SIGINT), "SIGINT waits")
    time.sleep(delay_s)
    os.write(ours, b"\x03")
    assert daemon.exit_code(within=5) == 0


def test_control_backslash_shows_the_stacks_once(first: First, terminal: tuple[int, str]) -> None:
    """SIGQUIT of a terminal goes to both processes, too."""
    ours, path = terminal
    daemon = first(BEAT, program=on_terminal(path))
    daemon.wait_for("run.finished")
    os.write(ours, b"\x1c")
    poll(lambda: "Current thread" in daemon.stderr, "the stacks")
    daemon.wait_for("run.finished", count=len(daemon.events("run.finished")) + 3)
    assert daemon.stop(within=2) == 0
    assert len(re.findall("^Current thread", daemon.stderr, re.MULTILINE)) == 1


def test_control_z_does_not_suspend_it(first: First, terminal: tuple[int, str]) -> None:
    """There is no shell in a container that could let it go on."""
    ours, path = terminal
    daemon = first(BEAT, program=on_terminal(path))
    daemon.wait_for("run.finished")
    os.write(ours, b"\x1a")
    assert_goes_on(daemon)


def test_hangup_of_the_terminal_is_a_stop(first: First, terminal: tuple[int, str]) -> None:
    """The kernel tells the leader of the session alone, which is PID 1."""
    ours, path = terminal
    daemon = first("@every('1h')\nasync def job(): await asyncio.sleep(0.5)", program=on_terminal(path))
    daemon.wait_for("run.started")
    os.close(ours)
    assert daemon.exit_code(within=3) == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("shutdown.requested", signal="SIGHUP")
    assert daemon.outcomes() == ["succeeded"]
