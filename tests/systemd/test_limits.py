"""Limits of memory and tasks: they cost the run that hits them, and the daemon only where it is the one that does."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .limits import CannotLimit, limit
from .service import Service
from .test_stop import outcomes, proves_its_end

pytestmark = pytest.mark.systemd

#: For a daemon and a child, and for nothing like what is eaten here.
ENOUGH_BYTES = 256 * 1024 * 1024
JOBS = """
import asyncio, os, subprocess, sys, time, structlog, jobd
from pathlib import Path

GO = Path(os.environ["STATE_DIRECTORY"], "go")
EATS = "eaten = [bytearray(2**20) for _ in range(2000)]"

@jobd.every("100ms")
async def beats(): pass
"""
#: A child of the job needs more memory than there is.
A_CHILD = """
@jobd.every("1h")
def eats():
    while not GO.exists(): time.sleep(0.05)
    structlog.get_logger().info("ended", code=subprocess.run([sys.executable, "-c", EATS]).returncode)
"""
#: The job itself does, once: it runs in the daemon's process.
ITSELF = """
@jobd.every("1h")
def eats():
    while not GO.exists(): time.sleep(0.05)
    if not GO.with_name("eaten").exists():
        GO.with_name("eaten").touch()
        exec(EATS)
"""
#: Needs a thread for each of its ticks.
THREADS = """
@jobd.every("100ms")
def in_a_thread(): pass
"""


@contextmanager
def limited(jobd: Service, name: str, value: int) -> Iterator[None]:
    """The limit, or no test where there can be none."""
    try:
        with limit(jobd, name, value):
            yield
    except CannotLimit as reason:
        pytest.skip(str(reason))


def start(jobd: Service, jobs: str) -> None:
    """Start the service, and come back when it runs jobs."""
    jobd.jobs(JOBS + jobs)
    jobd.settings(JOBD_JOBS="jobs", JOBD_GRACE_PERIOD="0", JOBD_CANCEL_TIMEOUT="1s")
    jobd.drop_in("[Service]\nRestartSec=100ms\n")
    jobd.systemctl("start")
    jobd.wait_for_line("run.finished", job="beats")


def assert_goes_on(jobd: Service) -> None:
    """A run starts later than now, and ends well."""
    last = jobd.logged("run.started", job="beats")[-1]["tick"]
    jobd.wait_for_run(last + 1, "beats")
    assert (jobd.show("ActiveState"), jobd.show("NRestarts")) == ("active", "0")


def test_a_child_that_takes_all_the_memory_is_killed_and_nobody_else(jobd: Service) -> None:
    """The kernel takes the biggest process; OOMPolicy=continue leaves the daemon and its other runs alone."""
    start(jobd, A_CHILD)
    with limited(jobd, "MemoryMax", ENOUGH_BYTES):
        jobd.box.write("/var/lib/jobd/go", "")
        assert jobd.wait_for_line("ended")["code"] == -9
        assert_goes_on(jobd)
        jobd.systemctl("stop")
    assert jobd.show("Result") == "success"
    proves_its_end(jobd.log())


def test_a_daemon_whose_job_takes_all_the_memory_is_killed_and_restarted(jobd: Service) -> None:
    """A job's memory is the daemon's, so the kernel takes the daemon; what it had logged is whole."""
    start(jobd, ITSELF)
    killed = jobd.show("MainPID")
    with limited(jobd, "MemoryMax", ENOUGH_BYTES):
        jobd.box.write("/var/lib/jobd/go", "")
        jobd.wait_for("NRestarts", "1")
    jobd.wait_for_lines("daemon.ready", 2)
    assert jobd.show("ActiveState") == "active"
    assert jobd.show("MainPID") != killed
    jobd.systemctl("stop")
    log = jobd.log()
    again = [line["event"] for line in log].index("daemon.starting", 1)
    assert log[again - 1]["event"] != "daemon.stopped"
    proves_its_end(log[again:])


def test_where_no_more_tasks_are_to_be_had_functions_fail_and_the_daemon_goes_on(jobd: Service) -> None:
    """A plain function needs a thread, a coroutine does not; the stop needs none that is not there already."""
    start(jobd, THREADS)
    jobd.wait_for_line("run.finished", job="in_a_thread", outcome="succeeded")
    with limited(jobd, "TasksMax", 1):  # those that are there stay
        failed = jobd.wait_for_line("run.finished", job="in_a_thread", outcome="failed")
        assert "thread" in failed["error"]["message"]
        assert_goes_on(jobd)
        jobd.systemctl("stop")
    assert (jobd.show("Result"), jobd.show("NRestarts")) == ("success", "0")
    proves_its_end(jobd.log())
    assert outcomes(jobd.log())["beats"] == "succeeded"
