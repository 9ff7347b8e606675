"""What is printed, by whomever and however, becomes `job.output` lines, and nothing of it reaches stdout or stderr."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from .conftest import Launcher
from .consistency import Line
from .harness import Daemon, instant, poll

KINDS = pytest.mark.parametrize("kind", ["async def", "def"], ids=["coroutine", "function"])


def ran(launch: Launcher, text: str) -> Daemon:
    """A daemon whose run `job` has succeeded, and that has stopped in order."""
    daemon = launch(text)
    finished = daemon.wait_for("run.finished", job="job")
    assert finished["outcome"] == "succeeded", finished
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    return daemon


def printed(daemon: Daemon, stream: str = "stdout") -> list[str]:
    """The lines that came over the stream, in order."""
    return [line["line"] for line in daemon.events("job.output", stream=stream)]


def is_up_to_date(lines: list[Line]) -> bool:
    """Whether the last line has been read soon after it was written: nothing waits for its reader any more."""
    return bool(lines) and datetime.now(UTC) - instant(lines[-1], "timestamp") < timedelta(seconds=0.1)


def owner(line: Line) -> tuple[str | None, str | None]:
    """Whose line it is said to be."""
    return line["job"], line["run_id"]


@KINDS
def test_what_a_job_prints_names_its_run(launch: Launcher, kind: str) -> None:
    """`print` and writes to `sys.stdout` and `sys.stderr` are lines of the run, in the order of its other lines."""
    daemon = ran(
        launch,
        f"""
        @every("1h")
        {kind} job():
            print('{{"event": "printed"}}')
            log.info("logged")
            sys.stderr.write("complaint\\n")
            sys.__stdout__.buffer.write(b"bytes \\xff\\n")
        """,
    )
    started = daemon.wait_for("run.started")
    lines = daemon.lines[daemon.lines.index(started) + 1 :][:5]
    assert [line.get("line", line["event"]) for line in lines] == [
        '{"event": "printed"}', "logged", "complaint", "bytes \\xff", "run.finished",
    ]  # fmt: skip
    assert [line.get("stream") for line in lines] == ["stdout", None, "stderr", "stdout", None]
    assert {owner(line) for line in lines} == {("job", started["run_id"])}


def test_what_is_printed_outside_of_any_run_names_none(launch: Launcher) -> None:
    """At import, in a thread of a job's making, past Python on the descriptors, and by children: `job` is null."""
    daemon = ran(
        launch,
        """
        print("at import")
        @every("1h")
        def job():
            thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
            os.write(1, b"descriptor\\n")
            os.write(2, b"error descriptor\\n")
            subprocess.run(["sh", "-c", "echo child; echo grumble >&2"])
            subprocess.run(["echo", "by name"], stdout=sys.stdout)
        """,
    )
    assert set(printed(daemon)) == {"at import", "thread", "descriptor", "child", "by name"}
    assert set(printed(daemon, "stderr")) == {"error descriptor", "grumble"}
    assert {owner(line) for line in daemon.events("job.output")} == {(None, None)}


def test_runs_that_print_at_once_do_not_mix_their_lines(launch: Launcher) -> None:
    """A line that is printed in pieces is one line of its run, whoever prints meanwhile on whatever thread."""
    daemon = launch(
        """
        @every("1h", name="coroutine 1")
        async def one(): await speak("coroutine 1")
        @every("1h", name="coroutine 2")
        async def two(): await speak("coroutine 2")
        @every("1h", name="function")
        def three():
            for _ in range(50):
                for piece in ("function", " ", "speaks", "\\n"): sys.stdout.write(piece); time.sleep(0.0001)
        async def speak(name):
            for _ in range(50):
                for piece in (name, " ", "speaks", "\\n"): sys.stdout.write(piece); await asyncio.sleep(0)
        """
    )
    daemon.wait_for("run.finished", count=3)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert len(daemon.events("job.output")) == 150
    assert all(line["line"] == f"{line['job']} speaks" for line in daemon.events("job.output"))


