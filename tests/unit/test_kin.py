"""The processes of a daemon that has gone: who of them is found, and who is not touched."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from jobd import children, kin

from .helpers import LIMIT_S
from .processes import until

#: Ignores what asks it to end, as Python's helper for shared memory does.
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Pythons that carry the mark of a run; none of them is left in the end."""
    started: list[subprocess.Popen[bytes]] = []

    def python(code: str, run_id: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {children.MARK: run_id}
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    yield python
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_orphans_are_those_of_one_daemon_without_its_helpers(start: Start) -> None:
    """Asked, then killed; the helper for shared memory has its work to do yet, and others' runs are theirs."""
    name, other = kin.new_name(), kin.new_name()
    tracker = "from multiprocessing.resource_tracker import main"
    mine, helper, theirs = start(DEAF, f"{name}-1"), start(DEAF, f"{name}-2", tracker), start(DEAF, f"{other}-1")
    assert [each.pid for each in kin.Orphans(name).end(0.05)] == [mine.pid]
    assert mine.wait(LIMIT_S) == -signal.SIGKILL
    assert helper.poll() is None
    assert theirs.poll() is None


def test_orphans_are_found_when_the_machine_has_something_to_give_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash may have come from what is lacking: descriptors, memory."""
    name = kin.new_name()
    process = start(DEAF, f"{name}-1")
    read, fails = kin._read, iter([OSError(23, "too many open files in system"), MemoryError()])

    def starved(path: str) -> bytes:
        if error := next(fails, None):
            raise error
        return read(path)

    monkeypatch.setattr(kin, "_read", starved)
    kin.Orphans(name).end(0.0)
    assert next(fails, None) is None
    until(lambda: process.poll() == -signal.SIGKILL)
