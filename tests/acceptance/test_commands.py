"""Commands: what they are given, what is told of them, and that nothing of them is left when their run has ended."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from signal import SIGABRT, SIGCONT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1, sigtimedwait
from typing import Any

import pytest

from .conftest import Launcher
from .consistency import Line, assert_consistent
from .harness import Daemon, has_ended, in_session, instant, poll

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a command as another user")
#: For what a busy machine takes its time over.
LONG_S = 60.0
#: A command that says that it can be stopped now, and refuses to be.
STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.1; done"


def toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    """A file of jobs; each of these comes once an hour unless it says something else."""
    lines = []
    for name, keys in tables.items():
        lines.append(f"[jobs.{name}]")
        lines += [f"{key} = {_value(value)}" for key, value in ({"every": "1h"} | dict(keys)).items()]
    return "\n".join([*lines, ""])


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_value(item)}' for key, item in value.items())} }}"
    return f"'''{value}'''" if isinstance(value, str) else str(value)


def run(
    launch: Launcher, *targets: str, read: bool = True, settings: Mapping[str, str] | None = None, **jobs: object
) -> Daemon:
    """Start a daemon with these jobs; text is for the shell."""
    tables = {name: job if isinstance(job, dict) else {"shell": job} for name, job in jobs.items()}
    (launch.directory / "jobs.toml").write_text(toml(tables))
    return launch("", "run", "jobs.toml", *targets, read=read, env=settings)


def output(daemon: Daemon, job: str, stream: str = "stdout") -> list[str]:
    """What a job has printed."""
    return [line["line"] for line in daemon.events("job.output", job=job, stream=stream)]


def resident_mb(pid: int) -> float:
    """How much memory the process holds."""
    return int(re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


def test_output_is_told_line_by_line_before_the_end(launch: Launcher) -> None:
    """Each line of both streams knows its job and run, also the last one without its end; then comes the run's end."""
    daemon = run(launch, speaks="echo one; echo two >&2; echo 'drei ä'; printf last")
    finished = daemon.wait_for("run.finished", outcome="succeeded", exit_status=0)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert output(daemon, "speaks") == ["one", "drei ä", "last"]
    assert output(daemon, "speaks", "stderr") == ["two"]
    told = daemon.events("job.output", run_id=finished["run_id"])
    assert len(told) == 4
    assert all(daemon.lines.index(line) < daemon.lines.index(finished) for line in told)


def test_exit_status_or_signal_is_told(launch: Launcher) -> None:
    """Everything but status 0 is a failed run, which says how the command has ended."""
    daemon = run(launch, good="exit 0", bad="exit 7", killed="kill -9 $$", hung_up="kill -HUP $$")
    for job in ("good", "bad", "killed", "hung_up"):
        daemon.wait_for("run.finished", job=job)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    ends = {line["job"]: line for line in daemon.events("run.finished")}
    told = {job: (line["outcome"], line.get("exit_status"), line.get("signal")) for job, line in ends.items()}
    assert told == {
        "good": ("succeeded", 0, None),
        "bad": ("failed", 7, None),
        "killed": ("failed", None, "SIGKILL"),
        "hung_up": ("failed", None, "SIGHUP"),
    }
    assert ends["bad"]["error"]["type"] == "CommandFailed"
    assert "7" in ends["bad"]["error"]["message"]


def test_shell_cwd_and_environment(launch: Launcher, tmp_path: Path) -> None:
    """Arguments arrive as they are, unless they are for the shell; `env` adds to the daemon's environment."""
    place = tmp_path / "the place"
    place.mkdir()
    variables = "JOBD_JOB", "JOBD_RUN_ID", "JOBD_TICK", "JOBD_SCHEDULED_AT"
    daemon = run(
        launch,
        plain={"command": ["printf", "%s\\n", "a b", "$HOME", "*", ""]},
        shell="echo a  b | tr a-z A-Z",
        where={"command": ["pwd"], "cwd": str(place)},
        env={"shell": "echo $MINE $THEIRS", "env": {"MINE": "one", "THEIRS": "mine"}},
        told={"shell": f"for name in {' '.join(variables)}; do printenv $name; done; cat; echo end"},
        settings={"THEIRS": "theirs"},
    )
    daemon.wait_for("run.finished", count=5, outcome="succeeded")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert output(daemon, "plain") == ["a b", "$HOME", "*", ""]
    assert output(daemon, "shell") == ["A B"]
    assert output(daemon, "where") == [str(place)]
    assert output(daemon, "env") == ["one mine"]
    (started,) = daemon.events("run.started", job="told")
    assert output(daemon, "told") == ["told", started["run_id"], "0", started["scheduled_at"], "end"]


