"""What systemd is told, by its notification protocol (`sd_notify(3)`): datagrams of ``NAME=value`` lines.

May import: clock. Sending never waits and never fails: who does not listen is not told. What a manager that is
busy could not take, and what must not be lost on it (that we are ready, that we stop), goes along with the next word.
"""

import os
import socket
from collections.abc import MutableMapping

from jobd.clock import Real


class Notifier:
    """Tells the service manager of this process how it is; silent where there is none."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        """Send to `address`: a path, or ``@name`` for an abstract socket."""
        #: How often the manager wants to hear `WATCHDOG=1`, in seconds; None if it does not.
        self.watchdog_s = watchdog_s
        self._address = address and (f"\0{address[1:]}" if address.startswith("@") else address)
        self._owed = ""  # what must not be lost
        self._socket = _socket() if address else None  # now, while descriptors are to be had

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> "Notifier":
        """The notifier that the environment asks for; its variables are removed, so that no child finds them."""
        address = environment.pop("NOTIFY_SOCKET", None)
        usec = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        for_us = pid in ("", str(os.getpid()))
        known = usec.isascii() and usec.isdigit() and len(usec) < 16 and int(usec) > 0
        return cls(address or None, int(usec) / 1e6 if for_us and known else None)

    @property
    def listening(self) -> bool:
        """Whether there is anybody to tell."""
        return self._address is not None

    def ready(self) -> None:
        """The first jobs can start."""
        self._owed = "READY=1\n"
        self._send("")

    def reloading(self) -> None:
        """The configuration is read again; `ready` follows, whatever comes of it (`sd_notify(3)`)."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={Real.monotonic_ns() // 1000}")

    def status(self, text: str) -> None:
        """One line for people: `systemctl status` shows it."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Both planes turn."""
        self._send("WATCHDOG=1")

    def stopping(self, extend_s: float) -> None:
        """The drain has begun; give us `extend_s` before the next word."""
        self._owed = "STOPPING=1\n"
        self.extend(extend_s)

    def extend(self, extend_s: float) -> None:
        """The drain goes on; give us `extend_s` from now before the next word."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(extend_s * 1e6)}")

    def _send(self, message: str) -> None:
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.sendto((self._owed + message).encode(), self._address)
            self._owed = ""
        except Exception:  # not there, not listening, busy, no address at all, or an audit hook of a job's forbids it
            pass


def _socket() -> socket.socket | None:
    try:
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    except OSError:  # no descriptor is to be had
        return None
