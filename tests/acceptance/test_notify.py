"""What systemd is told, seen from the other end of NOTIFY_SOCKET; nobody there, or nobody who reads, is no fault."""

import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Launcher
from .harness import PATIENCE_S, Daemon, poll

#: Tells what its run and a child of it see of the protocol.
JOBS = """
@every("0.1")
async def beat(): pass
@every("1h")
def tells():
    child = subprocess.run(["env", "--null"], capture_output=True, text=True).stdout.split("\\0")
    names = [*os.environ, *(entry.partition("=")[0] for entry in child)]
    log.info("told", names=[name for name in names if name.startswith(("NOTIFY", "WATCHDOG"))])
"""
NAMES = ("path", "abstract")


class Manager:
    """A service manager's end of the protocol."""

    def __init__(self, address: str) -> None:
        """Listen at `address`, as it stands in the environment."""
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(PATIENCE_S)
        #: Every word that has come so far.
        self.words: list[str] = []

    def hear(self, beginning: str) -> str:
        """Wait for a word that begins so, and return it."""
        while True:
            words = self.socket.recv(4096).decode().split("\n")
            self.words += words
            for word in words:
                if word.startswith(beginning):
                    return word

    def hear_out(self) -> None:
        """Take in what has come and was not listened to."""
        self.socket.setblocking(False)
        try:
            self.hear("nothing begins like this")
        except BlockingIOError:
            pass
        self.socket.settimeout(PATIENCE_S)


@pytest.fixture(params=NAMES)
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """A service manager, at an address of either kind."""
    manager = Manager(f"@jobd-{secrets.token_hex(8)}" if request.param == "abstract" else str(tmp_path / "notify"))
    with manager.socket:
        yield manager


def assert_goes_on(daemon: Daemon) -> None:
    """Runs go on being started, and the stop works."""
    daemon.wait_for("run.finished", job="beat", count=len(daemon.events("run.finished", job="beat")) + 3)
    assert daemon.stop(within=2) == 0
    daemon.assert_log_is_consistent()


def test_ready_is_said_when_the_jobs_are_loaded_and_stopping_when_the_drain_begins(
    launch: Launcher, manager: Manager
) -> None:
    """Not before, and each once; the drain asks for time as it begins."""
    daemon = launch(
        """
        log.info("importing")
        while not os.path.exists("may go on"): time.sleep(0.01)
        @every("1h")
        async def job(): await asyncio.sleep(60)
        """,
        NOTIFY_SOCKET=manager.address,
    )
    daemon.wait_for("importing")
    manager.hear_out()
    assert "READY=1" not in manager.words
    (daemon.directory / "may go on").touch()
    manager.hear("READY=1")
    daemon.wait_for("run.started")
    assert daemon.stop() == 0
    manager.hear_out()
    assert manager.words.count("READY=1") == manager.words.count("STOPPING=1") == 1
    after = manager.words[manager.words.index("STOPPING=1") + 1]
    assert after.startswith("EXTEND_TIMEOUT_USEC=")
    assert int(after.partition("=")[2]) > 5_000_000  # the next word comes within 5 s


def test_a_stop_during_the_import_is_said_too(launch: Launcher, manager: Manager) -> None:
    """STOPPING=1 without a READY=1 before it."""
    daemon = launch("log.info('importing'); time.sleep(60)", NOTIFY_SOCKET=manager.address)
    daemon.wait_for("importing")
    assert daemon.stop(within=2) == 0
    manager.hear_out()
    assert "STOPPING=1" in manager.words
    assert "READY=1" not in manager.words


