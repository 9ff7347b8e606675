"""Stopping: whoever asks for it, jobd comes to an orderly end, and its log proves it."""

import time
from collections import Counter

import pytest

from . import hanging
from .box import until
from .service import Line, Service

pytestmark = pytest.mark.systemd

#: Stop signals closer together than a quarter of a second count as one.
ONE_REQUEST_S = 0.3
#: Two runs that a drain of a few seconds can wait for, and two that it cannot.
JOBS = """
import asyncio, time, jobd

@jobd.every("1h")
async def short(): await asyncio.sleep(2)

@jobd.every("1h")
def short_in_a_thread(): time.sleep(2)

@jobd.every("1h")
async def long(): await asyncio.sleep(600)

@jobd.every("1h")
def long_in_a_thread(): jobd.current_run().stopping.wait(600); time.sleep(2)
"""
OUTCOMES = {
    "short": "succeeded",
    "short_in_a_thread": "succeeded",
    "long": "cancelled",
    "long_in_a_thread": "succeeded",
}


def proves_its_end(log: list[Line]) -> None:
    """Each run that was started has exactly one end, and the last line says that all is said."""
    started = Counter(line["run_id"] for line in log if line["event"] == "run.started")
    finished = Counter(line["run_id"] for line in log if line["event"] == "run.finished")
    assert started == finished
    assert set(started.values()) == {1}
    assert log[-1]["event"] == "daemon.stopped"


def outcomes(log: list[Line]) -> dict[str, str]:
    """How the run of each job ended."""
    return {line["job"]: line["outcome"] for line in log if line["event"] == "run.finished"}


def start_all(jobd: Service) -> None:
    """Start the service, and come back when the four runs are in flight."""
    jobd.jobs(JOBS)
    jobd.settings(JOBD_JOBS="jobs", JOBD_GRACE_PERIOD="4s", JOBD_CANCEL_TIMEOUT="3s")
    jobd.systemctl("start")
    jobd.wait_for_lines("run.started", 4)


def test_a_sigterm_from_anybody_is_a_clean_end_and_no_reason_to_restart(jobd: Service) -> None:
    """`kill` of the main process drains like `systemctl stop`, and Restart=on-failure lets it be."""
    start_all(jobd)
    jobd.kill("TERM")
    jobd.wait_for("ActiveState", "inactive")
    assert (jobd.show("Result"), jobd.show("ExecMainStatus"), jobd.show("NRestarts")) == ("success", "0", "0")
    proves_its_end(jobd.log())
    assert outcomes(jobd.log()) == OUTCOMES


def test_systemctl_stop_lets_runs_end_that_can_and_cancels_the_others(jobd: Service) -> None:
    """The grace period is for the short runs; the long one is cancelled; the exit code says that all went well."""
    start_all(jobd)
    jobd.systemctl("stop")
    assert (jobd.show("ActiveState"), jobd.show("Result"), jobd.show("ExecMainStatus")) == ("inactive", "success", "0")
    proves_its_end(jobd.log())
    assert outcomes(jobd.log()) == OUTCOMES
    assert [line["running"] for line in jobd.log() if line["event"] == "shutdown.cancelling"] == [1]


def test_a_run_that_has_to_be_abandoned_shows_in_the_exit_code(jobd: Service) -> None:
    """A thread that never ends holds nobody up: it is named in the log, and the exit code is 3."""
    jobd.jobs("import time, jobd\n@jobd.every('1h')\ndef stubborn(): time.sleep(600)\n")
    jobd.settings(JOBD_JOBS="jobs", JOBD_GRACE_PERIOD="0", JOBD_CANCEL_TIMEOUT="500ms")
    jobd.systemctl("start")
    jobd.wait_for_line("run.started")
    jobd.systemctl("stop")
    assert (jobd.show("ExecMainCode"), jobd.show("ExecMainStatus")) == ("1", "3")  # CLD_EXITED
    proves_its_end(jobd.log())
    assert outcomes(jobd.log()) == {"stubborn": "abandoned"}


