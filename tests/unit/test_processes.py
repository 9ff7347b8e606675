"""Runs of commands: real processes, from their start to the moment at which nothing of them is left."""

import errno
import grp
import itertools
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobd import kin, process, processes
from jobd.ending import Ending
from jobd.run import Run
from jobd.states import Outcome

from .helpers import LIMIT_S
from .processes import Control, controlled, error, lives, until

#: Ignores SIGTERM, and so do those that it starts.
DEAF = "trap '' TERM; "


@pytest.fixture
def control() -> Iterator[Control]:
    """Processes of which none is left in the end."""
    with controlled() as made:
        yield made


# How they end.


def test_exit_status_0_is_success(control: Control) -> None:
    """And said, as every exit status is."""
    started = control.start("true")
    assert control.end(started) == Ending(Outcome.SUCCEEDED, {"exit_status": 0})
    assert control.begun == [started]


def test_any_other_exit_status_is_a_failure(control: Control) -> None:
    """It is named in words and as a number."""
    ending = control.end(control.shell("exit 3"))
    assert error(ending) == ("CommandFailed", "exited with status 3")
    assert ending.fields
    assert ending.fields["exit_status"] == 3


def test_signal_is_a_failure(control: Control) -> None:
    """It is named."""
    ending = control.end(control.shell("kill -KILL $$"))
    assert error(ending) == ("CommandFailed", "was killed by SIGKILL")
    assert ending.fields
    assert ending.fields["signal"] == "SIGKILL"


def test_run_that_may_not_begin_is_not_started(control: Control, tmp_path: Path) -> None:
    """And has no end."""
    control.opens = False
    refused = control.start("touch", str(tmp_path / "touched"))
    control.processes.kill_all(LIMIT_S)
    assert refused.body is None
    assert control.ends == []
    assert list(tmp_path.iterdir()) == []


def test_run_that_is_handed_over_twice_is_started_once(control: Control) -> None:
    """The second time, it runs already."""
    started = control.start("sleep", "60")
    control.processes.start(started)
    until(lambda: control.begun)
    control.processes.kill_all(LIMIT_S)
    assert len(control.ends) == 1


def test_run_that_is_handed_over_again_and_again_waits_once(control: Control) -> None:
    """However long the thread is held; and it can be handed over for another attempt."""
    goes_on = threading.Event()
    control.begin = lambda run: goes_on.wait(LIMIT_S)  # type: ignore[method-assign]
    started = control.start("true")
    until(lambda: started.body)
    waiting = control.start("true")
    for _ in range(100):
        control.processes.start(waiting)
    assert len(control.processes._orders) == 2
    goes_on.set()
    control.end(waiting)
    control.ends.clear()
    control.processes.start(waiting)
    assert control.end(waiting).outcome is Outcome.SUCCEEDED
    control.ends.clear()


#: Ways in which a job takes the status of every child of the process.
TAKES_ALL = {
    "ignores": "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n",
    "waits": (
        "import os, threading\ndef wait():\n    while True:\n        try: os.wait()\n"
        "        except ChildProcessError: pass\nthreading.Thread(target=wait, daemon=True).start()\n"
    ),
}


@pytest.mark.parametrize("takes_all", TAKES_ALL.values(), ids=TAKES_ALL)
def test_somebody_else_has_taken_the_status(control: Control, takes_all: str) -> None:
    """A job that waits for every child gets it, now and then; then it is said that nobody knows."""
    code = (
        "import sys\nsys.path[:0] = ['tests', '.']\nfrom unit.processes import Control\n"
        f"{takes_all}control = Control()\nending = None\n"
        "while not ending or not ending.fields.get('error'): ending = control.end(control.start('true'))\n"
        "print(ending.fields['error'])"
    )
    control.end(control.start(sys.executable, "-c", code))
    assert control.lines("stderr") == []
    assert "'CommandFailed'" in control.line()
    assert "os.wait" in control.line()


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        (("no-such-program-here",), "FileNotFoundError", "no program no-such-program-here in any directory of PATH"),
        (("/no/such/program",), "FileNotFoundError", "no program /no/such/program;"),
        (("/etc/passwd",), "PermissionError", "/etc/passwd may not be executed"),
        (("/etc",), "PermissionError", "/etc is a directory and no program"),
        (("a\0b",), "ValueError", "null byte"),
    ],
)
def test_what_cannot_be_started_fails(control: Control, arguments: tuple[str, ...], kind: str, says: str) -> None:
    """The error names what is wrong."""
    told, message = error(control.end(control.start(*arguments)))
    assert told == kind
    assert says in message


