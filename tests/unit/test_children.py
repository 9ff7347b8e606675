"""Finding the processes of a family and ending them, with families of processes that sleep."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobd import children
from jobd.children import Family, Killed, Process

from .helpers import LIMIT_S, python

#: Ignores SIGTERM, and so do those that it starts.
DEAF = "trap '' TERM; "

Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def shell() -> Iterator[Start]:
    """Starts shells, and kills those that are left with all that they have started."""
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sh", "-c", script], start_new_session=True, stdout=subprocess.DEVNULL)
        started.append(process)
        return process

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait(LIMIT_S)


@pytest.fixture
def family() -> Family:
    """The family of the test process, whoever belonged to it before excepted."""
    return Family(os.getpid())


def until(condition: Callable[[], object]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def commands(family: Family) -> list[str]:
    """Who is noted, by what it runs."""
    family.note()
    return sorted(map(children.command_of, family._members))


def test_family_is_everybody_below_and_nobody_else(family: Family, shell: Start) -> None:
    """Children, and those of children, whatever session they are in; not the root itself."""
    shell("sleep 60 & sh -c 'sleep 60; true'")
    until(lambda: commands(family) == ["sh", "sh", "sleep", "sleep"])
    assert os.getpid() not in [member.pid for member in family._members]


def test_kernel_that_lists_no_children_costs_more_and_changes_nothing(
    family: Family, shell: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /proc/PID/task/TID/children, everybody is asked for the parent."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    shell("sleep 60 & sleep 60; true")
    until(lambda: commands(family) == ["sh", "sleep", "sleep"])


def test_children_of_all_threads_are_found(family: Family) -> None:
    """The kernel keeps a list for each thread."""
    code = (
        "import subprocess, threading, time\nthreading.Thread(target=lambda: subprocess.run(['sleep', '60'])).start()"
    )
    process = subprocess.Popen(["python3", "-c", code])
    until(lambda: "sleep" in commands(family))
    family.kill()
    process.wait(LIMIT_S)


def test_who_was_there_before_does_not_belong(shell: Start) -> None:
    """Nor does who comes from them later."""
    before = shell("read line; sleep 60 & wait")
    family = Family(os.getpid())
    shell("exec sleep 60")
    until(lambda: commands(family) == ["sleep"])
    family.end(0.0)
    assert before.poll() is None


def test_polite_family_is_asked_and_none_is_killed(family: Family, shell: Start) -> None:
    """SIGTERM is enough for who obeys; the end does not wait any longer then."""
    process = shell("sleep 60 & sleep 60; true")
    until(lambda: len(commands(family)) == 3)
    before = time.monotonic()
    assert family.end(LIMIT_S) == []
    assert time.monotonic() - before < LIMIT_S / 2
    assert process.wait(LIMIT_S) == -signal.SIGTERM


def test_stopped_process_goes_on_so_as_to_hear(family: Family, shell: Start) -> None:
    """SIGTERM waits for SIGCONT in a process that is stopped."""
    process = shell("exec sleep 60")
    process.send_signal(signal.SIGSTOP)
    family.note()
    family.terminate()
    assert process.wait(LIMIT_S) == -signal.SIGTERM


def test_deaf_family_is_killed_and_named(family: Family, shell: Start) -> None:
    """Who ignores SIGTERM is told by number and command."""
    process = shell(f"{DEAF}sleep 60; true")
    until(lambda: commands(family) == ["sh", "sleep"])
    pids = {member.pid for member in family._members}
    killed = family.end(0.05)
    assert Killed(process.pid, "sh") in killed
    assert {each.pid for each in killed} == pids
    assert process.wait(LIMIT_S) == -signal.SIGKILL
    assert family.kill() == []


def test_who_cannot_be_killed_is_waited_for_once(family: Family, shell: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to another user, say, and nobody has time for it at the very end; who is new is killed."""
    send = children.send
    unkillable = shell("exec sleep 60")
    until(lambda: commands(family) == ["sleep"])
    monkeypatch.setattr(children, "send", lambda to, signum: to.pid != unkillable.pid and send(to, signum))
    assert family.end(0.0) == []
    before = time.monotonic()
    assert family.end(0.0) == []
    assert time.monotonic() - before < children.KILL_S / 2
    late = shell(f"{DEAF}exec sleep 61")
    until(lambda: commands(family) == ["sleep", "sleep"])
    assert [killed.pid for killed in family.end(0.0)] == [late.pid]
    assert unkillable.poll() is None


def test_everybody_is_asked_once(family: Family, shell: Start, tmp_path: Path) -> None:
    """A second SIGTERM would hit who is cleaning up already."""
    log = tmp_path / "log"
    shell(f"trap 'echo asked >> {log}' TERM; touch {log}; while :; do sleep 0.01; done")
    until(log.exists)
    family.note()
    family.terminate()
    until(log.read_text)
    family.terminate()
    family.end(0.2)
    assert log.read_text() == "asked\n"