def test_where_a_job_goes_nobody_has_to_follow(launch: Launcher) -> None:
    """Commands and isolated functions run where jobd was started, also when a job has left the process nowhere."""
    launch.write(
        "jobs",
        "@every('1h')\ndef leaves(): os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
        "@every('1s', isolation='process', overlap='skip')\ndef isolated(): print(os.getcwd())",
    )
    (launch.directory / "sub").mkdir()
    daemon = run(
        launch,
        "jobs",
        plain={"command": ["pwd"], "every": "0.5"},
        relative={"command": ["./program"], "cwd": "sub", "every": "0.5"},
    )
    (launch.directory / "sub" / "program").write_text("#!/bin/sh\npwd\n")
    (launch.directory / "sub" / "program").chmod(0o755)
    daemon.wait_for("run.finished", job="leaves")
    for job, place in (("plain", "."), ("isolated", "."), ("relative", "sub")):
        daemon.wait_for("job.output", job=job, count=3, line=str(launch.directory / place))
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert set(output(daemon, "plain") + output(daemon, "isolated")) == {str(launch.directory)}


def test_the_first_command_needs_no_lock_that_a_job_may_hold(launch: Launcher) -> None:
    """Neither that of imports nor that of all threads: it runs, and the stop is orderly."""
    launch.write(
        "jobs",
        "import _imp\n@every('1h')\ndef holds():\n    threading._active_limbo_lock.acquire()\n    _imp.acquire_lock()\n"
        "    current_run().stopping.wait()",
    )
    later = {"shell": "id -un", "every": "2s", "anchor": "clock"} | ({"user": "root"} if os.geteuid() == 0 else {})
    daemon = run(launch, "jobs", later=later)
    daemon.wait_for("run.started", job="holds")
    daemon.wait_for("run.finished", job="later", outcome="succeeded", count=2)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_a_missing_program_is_one_failed_run(launch: Launcher, tmp_path: Path) -> None:
    """Each tick has its failed run, which says what is missing; the others go on, and the program may come later."""
    daemon = run(
        launch,
        missing={"every": "0.3", "command": [str(tmp_path / "program")]},
        elsewhere={"command": ["pwd"], "cwd": "/nonexistent"},
        steady={"every": "0.3", "command": ["echo", "here"]},
    )
    failed = daemon.wait_for("run.finished", job="missing", count=2, outcome="failed")
    assert failed["error"]["type"] == "FileNotFoundError"
    assert str(tmp_path / "program") in failed["error"]["message"]
    assert "/nonexistent" in daemon.wait_for("run.finished", job="elsewhere", outcome="failed")["error"]["message"]
    daemon.wait_for("job.output", job="steady", count=2)
    (tmp_path / "partial").write_text("#!/bin/sh\necho installed\n")
    (tmp_path / "partial").chmod(0o755)
    (tmp_path / "partial").rename(tmp_path / "program")
    daemon.wait_for("job.output", job="missing", line="installed")
    daemon.wait_for("run.finished", job="missing", outcome="succeeded")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_a_timeout_is_a_sigterm(launch: Launcher) -> None:
    """The command may still say something; whatever status it leaves with, its outcome is timed_out."""
    daemon = run(
        launch,
        plain={"command": ["sleep", "600"], "timeout": "0.5s"},
        tidies={"shell": "trap 'echo tidied; exit 0' TERM; sleep 600 & wait", "timeout": "2s"},
    )
    plain = daemon.wait_for("run.finished", job="plain")
    assert (plain["outcome"], plain["signal"]) == ("timed_out", "SIGTERM")
    assert plain["duration_s"] >= 0.5
    tidies = daemon.wait_for("run.finished", job="tidies")
    assert (tidies["outcome"], tidies["exit_status"]) == ("timed_out", 0)
    assert output(daemon, "tidies") == ["tidied"]
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_a_timeout_that_is_ignored_ends_with_sigkill(launch: Launcher) -> None:
    """After the cancel timeout."""
    daemon = run(launch, stubborn={"shell": STUBBORN, "timeout": "1.5s"})
    finished = daemon.wait_for("run.finished")
    assert (finished["outcome"], finished["signal"]) == ("timed_out", "SIGKILL")
    assert finished["duration_s"] >= 2.5
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


