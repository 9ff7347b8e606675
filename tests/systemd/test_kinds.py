"""Every kind of job and of schedule, in the sandbox of the unit."""

import pytest

from .service import Service

pytestmark = pytest.mark.systemd

JOBS = """
import asyncio, os
import jobd

@jobd.lifespan
async def shared():
    global opened
    opened = True
    yield

@jobd.every("1s", anchor="clock")
async def on_the_clock():
    assert opened

@jobd.cron("* * * * * *", timezone="Europe/Berlin")
def in_a_time_zone(): pass

@jobd.every("1h", isolation="process")
def isolated():
    assert jobd.current_run().job == "isolated"
    print("isolated", os.getpid())
"""
COMMANDS = """
[jobs.command]
every = "1h"
command = ["id", "--user", "--name"]

[jobs.orphaning]
every = "1h"
shell = "setsid sh -c 'sleep 1234' >/dev/null 2>&1 & echo started"

[jobs.stubborn]
every = "1h"
shell = "trap '' TERM; while :; do sleep 0.1; done"
"""


def test_every_kind_of_job_runs_in_the_sandbox(jobd: Service) -> None:
    """Coroutines, functions, isolated functions and commands; and of the commands nothing stays behind."""
    jobd.jobs(JOBS)
    jobd.box.write("/etc/jobd/jobs.toml", COMMANDS)
    jobd.settings(JOBD_JOBS='"jobs jobs.toml"', JOBD_GRACE_PERIOD="1s", JOBD_CANCEL_TIMEOUT="1s")
    jobd.systemctl("start")
    for job in ("on_the_clock", "in_a_time_zone", "isolated", "command", "orphaning"):
        jobd.wait_for_line("run.finished", job=job, outcome="succeeded")
    assert jobd.box.run("pgrep", "--full", "sleep 1234", check=False).returncode == 1
    assert jobd.logged("job.output", job="command")[0]["line"] == "jobd"
    assert jobd.logged("job.output", job="isolated")
    assert all(line["scheduled_at"].endswith(".000000Z") for line in jobd.logged("run.started", job="on_the_clock"))
    assert jobd.logged("run.started", job="stubborn")
    jobd.systemctl("stop")
    assert jobd.show("Result") == "success"
    (stubborn,) = jobd.logged("run.finished", job="stubborn")
    assert (stubborn["outcome"], stubborn["signal"]) == ("cancelled", "SIGKILL")
    assert jobd.log()[-1]["event"] == "daemon.stopped"
