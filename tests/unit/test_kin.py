"""The processes of a daemon that has gone: who of them is found, and who is not touched."""

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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

    def starved(path: str) -> bytes | None:
        if error := next(fails, None):
            raise error
        return read(path)

    monkeypatch.setattr(kin, "_read", starved)
    kin.Orphans(name).end(0.0)
    assert next(fails, None) is None
    until(lambda: process.poll() == -signal.SIGKILL)


# Daemons in the making.


def test_who_is_started_during_a_look_is_seen(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has started it may be gone before anybody looks at it."""
    run_id = f"{kin.new_name()}-1"
    list_all = kin._everybody
    started: list[int] = []

    def listed() -> list[int]:
        pids = list_all()
        if len(started) < 3:  # one after each list
            started.append(start(DEAF, run_id).pid)
        return pids

    monkeypatch.setattr(kin, "_everybody", listed)
    assert {each.pid for each in kin.look(0).marked(run_id)} == set(started)


def test_a_look_has_an_end_though_somebody_is_always_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine where processes are started all the time."""
    numbers = itertools.count(10_000_000)
    monkeypatch.setattr(kin, "_everybody", lambda: [next(numbers)])
    assert kin.look(0).settled


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Has the environment of a process be empty so many times, as it is while that becomes another program."""

    def keep(pid: int, times: int) -> None:
        read, stat_of, left = kin._read, kin._stat, list(range(times))
        becoming = [False]

        def read_blank(path: str) -> bytes | None:
            if path != f"/proc/{pid}/environ":
                return read(path)
            becoming[0] = bool(left and left.pop() + 1)
            return b"" if becoming[0] else read(path)

        def stat_blank(of: int) -> children.Stat | None:
            stat = stat_of(of)
            return stat._replace(program=0) if stat and of == pid and becoming[0] else stat

        monkeypatch.setattr(kin, "_read", read_blank)
        monkeypatch.setattr(kin, "_stat", stat_blank)

    return keep


def look_at(pid: int, since: int = 0) -> kin.Look:
    """Look at one process; others may be becoming anything at that moment."""
    return kin.Look(lambda: [pid], since)


def test_who_becomes_another_program_is_looked_at_again(start: Start, blank: Callable[[int, int], None]) -> None:
    """It has no environment at that moment, and thus no mark."""
    run_id = f"{kin.new_name()}-1"
    process = start(DEAF, run_id)
    blank(process.pid, 3)
    seen = look_at(process.pid)
    assert [each.pid for each in seen.marked(run_id)] == [process.pid]
    assert seen.settled


def test_nobody_is_believed_to_be_gone_while_somebody_has_not_been_seen(
    start: Start, blank: Callable[[int, int], None]
) -> None:
    """For as long as it takes; those that have started before have nothing to do with it."""
    process = start(DEAF, "")
    blank(process.pid, 10_000)
    seen = kin.look(0)
    assert not seen.settled
    nobody = kin.Kin("none-1")
    assert nobody.see(seen)
    assert nobody.kill_on(seen, 0.0)
    (started,) = [each.started for each in seen.living if each.pid == process.pid]
    assert look_at(process.pid, started + 1).settled


def test_orphan_that_becomes_another_program_is_found(start: Start, blank: Callable[[int, int], None]) -> None:
    """However long that takes, within reason."""
    name = kin.new_name()
    process = start(DEAF, f"{name}-1")
    blank(process.pid, 20)
    assert [each.pid for each in kin.Orphans(name).end(0.0)] == [process.pid]


def test_who_has_no_environment_or_does_not_show_it_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one is empty for ever; another user's is not to be read."""
    with subprocess.Popen(["env", "-i", "cat"], stdin=subprocess.PIPE) as process:
        until(lambda: (Path(f"/proc/{process.pid}/comm")).read_text() == "cat\n")
        monkeypatch.setattr(kin, "_LISTS", 2)
        assert look_at(process.pid).settled
        monkeypatch.setattr(children, "content", refused(children.content, f"/proc/{process.pid}/environ"))
        assert look_at(process.pid).settled


def test_who_has_taken_its_environment_out_of_its_memory_is_no_secret(start: Start) -> None:
    """The kernel says that there is one, and shows none; nobody's end waits for that."""
    code = (
        "import ctypes, time; stat = open('/proc/self/stat').read().rpartition(')')[2].split();"
        "begin, end = int(stat[47]) & ~4095, int(stat[48]);"
        "ctypes.CDLL(None).munmap(ctypes.c_void_p(begin), end - begin);"
        "print('up', flush=True); time.sleep(60)"
    )
    process = start(code + "#" * 8192, "")  # so that nothing but this shares a page with the environment
    assert not Path(f"/proc/{process.pid}/environ").read_bytes()
    assert look_at(process.pid).settled


def refused(read: Callable[[str], bytes], path: str) -> Callable[[str], bytes]:
    """Reading, where this file belongs to another user."""

    def read_or_raise(wanted: str) -> bytes:
        if wanted == path:
            raise PermissionError(13, "permission denied")
        return read(wanted)

    return read_or_raise


def test_who_becomes_another_program_all_the_time_is_seen(start: Start) -> None:
    """Whenever one looks."""
    run_id = f"{kin.new_name()}-1"
    code = "import os, sys; 'once' in os.environ or print('up', flush=True); os.environ['once'] = ''; "
    again = "os.execv(sys.executable, [sys.executable, '-S', *sys.orig_argv[-2:]])"
    process = start(code + again, run_id)
    looks, until_s = 0, time.monotonic() + 1.5
    while time.monotonic() < until_s:
        seen = look_at(process.pid)
        looks += seen.settled
        assert not seen.settled or [each.pid for each in seen.marked(run_id)] == [process.pid]
    assert looks


# What is lacking, and what is too much.


@pytest.mark.parametrize("lack", [MemoryError(), OSError(errno.ENOMEM, "none"), OSError(errno.ENFILE, "none")])
def test_lack_is_not_taken_for_an_empty_machine(monkeypatch: pytest.MonkeyPatch, lack: Exception) -> None:
    """Whoever looks has to know that nobody could be found."""

    def lacking(path: Path) -> Path:
        raise lack

    monkeypatch.setattr(Path, "readlink", lacking)
    with pytest.raises(type(lack)):
        kin.look(0)
    assert not children.proc_is_ours()


def test_what_is_read_of_a_process_has_a_limit(tmp_path: Path) -> None:
    """Any process may let gigabytes appear there."""
    endless = tmp_path / "environ"
    with endless.open("wb") as file:
        file.write(b"a=b\0" + children.MARK.encode() + b"=x-1\0")
        file.truncate(32_000_000)
    for read in (kin._read, children._read):
        said = read(str(endless))
        assert said is not None
        assert len(said) <= 8_388_608
        assert children.marked(said) == "x-1"


def test_what_comes_in_pieces_is_read_whole(tmp_path: Path) -> None:
    """A mark may lie across two of them."""
    file = tmp_path / "environ"
    file.write_bytes(b"a=" + b"b" * (65_536 - 6) + b"\0" + children.MARK.encode() + b"=x-1\0c=" + b"d" * 100_000)
    assert children.marked(kin._read(str(file)) or b"") == "x-1"
    assert children._read(str(file)) == file.read_bytes()
