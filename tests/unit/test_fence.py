"""The last fences and the guard, around a process that hangs as the test wants it to."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .helpers import LIMIT_S

#: A process with fences and a bound of half a second, which says "ready" and does what the test says.
PROGRAM = """
import faulthandler, itertools, os, signal, subprocess, sys, time
from jobd import fence, signals
signals.hold()
fences = fence.LastFences(0.5)
guard = fences.guard
def hang(): -1 in itertools.count()
print("ready", flush=True)
"""

Run = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs such programs up to "ready"; at the end of the test nobody of them is left."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    left = []
    for process in started:
        if process.poll() is None:
            left.append(process.pid)
            process.kill()
        process.communicate(timeout=LIMIT_S)
        deadline = time.monotonic() + LIMIT_S
        while (members := session(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        for pid in members:
            left.append(pid)
            os.kill(pid, signal.SIGKILL)
    assert not left


def session(leader: int) -> dict[int, str]:
    """The living processes of a session, and what they run."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            if entry.name.isdigit() and int(fields[3]) == leader and fields[0] not in "ZX":
                found[int(entry.name)] = (entry / "comm").read_text().strip()
        except (OSError, IndexError):
            continue
    return found


def guard_of(process: "subprocess.Popen[str]") -> int:
    """The guard, once it has told its name."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        for pid, command in session(process.pid).items():
            if command == "jobd-guard":
                return pid
        time.sleep(0.01)
    raise AssertionError("no guard")


def cpu_ticks(pid: int) -> int:
    """How much time the process has used up, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def test_guard_ends_with_the_daemon(run: Run) -> None:
    """However the daemon ends; nobody has to send it away."""
    assert run("os._exit(5)").wait(LIMIT_S) == 5
    assert run("os.kill(os.getpid(), 9)").wait(LIMIT_S) == -9


def test_guard_is_no_child(run: Run) -> None:
    """Who waits for every child does not wait for the guard."""
    assert run("try: os.wait()\nexcept ChildProcessError: os._exit(4)").wait(LIMIT_S) == 4


def test_first_fence_falls_first(run: Run) -> None:
    """With both armed, faulthandler prints the stacks and leaves with 1."""
    process = run("fences.arm(0.3)\nhang()")
    assert process.wait(LIMIT_S) == 1
    assert process.stderr is not None
    assert "in hang" in process.stderr.read()


@pytest.mark.alone  # the stacks have a tenth of a second
def test_guard_kills_where_the_first_fence_is_gone(run: Run) -> None:
    """It does not depend on anything in the process; the stacks are printed all the same."""
    process = run("fences.arm(0.3)\nfaulthandler.cancel_dump_traceback_later()\nhang()")
    assert process.wait(LIMIT_S) == -signal.SIGKILL
    assert process.stderr is not None
    assert "in hang" in process.stderr.read()


def test_signal_that_nobody_reads_is_a_deadline(run: Run) -> None:
    """No word has come, but a stop signal waits in the pipe for the whole bound."""
    process = run("hang()")
    before = time.monotonic()
    process.terminate()
    assert process.wait(LIMIT_S) == -signal.SIGKILL
    assert time.monotonic() - before > 0.5


def test_signal_that_was_read_by_somebody_who_hangs_then_is_a_deadline(run: Run) -> None:
    """The GIL may be lost between reading a signal and the next line."""
    process = run("guard.brace()\nos.kill(os.getpid(), 15)\nsignals.take()\nhang()")
    assert process.wait(LIMIT_S) == -signal.SIGKILL


@pytest.mark.parametrize("read", ["signals.take()", ""], ids=["read", "about to be read"])
def test_signal_that_asks_for_nothing_ends_no_daemon_that_hangs(run: Run, read: str) -> None:
    """The GIL was lost over a question; the guard can see that it was no more than that."""
    process = run(f"os.kill(os.getpid(), 10)\nguard.brace()\n{read}\ntime.sleep(2)\nos._exit(6)")
    assert process.wait(LIMIT_S) == 6


