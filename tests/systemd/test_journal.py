"""The journal: it has every line of the log, whole."""

import pytest

from .service import Service

pytestmark = pytest.mark.systemd

BEATS = """
import jobd

@jobd.every("100ms")
async def beats(): pass
"""
#: Lines of every length, up to those that are clipped.
SAYS_LONG_THINGS = """
import structlog, jobd

@jobd.every("1h")
def speaks():
    for size in [*range(1_000, 80_000, 500), 10**7]:
        structlog.get_logger().info("long", **{f"part_{n}": "\\N{SNOWMAN}" * (size // 30) for n in range(10)})
"""


def test_a_long_line_is_one_entry(jobd: Service) -> None:
    """What jobd clips it clips before journald would make two entries of it, of which neither is JSON."""
    jobd.jobs(SAYS_LONG_THINGS)
    jobd.settings(JOBD_JOBS="jobs")
    jobd.systemctl("start")
    jobd.wait_for_line("run.finished", outcome="succeeded")
    jobd.systemctl("stop")
    log = jobd.log()  # each line of which is JSON
    assert len([line for line in log if line["event"] == "long"]) == len([*range(1_000, 80_000, 500), 10**7])
    assert log[-1]["event"] == "daemon.stopped"


def test_the_log_goes_on_when_journald_is_restarted(jobd: Service) -> None:
    """An update of systemd restarts journald; systemd keeps the other end of our stdout meanwhile."""
    jobd.jobs(BEATS)
    jobd.settings(JOBD_JOBS="jobs")
    jobd.systemctl("start")
    jobd.wait_for_line("run.finished")
    jobd.box.run("systemctl", "restart", "systemd-journald")
    last = jobd.logged("run.started")[-1]["tick"]
    jobd.wait_for_run(last + 3, "beats")
    jobd.systemctl("stop")
    log = jobd.log()
    ticks = [line["tick"] for line in log if line["event"] == "run.started"]
    for line in log:
        if line["event"] == "tick.skipped":
            ticks += range(line["tick"], line["tick"] + line["count"])
    assert sorted(ticks) == list(range(len(ticks)))
    assert log[-1]["event"] == "daemon.stopped"
