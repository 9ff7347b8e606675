"""The log's way out, on real descriptors: whole lines, in order, and nobody ever waits for the reader."""

import contextlib
import errno
import fcntl
import itertools
import os
import select
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobd import render, sink
from jobd.sink import Sink, Spare

from .helpers import LIMIT_S, python

#: Writing never takes this long, however slow the reader; a busy machine is allowed for.
AT_ONCE_S = 2.0


def dropped(count: int) -> bytes:
    """The line that tells how many were given up."""
    return b"dropped %d\n" % count


def line(number: int, length: int = 100) -> bytes:
    """A line that begins with its number, of this length."""
    return (b"%d " % number).ljust(length - 1, b".") + b"\n"


def number(of: bytes) -> int:
    """The number of a line."""
    return int(of.split()[0])


class Pipe:
    """A pipe, its read end for the test, its write end for the sink."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def close(self) -> None:
        """Close what is still open."""
        for end in (self.reading, self.writing):
            with contextlib.suppress(OSError):
                os.close(end)

    def read(self, until: Callable[[bytes], bool], limit_s: float = LIMIT_S) -> bytes:
        """What comes until that is enough; fails when it never is."""
        deadline = time.monotonic() + limit_s
        data = b""
        while not until(data):
            ready, _, _ = select.select([self.reading], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"nothing more after {data[-200:]!r}"
            part = os.read(self.reading, 1 << 20)
            assert part, f"closed after {data[-200:]!r}"
            data += part
        return data

    def drain(self) -> bytes:
        """What is in the pipe now."""
        data = b""
        while select.select([self.reading], [], [], 0)[0]:
            data += os.read(self.reading, 1 << 20)
        return data


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe."""
    made = Pipe()
    yield made
    made.close()


def test_a_line_is_out_when_write_returns(pipe: Pipe) -> None:
    """Whoever logs and then kills the process has still logged."""
    to = Sink(pipe.writing, dropped)
    for n in range(20):
        to.write(line(n))
        assert pipe.drain() == line(n)


def test_the_order_of_each_thread_is_kept(pipe: Pipe) -> None:
    """Threads that write at once neither lose nor tear nor swap their lines, though the reader is slow."""
    to = Sink(pipe.writing, dropped)
    threads, lines = 8, 400

    def write(thread: int) -> None:
        for n in range(lines):
            to.write(b"%d %d\n" % (thread, n))

    writing = [threading.Thread(target=write, args=(thread,), daemon=True) for thread in range(threads)]
    for thread in writing:
        thread.start()
    data = pipe.read(lambda data: data.count(b"\n") == threads * lines)
    for thread in writing:
        thread.join(LIMIT_S)
    found = [tuple(map(int, text.split())) for text in data.splitlines()]
    for n in range(threads):
        assert [count for thread, count in found if thread == n] == list(range(lines))


def test_a_reader_that_stalls_holds_nobody_up_and_misses_nothing(pipe: Pipe) -> None:
    """What does not fit into the pipe waits, and follows when the reader goes on."""
    to = Sink(pipe.writing, dropped)
    began = time.monotonic()
    for n in range(20_000):
        to.write(line(n))
    assert time.monotonic() - began < AT_ONCE_S
    data = pipe.read(lambda data: data.count(b"\n") == 20_000)
    assert data == b"".join(map(line, range(20_000)))


def test_after_a_stall_a_line_is_out_at_once_again(pipe: Pipe) -> None:
    """Once the reader has caught up, whoever writes writes through."""
    to = Sink(pipe.writing, dropped)
    for n in range(2_000):
        to.write(line(n))
    pipe.read(lambda data: data.endswith(line(1_999)))
    assert to.flush(LIMIT_S)
    to.write(b"now\n")
    assert pipe.read(lambda data: data == b"now\n", limit_s=2.0)