@pytest.mark.parametrize(
    ("job", "settings", "outcome"),
    [
        pytest.param(
            "async def patient(): await asyncio.sleep(5)",
            {"JOBD_GRACE_PERIOD": "30s"},
            "succeeded",
            id="grace period",
        ),
        pytest.param(
            "async def patient():\n"
            "    try: await asyncio.sleep(600)\n"
            "    finally: await asyncio.sleep(5)\n",
            {"JOBD_GRACE_PERIOD": "0", "JOBD_CANCEL_TIMEOUT": "30s"},
            "cancelled",
            id="cancel timeout",
        ),
    ],
)  # fmt: skip
def test_a_stop_may_take_longer_than_the_timeout_of_systemd(
    jobd: Service, job: str, settings: dict[str, str], outcome: str
) -> None:
    """jobd asks systemd for the time that it needs, so nothing is killed and the run ends by itself."""
    jobd.jobs(f"import asyncio, jobd\n@jobd.every('1h')\n{job}\n")
    jobd.settings(JOBD_JOBS="jobs", **settings)
    jobd.drop_in("[Service]\nTimeoutStopSec=2s\n")
    jobd.systemctl("start")
    jobd.wait_for_line("run.started")
    jobd.systemctl("stop")
    assert jobd.show("Result") == "success"
    proves_its_end(jobd.log())
    assert outcomes(jobd.log()) == {"patient": outcome}


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param("time.sleep(600)", id="never ends"),
        pytest.param("for _ in range(300):\n    time.sleep(0.1)\nfrom jobd.demo import run_job\n", id="is slow"),
    ],
)
def test_a_stop_during_an_import_ends_the_process_at_once(jobd: Service, rest: str) -> None:
    """A service that is still activating obeys, and this is no failure."""
    jobd.jobs(f"import time\nprint('importing', flush=True)\n{rest}\n")
    jobd.settings(JOBD_JOBS="jobs")
    jobd.systemctl("start", "--no-block")
    until(lambda: "importing" in jobd.journal(), "the import to begin")
    assert jobd.show("ActiveState") == "activating"
    jobd.systemctl("stop")
    assert (jobd.show("ActiveState"), jobd.show("Result"), jobd.show("ExecMainStatus")) == ("inactive", "success", "0")
    assert jobd.logged("daemon.stopped")[0]["uptime_s"] < 20


def test_a_start_that_takes_too_long_is_a_failure_and_tried_again(jobd: Service) -> None:
    """TimeoutStartSec= ends an import that never does, in order, and Restart= gives it another chance."""
    jobd.jobs(
        "import os, time\nfrom pathlib import Path\nbefore = Path(os.environ['STATE_DIRECTORY'], 'before')\n"
        "if not before.exists():\n    before.touch()\n    time.sleep(600)\nfrom jobd.demo import run_job\n"
    )
    jobd.settings(JOBD_JOBS="jobs:run_job")
    jobd.drop_in("[Service]\nTimeoutStartSec=1s\nRestartSec=100ms\n")
    jobd.systemctl("start", check=False)
    jobd.wait_for("ActiveState", "active")
    assert jobd.show("NRestarts") == "1"
    assert [line["exit_code"] for line in jobd.logged("daemon.stopped")] == [0]


def test_a_restart_in_the_drain_begins_when_the_drain_has_ended(jobd: Service) -> None:
    """One daemon after the other: the new one starts no run while the old one still has some."""
    start_all(jobd)
    jobd.systemctl("stop", "--no-block")
    jobd.wait_for_line("shutdown.waiting")
    jobd.systemctl("restart")
    log = jobd.log()
    begins = [number for number, line in enumerate(log) if line["event"] == "daemon.starting"]
    assert len(begins) == 2
    proves_its_end(log[: begins[1]])
    assert outcomes(log[: begins[1]]) == OUTCOMES
    assert jobd.show("ActiveState") == "active"


