"""Reloading: `systemctl reload` changes the jobs of a running service, or nothing where something is wrong."""

import pytest

from .box import until
from .service import Service

pytestmark = pytest.mark.systemd

STEADY = """
import jobd

@jobd.every("500ms")
async def steady(): pass
"""
MORE = """
@jobd.every("500ms")
async def more(): pass
"""


def start(jobd: Service) -> str:
    """Start the service with one job; its main process."""
    jobd.jobs(STEADY)
    jobd.settings(JOBD_JOBS="jobs")
    jobd.systemctl("start")
    jobd.wait_for_line("run.finished", job="steady")
    return jobd.show("MainPID")


def goes_on(jobd: Service, job: str) -> None:
    """Wait until the job has run twice more."""
    so_far = len(jobd.logged("run.finished", job=job, outcome="succeeded"))
    until(lambda: len(jobd.logged("run.finished", job=job, outcome="succeeded")) >= so_far + 2, f"runs of {job}", 20)


def stops_well(jobd: Service, pid: str) -> None:
    """It has been the same process all the time, which stops in order."""
    assert (jobd.show("MainPID"), jobd.show("NRestarts")) == (pid, "0")
    jobd.systemctl("stop")
    assert (jobd.show("ActiveState"), jobd.show("Result"), jobd.show("ExecMainStatus")) == ("inactive", "success", "0")
    log = jobd.log()
    assert len([line for line in log if line["event"] == "daemon.starting"]) == 1
    assert log[-1]["event"] == "daemon.stopped"


def test_a_reload_adds_and_removes_jobs(jobd: Service) -> None:
    """The journal names them; the unit is active again, with the same process, and what stays keeps its ticks."""
    pid = start(jobd)
    jobd.jobs(STEADY + MORE)
    jobd.systemctl("reload")
    told = jobd.wait_for_line("daemon.reloaded")
    assert (told["added"], told["changed"], told["removed"]) == (["more"], [], [])
    jobd.wait_for("ActiveState", "active")
    assert jobd.show("SubState") == "running"
    goes_on(jobd, "more")
    jobd.jobs(STEADY)
    jobd.systemctl("reload")
    jobd.wait_for_line("daemon.reloaded", removed=["more"])
    jobd.wait_for("ActiveState", "active")
    goes_on(jobd, "steady")
    stops_well(jobd, pid)
    ticks = [line["tick"] for line in jobd.logged("run.started", job="steady")]
    skipped = sum(line["count"] for line in jobd.logged("tick.skipped", job="steady"))
    assert len(ticks) + skipped == max(ticks) + 1


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(STEADY + "raise RuntimeError('half an edit')\n", id="raises"),
        pytest.param(STEADY + "def half(\n", id="is no Python"),
        pytest.param(STEADY.replace("500ms", "soon"), id="has a wrong schedule"),
    ],
)
def test_a_faulty_module_changes_nothing(jobd: Service, code: str) -> None:
    """The journal says what is wrong, the old jobs go on, and the unit is active; mended, it is taken."""
    pid = start(jobd)
    jobd.jobs(code)
    jobd.systemctl("reload", check=False)
    jobd.wait_for_line("reload.refused")
    assert jobd.logged("config.invalid")
    assert not jobd.logged("daemon.reloaded")
    jobd.wait_for("ActiveState", "active")
    assert jobd.show("SubState") == "running"
    goes_on(jobd, "steady")
    jobd.jobs(STEADY + MORE)
    jobd.systemctl("reload")
    jobd.wait_for_line("daemon.reloaded", added=["more"])
    goes_on(jobd, "more")
    stops_well(jobd, pid)


def test_a_reload_that_takes_long_keeps_nothing_waiting(jobd: Service) -> None:
    """While a slow module is imported the old jobs go on; a stop in the middle of it is one."""
    pid = start(jobd)
    jobd.jobs("import time\nprint('importing', flush=True)\ntime.sleep(600)\n" + STEADY)
    jobd.systemctl("reload", "--no-block")
    until(lambda: "importing" in jobd.journal(), "the import to begin", 20)
    goes_on(jobd, "steady")
    jobd.systemctl("stop")
    assert (jobd.show("ActiveState"), jobd.show("Result"), jobd.show("ExecMainStatus")) == ("inactive", "success", "0")
    assert jobd.show("NRestarts") == "0"
    assert pid == str(jobd.logged("daemon.starting")[0]["pid"])
