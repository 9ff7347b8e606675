"""Runs of functions in a process of their own."""

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import jobd
from jobd import child, wires
from jobd.ending import Ending
from jobd.run import Run
from jobd.states import Outcome

from . import functions
from .helpers import LIMIT_S, job_of
from .processes import Control, controlled, error


@pytest.fixture
def control() -> Iterator[Control]:
    """Processes of which none is left in the end."""
    with controlled() as made:
        yield made


def test_function_has_an_interpreter_of_its_own(control: Control) -> None:
    """What it prints is taken, and nothing comes from its stdin."""
    assert control.end(control.call(functions.works)) == Ending(Outcome.SUCCEEDED)
    assert control.lines() == ["printed "]


def test_function_runs_though_there_is_no_directory_left(control: Control, tmp_path: Path) -> None:
    """Neither the one that jobd was started in, nor the one that it is in."""
    code = (
        "import os, sys\nsys.path[:0] = [os.path.abspath('tests'), os.getcwd()]\n"
        "from unit import functions\nfrom unit.processes import Control\n"
        f"control = Control('{tmp_path}/started')\nos.chdir('{tmp_path}')\nos.rmdir('{tmp_path}')\n"
        "print(control.end(control.call(functions.works)).outcome, control.lines())"
    )
    control.end(control.start(sys.executable, "-c", code))
    assert control.lines("stderr") == []
    assert control.line() == "Outcome.SUCCEEDED ['printed ']"


def test_exception_comes_with_its_traceback(control: Control) -> None:
    """From the job's own first line on."""
    ending = control.end(control.call(functions.raises))
    assert error(ending) == ("ValueError", "no")
    assert ending.fields
    first, place, *_ = ending.fields["traceback"].splitlines()
    assert first.startswith("Traceback")
    assert place.endswith("in raises")
    assert str(functions.__file__) in place


def test_lines_of_its_log_know_their_run(control: Control) -> None:
    """Whoever makes them, and in whichever thread; those below the level are not made."""
    started = control.call(functions.logs)
    control.end(started)
    assert [line["event"] for line in control.logged] == ["structured", "plain text", "from a thread"]
    assert {(line["job"], line["run_id"]) for line in control.logged} == {("job", started.run_id)}
    assert [line["level"] for line in control.logged] == ["info", "warning", "info"]
    assert control.logged[0]["n"] == 1


def test_function_knows_its_run(control: Control) -> None:
    """As in the daemon."""
    started = control.call(functions.tells_its_run)
    control.end(started)
    assert control.lines() == [f"job {started.run_id} 7 2023-11-14T22:13:20.000000Z 1 False True"]


def test_function_is_told_to_stop(control: Control) -> None:
    """Its own event is set when that of the run is."""
    started = control.call(functions.waits_for_the_stop)
    control.line()
    started.ask_to_stop()
    assert control.end(started).outcome is Outcome.SUCCEEDED
    assert control.line(1) == "stopping True"


def test_function_whose_run_was_to_stop_already_is_told_so(control: Control) -> None:
    """It does not matter when."""
    control.opens = False
    started = control.call(functions.waits_for_the_stop)
    control.processes.kill_all(LIMIT_S)
    control.opens = True
    started.ask_to_stop()
    control.processes.start(started)
    assert control.end(started).outcome is Outcome.SUCCEEDED
    assert control.line(1) == "stopping True"


def test_cancelled_function_cleans_up(control: Control) -> None:
    """Its `finally` is run."""
    started = control.call(functions.cleans_up)
    control.line()
    control.cancel(started)
    assert control.end(started) == Ending(Outcome.CANCELLED, {"exit_status": 143})
    assert control.line(1) == "cleaned up True"


@pytest.mark.parametrize("_", range(3))
def test_function_that_is_amid_a_line_of_the_log_cleans_up(control: Control, _: int) -> None:
    """What is raised there is not taken for something wrong with the line."""
    started = control.call(functions.logs_and_cleans_up)
    assert control.line() == "ready"
    control.cancel(started)
    assert control.end(started) == Ending(Outcome.CANCELLED, {"exit_status": 143})
    assert control.lines()[-1] == "cleaned up"


def test_function_that_timed_out_says_where_it_stood(control: Control) -> None:
    """By the traceback of what has ended it."""
    started = control.call(functions.cleans_up)
    control.line()
    control.cancel(started, Outcome.TIMED_OUT)
    ending = control.end(started)
    assert ending.outcome is Outcome.TIMED_OUT
    assert ending.fields
    assert "in cleans_up" in ending.fields["traceback"]


def test_function_that_has_begun_to_wait_hears_a_sigterm_that_came_just_before() -> None:
    """Which Python would look at when the wait is over; here it has not come at all, which is the same."""
    daemons, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    run = Run(job_of(), "run", 0, 0)
    terminated = child._Terminated(run)
    before = signal.signal(signal.SIGTERM, terminated)
    try:
        listener = threading.Thread(target=child._Line(theirs.detach()).listen, args=(run, terminated))
        listener.start()
        daemons.send(wires.TERMINATED)
        with pytest.raises(SystemExit):
            time.sleep(LIMIT_S)
        daemons.close()
        listener.join(LIMIT_S)
        assert not listener.is_alive()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert run.stopping.is_set()


