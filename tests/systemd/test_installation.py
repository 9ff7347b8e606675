"""What README says about servers works, command by command."""

import pytest

from .box import Box
from .service import Service

pytestmark = pytest.mark.systemd


def test_start_returns_when_jobd_is_ready(jobd: Service) -> None:
    """`systemctl enable --now` comes back only when the jobs are loaded, and not before."""
    jobd.jobs("import time\ntime.sleep(1)\nfrom jobd.demo import run_job\n")
    jobd.settings(JOBD_JOBS="jobs:run_job")
    jobd.systemctl("enable", "--now")
    assert jobd.show("ActiveState") == "active"
    assert [line["jobs"] for line in jobd.logged("daemon.ready")] == [1]
    assert jobd.systemctl("is-enabled") == 0
    jobd.systemctl("disable")


def test_the_demo_job_runs_without_any_configuration(jobd: Service) -> None:
    """A server on which nothing is configured yet shows a daemon that works."""
    jobd.systemctl("start")
    jobd.wait_for_line("run.started", job="run_job")


def test_status_tells_how_many_runs_are_in_flight(jobd: Service) -> None:
    """Whoever looks at the service sees the number of runs, and it is the right one."""
    jobd.jobs(
        "import asyncio, jobd\n"
        "@jobd.every('1h')\nasync def one(): await asyncio.sleep(600)\n"
        "@jobd.every('1h')\nasync def two(): await asyncio.sleep(600)\n"
    )
    jobd.settings(JOBD_JOBS="jobs", JOBD_GRACE_PERIOD="0")
    jobd.systemctl("start")
    jobd.wait_for("StatusText", "running, 2 in flight")
    assert "running, 2 in flight" in jobd.box.out("systemctl", "status", "--no-pager", jobd.unit)


def test_a_configuration_can_be_checked_before_the_service_reads_it(jobd: Service) -> None:
    """The command at the top of the unit file tells right from wrong, and starts nothing."""
    check = ("sh", "-c", "cd /etc/jobd && /opt/jobd/bin/jobd check --env-file jobd.env")
    jobd.jobs("from jobd.demo import run_job\n")
    jobd.settings(JOBD_JOBS="jobs:run_job")
    assert "run_job" in jobd.box.out(*check)
    jobd.settings(JOBD_JOBS="jobs:no_such_job")
    assert jobd.box.run(*check, check=False).returncode == 78


@pytest.mark.parametrize("unit", ["jobd.service", "jobd@x.service"])
def test_systemd_finds_no_fault_with_the_units(box: Box, unit: str) -> None:
    """`systemd-analyze verify` has nothing to say."""
    verified = box.run("systemd-analyze", "verify", "--man=no", unit)
    assert verified.stdout + verified.stderr == ""
