"""The box itself: it is another system, and nothing of it stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .box import Box, name_of, until

pytestmark = pytest.mark.systemd

#: A session that boots a box and is killed before it can tidy up.
SESSION = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from {Path(__file__).parent.name}.box import Box
box = Box()
print(box.init, box.keeper, flush=True)
sys.stdin.read()
"""


def traces(keeper: int) -> list[str]:
    """What the box of this keeper has left on this machine: mounts, directories, control groups."""
    name = f"jobd-box-{keeper}"
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line]
    groups = [path for path, _, _ in os.walk("/sys/fs/cgroup") if Path(path).name == name]
    return [*mounts, *groups, *(str(path) for path in Path("/tmp").glob(f"{name}-*"))]


def test_what_is_done_in_a_box_stays_in_it(bare_box: Box) -> None:
    """Files, host name and processes are the box's own; the kernel's settings are not for it to change."""
    bare_box.run("sh", "-c", "echo in the box > /etc/jobd-box && hostname box")
    assert bare_box.out("cat", "/etc/jobd-box") == "in the box"
    assert not Path("/etc/jobd-box").exists()
    assert os.uname().nodename != "box"
    assert bare_box.out("cat", "/proc/1/comm") == "systemd"
    assert bare_box.run("sh", "-c", "echo 1 > /proc/sys/vm/swappiness", check=False).returncode != 0
    bare_box.run("rm", "/etc/jobd-box")


def test_a_box_that_is_closed_leaves_nothing_behind(bare_box: Box) -> None:
    """Neither its processes nor its files nor its control group."""
    box = Box()
    assert name_of(box.init) == "systemd"
    assert traces(box.keeper)
    box.close()
    assert name_of(box.init) is None
    assert traces(box.keeper) == []


def test_a_box_ends_with_its_session_even_if_that_is_killed(bare_box: Box) -> None:
    """Nobody has to tidy up by hand after a SIGKILL."""
    session = subprocess.Popen([sys.executable, "-c", SESSION], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert session.stdin is not None
    assert session.stdout is not None
    with session.stdin, session.stdout:
        init, keeper = map(int, session.stdout.readline().split())
        assert name_of(init) == "systemd"
        session.send_signal(signal.SIGKILL)
        session.wait()
    until(lambda: name_of(init) is None, "the box to end")
    until(lambda: traces(keeper) == [], "everything of it to be gone")
