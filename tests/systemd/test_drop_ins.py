"""The drop-ins: each is accepted by systemd, leaves jobd working, and does what it is there for."""

from pathlib import Path

import pytest

from .box import Box
from .service import Service

pytestmark = pytest.mark.systemd

DROP_INS = sorted((Path(__file__).resolve().parents[2] / "systemd/drop-ins").glob("*.conf"))
#: What a drop-in's comment says is to be done first.
PREPARATION = {
    "write-path": "groupadd --system jobd-data && install -d -o root -g jobd-data -m 2770 /srv/jobd-data",
    "real-user": "useradd --system --create-home jobd-user",
}
#: What an ordinary jobd cannot do, and can with the drop-in.
NEED = {
    "grace-period": "assert os.environ['JOBD_GRACE_PERIOD'] == '10m'",
    "jit": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
    "limits": "assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1024",
    "networks": "socket.create_server(('127.0.0.1', 0))",
    "priorities": "os.nice(5)",
    "privileged-ports": "socket.create_server(('127.0.0.1', 789)).close()",
    "raw-sockets": "[socket.socket(*s) for s in ((2, 3, 1), (socket.AF_PACKET, 3, 0))]",
    "real-user": "assert pwd.getpwuid(os.getuid()).pw_name == 'jobd-user'; pathlib.Path.home().joinpath('f').touch()",
    "write-path": "pathlib.Path('/srv/jobd-data/f').touch()",
}
#: What this one takes away shows only from outside.
TAKES_AWAY = {"networks"}
JOBS = """
import mmap, os, pathlib, pwd, resource, socket, jobd

@jobd.every("1h")
def needs():
    {need}
"""


@pytest.fixture(scope="session")
def prepared(box: Box) -> Box:
    """A box with the users, groups and directories that the drop-ins' comments ask for."""
    for commands in PREPARATION.values():
        box.run("sh", "-c", commands)
    return box


def outcome_of_need(jobd: Service, name: str) -> str:
    """How a run ends that needs what the drop-in is for."""
    jobd.jobs(JOBS.format(need=NEED[name]))
    jobd.settings(JOBD_JOBS="jobs")
    jobd.systemctl("start")
    return str(jobd.wait_for_line("run.finished")["outcome"])


def test_every_drop_in_is_tested() -> None:
    """A drop-in that is added gets a line above."""
    assert [path.stem for path in DROP_INS] == sorted(NEED)


@pytest.mark.parametrize("path", DROP_INS, ids=lambda path: path.stem)
def test_a_drop_in_opens_what_its_jobs_need(prepared: Box, jobd: Service, path: Path) -> None:
    """systemd has nothing to say against it, jobd starts, and the job that could not run before can."""
    jobd.drop_in(path.read_text(), path.stem)
    verified = prepared.run("systemd-analyze", "verify", "--man=no", "jobd.service")
    assert verified.stdout + verified.stderr == ""
    assert outcome_of_need(jobd, path.stem) == "succeeded"


def test_the_networks_drop_in_replaces_the_list_of_the_unit(jobd: Service) -> None:
    """Addresses that are neither this machine nor in the one network are not allowed any more."""
    jobd.drop_in(next(path for path in DROP_INS if path.stem == "networks").read_text())
    assert set(jobd.show("IPAddressAllow").split()) == {"127.0.0.0/8", "::1/128", "10.0.0.0/8"}
    assert set(jobd.show("IPAddressDeny").split()) == {"0.0.0.0/0", "::/0"}


@pytest.mark.parametrize("with_it", [True, False], ids=["with", "without"])
def test_the_limits_drop_in_keeps_journald_from_dropping_lines(jobd: Service, with_it: bool) -> None:
    """What journald takes in half a minute is made little here, so that a test can exceed it."""
    little = "[Service]\nLogRateLimitBurst=20\n"
    limits = next(path for path in DROP_INS if path.stem == "limits").read_text()
    jobd.drop_in(little + (limits if with_it else ""))
    jobd.jobs(
        "import structlog, jobd\n"
        "@jobd.every('1h')\n"
        "def speaks():\n"
        "    jobd.current_run().stopping.wait()\n"
        "    for number in range(1000): structlog.get_logger().info('line', number=number)\n"
    )
    jobd.settings(JOBD_JOBS="jobs")
    jobd.systemctl("start")
    jobd.wait_for("StatusText", "running, 1 in flight")  # a line of the log might be one that is dropped
    jobd.systemctl("stop")
    assert (len(jobd.logged("line")) == 1000) is with_it


@pytest.mark.parametrize("name", sorted(NEED.keys() - TAKES_AWAY))
def test_the_need_is_not_met_without_the_drop_in(prepared: Box, jobd: Service, name: str) -> None:
    """Or the drop-in would be good for nothing."""
    assert outcome_of_need(jobd, name) == "failed"


@pytest.mark.parametrize("path", DROP_INS, ids=lambda path: path.stem)
def test_a_drop_in_says_which_need_it_serves(path: Path) -> None:
    """Whoever reads the directory finds the one that is needed."""
    assert path.read_text().startswith("# For ")