@KINDS
def test_a_line_without_an_end_comes_when_its_run_ends(launch: Launcher, kind: str) -> None:
    """What was begun is not lost, and comes before the `run.finished` of its run."""
    daemon = ran(launch, f"@every('1h')\n{kind} job():\n    print('no end', end='', flush=True)")
    events = [line["event"] for line in daemon.lines]
    assert printed(daemon) == ["no end"]
    assert events.index("job.output") < events.index("run.finished")


@KINDS
def test_a_line_without_an_end_of_an_abandoned_run_is_not_lost(launch: Launcher, kind: str) -> None:
    """A run that hangs amid a line is abandoned, and its line is there."""
    daemon = launch(
        f"@every('1h')\n{kind} job():\n    print('about to hang', end='')\n    log.info('hangs')\n    time.sleep(60)",
        JOBD_GRACE_PERIOD="0",
        JOBD_CANCEL_TIMEOUT="0",
    )
    daemon.wait_for("hangs")
    assert daemon.stop() == 3
    daemon.assert_log_is_consistent()
    assert printed(daemon) == ["about to hang"]


def test_what_a_child_leaves_unended_comes_before_the_last_line(launch: Launcher) -> None:
    """The end of what is in the pipes is read before the daemon leaves."""
    daemon = ran(launch, "@every('1h')\ndef job():\n    subprocess.run(['printf', 'no end'])")
    assert printed(daemon) == ["no end"]
    assert daemon.lines[-1]["event"] == "daemon.stopped"


def test_long_lines_come_whole_in_pieces(launch: Launcher) -> None:
    """A line of any length arrives complete, cut between characters; memory holds no more than a piece of it."""
    daemon = ran(
        launch,
        """
        @every("1h")
        def job():
            print("ü€" * 30_000)
            subprocess.run([sys.executable, "-c", "print('x' * 100_000); print('end')"])
        """,
    )
    pieces = printed(daemon)
    assert "".join(pieces[: pieces.index("end")]) == "ü€" * 30_000 + "x" * 100_000
    assert not any("\\x" in piece for piece in pieces)


def test_output_faster_than_any_reader_costs_no_line_of_the_daemons_own(launch: Launcher) -> None:
    """A child that floods and a job that floods: ticks go on, and what is given up of their output is counted."""
    daemon = launch(
        """
        @every("1h")
        def flood():
            subprocess.run("yes flooding | head -c 2000000", shell=True)
            open("flooded", "w")
        @every("1h")
        def printer():
            for _ in range(50_000): print("printing")
            open("printed", "w")
        @every("0.1")
        async def beat(): pass
        """,
        read=False,
    )
    for mark in ("flooded", "printed"):
        poll((daemon.directory / mark).exists, mark, timeout=60)
    daemon.read()
    assert daemon.log.wait_until(is_up_to_date, timeout=60), "the reader has not caught up"
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert sum(line["count"] for line in daemon.events("log.dropped")) > 10_000
    assert {"flooding", "printing"} & set(printed(daemon))


def test_output_that_does_not_end_does_not_delay_the_stop(launch: Launcher) -> None:
    """Flooded to its last moment, the daemon leaves in time, and its last line is there."""
    daemon = launch(
        """
        @every("1h")
        def flood():
            child = subprocess.Popen(["yes", "flooding"])
            current_run().stopping.wait(); child.kill(); child.wait()
        @every("1h")
        def printer():
            while not current_run().stopping.is_set(): print("printing")
        """
    )
    for line in ("flooding", "printing"):
        daemon.wait_for("job.output", line=line, count=1000)
    assert daemon.stop() == 0
    assert not daemon.log.garbage
    assert daemon.lines[-1]["event"] == "daemon.stopped"


