"""The image that the Containerfile makes: it runs as it says, as PID 1 of real namespaces, and stops in order."""

import pytest
from acceptance.conftest import Launcher
from acceptance.harness import SETTINGS, Daemon, children_of, poll

from .engine import Image

JOBS = """
import asyncio, os, subprocess
from pathlib import Path
import structlog
from jobd import every

def refused(attempt, *args):
    try:
        attempt(*args)
    except OSError:
        return True
    return False

@every("1h")
def tells():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    structlog.get_logger().info(
        "told",
        uid=os.getuid(),
        cwd=os.getcwd(),
        capabilities=int(status["CapEff"], 16) | int(status["CapBnd"], 16),
        no_new_privileges=status["NoNewPrivs"].strip(),
        refused=[refused(Path(place, "new").touch) for place in ("/", "/app", "/opt/jobd", "/usr/bin")],
        scratch=refused(Path.home().joinpath("new").touch),
        child=subprocess.run(["python3", "-c", "print('hello')"], capture_output=True, text=True).stdout,
    )

@every("200ms")
async def beats(): await asyncio.sleep(0.3)

@every("1h")
async def long(): await asyncio.sleep(600)
"""


def run(launch: Launcher, image: Image, *arguments: str, **settings: str) -> Daemon:
    """A container of the image, with the arguments instead of its CMD if there are any."""
    command = arguments or tuple(image.stage.one("CMD").words)
    daemon = launch("", *command, program=image.command(SETTINGS | settings), env=settings)
    poll(lambda: children_of(daemon.process.pid), "the namespace")
    daemon.pid = children_of(daemon.process.pid)[0]
    return daemon


@pytest.fixture
def with_jobs(image: Image) -> Image:
    """The image with a module of jobs, where the Containerfile says that such a one belongs."""
    module = image.app / "jobs.py"
    module.write_text(JOBS)
    module.chmod(0o644)
    return image


def test_the_image_runs_as_it_is_and_stops_in_order(launch: Launcher, image: Image) -> None:
    """ENTRYPOINT and CMD run the demo job; STOPSIGNAL ends it, and the log is whole."""
    daemon = run(launch, image, JOBD_DEMO_MIN="100ms", JOBD_DEMO_MAX="200ms")
    daemon.wait_for("run.finished", job="run_job")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_jobs_run_without_any_privilege_on_a_file_system_that_is_read_only(launch: Launcher, with_jobs: Image) -> None:
    """Nobody, without capabilities, with nothing but /tmp to write to; files and commands work all the same."""
    daemon = run(launch, with_jobs, JOBD_JOBS="jobs")
    told = daemon.wait_for("told")
    assert (told["uid"], told["cwd"]) == (10001, "/app")
    assert (told["capabilities"], told["no_new_privileges"]) == (0, "1")
    assert told["refused"] == [True] * 4
    assert told["scratch"] is False
    assert told["child"] == "hello\n"
    assert daemon.stop() == 0


def test_a_stop_waits_and_cancels_as_outside_of_a_container(launch: Launcher, with_jobs: Image) -> None:
    """As PID 1, where signals have no default action: what can end ends, what cannot is cancelled, exit code 0."""
    daemon = run(launch, with_jobs, JOBD_JOBS="jobs")
    daemon.wait_for("run.finished", job="beats", count=3)
    daemon.wait_for("run.started", job="long")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert set(daemon.outcomes("beats")) == {"succeeded"}
    assert daemon.outcomes("long") == ["cancelled"]


def test_a_configuration_can_be_checked_with_the_image(launch: Launcher, image: Image) -> None:
    """Other arguments take the place of CMD, not of ENTRYPOINT."""
    right = launch("", "check", program=image.command({}), read=False)
    assert right.exit_code() == 0
    wrong = launch("", "check", program=image.command({"JOBD_INTERVAL": "soon"}), read=False)
    assert wrong.exit_code() == 78