STUBBORN = """
import asyncio, time, jobd

@jobd.every("1h")
async def obeys(): await asyncio.sleep(600)

@jobd.every("1h")
async def does_not():
    while True:
        try: await asyncio.sleep(600)
        except asyncio.CancelledError: pass
"""


def test_a_second_sigterm_cancels_and_a_third_abandons(jobd: Service) -> None:
    """`systemctl kill`, again and again, to every process of the service: each counts, and the guard minds none."""
    jobd.jobs(STUBBORN)
    jobd.settings(JOBD_JOBS="jobs", JOBD_GRACE_PERIOD="10m", JOBD_CANCEL_TIMEOUT="10m")
    jobd.systemctl("start")
    jobd.wait_for_lines("run.started", 2)
    jobd.systemctl("kill", "--signal=TERM")
    jobd.wait_for_line("shutdown.waiting")
    time.sleep(ONE_REQUEST_S)
    jobd.systemctl("kill", "--signal=TERM")
    assert jobd.wait_for_line("shutdown.cancelling")["reason"] == "signal"
    jobd.wait_for_line("run.finished", job="obeys", outcome="cancelled")
    assert jobd.show("ActiveState") != "failed"
    time.sleep(ONE_REQUEST_S)
    jobd.systemctl("kill", "--signal=TERM")
    jobd.wait_for("ActiveState", "failed")
    assert (jobd.show("ExecMainStatus"), jobd.show("NRestarts")) == ("3", "0")
    proves_its_end(jobd.log())
    assert outcomes(jobd.log()) == {"obeys": "cancelled", "does_not": "abandoned"}


@pytest.mark.parametrize(
    "jobs",
    [
        pytest.param(hanging.ON_THE_CONTROL_LOOP, id="hangs the control plane"),
        pytest.param(hanging.AT_IMPORT, id="holds the GIL while it is imported"),
    ],
)
def test_a_daemon_that_cannot_hear_is_stopped_within_the_time_bound(jobd: Service, jobs: str) -> None:
    """Nobody is left to read the signal; the guard ends the daemon long before systemd would, and tells where it is."""
    jobd.jobs(jobs)
    jobd.settings(JOBD_JOBS="jobs", JOBD_GRACE_PERIOD="500ms", JOBD_CANCEL_TIMEOUT="500ms")
    jobd.systemctl("start", "--no-block")
    jobd.wait_for_line("hung")
    began = time.monotonic()
    jobd.systemctl("stop")
    assert time.monotonic() - began < 15  # TimeoutStopSec= is 30 s
    assert (jobd.show("Result"), jobd.show("ExecMainStatus")) == ("signal", "9")
    assert "in the_place_where_it_hangs" in jobd.journal()


def commands(jobd: Service) -> list[str]:
    """The command lines of the box's sleeping processes."""
    return jobd.box.out("ps", "-C", "sleep", "-o", "args=", check=False).splitlines()


def test_what_a_job_has_left_behind_is_killed_after_the_drain_and_not_before(jobd: Service) -> None:
    """A run's child hears nothing of the stop while its run may still end; one that outlives jobd does not stay."""
    jobd.jobs(
        "import asyncio, jobd\n"
        "@jobd.every('1h')\n"
        "async def parent():\n"
        "    await asyncio.create_subprocess_exec('sleep', '601', start_new_session=True)\n"
        "    child = await asyncio.create_subprocess_shell('until [ -e $STATE_DIRECTORY/go ]; do sleep 0.1; done')\n"
        "    assert await child.wait() == 0\n"
    )
    jobd.settings(JOBD_JOBS="jobs")
    jobd.systemctl("start")
    until(lambda: {"sleep 601", "sleep 0.1"} <= set(commands(jobd)), "two children of the run")
    jobd.systemctl("stop", "--no-block")
    jobd.wait_for_line("shutdown.waiting")
    jobd.box.write("/var/lib/jobd/go", "")
    jobd.wait_for("ActiveState", "inactive")
    assert outcomes(jobd.log()) == {"parent": "succeeded"}
    assert commands(jobd) == []