@pytest.mark.alone  # the killed have three tenths of a second to die
def test_a_stubborn_command_does_not_hold_up_the_stop(launch: Launcher) -> None:
    """SIGKILL at the cancel timeout; the run was cancelled, nothing was abandoned, and the daemon leaves with 0."""
    daemon = run(launch, stubborn=STUBBORN, obeys="echo up; exec sleep 600")
    for job in ("stubborn", "obeys"):
        daemon.wait_for("job.output", job=job, line="up")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    ends = {line["job"]: (line["outcome"], line["signal"]) for line in daemon.events("run.finished")}
    assert ends == {"stubborn": ("cancelled", "SIGKILL"), "obeys": ("cancelled", "SIGTERM")}
    assert not daemon.events("shutdown.abandoned")


def test_a_drain_lets_a_command_finish(launch: Launcher) -> None:
    """Within the grace period nobody asks it to end."""
    daemon = run(
        launch,
        long="trap 'echo asked' TERM; echo up; until [ -e go ]; do sleep 0.1; done; echo done",
        settings={"JOBD_GRACE_PERIOD": "30"},
    )
    daemon.wait_for("job.output", line="up")
    daemon.signal(SIGTERM)
    daemon.wait_for("shutdown.waiting", running=1)
    (launch.directory / "go").touch()
    assert daemon.exit_code() == 0
    daemon.assert_log_is_consistent()
    assert output(daemon, "long") == ["up", "done"]
    assert daemon.outcomes() == ["succeeded"]
    assert not daemon.events("shutdown.cancelling")


def test_sigterm_comes_once(launch: Launcher) -> None:
    """To every process of the group, at the end of the grace period; however long they take to end."""
    count = (
        "import signal, sys, time\n"
        "def asked(*_): open(sys.argv[1], 'a').write('asked\\n')\n"
        "signal.signal(signal.SIGTERM, asked)\n"
        "print('up', flush=True)\n"
        "while not open(sys.argv[1], 'a+').seek(0, 2): time.sleep(0.05)\n"
        "end = time.monotonic() + 0.7\n"
        "while time.monotonic() < end: time.sleep(0.05)\n"
    )
    (launch.directory / "count.py").write_text(count)
    daemon = run(
        launch,
        waits=f"{sys.executable} count.py one & {sys.executable} count.py two; wait",
        stays=f"{sys.executable} count.py three & exec {sys.executable} count.py four",
        settings={"JOBD_GRACE_PERIOD": "0.3", "JOBD_CANCEL_TIMEOUT": "10"},
    )
    daemon.wait_for("job.output", line="up", count=4)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    for name in ("one", "two", "three", "four"):
        assert (launch.directory / name).read_text() == "asked\n"
    assert daemon.outcomes() == ["cancelled", "cancelled"]


def test_orphans_are_gone_after_the_run(launch: Launcher) -> None:
    """Also those in a session of their own, whose parent has ended, and who do not obey."""
    daemon = run(
        launch,
        leaves="""
        sleep 600 & echo $!
        setsid sh -c 'echo $$ | tee here; exec sleep 600' &
        (setsid sh -c 'trap "" TERM; echo $$ | tee there; while :; do sleep 0.1; done' &)
        until [ -s here ] && [ -s there ]; do sleep 0.05; done
        """,
    )
    finished = daemon.wait_for("run.finished")
    pids = output(daemon, "leaves")
    assert all(has_ended(int(pid)) for pid in pids)
    assert len(pids) == 3
    assert finished["outcome"] == "succeeded"
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


@pytest.mark.alone  # the killed have three tenths of a second to die
def test_orphans_are_gone_after_the_stop(launch: Launcher) -> None:
    """The stop is the end of the run, so nothing of it outlives the daemon."""
    daemon = run(
        launch,
        leaves="""
        sleep 600 & echo $!
        setsid sh -c 'trap "" TERM; echo $$; while :; do sleep 0.1; done' &
        (setsid sh -c 'echo $$; exec sleep 600' &)
        wait
        """,
        settings={"JOBD_GRACE_PERIOD": "0.3"},
    )
    daemon.wait_for("job.output", count=3)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert all(has_ended(int(pid)) for pid in output(daemon, "leaves"))
    assert daemon.outcomes() == ["cancelled"]