def test_memory_is_bounded_by_giving_up_the_oldest(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given up is counted in the stream, at its place, and the newest lines are there."""
    monkeypatch.setattr(sink, "MAX_WAITING_BYTES", 200_000)
    to = Sink(pipe.writing, dropped)
    total = 20_000
    for n in range(total):
        to.write(line(n))
        assert sum(map(len, to._lines)) < 250_000
    lines = pipe.read(lambda data: data.endswith(line(total - 1))).splitlines(keepends=True)
    told = sum(int(text.split()[1]) for text in lines if text.startswith(b"dropped"))
    numbers = [number(text) for text in lines if not text.startswith(b"dropped")]
    assert told > 0
    assert len(numbers) + told == total
    assert numbers == sorted(set(numbers))
    gaps = [b - a - 1 for a, b in itertools.pairwise(numbers) if b - a > 1]
    assert sum(gaps) == told


def test_memory_is_bounded_while_a_thread_has_the_lock(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others log faster than one thread can write, that thread gives up what is too much."""
    monkeypatch.setattr(sink, "MAX_WAITING_BYTES", 200_000)
    to = Sink(pipe.writing, dropped)
    for n in range(2_000):
        to.write(line(n))
    write, total, most = to._write, 20_000, 0
    numbers = itertools.count(2_000)

    def write_while_others_log(data: bytes) -> int:
        nonlocal most
        for n in itertools.islice(numbers, 100):
            if n < total:
                to.write(Spare(line(n)))
        most = max(most, sum(map(len, to._lines)))
        return write(data)

    monkeypatch.setattr(to, "_write", write_while_others_log)
    lines = pipe.read(lambda data: data.endswith(line(total - 1))).splitlines(keepends=True)
    assert most < 250_000
    kept = [number(text) for text in lines if not text.startswith(b"dropped")]
    assert kept == sorted(set(kept))
    assert len(kept) + sum(int(text.split()[1]) for text in lines if text.startswith(b"dropped")) == total


def test_whoever_logs_does_not_write_for_others_for_ever(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each line that is written makes two more, and the reader takes all, only the writer is held up."""
    monkeypatch.setattr(sink, "MAX_WAITING_BYTES", 200_000)
    to = Sink(pipe.writing, dropped)
    grown, enough, most = threading.Event(), threading.Event(), 0

    def write_while_others_log(data: bytes) -> int:
        nonlocal most
        for _ in range(0 if enough.is_set() else 2):
            to.write(Spare(line(1, 4_000)))
        most = max(most, sum(map(len, to._lines)))
        if most > 190_000:
            grown.set()
        return len(data)

    monkeypatch.setattr(to, "_write", write_while_others_log)
    logs = threading.Thread(target=to.write, args=(line(0),), daemon=True)
    logs.start()
    assert grown.wait(LIMIT_S)
    logs.join(1.0)
    held_up = logs.is_alive()
    enough.set()
    assert not held_up
    assert to.flush(LIMIT_S)
    assert most < 250_000


def test_lines_of_jobs_are_given_up_before_the_daemons_own(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of spare lines costs none of the others; the order of what is left stays."""
    monkeypatch.setattr(sink, "MAX_WAITING_BYTES", 200_000)
    to = Sink(pipe.writing, dropped)
    for n in range(20_000):
        to.write(Spare(line(n)) if n % 100 else line(n))
    lines = pipe.read(lambda data: data.endswith(line(19_999))).splitlines(keepends=True)
    numbers = [number(text) for text in lines if not text.startswith(b"dropped")]
    assert numbers == sorted(set(numbers))
    assert {n for n in numbers if n % 100 == 0} == set(range(0, 20_000, 100))
    assert len(numbers) + sum(int(text.split()[1]) for text in lines if text.startswith(b"dropped")) == 20_000


@pytest.mark.alone
def test_the_last_line_survives_a_reader_that_is_behind(pipe: Pipe) -> None:
    """Everything else is given up for it when the time is over; how much is told."""
    to = Sink(pipe.writing, dropped)
    for n in range(50_000):
        to.write(line(n))
    finished: list[bool] = []
    began = time.monotonic()
    finishing = threading.Thread(target=lambda: finished.append(to.finish(b"last\n", 0.5)), daemon=True)
    finishing.start()
    time.sleep(0.42)  # not to pass: the reader comes back only for the last moment
    data = pipe.read(lambda data: data.endswith(b"\nlast\n"), limit_s=2)
    finishing.join(LIMIT_S)
    assert finished == [True]
    assert time.monotonic() - began < AT_ONCE_S
    lines = data.splitlines()
    assert lines[-2].startswith(b"dropped ")
    assert int(lines[-2].split()[1]) + len(lines) - 2 == 50_000


@pytest.mark.alone
def test_the_last_line_survives_while_another_thread_is_writing(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer thread that works off a long queue, and so holds the lock, makes way for it too."""
    to = Sink(pipe.writing, dropped)
    write = to._write

    def write_slowly(data: bytes) -> int:
        time.sleep(0.002)
        return write(data)

    for n in range(50_000):
        to.write(line(n))
    monkeypatch.setattr(to, "_write", write_slowly)
    received: list[bytes] = []
    reading = threading.Thread(
        target=lambda: received.append(pipe.read(lambda data: data.endswith(b"\nlast\n"), limit_s=3)), daemon=True
    )
    reading.start()
    began = time.monotonic()
    finished = to.finish(b"last\n", 0.5)
    assert time.monotonic() - began < AT_ONCE_S
    reading.join(LIMIT_S)
    assert (finished, len(received)) == (True, 1)


@pytest.mark.alone
def test_finish_does_not_wait_for_a_reader_that_never_comes(pipe: Pipe) -> None:
    """It says that it was not heard, within its time."""
    to = Sink(pipe.writing, dropped)
    for n in range(2_000):
        to.write(line(n))
    began = time.monotonic()
    assert to.finish(b"last\n", 0.3) is False
    assert 0.25 < time.monotonic() - began < AT_ONCE_S


def test_finish_takes_no_time_where_the_reader_listens(pipe: Pipe) -> None:
    """The last line is out, and nothing is given up."""
    to = Sink(pipe.writing, dropped)
    to.write(line(0))
    began = time.monotonic()
    assert to.finish(b"last\n", 5) is True
    assert time.monotonic() - began < AT_ONCE_S
    assert pipe.drain() == line(0) + b"last\n"


def test_a_reader_that_is_slow_but_reads_is_waited_for(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it has the last line, though the time is over; whichever thread writes what it makes room for."""
    monkeypatch.setattr(sink, "PATIENCE_S", LIMIT_S / 2)
    to = Sink(pipe.writing, dropped)
    for n in range(2_000):
        to.write(line(n))
    timeout_s = 1.0
    received: list[bytes] = []

    def read_slowly() -> None:
        for _ in range(5):
            time.sleep(timeout_s / 20)
            received.append(os.read(pipe.reading, 4_096))
        time.sleep(timeout_s)
        received.append(pipe.read(lambda data: data.endswith(b"last\n")))

    reader = threading.Thread(target=read_slowly)
    reader.start()
    finished = to.finish(b"last\n", timeout_s, LIMIT_S)
    os.write(pipe.writing, b"" if finished else b"last\n")
    reader.join()
    assert finished
    assert b"".join(received).startswith(line(0) + line(1))


def test_little_time_is_time_for_the_lines_of_jobs_too(pipe: Pipe) -> None:
    """Where the reader listens, nothing is given up only because a stop has spent its time otherwise."""
    to = Sink(pipe.writing, dropped)
    to.hold()
    lines = [line(n) for n in range(20)]
    for each in lines:
        to.write(Spare(each))
    assert to.finish(b"last\n", 0.3)
    assert pipe.drain() == b"".join(lines) + b"last\n"


def test_nothing_follows_the_last_line(pipe: Pipe) -> None:
    """Threads of jobs that go on writing while and after the last line is written write into the void."""
    to = Sink(pipe.writing, dropped)
    stop = threading.Event()

    def write() -> None:
        for n in itertools.count():
            to.write(line(n))
            if stop.wait(0.0002):
                return

    writing = [threading.Thread(target=write, daemon=True) for _ in range(4)]
    for thread in writing:
        thread.start()
    data = pipe.read(lambda data: data.count(b"\n") > 1_000)
    finishing = threading.Thread(target=to.finish, args=(b"last\n", 5), daemon=True)
    finishing.start()
    data += pipe.read(lambda data: data.endswith(b"last\n"))
    finishing.join(LIMIT_S)
    for n in range(100):
        to.write(line(n))
    stop.set()
    for thread in writing:
        thread.join(LIMIT_S)
    assert pipe.drain() == b""
    assert data.count(b"last\n") == 1


def test_a_line_that_races_the_last_one_is_not_written(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that was about to queue its line when the last one came has queued it for nobody."""
    to = Sink(pipe.writing, dropped)
    write = to._write

    def write_in_a_race(data: bytes) -> int:
        to._lines.append(b"too late\n")
        return write(data)

    monkeypatch.setattr(to, "_write", write_in_a_race)
    assert to.finish(b"last\n", 1) is True
    assert pipe.drain() == b"last\n"


@pytest.mark.parametrize("stop_after", [1, 4_096, 10_000, 65_536])
def test_no_line_is_torn_when_the_reader_stops(pipe: Pipe, stop_after: int) -> None:
    """A line of less than 4 KiB that is in the pipe when the process ends is in it as a whole."""
    to = Sink(pipe.writing, dropped)
    for n in range(200):
        to.write(line(n, 700 + 31 * (n % 100)))
    os.read(pipe.reading, stop_after)
    to.finish(b"last\n", 0.15)
    assert pipe.drain().endswith(b"\n")


def test_a_long_line_arrives_as_a_whole(pipe: Pipe) -> None:
    """Longer than the pipe, and in its place."""
    to = Sink(pipe.writing, dropped)
    to.write(line(0))
    to.write(line(1, 300_000))
    to.write(line(2))
    assert pipe.read(lambda data: data.endswith(line(2))) == line(0) + line(1, 300_000) + line(2)


def test_a_reader_that_is_gone_is_no_fault(pipe: Pipe) -> None:
    """Nothing is raised, nothing waits, nothing is kept."""
    to = Sink(pipe.writing, dropped)
    to.write(line(0))
    os.close(pipe.reading)
    began = time.monotonic()
    for n in range(1_000):
        to.write(line(n))
    to.flush(5)
    to.finish(b"last\n", 5)
    assert time.monotonic() - began < AT_ONCE_S
    assert len(to._lines) <= 1


def test_a_reader_that_goes_while_lines_wait_is_no_fault(pipe: Pipe) -> None:
    """What waited is given up, and the writer thread ends."""
    to = Sink(pipe.writing, dropped)
    for n in range(2_000):
        to.write(line(n))
    os.close(pipe.reading)
    to._thread.join(LIMIT_S)
    assert not to._thread.is_alive()
    assert to.finish(b"last\n", 5) is False or not to._lines


def test_a_pipe_that_was_made_non_blocking_by_its_owner_loses_nothing(pipe: Pipe) -> None:
    """EAGAIN is an answer like any other, and whoever shares the pipe keeps it as it was."""
    os.set_blocking(pipe.writing, False)
    to = Sink(pipe.writing, dropped)
    for n in range(5_000):
        to.write(line(n))
    assert pipe.read(lambda data: data.count(b"\n") == 5_000) == b"".join(map(line, range(5_000)))
    assert os.get_blocking(pipe.writing) is False


def test_a_blocking_pipe_stays_blocking_for_whoever_shares_it(pipe: Pipe) -> None:
    """Not waiting is our own business: the flag belongs to the open file, which is not ours alone."""
    to = Sink(pipe.writing, dropped)
    for n in range(5_000):
        to.write(line(n))
    assert os.get_blocking(pipe.writing) is True
    assert to.flush(0) is False


def test_the_descriptor_may_be_closed_behind_our_back(pipe: Pipe) -> None:
    """A job that closes descriptor 1 does not close the log."""
    to = Sink(pipe.writing, dropped)
    os.close(pipe.writing)
    to.write(b"still here\n")
    assert pipe.read(lambda data: data.endswith(b"\n")) == b"still here\n"


def test_no_child_inherits_the_descriptor(pipe: Pipe) -> None:
    """It is closed in whatever a job executes."""
    to = Sink(pipe.writing, dropped)
    assert to._fd > 2
    assert fcntl.fcntl(to._fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_a_closed_descriptor_is_no_fault() -> None:
    """Whoever started us without stdout gets no log, and a daemon nevertheless."""
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    to = Sink(writing, dropped)
    to.write(line(0))
    assert to.finish(b"last\n", 1) is True


def test_a_pipe_that_cannot_be_opened_anew_is_asked_first(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc, or with a pipe of another user's: still nobody waits, and nothing is lost or torn."""
    real_open = os.open

    def no_proc(path: str, *args: int) -> int:
        if str(path).startswith("/proc"):
            raise PermissionError(errno.EACCES, "not yours")
        return real_open(path, *args)

    monkeypatch.setattr(os, "open", no_proc)
    to = Sink(pipe.writing, dropped)
    began = time.monotonic()
    for n in range(5_000):
        to.write(line(n))
    assert time.monotonic() - began < AT_ONCE_S
    assert pipe.read(lambda data: data.count(b"\n") == 5_000) == b"".join(map(line, range(5_000)))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_socket_is_written_to_without_waiting(kind: socket.SocketKind) -> None:
    """As systemd's journal gives one: lines arrive, a reader that stalls holds nobody up."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        to = Sink(ours.fileno(), dropped)
        began = time.monotonic()
        for n in range(10_000):
            to.write(line(n))
        assert time.monotonic() - began < AT_ONCE_S
        theirs.settimeout(LIMIT_S)
        data = b""
        while data.count(b"\n") < 10_000:
            data += theirs.recv(1 << 20)
        assert data == b"".join(map(line, range(10_000)))
        assert ours.getblocking()


def test_a_socket_whose_reader_is_gone_is_no_fault() -> None:
    """No SIGPIPE, no exception."""
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        to = Sink(ours.fileno(), dropped)
        to.write(line(0))
        to.write(line(1))
        assert not to._lines


def test_a_file_is_appended_to_by_all_who_share_it(tmp_path: Path) -> None:
    """Lines go where the descriptor stands, as those of whoever else writes to it do."""
    path = tmp_path / "log"
    with path.open("wb", buffering=0) as file:
        file.write(b"before\n")
        to = Sink(file.fileno(), dropped)
        to.write(line(0))
        file.write(b"between\n")
        to.write(line(1, 200_000))
        assert to.finish(b"last\n", 5)
    assert path.read_bytes() == b"before\n" + line(0) + b"between\n" + line(1, 200_000) + b"last\n"


def test_a_full_disk_holds_nobody_up() -> None:
    """Writing goes on being tried; finishing gives up in time."""
    with open("/dev/full", "wb", buffering=0) as full:
        to = Sink(full.fileno(), dropped)
        began = time.monotonic()
        for n in range(1_000):
            to.write(line(n))
        assert to.finish(b"last\n", 0.3) is False
        assert time.monotonic() - began < AT_ONCE_S


def test_a_disk_that_is_no_longer_full_gets_what_waited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is lost in between, and nothing has to be written to have it tried again."""
    full = threading.Event()
    full.set()
    with (tmp_path / "log").open("wb", buffering=0) as file:
        to = Sink(file.fileno(), dropped)
        write = to._write

        def write_if_there_is_room(data: bytes) -> int:
            if full.is_set():
                raise OSError(errno.ENOSPC, "no space left")
            return write(data)

        monkeypatch.setattr(to, "_write", write_if_there_is_room)
        for n in range(10):
            to.write(line(n))
        full.clear()
        assert to.flush(LIMIT_S)
    assert (tmp_path / "log").read_bytes() == b"".join(map(line, range(10)))


def test_a_disk_that_has_failed_once_gets_what_comes_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A network's disk that does not answer in time is no reader that has gone: nothing is lost."""
    with (tmp_path / "log").open("wb", buffering=0) as file:
        to = Sink(file.fileno(), dropped)
        write, failures = to._write, iter([errno.EIO])

        def write_but_once(data: bytes) -> int:
            for failure in failures:
                raise OSError(failure, "the disk does not answer")
            return write(data)

        monkeypatch.setattr(to, "_write", write_but_once)
        for n in range(10):
            to.write(line(n))
        assert to.flush(LIMIT_S)
    assert (tmp_path / "log").read_bytes() == b"".join(map(line, range(10)))


def test_a_write_that_takes_only_a_part_is_finished_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However little each write takes, the bytes follow one another."""
    with (tmp_path / "log").open("wb", buffering=0) as file:
        to = Sink(file.fileno(), dropped)
        write = to._write
        monkeypatch.setattr(to, "_write", lambda data: write(data[:7]))
        for n in range(20):
            to.write(line(n))
        assert to.flush(LIMIT_S)
    assert (tmp_path / "log").read_bytes() == b"".join(map(line, range(20)))


_FORK = """
import os, sys, threading
from jobd.sink import Sink, Spare
to = Sink(1, lambda count: b"dropped %d\\n" % count)
stop = threading.Event()
def write():
    while not stop.wait(0.0002):
        to.write(b"parent\\n")
threads = [threading.Thread(target=write, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
for n in range(30):
    child = os.fork()
    if child == 0:
        to.write(b"child %d\\n" % n)
        os._exit(0 if to.flush(10) else 9)
    assert os.waitpid(child, 0)[1] == 0
    assert to.receive()
stop.set()
for thread in threads:
    thread.join()
assert to.finish(b"last\\n", 10)
"""


def test_a_fork_in_the_middle_of_a_write_hangs_nobody() -> None:
    """A child neither waits for a lock that a thread of its parent held nor writes its parent's lines again."""
    lines = python(_FORK).splitlines()
    assert [text for text in lines if text.startswith("child")] == [f"child {n}" for n in range(30)]
    assert set(lines) - {f"child {n}" for n in range(30)} == {"parent", "last"}
    assert lines[-1] == "last"


_FORK_BEHIND = """
import os, time
from jobd.sink import Sink, Spare
reading, writing = os.pipe()
to = Sink(writing, lambda count: b"dropped %d\\n" % count)
while to.flush(0):
    to.write(b"parent's\\n" * 100)
child = os.fork()
if child == 0:
    to.write(b"child's\\n")
    os._exit(0 if to.flush(1) else 9)
assert os.waitpid(child, 0)[1] == 0
assert to.receive() and not to.receive()
data, deadline = b"", time.monotonic() + 5
while not data.endswith(b"child's\\n") and time.monotonic() < deadline:
    data += os.read(reading, 1 << 20)
assert data.splitlines().count(b"child's") == 1, data[-100:]
"""


def test_a_child_of_a_parent_whose_reader_is_behind_loses_nothing_and_tears_nothing() -> None:
    """Its lines go through the parent, because one of the parent's may be half out."""
    python(_FORK_BEHIND)


@pytest.mark.parametrize("reader", ["os.pipe()", "ends()", "file()"], ids=["pipe", "socket", "file"])
def test_memory_may_run_out_at_any_allocation(reader: str) -> None:
    """Whichever allocation of CPython's fails, and the two after it: each line that was taken is out once, in order."""
    pytest.importorskip("_testcapi", reason="this Python cannot be asked to have no memory")
    wrong = python(f"""
        import os, socket, tempfile
        import _testcapi
        from jobd.sink import Sink

        def ends():
            reading, writing = socket.socketpair()
            return reading.detach(), writing.detach()

        def file():
            path = tempfile.NamedTemporaryFile().name
            writing = os.open(path, os.O_CREAT | os.O_WRONLY)
            return os.open(path, os.O_RDONLY), writing

        lines = [b"%d %s\\n" % (number, b"." * 300) for number in range(12)]

        def written(first, count):
            reading, writing = {reader}
            to = Sink(writing, lambda count: b"dropped\\n")
            numbers = iter(range(len(lines)))
            number = next(numbers)
            _testcapi.set_nomemory(first, first + count)
            while number is not None:
                try:
                    (to.put if number % 3 else to.write)(lines[number])
                except MemoryError:
                    continue
                number = next(numbers, None)
            _testcapi.remove_mem_hooks()
            to.flush(5)
            return os.read(reading, 1 << 20)

        for count in (1, 3):
            for first in range(120):
                if written(first, count) != b"".join(lines):
                    print(first, count)
    """)
    assert wrong == ""


def test_lines_are_held_as_long_as_they_are_not_too_many(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then they leave as ever, and where the reader is behind, memory is bounded as ever."""
    monkeypatch.setattr(sink, "MAX_WAITING_BYTES", 200_000)
    monkeypatch.setattr(sink, "HELD_BYTES", 5_000)
    to = Sink(pipe.writing, dropped)
    to.hold()
    to.write(line(0))
    assert not select.select([pipe.reading], [], [], 0)[0]
    total = 20_000
    for n in range(1, total):
        to.write(Spare(line(n)))
        assert sum(map(len, to._lines)) < 250_000
    lines = pipe.read(lambda data: data.endswith(line(total - 1))).splitlines(keepends=True)
    assert lines[0] == line(0)
    numbers = [number(text) for text in lines if not text.startswith(b"dropped")]
    assert numbers == sorted(set(numbers))


def test_a_reader_that_is_back_is_seen_though_the_writer_thread_gets_no_turn(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who logs tries anew now and then, and so a busy interpreter costs no line; it writes only so much itself."""
    monkeypatch.setattr(sink, "MAX_WAITING_BYTES", 400_000)
    monkeypatch.setattr(Sink, "_wait_and_write", lambda self: None)
    to = Sink(pipe.writing, dropped)
    for n in range(3_000):
        to.write(Spare(line(n)))
    assert to._congested
    data, total = pipe.drain(), 20_000
    for n in range(3_000, total):
        before = len(to._lines)
        to.write(Spare(line(n)))
        assert before - len(to._lines) < (sink.TRIED_BYTES + sink.PIPE_WRITE_BYTES) / 100
        data += pipe.drain()
    while not to.flush(0.01):
        data += pipe.drain()
    assert data + pipe.drain() == b"".join(map(line, range(total)))


def test_what_is_left_is_given_up_once_not_before_every_chunk(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """To go through all that waits for each chunk would keep a reader waiting that is slow, and reads."""
    monkeypatch.setattr(sink, "OWN_LINES_S", LIMIT_S)
    monkeypatch.setattr(sink, "OWN_PART", 1.0)  # so that it is time at once
    give_up, calls = Sink._give_up, []

    def counted(self: Sink, *arguments: int, **options: bool) -> None:
        calls.append(options)
        give_up(self, *arguments, **options)

    monkeypatch.setattr(Sink, "_give_up", counted)
    to = Sink(pipe.writing, dropped)
    to.hold()
    for n in range(20_000):
        to.write(line(n))
    reader = threading.Thread(target=pipe.read, args=(lambda data: b"last" in data,))
    reader.start()
    assert to.finish(b"last\n", LIMIT_S)
    reader.join()
    assert calls == [{"spare_only": True}]


def test_lines_that_are_held_take_as_much_memory_as_they_are_long(pipe: Pipe) -> None:
    """What orjson returns holds on to a buffer of some kilobytes, however short it is."""
    to = Sink(pipe.writing, dropped)
    to.hold()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        length = 0
        for n in range(5_000):
            made = render.line({"event": "run.finished", "job": "job", "number": n, "pad": "x" * 100})
            length += len(made)
            to.write(made)
        del made
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken < 2 * length


def test_a_reader_that_keeps_up_with_its_backlog_loses_nothing(pipe: Pipe) -> None:
    """What counts is what waits, not all that has passed by since the reader fell behind."""
    to = Sink(pipe.writing, dropped)
    size, backlog = 1_000, sink.MAX_WAITING_BYTES * 5 // 8 // 1_000
    for n in range(backlog):
        to.write(Spare(line(n, size)))
    data = b""
    for n in range(backlog, 3 * backlog):
        to.write(Spare(line(n, size)))
        while len(data) < (n - backlog) * size:
            data += pipe.read(bool)
    data += pipe.read(lambda rest: rest.endswith(b".\n") and number(rest.splitlines()[-1]) == 3 * backlog - 1)
    assert list(map(number, data.splitlines())) == list(range(3 * backlog))
