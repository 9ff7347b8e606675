"""Plain functions in a process of their own: like those in a thread, but nothing that they do holds anybody up."""

import time
from signal import SIGTERM, SIGUSR1

import pytest

from .conftest import Launcher
from .consistency import Line
from .harness import Daemon, has_ended, instant, poll

ISOLATED = "@every('1h', isolation='process')\n"
#: Nothing but the interpreter's lock, which it never lets go.
HOLDS_THE_GIL = (
    ISOLATED + "def holds():\n"
    "    sys.setswitchinterval(1000)\n"
    "    print('holding', os.getpid(), flush=True)\n"
    "    -1 in itertools.count()\n"
)
BEAT = "@every('0.1')\nasync def beat(): pass"


def pid_of(daemon: Daemon, word: str) -> int:
    """The process that has printed the word and its number."""

    def found(lines: list[Line]) -> int | None:
        said = [str(line["line"]) for line in lines if line["event"] == "job.output"]
        return next((int(text.split()[1]) for text in said if text.startswith(f"{word} ")), None)

    pid: int | None = daemon.log.wait_until(found, 30)
    if pid is None:
        daemon.fail(f"nobody has printed {word}")
    return pid


def test_it_has_a_process_of_its_own(launch: Launcher) -> None:
    """Its globals are the child's own, so each run finds them as they are after an import."""
    daemon = launch(
        "seen = []\n@every('0.5', isolation='process')\ndef job(): seen.append(1); print('me', os.getpid(), len(seen))"
    )
    daemon.wait_for("run.finished", count=2, outcome="succeeded")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    said = [line["line"].split() for line in daemon.events("job.output", stream="stdout")]
    pids = [int(pid) for _, pid, _ in said]
    assert len(said) == len(set(pids)) == daemon.outcomes().count("succeeded")
    assert daemon.pid not in pids
    assert {count for _, _, count in said} == {"1"}
    for pid in pids:
        assert has_ended(pid)


def test_an_exception_comes_with_its_traceback(launch: Launcher) -> None:
    """As from a thread: kind, message, and the place in the job's code."""
    daemon = launch(ISOLATED + "def job():\n    raise LookupError('nothing there')  # here")
    finished = daemon.wait_for("run.finished")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert finished["outcome"] == "failed"
    assert finished["error"] == {"type": "LookupError", "message": "nothing there"}
    file, _, number = daemon.line_of("# here").partition(":")
    assert f'{file}", line {number}, in job' in finished["traceback"]


def test_what_it_logs_and_prints_knows_its_run(launch: Launcher) -> None:
    """structlog, logging and print, with the instants at which they were made, before the end of the run."""
    daemon = launch(
        ISOLATED + "def job():\n"
        "    log.info('structured', number=1, nested={'a': [1, 2]})\n"
        "    logging.getLogger('library').warning('plain %s', 'text')\n"
        "    log.debug('not told')\n"
        "    print('printed')\n"
        "    print('wrong', file=sys.stderr)\n"
        "    run = current_run()\n"
        "    log.info('told', tick=run.tick, me=run.run_id, at=str(run.scheduled_at), attempt=run.attempt)"
    )
    finished = daemon.wait_for("run.finished", outcome="succeeded")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    (started,) = daemon.events("run.started")
    mine = [line for line in daemon.lines if line.get("run_id") == started["run_id"]]
    assert mine[0] == started
    assert mine[-1] == finished
    assert {line["job"] for line in mine} == {"job"}
    (structured,) = daemon.events("structured", number=1, nested={"a": [1, 2]}, level="info")
    assert instant(started) <= instant(structured) <= instant(finished)
    assert daemon.events("plain text", level="warning")
    assert daemon.events("job.output", stream="stdout", line="printed")
    assert daemon.events("job.output", stream="stderr", line="wrong")
    (told,) = daemon.events("told", tick=0, me=started["run_id"], attempt=1)
    assert told["at"].startswith(started["scheduled_at"][:19].replace("T", " "))
    assert not daemon.events("not told")


def test_it_hears_that_the_daemon_drains(launch: Launcher) -> None:
    """`stopping` is set there as well, so it can save what it has and come to its own end."""
    daemon = launch(
        ISOLATED
        + "def job():\n    print('up', flush=True)\n    log.info('told', told=current_run().stopping.wait(60))",
        JOBD_GRACE_PERIOD="30",
    )
    daemon.wait_for("job.output", line="up")
    assert daemon.stop(within=20) == 0
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["succeeded"]
    assert daemon.events("told", told=True)


def test_it_may_clean_up_when_it_is_cancelled(launch: Launcher) -> None:
    """SIGTERM is a SystemExit in the function, so `finally` is heeded."""
    daemon = launch(
        ISOLATED + "def job():\n"
        "    try:\n        print('up', flush=True); time.sleep(600)\n"
        "    finally:\n        log.info('cleaned up')",
        JOBD_GRACE_PERIOD="0.2",
        JOBD_CANCEL_TIMEOUT="5",
    )
    daemon.wait_for("job.output", line="up")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["cancelled"]
    assert daemon.events("cleaned up")