def test_a_blocked_event_loop_delays_no_command(launch: Launcher) -> None:
    """While a coroutine holds it for two seconds, commands start on time, and end."""
    launch.write("blocks", "@every('1h')\nasync def blocks():\n    log.info('begins'); time.sleep(2); log.info('ends')")
    daemon = run(launch, "blocks", tick={"every": "0.2", "command": ["echo", "tick"]})
    begins, ends = daemon.wait_for("begins"), daemon.wait_for("ends")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    meanwhile = [line for line in daemon.events("run.started", job="tick") if _between(line, begins, ends)]
    assert len(meanwhile) >= 5
    assert sorted(line["lateness_s"] for line in meanwhile)[len(meanwhile) // 2] < 0.5
    assert max(line["lateness_s"] for line in meanwhile) < 1.5
    ended = [line for line in daemon.events("run.finished", job="tick") if _between(line, begins, ends)]
    assert len(ended) >= 3


def _between(line: Line, first: Line, last: Line) -> bool:
    return instant(first) < instant(line) < instant(last)


def test_a_flood_into_a_reader_that_is_slow(launch: Launcher) -> None:
    """A command that writes without an end is held up; memory is bounded, others run, and the stop is on time."""
    daemon = run(
        launch,
        flood={"command": ["yes", "x" * 500]},
        beat={"every": "0.2", "shell": "echo >>beats"},
        read=False,
        settings={"JOBD_GRACE_PERIOD": "0.3"},
    )
    beats = launch.directory / "beats"

    def beaten(times: int) -> None:
        poll(lambda: beats.exists() and len(beats.read_text()) >= times, f"{times} runs", LONG_S)

    beaten(15)  # nobody has read a line
    assert resident_mb(daemon.pid) < 120
    beaten(30)
    assert resident_mb(daemon.pid) < 120
    daemon.read()
    daemon.wait_for("job.output", job="flood", count=1000)
    assert daemon.stop() == 0
    assert_consistent(daemon.lines)
    assert daemon.wait_for("run.finished", job="flood")["outcome"] == "cancelled"


def test_a_flood_that_nobody_reads_does_not_hold_up_the_stop(launch: Launcher) -> None:
    """There is no reader at all; the process leaves on time, and the flood's with it."""
    daemon = run(launch, flood="touch up; exec yes", read=False, settings={"JOBD_GRACE_PERIOD": "0.3"})
    poll((launch.directory / "up").exists, "the command to begin")
    assert daemon.stop() == 0


@AS_ROOT
def test_another_user(launch: Launcher) -> None:
    """As root: the command is theirs, with their name and groups in its environment; it ends like any other."""
    launch.directory.chmod(0o755)
    daemon = run(
        launch,
        theirs={"shell": "id -un; id -G; echo $USER; cat /etc/shadow", "user": "nobody", "cwd": "/"},
        stays={"shell": "echo up; exec sleep 600", "user": "nobody", "cwd": "/"},
    )
    daemon.wait_for("run.finished", job="theirs", outcome="failed")
    said = output(daemon, "theirs")
    groups = subprocess.check_output(["/usr/bin/id", "-G", "nobody"], encoding="utf-8").strip()
    assert said == ["nobody", groups, "nobody"]
    assert any("denied" in line for line in output(daemon, "theirs", "stderr"))
    daemon.wait_for("job.output", job="stays", line="up")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("run.finished", job="stays")[0]["signal"] == "SIGTERM"


def test_status_shows_the_process(launch: Launcher) -> None:
    """SIGUSR1: which process a run is, and of which program."""
    daemon = run(launch, stays="echo $$; exec sleep 600", settings={"JOBD_GRACE_PERIOD": "0"})
    pid = daemon.wait_for("job.output")["line"]
    poll(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the shell to become sleep")
    daemon.signal(SIGUSR1)
    told = daemon.wait_for("run.in_flight", job="stays")
    assert [place for place in told["stack"] if f"process {pid}" in place and "sleep" in place]
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_thirty_at_once(launch: Launcher) -> None:
    """All of them start, all that they print comes, and the stop ends those that are still there."""
    script = "for n in 1 2 3 4 5; do echo $n; done; if [ $((${JOBD_JOB#job} % 2)) = 0 ]; then exec sleep 600; fi"
    jobs: dict[str, Any] = {f"job{number}": script for number in range(30)}
    daemon = run(launch, **jobs)
    daemon.wait_for("run.finished", count=15, timeout=LONG_S)
    daemon.wait_for("job.output", count=150, timeout=LONG_S)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert sorted(daemon.outcomes()) == ["cancelled"] * 15 + ["succeeded"] * 15
    for number in range(30):
        assert output(daemon, f"job{number}") == ["1", "2", "3", "4", "5"]


def test_a_stopped_command_is_ended_all_the_same(launch: Launcher) -> None:
    """Somebody has stopped it with SIGSTOP, so it cannot obey: the cancel timeout ends it."""
    daemon = run(launch, held="echo $$; exec sleep 600", settings={"JOBD_GRACE_PERIOD": "0.2"})
    pid = int(daemon.wait_for("job.output")["line"])
    os.kill(pid, SIGSTOP)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["cancelled"]


def test_a_frozen_daemon_loses_no_output(launch: Launcher) -> None:
    """What a command prints meanwhile, and its end, are told when the daemon goes on."""
    daemon = run(launch, speaks="echo up; until [ -e go ]; do sleep 0.05; done; seq 100; touch said; exit 3")
    daemon.wait_for("job.output", line="up")
    os.kill(daemon.pid, SIGSTOP)
    (launch.directory / "go").touch()
    poll((launch.directory / "said").exists, "all to be said")
    sigtimedwait([], 0.2)  # for a process that is stopped and can tell us nothing
    os.kill(daemon.pid, SIGCONT)
    assert daemon.wait_for("run.finished")["exit_status"] == 3
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert output(daemon, "speaks") == ["up", *map(str, range(1, 101))]


@pytest.mark.parametrize("crash", ["os._exit(7)", "os.kill(os.getpid(), 9)", "os.abort()"])
def test_a_daemon_that_crashes_leaves_no_process_of_a_run(launch: Launcher, crash: str) -> None:
    """Commands and isolated functions are asked to end, then killed, wherever they have gone; nobody else's are."""
    launch.write(
        "jobs",
        "@every('1h', isolation='process')\n"
        "def isolated():\n"
        "    print(os.getpid(), flush=True)\n"
        "    try: time.sleep(600)\n"
        "    finally: open('cleaned up', 'w').close()\n"
        "@every('0.1')\n"
        "def crashes():\n"
        f"    if os.path.exists('go'): {crash}",
    )
    daemon = run(
        launch,
        "jobs",
        polite="exec 2>&-; trap 'touch asked; exit' TERM; echo $$; while :; do sleep 0.1; done",
        stubborn="trap '' TERM; echo $$; while :; do sleep 0.1; done",
        hidden="(setsid sh -c 'echo $$; exec sleep 600' &) & exec sleep 600",
    )
    with subprocess.Popen(["sleep", "600"], env=os.environ | {"JOBD_RUN_ID": "00000000-1"}) as another:
        try:
            for job in ("isolated", "polite", "stubborn", "hidden"):
                daemon.wait_for("job.output", job=job, timeout=LONG_S)
            (launch.directory / "go").touch()
            assert daemon.exit_code(LONG_S) in (7, -SIGKILL, -SIGABRT)
            pids = [int(line["line"]) for line in daemon.events("job.output", stream="stdout")]
            poll(lambda: all(map(has_ended, pids)), "the end of all", LONG_S)
            assert another.poll() is None
        finally:
            another.kill()
    assert (launch.directory / "asked").exists()
    assert (launch.directory / "cleaned up").exists()
    assert not daemon.end()


@pytest.mark.parametrize("number", range(1, 6))
def test_a_process_that_is_being_started_as_the_daemon_is_killed_ends_too(launch: Launcher, number: int) -> None:
    """Its mark is seen as soon as it has become what it is to be."""
    jobs: dict[str, Any] = {f"job{each}": {"command": ["sleep", "600"]} for each in range(number)}
    daemon = run(launch, **jobs)
    daemon.wait_for("run.started", count=number)
    os.kill(daemon.pid, SIGKILL)
    assert daemon.exit_code() == -SIGKILL
    poll(lambda: not in_session(daemon.pid), "the end of all", LONG_S)