@pytest.mark.parametrize("faulty", [False, True], ids=["used", "refused"])
def test_a_reload_is_said_with_its_instant_and_then_ready_again(
    launch: Launcher, manager: Manager, faulty: bool
) -> None:
    """As systemd wants it: RELOADING=1 with the monotonic clock in microseconds, and READY=1, whatever comes of it."""
    daemon = launch(JOBS, NOTIFY_SOCKET=manager.address)
    manager.hear("READY=1")
    launch.write("jobs", "raise RuntimeError" if faulty else JOBS)
    before = time.monotonic_ns() // 1000
    daemon.signal(signal.SIGHUP)
    manager.hear("RELOADING=1")
    told = int(next(word for word in manager.words if word.startswith("MONOTONIC_USEC=")).partition("=")[2])
    manager.hear("READY=1")
    assert before <= told <= time.monotonic_ns() // 1000
    daemon.wait_for("reload.refused" if faulty else "daemon.reloaded")
    assert daemon.stop() == 0


def test_neither_jobs_nor_their_children_find_the_variables(launch: Launcher, manager: Manager) -> None:
    """Nobody talks to the manager in the daemon's name."""
    daemon = launch(JOBS, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="10000000", WATCHDOG_PID="1")
    assert daemon.wait_for("told")["names"] == []
    assert_goes_on(daemon)


def test_the_watchdog_is_fed_if_it_is_ours(launch: Launcher, manager: Manager) -> None:
    """Without WATCHDOG_PID, the variable is for whoever has it."""
    daemon = launch(JOBS, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="200000")
    for _ in range(3):
        manager.hear("WATCHDOG=1")
    assert_goes_on(daemon)


def test_the_watchdog_is_not_fed_while_a_job_holds_the_plane(launch: Launcher, manager: Manager) -> None:
    """systemd is told that the daemon lives only while both planes turn; when the job lets go, it is told again."""
    daemon = launch(
        "@every('1h')\nasync def holds():\n    await asyncio.sleep(0.5)\n    time.sleep(3)",
        NOTIFY_SOCKET=manager.address,
        WATCHDOG_USEC="400000",
    )
    longest_s, last = 0.0, 0.0
    while not daemon.events("run.finished"):
        manager.hear("WATCHDOG=1")
        longest_s, last = max(longest_s, time.monotonic() - (last or time.monotonic())), time.monotonic()
    assert longest_s > 1.5
    manager.hear("WATCHDOG=1")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_the_watchdog_of_another_process_is_not_fed(launch: Launcher, manager: Manager) -> None:
    """WATCHDOG_PID names somebody else, as where a wrapper has started jobd."""
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    daemon = launch(JOBS, env=env)
    manager.hear("READY=1")
    assert_goes_on(daemon)
    manager.hear_out()
    assert "STOPPING=1" in manager.words
    assert "WATCHDOG=1" not in manager.words


@pytest.mark.parametrize(
    "address",
    ["", "/nowhere/at/all", "@nobody-listens-here", "garbage", "@", "/", "x" * 500, "@" + "x" * 500, "vsock:2:3"],
    ids=lambda address: address[:20] or "empty",
)
def test_an_address_where_nobody_listens_is_no_fault(launch: Launcher, address: str) -> None:
    """Absent, impossible or garbage: the daemon starts, runs and stops as without one."""
    assert_goes_on(launch(JOBS, NOTIFY_SOCKET=address, WATCHDOG_USEC="garbage", WATCHDOG_PID="garbage"))


def test_a_manager_that_never_reads_holds_nobody_up(launch: Launcher, manager: Manager) -> None:
    """Its queue is full of pings after a moment; ticks and the stop go on."""
    daemon = launch(JOBS, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="2000")
    daemon.wait_for("daemon.ready")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:  # the queue is one for all who send
        other.connect(manager.socket.getsockname())
        other.setblocking(False)
        poll(lambda: is_full(other), "the queue to be full")
    assert_goes_on(daemon)


def is_full(other: socket.socket) -> bool:
    """Whether the manager's queue takes no more."""
    try:
        other.send(b"")
    except BlockingIOError:
        return True
    return False


def test_a_manager_that_goes_away_is_no_fault(launch: Launcher, manager: Manager) -> None:
    """As when systemd is executed anew and its socket is another one."""
    daemon = launch(JOBS, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="20000")
    manager.hear("WATCHDOG=1")
    manager.socket.close()
    assert_goes_on(daemon)