@pytest.mark.alone  # the killed have three tenths of a second to die
def test_one_that_holds_the_gil_is_killed(launch: Launcher) -> None:
    """After the cancel timeout; nothing had to be abandoned, so the exit code is 0."""
    daemon = launch(HOLDS_THE_GIL, JOBD_GRACE_PERIOD="0.3")
    pid = pid_of(daemon, "holding")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    (finished,) = daemon.events("run.finished")
    assert (finished["outcome"], finished["signal"]) == ("cancelled", "SIGKILL")
    assert not daemon.events("shutdown.abandoned")
    assert has_ended(pid)


@pytest.mark.alone  # the killed have three tenths of a second to die
def test_one_that_holds_the_gil_holds_up_nobody(launch: Launcher) -> None:
    """The others' ticks go on, and SIGUSR1 is answered."""
    daemon = launch(HOLDS_THE_GIL, beside=BEAT, JOBD_GRACE_PERIOD="0.3")
    pid = pid_of(daemon, "holding")
    so_far = len(daemon.events("run.finished", job="beat"))
    daemon.wait_for("run.finished", job="beat", count=so_far + 10)
    daemon.signal(SIGUSR1)
    told = daemon.wait_for("run.in_flight", job="holds")
    assert any(f"process {pid}" in place for place in told["stack"])
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert set(daemon.outcomes("beat")) == {"succeeded"}


def test_one_that_holds_the_gil_is_timed_out(launch: Launcher) -> None:
    """SIGTERM does not reach the function, so SIGKILL follows after the cancel timeout."""
    daemon = launch(HOLDS_THE_GIL.replace("isolation=", "timeout='4s', isolation="))
    pid = pid_of(daemon, "holding")
    finished = daemon.wait_for("run.finished", job="holds")
    assert (finished["outcome"], finished["signal"]) == ("timed_out", "SIGKILL")
    assert finished["duration_s"] >= 5
    assert has_ended(pid)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


@pytest.mark.parametrize(
    ("crash", "how"),
    [
        ("os.abort()", {"signal": "SIGABRT"}),
        ("os.kill(os.getpid(), signal.SIGKILL)", {"signal": "SIGKILL"}),
        ("import ctypes; ctypes.string_at(0)", {"signal": "SIGSEGV"}),
        ("os._exit(0)", {"exit_status": 0}),
        ("os._exit(3)", {"exit_status": 3}),
    ],
    ids=["aborts", "is killed", "segmentation fault", "leaves with 0", "leaves"],
)
def test_a_crash_is_one_failed_run(launch: Launcher, crash: str, how: dict[str, object]) -> None:
    """It says how the process has ended; the daemon and the other jobs do not notice."""
    daemon = launch(ISOLATED + f"def job():\n    print('up', flush=True); {crash}", beside=BEAT)
    finished = daemon.wait_for("run.finished", job="job")
    so_far = len(daemon.events("run.finished", job="beat"))
    daemon.wait_for("run.finished", job="beat", count=so_far + 2)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert finished["outcome"] == "failed"
    assert finished["error"]["type"] == "ProcessDied"
    assert finished.items() >= how.items()
    assert daemon.events("job.output", job="job", line="up")
    assert daemon.outcomes("job") == ["failed"]


def test_a_crash_is_tried_again(launch: Launcher) -> None:
    """Within the same run, in another process."""
    daemon = launch(
        "@every('1h', isolation='process', retries=2, backoff='0.1s')\n"
        "def job():\n    print(current_run().attempt, flush=True)\n    if current_run().attempt < 3: os.abort()"
    )
    finished = daemon.wait_for("run.finished")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert (finished["outcome"], finished["attempts"]) == ("succeeded", 3)
    assert [line["error"]["type"] for line in daemon.events("run.retrying")] == ["ProcessDied"] * 2
    assert [line["line"] for line in daemon.events("job.output", stream="stdout")] == ["1", "2", "3"]


def test_what_it_has_started_is_gone_with_it(launch: Launcher) -> None:
    """Also a child in a session of its own."""
    daemon = launch(
        ISOLATED + "def job():\n    child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "    print('child', child.pid)"
    )
    finished = daemon.wait_for("run.finished")
    assert has_ended(pid_of(daemon, "child"))
    assert finished["outcome"] == "succeeded"
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_a_stop_while_it_starts(launch: Launcher) -> None:
    """Its module takes long to import there; that is ended like the function itself."""
    launch.write("slow", "if 'jobd.child' in sys.orig_argv:\n    open('importing', 'w').close(); time.sleep(600)")
    daemon = launch("import slow\n" + ISOLATED + "def job(): pass", JOBD_GRACE_PERIOD="0.2")
    poll((launch.directory / "importing").exists, "the import to begin")
    began = time.monotonic()
    daemon.signal(SIGTERM)
    assert daemon.exit_code() == 0
    assert time.monotonic() - began >= 0.2
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["cancelled"]
