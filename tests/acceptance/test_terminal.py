"""The daemon in a terminal: what is typed there, and a terminal that closes."""

import os
import signal
import time

from .conftest import Launcher
from .harness import on_terminal, poll

CONTROL_C = b"\x03"


def test_control_c_three_times(launch: Launcher, terminal: tuple[int, str]) -> None:
    """Drain, cancel, leave: whoever is impatient is gone at the third, and the log knows how each run has ended."""
    ours, path = terminal
    daemon = launch(
        """
        @every("1h")
        async def stubborn():
            while True:
                try: await asyncio.sleep(60)
                except asyncio.CancelledError: pass
        @every("1h")
        async def honest(): await asyncio.sleep(60)
        """,
        program=on_terminal(path),
        JOBD_GRACE_PERIOD="60",
        JOBD_CANCEL_TIMEOUT="60",
    )
    daemon.wait_for("run.started", count=2)
    for expected in ("shutdown.waiting", "shutdown.cancelling", "shutdown.abandoned"):
        os.write(ours, CONTROL_C)
        daemon.wait_for(expected)
        time.sleep(0.5)  # as a person does; closer together they would be one
    assert daemon.exit_code(within=3) == 3
    daemon.assert_log_is_consistent()
    assert daemon.outcomes("stubborn") == ["abandoned"]
    assert daemon.outcomes("honest") == ["cancelled"]
    assert "Traceback" not in daemon.stderr


def test_a_terminal_that_closes_with_the_log_on_it(launch: Launcher, terminal: tuple[int, str]) -> None:
    """SIGHUP is an orderly stop though nothing can be written any more: what is in flight comes to its end."""
    ours, path = terminal
    theirs = os.open(path, os.O_RDWR | os.O_NOCTTY)
    daemon = launch(
        """
        @every("1h")
        async def job():
            open("started", "w").close()
            await asyncio.sleep(0.5)
            print("to nobody")
            open("ended", "w").close()
        """,
        program=on_terminal(path),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    poll(lambda: (daemon.directory / "started").exists(), "the run has started")
    os.close(ours)
    assert daemon.exit_code(within=3) == 0
    assert (daemon.directory / "ended").exists()


def test_a_hangup_sent_to_a_daemon_in_a_terminal_is_a_stop(launch: Launcher, terminal: tuple[int, str]) -> None:
    """Without a terminal it would mean that everything is to be read again."""
    _, path = terminal
    daemon = launch("@every('1h')\nasync def job(): await asyncio.sleep(0.5)", program=on_terminal(path))
    daemon.wait_for("run.started")
    assert daemon.stop(signal.SIGHUP, within=3) == 0
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["succeeded"]
