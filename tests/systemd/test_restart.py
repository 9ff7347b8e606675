"""Restarting: after what was no request, and not after what a restart cannot mend."""

import re

import pytest

from . import hanging
from .box import until
from .service import Service

pytestmark = pytest.mark.systemd

#: Tests need not wait as long as a server may.
AT_ONCE = "[Service]\nRestartSec=100ms\n"
QUICK_WATCHDOG = f"{AT_ONCE}WatchdogSec=2s\nTimeoutAbortSec=1s\n"


def restarted(jobd: Service) -> None:
    """Wait until systemd has started jobd for the second time."""
    until(lambda: jobd.show("NRestarts") != "0" and jobd.show("ActiveState") == "active", "jobd to be restarted")
    until(lambda: len(jobd.logged("daemon.ready")) == 2, "the second jobd to be ready")


def test_a_killed_daemon_is_restarted(jobd: Service) -> None:
    """SIGKILL is a failure, and the next daemon copes with what the first could not tidy up."""
    jobd.drop_in(AT_ONCE)
    jobd.systemctl("start")
    jobd.wait_for_line("run.started")
    jobd.kill("KILL")
    restarted(jobd)


@pytest.mark.parametrize(
    "jobs",
    [
        pytest.param(hanging.ON_THE_JOB_LOOP, id="blocks the event loop of the jobs"),
        pytest.param(hanging.ON_THE_GIL, id="holds the GIL and so every thread"),
        pytest.param(hanging.ON_THE_CONTROL_LOOP, id="hangs the control plane by a call into it"),
        pytest.param(hanging.IN_SELECT, id="hangs the control plane by what it waits with"),
    ],
)
def test_a_daemon_that_a_job_hangs_is_restarted_and_tells_where_it_hung(jobd: Service, jobs: str) -> None:
    """The watchdog's SIGABRT makes the process print the stacks of its threads before it dies."""
    jobd.jobs(jobs)
    jobd.settings(JOBD_JOBS="jobs")
    jobd.drop_in(QUICK_WATCHDOG)
    jobd.systemctl("start")
    restarted(jobd)
    _, aborted, stacks = jobd.journal().partition("Fatal Python error: Aborted")
    assert aborted
    assert re.search('File "/etc/jobd/jobs.py", line [0-9]+ in the_place_where_it_hangs', stacks)


def test_a_process_that_is_held_is_restarted(jobd: Service) -> None:
    """A process that SIGSTOP holds cannot even be aborted; TimeoutAbortSec= bounds the wait for it."""
    jobd.drop_in(QUICK_WATCHDOG)
    jobd.systemctl("start")
    jobd.kill("STOP")
    restarted(jobd)


def test_a_daemon_that_works_is_left_alone_by_a_quick_watchdog(jobd: Service) -> None:
    """Both planes turn, so the watchdog is fed in time, however often that has to be."""
    jobd.jobs("import time, jobd\n@jobd.every('500ms')\nasync def busy(): time.sleep(0.2)\n")
    jobd.settings(JOBD_JOBS="jobs")
    jobd.drop_in(QUICK_WATCHDOG)
    jobd.systemctl("start")
    jobd.wait_for_run(8, "busy")
    assert (jobd.show("NRestarts"), jobd.show("ActiveState")) == ("0", "active")


def test_a_wrong_configuration_is_reported_and_not_tried_again(jobd: Service) -> None:
    """Exit code 78 stays: systemd shows a failed service, the journal what is wrong with which variable."""
    jobd.settings(JOBD_INTERVAL="soon")
    jobd.drop_in(AT_ONCE)
    assert jobd.systemctl("start", check=False) != 0
    jobd.wait_for("ActiveState", "failed")
    assert (jobd.show("ExecMainStatus"), jobd.show("NRestarts")) == ("78", "0")
    assert [line["setting"] for line in jobd.log() if line["event"] == "config.invalid"] == ["JOBD_INTERVAL"]


def test_a_wrong_command_line_is_not_tried_again(jobd: Service) -> None:
    """Exit code 2 stays as well."""
    jobd.drop_in(f"{AT_ONCE}ExecStart=\nExecStart=/opt/jobd/bin/jobd run --no-such-flag\n")
    assert jobd.systemctl("start", check=False) != 0
    jobd.wait_for("ActiveState", "failed")
    assert (jobd.show("ExecMainStatus"), jobd.show("NRestarts")) == ("2", "0")
