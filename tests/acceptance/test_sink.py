"""The log's way out: nobody waits for its reader, and nothing that was said is lost without a word."""

import contextlib
import os
import pty
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Launcher
from .consistency import assert_consistent
from .harness import JOBD, Daemon, Log, becoming_jobd, parsed, poll

#: Lets a job tell the test something, whatever becomes of the log.
TELL = """
told = os.open("told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def tell(word): os.write(told, word.encode() + b"\\n")
"""
#: Tells that runs go on.
BEAT = f"""{TELL}
@every("0.1")
async def beat(): tell("beat")
"""


def has_told(daemon: Daemon) -> list[str]:
    """What jobs have told so far."""
    told = daemon.directory / "told"
    return told.read_text().splitlines() if told.exists() else []


def beats(daemon: Daemon) -> int:
    """How many runs have told of themselves."""
    return has_told(daemon).count("beat")


def assert_goes_on(daemon: Daemon, *, within: float | None = None) -> None:
    """Runs go on being started, and the stop is orderly and on time."""
    so_far = beats(daemon)
    poll(lambda: beats(daemon) >= so_far + 3, "runs go on")
    assert daemon.stop(within=within) == 0
    assert daemon.stderr == ""


def test_slow_reader_loses_nothing(launch: Launcher) -> None:
    """Thousands of lines into a reader that stalls: ticks go on, and all lines come afterwards, in order."""
    daemon = launch(
        """
        @every("1h")
        def chatter():
            for number in range(8000): log.info("line", number=number, pad="x" * 200)
            tell("said")
        """,
        beside=BEAT,
        read=False,
    )
    poll(lambda: "said" in has_told(daemon), "everything is said while nobody listens")
    so_far = beats(daemon)
    poll(lambda: beats(daemon) >= so_far + 15, "ticks go on while nobody listens")
    daemon.read()
    daemon.wait_for("line", number=7999)
    assert daemon.stop() == 0
    assert_consistent(daemon.lines)
    assert [line["number"] for line in daemon.events("line")] == list(range(8000))
    assert not daemon.events("log.dropped")


def test_reader_that_is_always_behind_gets_whole_lines_in_order(launch: Launcher) -> None:
    """A reader that takes a few bytes at a time sees no torn, lost or swapped line, long ones included."""
    daemon = launch(
        """
        @every("1h")
        def chatter():
            for number in range(100): log.info("line", number=number, pad="x" * (number * 137 % 20000))
        """,
        read=False,
    )
    log = Log()
    read_end, write_end = os.pipe()
    assert daemon.process.stdout is not None
    log.read(os.fdopen(read_end, "rb"))
    received = b""
    while b'"number":99,' not in received:
        chunk = os.read(daemon.process.stdout.fileno(), 4000)
        assert chunk
        received = received[-64:] + chunk
        os.write(write_end, chunk)
        time.sleep(0.0005)  # this reader is slow on purpose
    os.close(write_end)
    assert log.wait_for_end(5)
    daemon.read()
    assert daemon.stop() == 0
    assert [line["number"] for line in log.lines if line["event"] == "line"][:99] == list(range(99))
    assert len(log.garbage) <= 1  # the last one, which we have cut ourselves


def test_endless_chatter_into_a_stalled_reader_is_bounded(launch: Launcher) -> None:
    """30 MB that nobody reads: memory stays bounded, the oldest lines go and are counted, the last line survives."""
    daemon = launch(
        """
        @every("1h")
        def chatter():
            for number in range(1500): log.info("line", number=number, pad="x" * 20_000)
            tell("said")
        """,
        beside=TELL,
        read=False,
    )
    poll(lambda: "said" in has_told(daemon), "everything is said")
    assert resident_mb(daemon.pid) < 120
    daemon.read()
    daemon.wait_for("line", number=1499)
    assert daemon.stop() == 0
    assert not daemon.log.garbage
    numbers = [line["number"] for line in daemon.events("line")]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 1499
    assert sum(line["count"] for line in daemon.events("log.dropped")) >= 1500 - len(numbers) > 0
    assert daemon.lines[-1]["event"] == "daemon.stopped"