def test_reader_of_stderr_that_stalls_holds_nobody(launch: Launcher) -> None:
    """Nothing that jobs print reaches the real stderr, so nobody can hang on it."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    try:
        while True:
            os.write(write_end, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write_end, True)
    daemon = launch("@every('50ms')\nasync def job(): print('x' * 1000, file=sys.stderr)", stderr=write_end)
    os.close(write_end)
    daemon.wait_for("run.finished", count=5, outcome="succeeded")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    os.close(read_end)


@pytest.mark.parametrize(
    "code",
    [
        "sys.stdout.close(); sys.stderr.close()",
        "sys.stdout.buffer.close()",
        "sys.stdout.reconfigure(encoding='utf-16', line_buffering=False)",
        "sys.stdout.detach()",
        "os.close(1); os.close(2)",
        "print('\\ud800')",
        "sys.stdout.flush(); sys.stdout.isatty(); sys.stdout.fileno(); sys.stdout.encoding.upper()",
    ],
)
def test_what_one_job_does_to_the_streams_does_not_silence_the_others(launch: Launcher, code: str) -> None:
    """Closed, re-coded, detached: what the next job prints, and its children, is a line all the same."""
    daemon = launch(
        f"""
        @every("1h")
        def rude():
            {code}
        @every("0.3")
        def polite():
            print("printed")
            os.system("echo child")
        """
    )
    daemon.wait_for("run.finished", job="rude")
    for line in ("printed", "child"):
        so_far = len(daemon.events("job.output", line=line))
        daemon.wait_for("job.output", line=line, count=so_far + 2)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_level_of_output_is_info(launch: Launcher) -> None:
    """Who wants warnings only is not told what jobs print, and nothing waits for it."""
    daemon = launch(
        """
        @every("1h")
        def job():
            print("x\\n" * 100_000)
            os.system("yes | head -100000")
            log.warning("said")
        """,
        JOBD_LOG_LEVEL="warning",
    )
    daemon.wait_for("said")
    assert daemon.stop() == 0
    assert not daemon.events("job.output")


@pytest.mark.parametrize("death", ["abort", "raise_kill"])
def test_what_a_library_says_as_it_dies_is_not_lost(launch: Launcher, death: str) -> None:
    """The last words of C code that ends the process are in the log, or on the real stderr."""
    daemon = launch(
        """
        import ctypes
        @every("1h")
        def job():
            libc = ctypes.PyDLL(None)  # holds the GIL, so that none of us can read it
            libc.write(2, b"last words\\n", 11)
            libc.abort() if DEATH == "abort" else libc.kill(os.getpid(), signal.SIGKILL)
        """,
        beside=f"DEATH = {death!r}",
    )
    assert daemon.exit_code() < 0
    said = [line["line"] for line in daemon.events("job.output")]
    poll(lambda: "last words" in said or "last words\n" in daemon.stderr, "the last words are somewhere")


def test_what_is_begun_after_the_end_of_a_run_comes_out_in_the_end(launch: Launcher) -> None:
    """A line without an end, of a task or a thread that has outlived its run; it still bears the run's name."""
    daemon = launch(
        """
        import contextvars
        async def later():
            await asyncio.sleep(0.1)
            print("task", end="")
            open("task", "w")
        @every("1h")
        async def job():
            global task
            task = asyncio.create_task(later())
        @every("1h")
        def function():
            context = contextvars.copy_context()
            def later():
                time.sleep(0.1)
                print("thread", end="")
                open("thread", "w")
            threading.Thread(target=lambda: context.run(later)).start()
        """
    )
    for mark in ("task", "thread"):
        poll((daemon.directory / mark).exists, f"the {mark} has printed")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert {(line["job"], line["line"]) for line in daemon.events("job.output")} == {
        ("job", "task"),
        ("function", "thread"),
    }


def test_what_c_prints_comes_at_once_where_it_is_told_not_to_keep_it(launch: Launcher) -> None:
    """C keeps what it prints into a pipe until that is a lot, unless it starts with `PYTHONUNBUFFERED`."""
    daemon = launch(
        """
        import ctypes
        @every("1h")
        def job(): ctypes.CDLL(None).printf(b"from C\\n")
        """,
        env={"PYTHONUNBUFFERED": "1"},
    )
    assert daemon.wait_for("job.output")["line"] == "from C"
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
