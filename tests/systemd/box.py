"""A box: a system of its own to install jobd into, with a real systemd; thrown away at the end."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import keeper

CHECKOUT = Path(__file__).resolve().parents[2]
#: Where the box shows the checkout.
INSIDE = "/checkout"
#: A boot takes about a second; this is for a machine that does much else.
BOOT_S = 60.0
POLL_S = 0.05
#: How pip finds packages on this machine may stand in these.
PASSED_ON = ("PIP_", "SSL_CERT_", "REQUESTS_CA_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
NEEDED = ("nsenter", "mount", "umount", "pivot_root", "systemctl", "journalctl")


class CannotBoot(Exception):
    """No box is to be had on this machine; the text says why."""


def until(condition: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
    """Wait until `condition` holds; fail with `what` was waited for when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {within_s:g} s still waiting: {what}")
        time.sleep(POLL_S)


class Box:
    """A running box."""

    def __init__(self) -> None:
        """Boot one. Raises `CannotBoot`."""
        _require()
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by close()
        self._keeper = subprocess.Popen(
            [sys.executable, keeper.__file__, str(CHECKOUT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            start_new_session=True,  # a Ctrl-C ends the session; that ends the box
        )
        try:
            #: PID 1 of the box, as this machine counts.
            self.init = self._first_line()
            until(self._is_up, "systemd to come up", BOOT_S)
        except BaseException:
            self.close()
            raise

    @property
    def keeper(self) -> int:
        """The process that ends the box; what the box leaves on this machine has its number in its name."""
        return self._keeper.pid

    def run(self, *arguments: str, check: bool = True, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command in the box, as root; with `check` it must succeed."""
        enter = ["nsenter", f"--target={self.init}", "-m", "-u", "-i", "-p", "-C", "-r", "-w", "--"]
        done = subprocess.run(
            [*enter, *arguments],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def out(self, *arguments: str, check: bool = True) -> str:
        """What a command in the box prints."""
        return self.run(*arguments, check=check).stdout.strip()

    def path(self, inside: str) -> Path:
        """A path of the box, as this machine sees it. Links that are absolute lead out of the box: do not follow."""
        return Path(f"/proc/{self.init}/root{inside}")

    def write(self, inside: str, text: str) -> None:
        """Write a file in the box, and the directories above it."""
        self.run("mkdir", "--parents", str(Path(inside).parent))
        self.path(inside).write_text(text)

    def close(self) -> None:
        """End the box, whatever runs in it."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.wait(timeout=BOOT_S)
        self._keeper.stdout.close()
        self._complaints.close()

    def _first_line(self) -> int:
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        if not line:
            raise CannotBoot(f"this machine grants no namespaces or mounts: {self._complaint()}")
        return int(line)

    def _is_up(self) -> bool:
        if self._keeper.poll() is not None:
            raise CannotBoot(f"systemd did not boot: {self._complaint()}")
        if name_of(self.init) != "systemd":
            return False
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def _complaint(self) -> str:
        self._complaints.seek(0)
        return (self._complaints.read().strip().splitlines() or ["no reason given"])[-1]  # of a traceback, the error


def name_of(process: int) -> str | None:
    """The name of a process of this machine; None if there is none with this id."""
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _require() -> None:
    if sys.platform != "linux":
        raise CannotBoot("this is not Linux")
    if os.geteuid() != 0:
        raise CannotBoot("only root can make namespaces and mounts for a system")
    if not any(Path(path).exists() for path in keeper.SYSTEMD):
        raise CannotBoot("systemd is not installed")
    if missing := [name for name in NEEDED if shutil.which(name, path=keeper.PATH) is None]:
        raise CannotBoot(f"not installed: {', '.join(missing)}")


def _environment() -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if name.upper().startswith(PASSED_ON)}
    return {"PATH": keeper.PATH, "HOME": "/root", "LANG": "C.UTF-8", "SYSTEMD_PAGER": "", **passed}