def test_program_in_a_directory_that_may_not_be_entered_fails(control: Control, tmp_path: Path) -> None:
    """And is told as such, by whoever may not look there either."""
    closed = tmp_path / "closed"
    closed.mkdir(0o600)
    code = (
        "import os, sys\nsys.path[:0] = ['tests', '.']\nfrom unit.processes import Control, error\n"
        "control = Control()\ncontrol.end(control.start('true'))\n"
        "if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)\n"
        f"print(error(control.end(control.start('{closed}/program'))))"
    )
    control.end(control.start(sys.executable, "-c", code))
    assert control.lines("stderr") == []
    assert control.line().startswith(f"('PermissionError', 'the program {closed}/program may not be executed")


def test_script_whose_interpreter_is_missing_is_told_from_a_missing_script(control: Control, tmp_path: Path) -> None:
    """The system says the same of both."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert "is there, but not the interpreter" in error(control.end(control.start(str(script))))[1]


def test_script_that_does_not_say_what_executes_it(control: Control, tmp_path: Path) -> None:
    """Nobody guesses."""
    script = tmp_path / "script"
    script.write_text("true\n")
    script.chmod(0o755)
    assert "#! line" in error(control.end(control.start(str(script))))[1]


def test_missing_cwd_is_told_from_a_missing_program(control: Control, tmp_path: Path) -> None:
    """The system says the same of both."""
    kind, message = error(control.end(control.start("true", cwd=str(tmp_path / "none"))))
    assert kind == "FileNotFoundError"
    assert "no directory" in message
    file = tmp_path / "file"
    file.touch()
    assert "is no directory" in error(control.end(control.start("true", cwd=str(file))))[1]


def test_unknown_user_fails(control: Control) -> None:
    """It is named."""
    kind, message = error(control.end(control.start("true", user="no-such-user")))
    assert kind == "LookupError"
    assert "no-such-user" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a command as another user")
def test_user_has_its_groups_and_its_home(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a login would give; what the job says wins. Nobody looks groups up for a run: that may hold the GIL."""
    account = pwd.getpwnam("nobody")
    expected = os.getgrouplist("nobody", account.pw_gid)
    monkeypatch.delattr(os, "getgrouplist")
    script = "id -un; id -gn; id -G; echo $HOME $USER $LOGNAME $SHELL"
    started = control.shell(script, user="nobody", groups=(*expected, 12345), env=(("SHELL", "/s"),))
    control.end(started)
    user, group, groups, env = control.lines()
    assert (user, group) == ("nobody", grp.getgrgid(account.pw_gid).gr_name)
    assert {int(number) for number in groups.split()} == {*expected, 12345}
    assert env.split() == [account.pw_dir, "nobody", "nobody", "/s"]


# What they get.