def test_who_came_after_the_note_is_not_asked(family: Family, shell: Start) -> None:
    """What clean-up has started lives on, until the end."""
    family.note()
    process = shell("exec sleep 60")
    family.terminate()
    assert process.poll() is None
    family.end(LIMIT_S)
    assert process.wait(LIMIT_S) == -signal.SIGTERM


def test_run_that_is_a_process_is_left_to_who_executes_it(
    family: Family, shell: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks it twice, nor whom it has started, whatever those have made of their environment."""
    with monkeypatch.context() as patch:
        patch.setenv(children.MARK, "a-1")
        run = shell("env -i sleep 60 & wait")
    other = shell("exec sleep 60")
    until(lambda: commands(family) == ["sh", "sleep", "sleep"])
    family.terminate()
    assert other.wait(LIMIT_S) == -signal.SIGTERM
    assert commands(family) == ["sh", "sleep"]
    assert {each.command for each in family.end(0.0)} == {"sh", "sleep"}
    assert run.wait(LIMIT_S) == -signal.SIGKILL


def test_daemon_that_is_a_run_itself_asks_its_own() -> None:
    """They inherit its mark."""
    code = (
        "import os, subprocess\nfrom jobd.children import Family\nfamily = Family(os.getpid())\n"
        "p = subprocess.Popen(['sleep', '60'])\nfamily.note()\nfamily.terminate()\nprint(p.wait(20))"
    )
    assert python(code, **{children.MARK: "a-1"}).strip() == "-15"


def test_orphan_is_remembered(family: Family, shell: Start) -> None:
    """Its parent has ended, and it is nobody's child that we know; it was noted before."""
    process = shell(f"({DEAF}exec sleep 60) & wait")
    until(lambda: commands(family) == ["sh", "sleep"])
    orphan = next(member for member in family._members if member.pid != process.pid)
    family.terminate()
    process.wait(LIMIT_S)
    assert [each.pid for each in family.end(0.0)] == [orphan.pid]
    until(lambda: not children.lives(orphan))


def test_number_that_belongs_to_somebody_else_now_is_not_hit(shell: Start) -> None:
    """A process is more than its number."""
    process = shell("exec sleep 60")
    real = children.named(process.pid)
    assert real is not None
    assert not children.lives(Process(real.pid, real.started + 1))
    assert not children.send(Process(real.pid, real.started + 1), signal.SIGKILL)
    assert children.lives(real)
    assert children.send(real, signal.SIGKILL)
    assert process.wait(LIMIT_S) == -signal.SIGKILL


def test_old_kernels_without_handles_are_signalled_by_number(shell: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is everybody when no descriptor is to be had."""

    def none_to_be_had(pid: int) -> int:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(os, "pidfd_open", none_to_be_had)
    process = shell("exec sleep 60")
    family = children.named(process.pid)
    assert family is not None
    assert children.send(family, signal.SIGKILL)
    assert process.wait(LIMIT_S) == -signal.SIGKILL


def test_zombie_does_not_live() -> None:
    """Who has ended and has not been waited for is no member."""
    process = subprocess.Popen(["true"])
    until(lambda: children.named(process.pid) is None)
    assert children.any_left()
    process.wait()


def test_process_whose_first_thread_has_ended_lives(family: Family) -> None:
    """It shows as a zombie, and works on in another thread."""
    code = (
        "import ctypes, threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    process = subprocess.Popen(["python3", "-c", code])
    until(lambda: (stat := children.stat_of(process.pid)) and stat.state == "Z")
    assert children.named(process.pid)
    assert [each.pid for each in family.end(0.0)] in ([process.pid], [])
    process.wait(LIMIT_S)


def test_whether_anybody_is_left_is_known_without_proc() -> None:
    """One call of the kernel tells; a child that nobody has waited for counts."""
    code = (
        "import subprocess\nfrom jobd import children\nprint(children.any_left())\n"
        "p = subprocess.Popen(['sleep', '60'])\nprint(children.any_left())\n"
        "p.kill(); p.wait()\nprint(children.any_left())"
    )
    assert python(code).split() == ["False", "True", "False"]


def test_without_descriptors_nobody_is_found_and_nothing_raises() -> None:
    """Every refusal of the system is taken as an answer."""
    code = (
        "import os, resource, subprocess\nfrom jobd.children import Family\nfamily = Family(os.getpid())\n"
        "p = subprocess.Popen(['sleep', '60'])\nresource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "print(family.end(0.0))\np.kill(); p.wait()"
    )
    assert python(code).strip() == "[]"


def test_from_the_end_on_no_process_is_started() -> None:
    """A thread that tries waits for the end of this process; the thread that leaves must not wait, and is refused."""
    code = (
        "import os, subprocess, threading\nfrom jobd import children\nchildren.start_no_more()\n"
        "def start():\n    subprocess.run(['true'])\n    print('started')\n"
        "thread = threading.Thread(target=start, daemon=True)\nthread.start()\n"
        "thread.join(0.3)\nprint(thread.is_alive())\n"
        "try:\n    os.fork()\nexcept RuntimeError as error:\n    print('refused', flush=True)\nos._exit(0)"
    )
    assert python(code).split() == ["True", "refused"]