def test_thousands_of_failures_into_a_stalled_reader_are_bounded(launch: Launcher) -> None:
    """Lines of the daemon's own that nobody reads are bounded as those of jobs are, and the oldest go."""
    daemon = launch(
        """
        failures = 0
        @every("2ms")
        async def fails():
            global failures
            failures += 1
            if failures == 3000: tell("said")
            raise ValueError("z" * 20_000)
        """,
        beside=TELL,
        read=False,
    )
    poll(lambda: "said" in has_told(daemon), "everything is said")
    assert resident_mb(daemon.pid) < 120
    daemon.read()
    daemon.wait_for("log.dropped")
    assert daemon.stop() == 0
    assert not daemon.log.garbage
    assert daemon.lines[-1]["event"] == "daemon.stopped"


@pytest.mark.alone  # a reader that takes nothing for half a second loses the last line
def test_tens_of_thousands_of_short_lines_into_a_stalled_reader_are_bounded(launch: Launcher) -> None:
    """What waits takes as much memory as it is long, however much it took to make it."""
    daemon = launch(
        """
        runs = 0
        def make():
            async def job():
                global runs
                runs += 1
                if runs == 20_000: tell("said")
            return job
        for number in range(200): globals()[f"job{number}"] = every("10ms", name=f"job{number}")(make())
        """,
        beside=TELL,
        read=False,
    )
    poll(lambda: "said" in has_told(daemon), "everything is said", 60.0)
    assert resident_mb(daemon.pid) < 90
    daemon.read()
    assert daemon.stop() == 0
    assert not daemon.log.garbage
    assert daemon.lines[-1]["event"] == "daemon.stopped"


