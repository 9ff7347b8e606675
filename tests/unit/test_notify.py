"""What systemd is told, over real sockets."""

import os
import secrets
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobd.notify import Notifier

from .helpers import LIMIT_S


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and its address as it stands in the environment."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@jobd-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address.replace("@", "\0", 1) if request.param == "abstract" else address)
        listening.settimeout(LIMIT_S)
        yield listening, address


def words(listening: socket.socket) -> list[str]:
    """The lines of the next datagram."""
    return listening.recv(4096).decode().splitlines()


def say_everything(notifier: Notifier) -> None:
    """Everything that can be said, once."""
    notifier.ready()
    notifier.status("running, 2 in flight")
    notifier.alive()
    notifier.stopping(15)
    notifier.extend(0.25)


def test_everything_arrives_as_the_protocol_has_it(manager: tuple[socket.socket, str]) -> None:
    """One datagram for each word, in order, times in microseconds."""
    listening, address = manager
    notifier = Notifier(address)
    assert notifier.listening
    say_everything(notifier)
    assert [words(listening) for _ in range(5)] == [
        ["READY=1"],
        ["STATUS=running, 2 in flight"],
        ["WATCHDOG=1"],
        ["STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000"],
        ["EXTEND_TIMEOUT_USEC=250000"],
    ]


def test_a_manager_that_never_reads_holds_nobody_up(manager: tuple[socket.socket, str]) -> None:
    """A full queue costs the words, not the daemon."""
    _, address = manager
    notifier = Notifier(address)
    began = time.monotonic()
    for _ in range(5_000):
        notifier.status("x" * 100)
    assert time.monotonic() - began < 5


def test_a_manager_that_reads_again_hears_again(manager: tuple[socket.socket, str]) -> None:
    """What it could not take is gone, but that we are ready, or that we stop, goes along with the next word, once."""
    listening, address = manager
    notifier = Notifier(address)
    for say in (notifier.ready, lambda: notifier.stopping(15)):
        for _ in range(5_000):
            notifier.alive()
        say()
        while select.select([listening], [], [], 0)[0]:
            assert words(listening) == ["WATCHDOG=1"]
        notifier.alive()
        notifier.alive()
        assert words(listening) == ["READY=1" if say == notifier.ready else "STOPPING=1", "WATCHDOG=1"]
        assert words(listening) == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "address",
    [
        "/nowhere/at/all",
        "@nobody-listens-here",
        "garbage",
        "@",
        "/",
        "x" * 500,
        "@" + "x" * 500,
        "a\0b",
        "vsock:2:3",
        "\udcff",
    ],
)
def test_an_address_where_nobody_listens_is_no_fault(address: str) -> None:
    """Absent, impossible or garbage: nothing is raised and nothing waits."""
    say_everything(Notifier(address))


def test_a_file_that_is_no_socket_is_no_fault(tmp_path: Path) -> None:
    """Nor is a socket of another kind."""
    (tmp_path / "file").touch()
    say_everything(Notifier(str(tmp_path / "file")))
    with socket.socket(socket.AF_UNIX) as stream:
        stream.bind(str(tmp_path / "stream"))
        stream.listen()
        say_everything(Notifier(str(tmp_path / "stream")))


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_manager_nothing_is_said(address: str | None) -> None:
    """No variable, or an empty one: there is nobody to tell."""
    environment = {} if address is None else {"NOTIFY_SOCKET": address}
    notifier = Notifier.from_environment(environment)
    assert not notifier.listening
    say_everything(notifier)


def test_the_variables_are_taken_out_of_the_environment() -> None:
    """No child finds them and talks to the manager in the daemon's name."""
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Notifier.from_environment(environment)
    assert environment == {"PATH": "/bin"}


#: Process ids that are known only when the test runs.
OURS, ANOTHERS = "ours", "another's"


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", None, 30.0),
        ("30000000", "", 30.0),
        ("30000000", OURS, 30.0),
        ("30000000", ANOTHERS, None),
        ("30000000", "garbage", None),
        (None, None, None),
        (None, OURS, None),
        ("", None, None),
        ("0", None, None),
        ("-1", None, None),
        ("1.5", None, None),
        ("soon", None, None),
        ("٣٠", None, None),
        ("²", None, None),
        ("9" * 5_000, None, None),
    ],
)
def test_the_watchdog_is_fed_if_it_is_ours(usec: str | None, pid: str | None, expected: float | None) -> None:
    """Only a whole positive number of microseconds counts, and only if it is not for another process."""
    pids = {OURS: str(os.getpid()), ANOTHERS: str(os.getpid() + 1)}
    environment = {"WATCHDOG_USEC": usec, "WATCHDOG_PID": pids.get(pid or "", pid)}
    given = {name: value for name, value in environment.items() if value is not None}
    assert Notifier.from_environment(given).watchdog_s == expected