def test_function_that_holds_the_gil_is_killed(control: Control) -> None:
    """Nothing of Python can run in it any more."""
    control.cancel_timeout_s = 0.1
    started = control.call(functions.holds_the_gil)
    control.line()
    control.cancel(started)
    assert control.end(started) == Ending(Outcome.CANCELLED, {"signal": "SIGKILL"})


def test_crash_is_a_failure_and_the_stacks_are_printed(control: Control) -> None:
    """The daemon does not go down with it."""
    kind, message = error(ending := control.end(control.call(functions.aborts)))
    assert (kind, message) == (
        "ProcessDied",
        "its process was killed by SIGABRT before the function had come to its end",
    )
    assert ending.fields
    assert ending.fields["signal"] == "SIGABRT"
    assert any("in aborts" in line for line in control.lines("stderr"))


def test_process_that_leaves_without_a_result_has_died(control: Control) -> None:
    """Whatever its exit status."""
    assert "exited with status 7" in error(control.end(control.call(functions.leaves)))[1]


def test_exit_is_a_failure(control: Control) -> None:
    """As in the daemon, even with status 0."""
    assert error(control.end(control.call(functions.exits))) == ("SystemExit", "0")


def test_forked_child_that_comes_back_tells_nothing(control: Control) -> None:
    """What counts is the function's own end."""
    assert error(control.end(control.call(functions.forks))) == ("ValueError", "the parent's")


def test_awaitable_is_refused(control: Control) -> None:
    """As in the daemon."""
    kind, message = error(control.end(control.call(functions.returns_an_awaitable)))
    assert kind == "TypeError"
    assert "declare it with `async def`" in message


def test_thread_that_is_left_does_not_keep_the_run(control: Control) -> None:
    """It is waited for, as in any program, but not for long."""
    started = control.call(functions.leaves_a_thread)
    assert control.end(started) == Ending(Outcome.SUCCEEDED)


def test_function_that_cannot_be_found_again(control: Control) -> None:
    """One of a function's own, say."""

    def inner() -> None: ...

    assert error(control.end(control.call(inner)))[0] == "AttributeError"
    assert error(control.end(control.call(partial(functions.works))))[0] == "AttributeError"


def test_modules_of_the_current_directory_do_not_get_in_the_way(control: Control, tmp_path: Path) -> None:
    """A file that is called like one of Python's own modules is not taken for it, but the job's own is found."""
    (tmp_path / "signal.py").write_text("raise ValueError('not this one')\n")
    (tmp_path / "mine.py").write_text("def job():\n    print('mine')\n")
    places = [str(Path(jobd.__file__).parent.parent), str(Path(__file__).parent.parent)]
    code = (
        "import os, sys\nfrom unit.processes import Control\ncontrol = Control()\n"
        "sys.path.insert(0, os.getcwd())\nimport mine\n"
        "print(control.end(control.call(mine.job)), control.said)"
    )
    control.end(
        control.start(sys.executable, "-P", "-c", code, cwd=str(tmp_path), env=(("PYTHONPATH", ":".join(places)),))
    )
    assert control.lines("stderr") == []
    assert "SUCCEEDED" in control.line()
    assert "('stdout', b'mine')" in control.line()


# What may come along the line.


def test_short_messages_do_not_keep_the_turn() -> None:
    """Each has to be taken by itself; so there are not many in one turn."""
    theirs: list[int] = []
    lines: list[bytes] = []

    def forward(line: bytes) -> None:
        lines.append(line)
        other.send(b"L\n")

    line = wires.Line(forward, theirs)
    with socket.socket(fileno=theirs[0]) as other:
        other.send(b"L\n")
        assert line.read() == wires.READ_BYTES
        assert len(lines) == 256
    line.close()


def test_line_of_the_log_without_an_end_is_dropped() -> None:
    """The next one would go on where it stands; what the console shows below a line belongs to it."""
    theirs: list[int] = []
    lines: list[bytes] = []
    line = wires.Line(lines.append, theirs)
    with socket.socket(fileno=theirs[0]) as other:
        for message in (b"L{}", b"L", b"Lx\ny", b"L{}\n", b"Lx\n  y\n"):
            other.send(message)
            line.read()
    assert lines == [b"{}\n", b"x\n  y\n"]
    line.close()


def test_what_was_said_is_read_though_not_all_was_heard() -> None:
    """The kernel tells first that something has been left unread, and then hands out what came before the end."""
    theirs: list[int] = []
    lines: list[bytes] = []
    line = wires.Line(lines.append, theirs)
    line.send(wires.STOP)
    with socket.socket(fileno=theirs[0]) as other:
        other.send(b"L{}\n")
        other.send(b"R{}")
    assert line.read() is None
    assert (lines, line.result) == ([b"{}\n"], {})
    line.close()