def resident_mb(pid: int) -> float:
    """How much memory the process holds."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) / 1024


def test_reader_that_never_reads_does_not_delay_the_stop(launch: Launcher) -> None:
    """With the pipe full for ever the process still leaves in time, with 0."""
    daemon = launch(
        "@every('20ms')\ndef chatter():\n    for _ in range(20): log.info('x' * 1000)", beside=BEAT, read=False
    )
    poll(lambda: beats(daemon) >= 10, "runs go on")
    assert_goes_on(daemon, within=1)


def test_reader_that_goes_away(launch: Launcher) -> None:
    """Nobody reads any more (EPIPE): jobs go on, the exit code is 0 and stderr stays clean."""
    daemon = launch("@every('20ms')\ndef chatter(): log.info('x' * 100)", beside=BEAT, read=False)
    poll(lambda: beats(daemon) >= 2, "runs go on")
    assert daemon.process.stdout is not None
    daemon.process.stdout.close()
    assert_goes_on(daemon, within=1)


def test_file_is_appended_to(launch: Launcher) -> None:
    """`>> file`: what is there stays, the log follows, and a truncated file goes on from its start."""
    path = launch.directory / "log"
    path.write_bytes(b"was here\n")
    with path.open("ab") as file:
        daemon = launch(BEAT, stdout=file.fileno())
    assert_goes_on(daemon)
    first, *lines = path.read_bytes().splitlines(keepends=True)
    assert first == b"was here\n"
    assert_consistent([parsed(raw) for raw in lines])


def test_file_that_is_truncated_has_no_hole(launch: Launcher) -> None:
    """A log file that is emptied under the daemon (copytruncate) goes on from its start."""
    path = launch.directory / "log"
    with path.open("ab") as file:
        daemon = launch(BEAT, stdout=file.fileno())
    poll(lambda: beats(daemon) >= 3, "runs go on")
    os.truncate(path, 0)
    assert_goes_on(daemon)
    lines = [parsed(raw) for raw in path.read_bytes().splitlines(keepends=True)]
    assert lines[-1]["event"] == "daemon.stopped"


def test_full_disk(launch: Launcher) -> None:
    """A log that nothing can be written to does not stop the jobs, nor the stop."""
    with Path("/dev/full").open("wb") as full:
        daemon = launch(BEAT, stdout=full.fileno())
    poll(lambda: beats(daemon) >= 3, "runs go on")
    assert_goes_on(daemon, within=1)


def test_null_device(launch: Launcher) -> None:
    """A log that nobody wants."""
    daemon = launch(BEAT, stdout=subprocess.DEVNULL)
    poll(lambda: beats(daemon) >= 3, "runs go on")
    assert_goes_on(daemon, within=1)


def test_socket(launch: Launcher) -> None:
    """A socket as stdout, as inetd and some supervisors have it, gets the whole log."""
    ours, theirs = socket.socketpair()
    daemon = launch(BEAT, stdout=theirs.fileno())
    theirs.close()
    daemon.log.read(ours.makefile("rb"))
    assert_goes_on(daemon)
    assert daemon.log.wait_for_end(5)
    assert_consistent(daemon.lines)
    ours.close()


def test_socket_never_holds_half_a_line(launch: Launcher) -> None:
    """However far behind journald is, what it can read are whole lines, so a SIGKILL at that moment tears none."""
    ours, theirs = socket.socketpair()
    daemon = launch(
        """
        @every("1h")
        def chatter():
            while not current_run().stopping.is_set():
                log.info("x" * 3000)
        """,
        stdout=theirs.fileno(),
    )
    theirs.close()
    with ours:
        for size in range(1_000, 300_000, 1_000):
            ours.recv(size)
            assert ours.recv(2**20, socket.MSG_PEEK).endswith(b"\n")
        daemon.log.read(ours.makefile("rb"))
        assert daemon.stop() == 0


def test_two_daemons_on_one_pipe(launch: Launcher) -> None:
    """Lines of two daemons that share a pipe do not mix."""
    log = Log()
    read_end, write_end = os.pipe()
    log.read(os.fdopen(read_end, "rb"))
    jobs = "@every('2ms')\ndef chatter(): log.info('x' * 1000)"
    daemons = [launch(jobs, beside=BEAT, stdout=write_end) for _ in range(2)]
    os.close(write_end)
    for daemon in daemons:
        assert_goes_on(daemon)
    assert log.wait_for_end(5)
    assert not log.garbage
    assert len([line for line in log.lines if line["event"] == "daemon.stopped"]) == 2


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_standard_descriptors_that_are_closed(launch: Launcher, closed: str) -> None:
    """Started without some of stdin, stdout and stderr, the daemon runs its jobs and stops in order."""
    show = "@every('0.1')\nasync def show():\n    with open('shown', 'a') as file: file.write('beat ')"
    daemon = launch(show, program=("sh", "-c", f'exec "$@" {closed}', "sh", JOBD))
    shown = launch.directory / "shown"
    poll(lambda: shown.exists() and shown.read_text().count("beat") >= 3, "runs go on")
    assert daemon.stop(within=1) == 0
    assert not daemon.log.garbage
    assert daemon.stderr == ""
    if ">&-" not in closed.replace("2>&-", ""):
        assert_consistent(daemon.lines)


def test_more_than_a_thousand_inherited_descriptors(launch: Launcher) -> None:
    """A parent that leaks descriptors does not keep the daemon from working."""
    leak = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
for _ in range(1100): os.set_inheritable(os.dup(0), True)
"""
    daemon = launch(BEAT, program=becoming_jobd(leak))
    daemon.wait_for("run.finished", count=3)
    assert_goes_on(daemon)
    assert_consistent(daemon.lines)


def test_no_descriptor_is_left(launch: Launcher) -> None:
    """A job that uses up every descriptor fails or not; the others go on, and the stop works."""
    daemon = launch(
        """
        @every("1h")
        def greedy():
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            while True: os.dup(0)
        """,
        beside=BEAT,
    )
    assert daemon.wait_for("run.finished", job="greedy")["error"]["type"] == "OSError"
    assert_goes_on(daemon)
    assert_consistent(daemon.lines)