def test_environment_is_ours_and_the_jobs_and_the_marks(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job's wins over ours, and the marks over both."""
    monkeypatch.setenv("OURS", "ours")
    monkeypatch.setenv("BOTH", "ours")
    names = "$OURS $BOTH $JOBD_JOB $JOBD_RUN_ID $JOBD_TICK $JOBD_SCHEDULED_AT"
    started = control.shell(f"echo {names}", env=(("BOTH", "jobs"), ("JOBD_TICK", "9")))
    control.end(started)
    assert control.lines() == [f"ours jobs job {started.run_id} 7 2023-11-14T22:13:20.000000Z"]


def test_cwd_and_stdin(control: Control, tmp_path: Path) -> None:
    """It is where the job says; nothing comes from its stdin."""
    control.end(control.shell("pwd; cat", cwd=str(tmp_path)))
    assert control.lines() == [str(tmp_path)]


def test_group_of_its_own_and_nothing_of_ours(control: Control) -> None:
    """Its group is its own, and it inherits no descriptor but its streams."""
    control.end(control.shell("echo $$; ps -o pgid= -p $$; ls /proc/$$/fd"))
    pid, group, *descriptors = (line.strip() for line in control.lines())
    assert pid == group
    assert descriptors in (["0", "1", "2"], ["0", "1", "10", "2"])


# What they print.


def test_lines_come_with_their_stream_and_before_the_end(control: Control) -> None:
    """Half a line at the end is a line."""
    told: list[tuple[str, bytes]] = []
    control.tell_end = lambda run, ending: told.extend(control.said)  # type: ignore[method-assign]
    control.shell("echo one; echo two >&2; printf three")
    until(lambda: told)
    assert sorted(told) == [("stderr", b"two"), ("stdout", b"one"), ("stdout", b"three")]
    control.begun.clear()


def test_line_comes_while_the_command_runs(control: Control) -> None:
    """Nobody waits for the end."""
    started = control.shell("echo ready; sleep 60")
    assert control.line() == "ready"
    assert started.body is not None
    assert control.ends == []


def test_bytes_are_kept_as_they_are(control: Control) -> None:
    """What is no text, too."""
    control.end(control.start("printf", r"\000\377\n\200"))
    assert [line for _, line in control.said] == [b"\x00\xff", b"\x80"]


def test_much_output_comes_whole_and_soon(control: Control) -> None:
    """5 MB in lines; nothing is kept of them."""
    amount = 0

    def say(stream: str, line: bytes) -> None:
        nonlocal amount
        amount += len(line) + 1

    control.say = say  # type: ignore[method-assign]
    code = "for n in range(50_000): print('x' * 99)"
    tracemalloc.start()
    try:
        control.end(control.start(sys.executable, "-c", code))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert amount == 5_000_000
    assert most < 1_000_000


def test_endless_line_takes_no_memory(control: Control) -> None:
    """It comes in pieces."""
    control.end(control.shell("head -c 1000000 /dev/zero"))
    assert sum(len(line) for _, line in control.said) == 1_000_000
    assert max(len(line) for _, line in control.said) <= 8_192


def test_command_that_floods_does_not_keep_others_waiting(control: Control) -> None:
    """Each gets its turn."""
    flood = control.start("yes")
    until(lambda: control.said)
    other = control.shell("echo other; exit 4")
    assert error(control.end(other))[1] == "exited with status 4"
    assert flood.body is not None
    control.cancel(flood)
    control.end(flood)


# How they are ended.


def test_cancelled_command_is_asked(control: Control) -> None:
    """By SIGTERM, once, and so are all in its group, even those that are stopped."""
    started = control.shell("trap 'echo asked; exit 5' TERM; echo ready; kill -STOP $$; while :; do sleep 0.01; done")
    control.line()
    for _ in range(3):
        control.cancel(started)
    assert control.end(started) == Ending(Outcome.CANCELLED, {"exit_status": 5})
    assert control.lines() == ["ready", "asked"]
    assert started.cancelled is Outcome.CANCELLED


def test_stubborn_command_is_killed_after_the_cancel_timeout(control: Control) -> None:
    """With everybody whom it has started, wherever those are."""
    control.cancel_timeout_s = 0.1
    started = control.shell(f"{DEAF} setsid sh -c 'echo $$; while :; do sleep 1; done' & wait; while :; do wait; done")
    pid = control.line()
    before = time.monotonic()
    control.cancel(started)
    ending = control.end(started)
    assert ending == Ending(Outcome.CANCELLED, {"signal": "SIGKILL"})
    assert 0.1 <= time.monotonic() - before < LIMIT_S / 2
    assert not lives(pid)


def test_run_that_timed_out_says_so(control: Control) -> None:
    """Its outcome is that which it was cancelled as."""
    started = control.start("sleep", "60", timeout_s=1.5)
    until(lambda: started.body)
    control.cancel(started, Outcome.TIMED_OUT)
    ending = control.end(started)
    assert ending.outcome is Outcome.TIMED_OUT
    assert ending.fields
    assert ending.fields["error"] == {"type": "TimeoutError", "message": "did not end within 1s500ms"}
    assert ending.fields["signal"] == "SIGTERM"


@pytest.mark.parametrize("killed", [False, True])
def test_command_that_has_ended_before_it_is_asked_was_not_cancelled(control: Control, *, killed: bool) -> None:
    """Its end is its own, however late that is seen."""
    said, seen = threading.Event(), threading.Event()

    def say_slowly(stream: str, line: bytes) -> None:
        said.set()
        seen.wait(LIMIT_S)

    control.say = say_slowly  # type: ignore[method-assign]
    started = control.shell("echo it; exit 3", timeout_s=1.5)
    assert said.wait(LIMIT_S)
    body = started.body
    assert isinstance(body, process.Process)
    until(lambda: not lives(body._pid))
    control.cancel(started, Outcome.TIMED_OUT)
    if killed:
        control.processes.kill_all(0.0)
    seen.set()
    assert error(control.end(started))[1] == "exited with status 3"


def test_command_that_is_cancelled_before_it_is_started(control: Control) -> None:
    """Orders are taken in their order."""
    started = control.start("sleep", "60")
    control.cancel(started)
    assert control.end(started).outcome is Outcome.CANCELLED


def test_nobody_is_left_when_the_run_ends(control: Control) -> None:
    """Neither who stayed in the group, nor who has made a session and lost its parents."""
    control.end(control.shell("sleep 60 & echo $!; setsid sh -c 'sleep 60 & echo $!' & wait $!; exit 0"))
    first, second = control.lines()
    assert not lives(first)
    assert not lives(second)


def test_who_has_lost_the_mark_is_found_by_the_group_or_the_parent(control: Control) -> None:
    """Clearing the environment is not enough to be lost."""
    control.cancel_timeout_s = 0.0
    started = control.shell(
        '(env -i sh -c "$SLEEP" &); setsid sh -c "env -i sh -c \\"\\$SLEEP\\"; true" & wait',
        env=(("SLEEP", "echo $$; exec sleep 60"),),
    )
    control.line(1)
    control.cancel(started)
    control.end(started)
    assert not any(lives(pid) for pid in control.lines())


def test_leftovers_are_asked_once_and_then_killed(
    control: Control, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SIGTERM, a while, SIGKILL; meanwhile others are served."""
    monkeypatch.setattr(process, "LEFTOVERS_S", 0.3)
    left = "trap 'echo asked' TERM; echo $$; touch there; while :; do sleep 0.01; done"
    started = control.shell(
        'setsid sh -c "$LEFT" & until [ -e there ]; do sleep 0.01; done', env=(("LEFT", left),), cwd=str(tmp_path)
    )
    until(lambda: "asked" in control.lines())
    assert control.end(control.start("true")).outcome is Outcome.SUCCEEDED
    assert started.body is not None
    assert control.end(started) == Ending(Outcome.SUCCEEDED, {"exit_status": 0})
    assert control.lines().count("asked") == 1
    assert not lives(control.line())


def test_who_was_asked_by_the_cancellation_is_not_asked_again(control: Control) -> None:
    """SIGTERM comes once, to the whole group; who does not heed it is killed at the end of the cancel timeout."""
    control.cancel_timeout_s = 0.3
    script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done"
    started = control.shell(f'sh -c "{script}" & wait')
    control.line()
    control.cancel(started)
    assert control.end(started).fields == {"signal": "SIGTERM"}
    assert control.lines() == ["ready", "asked"]


def test_who_outlives_a_cancelled_command_has_the_cancel_timeout(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell is gone at once when it is asked; what it has started may clean up, and start what that takes."""
    monkeypatch.setattr(process, "LEFTOVERS_S", 0.05)
    code = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\nfinally:\n    time.sleep(0.5)\n    print('clean')"
    )
    started = control.shell(f'{sys.executable} -c "$CODE"; true', env=(("CODE", code),))
    control.line()
    control.cancel(started)
    assert control.end(started) == Ending(Outcome.CANCELLED, {"signal": "SIGTERM"})
    assert control.lines() == ["ready", "clean"]


def test_what_a_clean_up_starts_is_not_asked_to_end(control: Control) -> None:
    """Who is in a session of its own is, for the SIGTERM to the group has not reached it."""
    cleaner = "trap 'sleep 0.3 && echo clean; exit' TERM; echo ready; while :; do sleep 0.01; done"
    apart = "trap 'echo asked; exit' TERM; echo ready; while :; do sleep 0.01; done"
    started = control.shell(f'setsid sh -c "{apart}" & sh -c "{cleaner}"; true')
    control.line(1)
    control.cancel(started)
    assert control.end(started) == Ending(Outcome.CANCELLED, {"signal": "SIGTERM"})
    assert sorted(control.lines()[2:]) == ["asked", "clean"]


def test_crowd_that_grows_while_it_is_ended(control: Control) -> None:
    """Each new one has a session of its own; all are stopped first, and then killed."""
    control.cancel_timeout_s = 0.05
    started = control.shell(
        f"{DEAF} n=0; while [ $n -lt 200 ]; do setsid sleep 60 & n=$((n+1)); sleep 0.01; done; wait"
    )
    until(lambda: len(control.left(started)) > 20)
    control.cancel(started)
    control.end(started)
    assert not control.left(started)


#: Makes a daemon of itself: with a session of its own, and without a parent.
DAEMON = """
import os
if not os.fork():
    os.setsid()
    if not os.fork():
        os.execlp("sleep", "sleep", "60")
os._exit(0)
"""


@pytest.mark.parametrize("daemon", [("setsid", "-f", "sleep", "60"), (sys.executable, "-ISc", DAEMON)])
def test_daemons_in_the_making_do_not_outlive_the_run(control: Control, daemon: tuple[str, ...]) -> None:
    """Those that are about to lose their parent, or become another program, while somebody looks for them."""
    until_s = time.monotonic() + LIMIT_S / 4
    for _ in range(40):
        started = control.start(*daemon)
        control.end(started)
        time.sleep(0.005)
        assert not control.left(started)
        if time.monotonic() > until_s:
            break


def test_nobody_is_left_when_nobody_can_be_seen(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descriptors, say; who is in the group can be killed all the same."""

    def none_to_be_had(since: int) -> kin.Look:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(kin, "look", none_to_be_had)
    monkeypatch.setattr(processes, "DARK_S", 0.05)
    assert control.end(control.shell("sleep 60 & echo $!; exit 0")).outcome is Outcome.SUCCEEDED
    until(lambda: not lives(control.line()))


def test_leftover_that_is_seen_late_is_asked_all_the_same(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first look it was becoming another program, and nobody is believed to be the only one then."""
    look, looks = kin.look, itertools.count()

    def unsettled(since: int) -> kin.Look:
        seen = look(since)
        if next(looks) < 3:
            seen._by_mark.clear()
            seen.settled = False
        return seen

    monkeypatch.setattr(kin, "look", unsettled)
    left = "trap 'echo asked; exit' TERM; echo ready; while :; do sleep 0.01; done"
    ending = control.end(control.shell('setsid -f sh -c "$LEFT"; sleep 0.3; exit 0', env=(("LEFT", left),)))
    assert ending.outcome is Outcome.SUCCEEDED
    assert control.lines() == ["ready", "asked"]


def test_who_is_never_seen_is_not_waited_for_for_ever(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some other process may hang while it becomes another program."""
    look = kin.look

    def unsettled(since: int) -> kin.Look:
        seen = look(since)
        seen.settled = False
        return seen

    monkeypatch.setattr(kin, "look", unsettled)
    monkeypatch.setattr(process, "LEFTOVERS_S", 0.1)
    monkeypatch.setattr(process, "KILL_S", 0.1)
    before = time.monotonic()
    assert control.end(control.start("true")).outcome is Outcome.SUCCEEDED
    assert 0.2 <= time.monotonic() - before < LIMIT_S / 4


#: Holds the process of that number, as a debugger does; it does not care for its end.
TRACES = """
import ctypes, sys, time
if ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), None, None):  # PTRACE_SEIZE
    sys.exit("refused")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def held(control: Control) -> Iterator[tuple[Run, "subprocess.Popen[bytes]"]]:
    """A run whose first process is dead, and held by a debugger; and the debugger."""
    started = control.start("sleep", "60")
    until(lambda: isinstance(started.body, process.Process) and started.body.place())
    body = started.body
    assert isinstance(body, process.Process)
    pid = body._pid
    with subprocess.Popen([sys.executable, "-c", TRACES, str(pid)], stdout=subprocess.PIPE) as debugger:
        assert debugger.stdout is not None
        if debugger.stdout.readline() != b"held\n":
            pytest.skip("no process may hold another one here")
        os.kill(pid, signal.SIGKILL)
        until(lambda: not lives(pid))
        yield started, debugger
        debugger.kill()
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def test_dead_process_that_a_debugger_holds_costs_nothing(
    control: Control, held: tuple[Run, "subprocess.Popen[bytes]"]
) -> None:
    """Its status is there when the debugger has gone."""
    started, debugger = held
    spent_s = time.process_time()
    time.sleep(0.4)
    assert time.process_time() - spent_s < 0.2
    assert started.body is not None
    debugger.kill()
    assert error(control.end(started))[1] == "was killed by SIGKILL"


def test_dead_process_that_a_debugger_holds_is_given_up(
    control: Control, held: tuple[Run, "subprocess.Popen[bytes]"]
) -> None:
    """When its run is cancelled; nobody knows how it has ended."""
    started, _ = held
    control.cancel_timeout_s = 0.1
    control.cancel(started)
    assert control.end(started) == Ending(Outcome.CANCELLED, {})


def test_killed_process_that_a_debugger_holds_has_an_unknown_status(
    control: Control, held: tuple[Run, "subprocess.Popen[bytes]"]
) -> None:
    """And who has it is said."""
    started, _ = held
    control.processes.kill_all(LIMIT_S)
    assert "debugger" in error(control.end(started))[1]


def test_what_is_held_open_from_outside_is_not_waited_for(control: Control) -> None:
    """Who has shed mark, group, and parents is not found, and keeps the pipe; the run ends all the same."""
    started = control.shell("env -i setsid sh -c 'sleep 60 & echo $!' ; sleep 0.05; exit 0")
    assert control.end(started).outcome is Outcome.SUCCEEDED
    escaped = int(control.line())
    os.kill(escaped, signal.SIGKILL)


def test_many_at_once(control: Control) -> None:
    """Each has its own end."""
    runs = [control.shell(f"echo {n}; exit {n}") for n in range(50)]
    endings = [control.end(run) for run in runs]
    assert [(ending.fields or {})["exit_status"] for ending in endings] == list(range(50))
    assert sorted(map(int, control.lines())) == list(range(50))


def test_those_that_are_to_be_started_keep_nobody_waiting(control: Control) -> None:
    """Where starting takes long, the first has its end while others wait for their start."""
    ordered, begun_by_then = threading.Event(), []

    def begin_slowly(run: Run) -> bool:
        assert ordered.wait(LIMIT_S)
        threading.Event().wait(processes.TURN_S)
        control.begun.append(run)
        return True

    def end(run: Run, ending: Ending) -> None:
        begun_by_then.append(len(control.begun))
        control.ends.append((run, ending))

    control.begin, control.tell_end = begin_slowly, end  # type: ignore[method-assign]
    runs = [control.shell("exit 0") for _ in range(40)]
    ordered.set()
    for run in runs:
        assert control.end(run).outcome is Outcome.SUCCEEDED
    assert begun_by_then[0] < len(runs)


def test_kill_all_kills_all(control: Control) -> None:
    """And waits for each end."""
    runs = [control.shell(f"{DEAF} sleep 60 & wait; sleep 60") for _ in range(10)]
    until(lambda: len(control.begun) == len(runs))
    control.processes.kill_all(LIMIT_S)
    assert len(control.ends) == len(runs)
    assert {run.body for run in runs} == {None}


def test_kill_all_takes_two_looks_at_everybody(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other: on a machine with thousands of processes, a look takes long, and the stop does not wait."""
    look = kin.look

    def long(since: int) -> kin.Look:
        time.sleep(0.3)
        seen = look(since)
        seen.took_s = 0.3
        return seen

    control.shell(f"{DEAF} sleep 60 & echo ready; wait")
    control.line()
    monkeypatch.setattr(kin, "look", long)
    control.processes.kill_all(0.9)
    assert len(control.ends) == 1


def test_kill_all_waits_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that cannot be told is not waited for."""
    control = Control()
    held = threading.Event()
    monkeypatch.setattr(control, "tell_end", lambda run, ending: held.wait(LIMIT_S))
    control.start("true")
    before = time.monotonic()
    control.processes.kill_all(0.1)
    assert time.monotonic() - before < LIMIT_S / 2
    held.set()


def test_kill_all_of_nothing_takes_no_time() -> None:
    """No thread is made for it."""
    threads = threading.active_count()
    Control().processes.kill_all(LIMIT_S)
    assert threading.active_count() == threads


def test_where_it_stands_is_its_process(control: Control) -> None:
    """By number and name; it is done when it has ended."""
    started = control.start("sleep", "60")
    until(lambda: started.body is not None and control.begun)
    body = started.body
    assert isinstance(body, process.Process)
    until(lambda: body.place() and "(sleep)" in body.place()[0])
    assert not body.done()
    control.cancel(started)
    control.end(started)
    assert body.done()
    assert body.place() == []


# What the machine lacks.


@pytest.mark.parametrize("what", ["begin", "say", "tell_end", "look"])
def test_lack_of_memory_loses_no_run(control: Control, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be done is done again."""
    lacking = iter([True] * (1 if what == "say" else 3))

    def starved(call: Callable[..., Any]) -> Callable[..., Any]:
        def may_raise(*arguments: Any) -> Any:
            if next(lacking, False):
                raise MemoryError
            return call(*arguments)

        return may_raise

    at = kin if what == "look" else control
    monkeypatch.setattr(at, what, starved(getattr(at, what)))
    started = control.shell("sleep 60 & echo one; exit 3")
    assert error(control.end(started))[1] == "exited with status 3"
    assert next(lacking, None) is None


def test_without_descriptors_a_command_fails_and_the_next_one_does_not(control: Control) -> None:
    """Nothing is lost on it."""
    code = (
        "import os, resource, sys\nsys.path[:0] = ['tests', '.']\nfrom unit.processes import Control, error\n"
        "control = Control()\n"
        "control.end(control.start('true'))\nfull = []\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "try:\n    while True: full.append(os.dup(0))\nexcept OSError: pass\n"
        "print(error(control.end(control.start('true'))))\n"
        "[os.close(fd) for fd in full]\nprint(control.end(control.start('true')).outcome)\n"
    )
    control.end(control.start(sys.executable, "-c", code))
    assert control.lines("stderr") == []
    assert "Too many open files" in control.line()
    assert "SUCCEEDED" in control.line(1)


def test_without_a_thread_a_run_fails(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins and ends on the thread that has asked."""

    def none_to_be_had(function: object, arguments: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("jobd.processes.start_new_thread", none_to_be_had)
    assert "can't start new thread" in error(control.end(control.start("true")))[1]


def test_old_kernels_without_handles_are_asked_again_and_again(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is seen all the same."""

    def none_to_be_had(pid: int) -> int:
        raise OSError(38, "function not implemented")

    monkeypatch.setattr(os, "pidfd_open", none_to_be_had)
    assert error(control.end(control.shell("sleep 60 & exit 3")))[1] == "exited with status 3"


@pytest.mark.parametrize("handles", [True, False])
def test_nobody_is_waited_for_twice(control: Control, monkeypatch: pytest.MonkeyPatch, *, handles: bool) -> None:
    """Where memory is lacking at the end, the number may be another child's already."""
    make, lacking = process.Process._ending, iter([True] * 3)
    wait, waited = os.waitpid, []

    def starved(of: process.Process) -> Ending:
        if next(lacking, False):
            raise MemoryError
        return make(of)

    def noted(pid: int, options: int) -> tuple[int, int]:
        waited.append(pid)
        return wait(pid, options)

    if not handles:
        monkeypatch.setattr("jobd.children.handle_of", lambda pid: None)
    monkeypatch.setattr(process.Process, "_ending", starved)
    monkeypatch.setattr(os, "waitpid", noted)
    assert error(control.end(control.shell("exit 3")))[1] == "exited with status 3"
    assert next(lacking, None) is None
    assert len(waited) == (0 if handles else 1)


def test_nobody_is_waited_for_by_the_number_when_the_handle_has_been_closed(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a job that closes all descriptors; the run ends all the same."""
    make, waited = process.Process._ending, []

    def closing(of: process.Process) -> Ending:
        made = make(of)
        if of._handle is not None:
            os.close(of._handle)
        return made

    monkeypatch.setattr(process.Process, "_ending", closing)
    monkeypatch.setattr(os, "waitpid", lambda pid, options: waited.append(pid))
    assert error(control.end(control.shell("exit 3")))[1] == "exited with status 3"
    assert waited == []
    assert [type(stray) for stray in control.strays] == [OSError]
    control.strays.clear()
    monkeypatch.undo()
    os.waitpid(-1, os.WNOHANG)


def test_no_descriptor_is_left_open(control: Control) -> None:
    """Of none of them."""
    control.end(control.start("true"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for started in [control.start("true"), control.start("/none"), control.start("true", cwd="/none")]:
        control.end(started)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_fork_waits_for_a_process_that_is_being_started(control: Control) -> None:
    """Or its child would keep our pipes, and us waiting for as long as it lives."""
    stop = threading.Event()
    pids: list[int] = []

    def fork_on() -> None:
        while not stop.is_set() and len(pids) < 50:
            if (pid := os.fork()) == 0:
                time.sleep(LIMIT_S)
                os._exit(0)
            pids.append(pid)

    thread = threading.Thread(target=fork_on)
    thread.start()
    try:
        for _ in range(10):
            before = time.monotonic()
            control.end(control.start("true"))
            assert time.monotonic() - before < LIMIT_S / 2
    finally:
        stop.set()
        thread.join(LIMIT_S)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
