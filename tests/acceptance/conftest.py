"""Starts daemons for tests, and sees to it that none outlives its test."""

import os
import pty
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from .harness import JOBD, PATIENCE_S, PRELUDE, Daemon


class Launcher:
    """Starts daemons in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[Daemon] = []

    def __call__(
        self,
        jobs: str = "",
        *arguments: str,
        beside: str = "",
        program: Sequence[str] = (JOBD,),
        read: bool = True,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
        **settings: str,
    ) -> Daemon:
        """Start the daemon with the module `jobs`, with these arguments (``run jobs`` if it is given) and settings.

        `beside` is more text for the module, on an indentation of its own; `env` is for variables whose names are
        not known beforehand.
        """
        if jobs:
            self.write("jobs", jobs, beside)
        command = [*program, *(arguments or (("run", "jobs") if jobs else ()))]
        daemon = Daemon(command, self.directory, settings | dict(env or {}), stdout=stdout, stderr=stderr)
        self.started.append(daemon)
        if read and daemon.process.stdout is not None:
            daemon.read()
        return daemon

    def write(self, module: str, *texts: str) -> None:
        """Write a jobs module from its parts, with the usual imports on top."""
        (self.directory / f"{module}.py").write_text("\n".join([PRELUDE, *map(textwrap.dedent, texts)]))

    def end(self) -> list[int]:
        """End every daemon; the processes that one of them left behind."""
        return [pid for daemon in self.started for pid in daemon.end()]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    """Starts daemons; fails the test if one of them leaves a process behind, and shows what they said if it fails."""
    launcher = Launcher(tmp_path)
    yield launcher
    left = launcher.end()
    for daemon in launcher.started:
        print(daemon.told())
    assert not left, f"processes left behind: {left}"


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """The end of a new terminal that is ours, and the path of the one for programs."""
    ours, theirs = pty.openpty()
    path = os.ttyname(theirs)
    os.close(theirs)
    yield ours, path
    try:
        os.close(ours)
    except OSError:  # the test has closed it
        pass


class Command:
    """Runs a command of jobd that ends by itself."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(
        self, *arguments: str, program: Sequence[str] = (JOBD,), **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [*program, *arguments],
            cwd=self.directory,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.directory)} | settings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE_S,
            check=False,
        )


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs commands of jobd that end by themselves."""
    return Command(tmp_path)


#: The other way to start it.
MODULE = (sys.executable, "-m", "jobd")