@pytest.mark.alone  # the second fence falls two tenths of a second after the first one
def test_stalled_reader_of_stderr_does_not_hold_the_last_fence(launch: Launcher) -> None:
    """What the last fence has to tell may not keep it from ending the process, on time, with 1."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 1000)
    os.set_blocking(write_end, True)
    daemon = launch(
        """
        @every("1h")
        def hold():
            current_run().stopping.wait()
            -1 in itertools.count()
        """,
        stderr=write_end,
        JOBD_GRACE_PERIOD="0.3",
        JOBD_CANCEL_TIMEOUT="0.3",
    )
    os.close(write_end)
    daemon.wait_for("run.started")
    assert daemon.stop() == 1
    os.close(read_end)


def on_terminal(launch: Launcher, layout: str = "auto") -> tuple[Daemon, int]:
    """A daemon whose stdout is a terminal, and our end of that."""
    ours, theirs = pty.openpty()
    daemon = launch(BEAT, stdout=theirs, JOBD_LOG_FORMAT=layout)
    os.close(theirs)
    return daemon, ours


def read_terminal(fd: int) -> str:
    """Everything that comes from a terminal until its other side is closed."""
    received = b""
    while True:
        try:
            received += os.read(fd, 65536)
        except OSError:
            os.close(fd)
            return received.decode()


def test_terminal_gets_lines_for_people(launch: Launcher) -> None:
    """On a terminal, `auto` means coloured lines that are no JSON."""
    daemon, ours = on_terminal(launch)
    poll(lambda: beats(daemon) >= 3, "runs go on")
    assert_goes_on(daemon)
    text = read_terminal(ours)
    assert "\x1b[" in text
    assert "run.started" in text
    assert "daemon.stopped" in text.splitlines()[-1]
    assert not text.startswith("{")


def test_terminal_gets_json_if_asked_for(launch: Launcher) -> None:
    """JOBD_LOG_FORMAT=json wins over the terminal."""
    daemon, ours = on_terminal(launch, "json")
    daemon.log.read(os.fdopen(ours, "rb"))
    daemon.wait_for("run.finished", count=3)
    assert_goes_on(daemon)
    assert daemon.log.wait_for_end(5)
    assert_consistent(daemon.lines)


def test_console_lines_without_a_terminal_if_asked_for(launch: Launcher) -> None:
    """JOBD_LOG_FORMAT=console wins over the pipe."""
    daemon = launch(BEAT, read=False, JOBD_LOG_FORMAT="console")
    poll(lambda: beats(daemon) >= 3, "runs go on")
    assert_goes_on(daemon)
    assert daemon.process.stdout is not None
    assert "run.started" in daemon.process.stdout.read().decode()


def test_terminal_that_disappears(launch: Launcher) -> None:
    """A terminal that is closed (EIO) takes the log along, not the jobs."""
    daemon, ours = on_terminal(launch)
    poll(lambda: beats(daemon) >= 2, "runs go on")
    os.close(ours)
    assert_goes_on(daemon, within=1)


def test_lines_are_out_before_a_job_kills_the_process(launch: Launcher) -> None:
    """`os._exit` in a job cannot be survived, but what was logged before it is there."""
    daemon = launch("@every('1h')\ndef job():\n    log.info('last words')\n    os._exit(7)")
    assert daemon.exit_code() == 7
    assert daemon.lines[-1]["event"] == "last words"


@pytest.mark.parametrize("code", ["os.abort()", "import ctypes; ctypes.string_at(0)"], ids=["abort", "segfault"])
def test_crash_shows_where(launch: Launcher, code: str) -> None:
    """A crash of the interpreter leaves the log's last lines, and the stack on stderr."""
    daemon = launch(f"@every('1h')\ndef job():\n    log.info('last words')\n    {code}  # here")
    assert daemon.exit_code() < 0
    assert daemon.lines[-1]["event"] == "last words"
    number = daemon.line_of("# here").partition(":")[2]
    assert f"line {number} in job" in daemon.stderr