@pytest.mark.parametrize("read", ["", "signals.take()"], ids=["not read", "read"])
def test_stop_signal_that_comes_to_a_daemon_that_hangs_over_another_is_a_deadline(run: Run, read: str) -> None:
    """Counted from when it came, whether or not it is read by who has announced that for the other."""
    process = run(
        f"""
        os.kill(os.getpid(), 10)
        guard.brace()
        print(signals.take(), flush=True)
        sys.stdin.readline()
        {read}
        hang()
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "[10]\n"
    time.sleep(1.2)  # until the guard has found twice that it was none for the stop
    before = time.monotonic()
    process.terminate()
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()
    assert process.wait(LIMIT_S) == -signal.SIGKILL
    assert time.monotonic() - before > (0.2 if read else 0.5)


def test_signals_that_ask_for_nothing_are_no_deadline(run: Run) -> None:
    """Once they have been read and were no stop signals, the daemon may take all the time there is."""
    process = run("guard.brace()\nguard.relax()\nos.kill(os.getpid(), 10)\nsignals.take()\ntime.sleep(2)\nos._exit(6)")
    assert process.wait(LIMIT_S) == 6


def test_how_long_a_signal_had_to_wait_is_known(run: Run) -> None:
    """Counted from when it came, for who gets the GIL back."""
    process = run(
        """
        while not signals.stop_waits(): time.sleep(0.01)
        time.sleep(0.3)
        signals.take()
        os._exit(7 if 0.2 < guard.unread_s() < 10 else 8)
        """
    )
    process.terminate()
    assert process.wait(LIMIT_S) == 7


def test_signal_that_came_while_others_were_obeyed_counts_from_when_it_came(run: Run) -> None:
    """That these were for nothing takes no time away from it, or adds any."""
    process = run("guard.allow(2.0)\nguard.brace()\nsys.stdin.readline()\nguard.relax()\nhang()")
    time.sleep(0.2)  # until the guard has heard both
    before = time.monotonic()
    process.terminate()
    time.sleep(1.5)
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()
    assert process.wait(LIMIT_S) == -signal.SIGKILL
    assert 1.9 < time.monotonic() - before < 3.2


def test_signal_that_nobody_obeys_is_forgotten(run: Run) -> None:
    """Once something else was read: the stop that comes later has all of its time."""
    process = run(
        """
        while not guard.unread_s(): time.sleep(0.01)
        guard.brace()
        while signals.take(): pass
        guard.relax()
        for _ in range(1000):
            if not guard.unread_s(): os._exit(7)
            time.sleep(0.01)
        os._exit(8)
        """
    )
    process.terminate()
    assert process.wait(LIMIT_S) == 7


def test_daemon_that_is_stopped_does_not_hang(run: Run) -> None:
    """Its time stands still: SIGSTOP for longer than it may live, and it still goes on to its end."""
    process = run("guard.kill_after(1.0)\nprint('armed', flush=True)\ntime.sleep(0.2)\nos._exit(9)")
    assert process.stdout is not None
    assert process.stdout.readline() == "armed\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    process.send_signal(signal.SIGCONT)
    assert process.wait(LIMIT_S) == 9


def test_guard_sleeps_while_the_deadline_is_far(run: Run) -> None:
    """A grace period of an hour costs no wake-ups."""
    process = run("guard.kill_after(3600)\nprint('armed', flush=True)\ntime.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "armed\n"
    guard = guard_of(process)
    switches = Path(f"/proc/{guard}/status")
    time.sleep(0.2)  # until it has heard the word

    def wakeups() -> int:
        line = next(line for line in switches.read_text().splitlines() if line.startswith("voluntary"))
        return int(line.split()[1])

    before = wakeups()
    time.sleep(1)
    assert wakeups() < before + 5  # a machine that is busy, or has slept, may add one
    process.kill()
    process.wait(LIMIT_S)


@pytest.mark.parametrize("end", ["fences.arm(0.3)", "guard.kill_after(0.3)"], ids=["faulthandler", "guard"])
def test_fence_takes_the_children_along(run: Run, end: str) -> None:
    """Those that ignore SIGTERM as well; the fixture finds nobody."""
    child = """subprocess.Popen("trap '' TERM; sleep 60; true", shell=True)"""
    process = run(f"{child}\ntime.sleep(0.2)\n{end}\nhang()")
    assert process.wait(LIMIT_S) in (1, -signal.SIGKILL)


def test_guard_ends_children_at_a_word(run: Run) -> None:
    """It says whom it had to kill."""
    process = run(
        """
        deaf = "import signal; signal.signal(15, 1); print(1, flush=True); signal.pause()"
        child = subprocess.Popen(["python3", "-c", deaf], stdout=subprocess.PIPE)
        child.stdout.readline()
        polite = subprocess.Popen(["sleep", "60"])
        guard.note()
        guard.terminate()
        first = polite.wait()
        killed = guard.end(0.1)
        os._exit(10 if (first, [k.pid for k in killed], child.wait()) == (-15, [child.pid], -9) else 11)
        """
    )
    assert process.wait(LIMIT_S) == 10


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_without_its_guard_the_daemon_ends_its_children_itself(run: Run, signum: signal.Signals) -> None:
    """And nothing waits long, or raises, where SIGPIPE has its default action."""
    process = run(
        """
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        child = subprocess.Popen(["sleep", "60"])
        sys.stdin.readline()
        guard.note()
        guard.terminate()
        guard.end(0.5)
        os._exit(12 if child.wait() == -15 else 13)
        """
    )
    guard = guard_of(process)
    os.kill(guard, signum)
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()
    assert process.wait(LIMIT_S) == 12
    if signum == signal.SIGSTOP:
        os.kill(guard, signal.SIGKILL)


def test_signals_to_the_whole_group_do_not_end_the_guard(run: Run) -> None:
    """A Ctrl-C is for the daemon, and so is whatever a job sends to its process group."""
    process = run("signals.release()\ntime.sleep(60)")
    guard = guard_of(process)
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        os.kill(guard, signum)
    assert session(process.pid)[guard] == "jobd-guard"
    process.kill()
    process.wait(LIMIT_S)


def test_line_that_a_job_has_closed_does_not_end_the_watch(run: Run) -> None:
    """A job that closes every descriptor loses the guard's words, not the guard."""
    process = run("os.close(guard._line.fileno())\ntime.sleep(0.3)\nhang()")
    guard_of(process)
    time.sleep(0.5)
    process.terminate()
    assert process.wait(LIMIT_S) == -signal.SIGKILL


def test_guard_holds_no_descriptor_that_it_does_not_need(run: Run) -> None:
    """The line, the pipe of signals, the daemon's handle and stderr; not stdout, or the log's reader would wait."""
    process = run("time.sleep(60)")
    guard = guard_of(process)
    time.sleep(0.2)  # it closes them after it has told its name
    assert len(list(Path(f"/proc/{guard}/fd").iterdir())) == 5
    assert cpu_ticks(guard) < 100
    process.kill()
    process.wait(LIMIT_S)


def test_signals_that_have_been_read_end_nobody_where_the_guard_had_no_room_to_hear_that(run: Run) -> None:
    """A guard that is behind has missed that none of the signals asked for the stop."""
    process = run("""
        for _ in range(10_000): guard.brace()
        guard.relax()
        time.sleep(2)
        os._exit(3)
    """)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 3


def test_stacks_that_nobody_reads_hold_up_nobody(run: Run) -> None:
    """Where stderr is a socket that is full, as journald's may be, the stacks are lost, and whoever asked goes on."""
    process = run("""
        import socket
        ours, theirs = socket.socketpair()
        os.dup2(ours.fileno(), 2)
        fences = fence.LastFences(0.5)
        for _ in range(2000): fences.show_stacks()
        assert b"most recent call first" in theirs.recv(4096)
        os._exit(3)
    """)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 3
