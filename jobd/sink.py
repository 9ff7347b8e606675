"""The log's way out: whole lines onto a descriptor, in order, without anybody ever waiting for the reader.

May import: bell, clock, descriptors.

A line is written at once by whoever logs it, so that it is out even if the next thing that thread does is kill the
process. Only when the reader is slow do lines wait: in a queue, bounded in bytes, emptied by a writer thread and, as
it grows, by those who log. When it is full, the oldest lines of jobs are given up and counted, and only when there are
no more of them, the daemon's own.

Tricky:

- No thread ever waits for the lock. `write` appends to the queue, then tries the lock; whoever has it writes what
  the others append. So a finaliser that logs while its own thread is writing cannot deadlock, and order is the
  queue's.
- Pipes and terminals are opened anew to be written to without waiting, sockets are sent to with MSG_DONTWAIT, and what
  allows neither is asked with `poll` first.
- A forked child never writes to the log: it would, sooner or later, in the middle of a long line of ours. It sends its
  lines to the parent, one datagram each.
- On a pipe one write carries at most PIPE_BUF bytes, cut between lines: `pipe(7)` makes those all or nothing, so no
  reader ever sees half of such a line, not even the one that meets our end.
"""

import errno
import math
import os
import socket
import stat
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from select import PIPE_BUF, POLLOUT, poll

from jobd import descriptors
from jobd.bell import Bell
from jobd.clock import Real

#: How many bytes may wait for a slow reader.
MAX_WAITING_BYTES = 16 * 1024 * 1024
#: How many bytes wait for the last line once they are held.
HELD_BYTES = 4 * 1024 * 1024
#: How much leaves in one write: on a pipe no more than is atomic, elsewhere enough to make calls rare.
PIPE_WRITE_BYTES = PIPE_BUF
WRITE_BYTES = 65_536
#: What a stream socket takes whole or not at all: one buffer of the kernel. From more than that it takes a part when it
#: is nearly full, and journald, at the other end of one, would get half a line from a process that is killed then.
SOCKET_WRITE_BYTES = 32_768
#: What whoever logs writes at most before it leaves the rest to the writer thread: others may log faster than that.
TURN_BYTES = 65_536
#: Behind a reader that is slow, whoever logs tries again when this much more waits: the writer thread may have to wait
#: for the interpreter while others compute, though the reader has come back long ago. So much is then written.
TRY_BYTES = 65_536
TRIED_BYTES = 4 * TRY_BYTES
#: So many lines are joined without being measured one by one.
FEW_LINES = 32
#: How long to leave a full disk alone before trying again.
RETRY_S = 0.25
#: What is left to the daemon's own lines when those of jobs have had to be given up, and then to the last line.
OWN_LINES_S = 0.35
LAST_LINE_S = 0.1
#: Where there is little time at all, this part of it is the first of them, and half of that the second.
OWN_PART = 0.6
#: How long a reader that has taken something may take to come back for the last line.
PATIENCE_S = 0.5
#: Longer than any line that `render` makes.
CHILD_LINE_BYTES = 131_072
_SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_os_write = os.write  # ours, whatever a job puts into the module
#: How long a forked child waits for its parent to take a line: a second, as `setsockopt(2)` has it.
_SEND_TIMEOUT = struct.pack("ll", 1, 0)
#: Errors after which nobody will read this descriptor again. A disk may have the next one after all.
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENOTCONN, errno.EIO, errno.ENXIO})


class Spare(bytes):
    """A line that is given up before others: one of a job's, of which there may be any number."""


class Sink:
    """Writes lines to a descriptor. Every method may be called from any thread."""

    def __init__(self, fd: int, dropped: Callable[[int], bytes]) -> None:
        """Write to what `fd` refers to, through a descriptor of our own.

        `dropped` makes the line that tells how many lines had to be given up.
        """
        self._fd, self._write, self._most, self._final = _open(fd)
        self._turn_bytes: float = TURN_BYTES
        self._from_children, self._to_parent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._to_parent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
        self._is_child = False
        self._dropped_line = dropped
        self._lines: deque[bytes] = deque()
        self._rest = b""  # a chunk, of which so many bytes are out
        self._sent = 0
        self._lock = threading.Lock()
        self._waiting_bytes = 0  # roughly: threads race for it; `_shed` counts anew
        self._untried_bytes = 0
        self._dropped = 0
        self._congested = False
        self._gone = False
        self._held = False
        self._last: bytes | None = None
        #: From when on the lines of jobs are given up, and soon after that everything but the last line.
        self._hurry_at = self._last_at = math.inf
        self._sealed = False
        self._written_bytes = 0  # ever, so that who waits sees that the reader reads, whoever has written
        self._wake = Bell()
        self._thread = threading.Thread(target=self._wait_and_write, name="jobd log", daemon=True)
        self._thread.start()
        os.register_at_fork(after_in_child=self._forked)

    def write(self, line: bytes) -> None:
        """Write the line, newline included, now or as soon as the reader lets us; never wait.

        Raises nothing but `MemoryError`, and that only if the line has not been taken.
        """
        if self._gone or self._last is not None:
            return
        self._append(line)
        self.push()

    def put(self, line: bytes) -> None:
        """Like `write`, but leave the line to the next `push`, or to the next line of any thread."""
        if self._gone or self._last is not None:
            return
        self._append(line)

    def _append(self, line: bytes) -> None:
        if (self._congested or self._held or len(self._lines) > FEW_LINES) and type(line) is bytes:
            line = bytes(memoryview(line))  # orjson's has the buffer behind it that it was made in, ten times as large
        self._lines.append(line)  # or MemoryError, and then it is the caller's still; what comes now must not raise
        if self._congested or self._held:
            self._waiting_bytes += len(line)
            self._untried_bytes += len(line)

    def push(self) -> None:
        """Write what has been put, now or as soon as the reader lets us; never waits, and raises nothing."""
        if self._last is not None or (self._held and self._waiting_bytes < HELD_BYTES):
            return
        try:
            if not self._congested:
                self._waiting_bytes = 0
                self._write_waiting(self._turn_bytes)
                return
            if self._untried_bytes > TRY_BYTES:
                self._untried_bytes = 0
                self._write_waiting(TRIED_BYTES)
            if self._waiting_bytes > MAX_WAITING_BYTES:
                self._shed()
        except MemoryError:
            self._leave_to_writer()

    def hold(self) -> None:
        """Let lines wait for `finish`, as long as they are not too many."""
        self._held = True

    def finish(self, line: bytes, timeout_s: float, longest_s: float = 0.0) -> bool:
        """Write a last line and everything before it; whether that was done within `timeout_s`.

        When the time is nearly over and the reader is still behind, the lines of jobs are given up for the daemon's
        own, and these in the end for the last one. For that one, a reader that is slow but reads gets `longest_s`.
        """
        deadline = Real.monotonic() + timeout_s
        own_lines_s = min(OWN_LINES_S, timeout_s * OWN_PART)
        self._last_at = deadline - min(LAST_LINE_S, own_lines_s / 2)
        self._hurry_at = deadline - own_lines_s  # whoever has the lock then sheds: perhaps amid a long queue
        if self._last is None:  # not the second try after a lack of memory
            self._last = line
            try:
                self._lines.append(line)
            except MemoryError:
                self._last = None
                raise
        return self._flush(deadline, deadline + longest_s - timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything so far is out; whether that was so within `timeout_s`."""
        return self._flush(Real.monotonic() + timeout_s)

    def _flush(self, deadline: float, latest: float = 0.0) -> bool:
        """The same until an instant, and on until `latest` while the reader reads."""
        written = self._written_bytes
        while self._lines or self._rest:
            if self._written_bytes != written:
                written = self._written_bytes
                deadline = max(deadline, min(latest, Real.monotonic() + PATIENCE_S))
            if self._gone or Real.monotonic() >= deadline:
                return False
            before = len(self._lines)
            try:
                self._write_waiting(TRIED_BYTES)
            except MemoryError:
                pass
            if len(self._lines) == before and _writable(self._fd, 0.02):
                Real.sleep(0.002)  # another thread is at it, or the disk is full
        return True

    def _write_waiting(self, most_bytes: float) -> None:
        """Write what waits until nothing does, that much is out, the reader is behind, or another thread is at it."""
        while (self._lines or self._rest) and self._lock.acquire(False):
            try:
                behind = not self._write_some(most_bytes)
            finally:
                self._lock.release()
            if behind:
                self._wake.ring()
                return

    def _write_some(self, most_bytes: float) -> bool:
        """With the lock: write chunk after chunk; False when the reader is behind, or that much is out."""
        while True:
            if self._waiting_bytes > MAX_WAITING_BYTES:  # nobody else can, as long as we have the lock
                self._keep_within_bounds()
            chunk = self._left_over() or self._next_chunk()
            if not chunk:
                self._congested = False
                if self._lines:
                    continue  # RACE: appended by one who still saw us congested, and left it to us
                return True
            try:
                self._sent = written = self._write(chunk)  # cut off the next time: now memory may be lacking for it
            except OSError as error:
                return self._give_way(error)
            self._written_bytes += written
            most_bytes -= written
            if written < len(chunk):
                return self._fall_behind()
            self._rest, self._sent = b"", 0
            if not (self._lines or self._congested):
                return True
            if self._lines and most_bytes < 0:
                return self._fall_behind()

    def _left_over(self) -> bytes:
        """What is left of the chunk that was written last."""
        if self._sent:
            self._rest, self._sent = self._rest[self._sent :], 0
        return self._rest

    def _give_way(self, error: OSError) -> bool:
        if error.errno not in self._final:
            return self._fall_behind()
        self._gone = True
        self._rest, self._sent = b"", 0
        self._lines.clear()
        return True

    def _fall_behind(self) -> bool:
        # With the lock, so that no thread that has caught up meanwhile is contradicted.
        if not self._congested:
            self._waiting_bytes = 0
            self._congested = True
            self._waiting_bytes += self._queued_bytes()
        return False

    def _leave_to_writer(self) -> None:
        self._congested = True
        self._wake.ring()

    def _next_chunk(self) -> bytes:
        """Take lines off the queue: as many as fit into one write, at least one. Off only when they are in `_rest`."""
        few = len(self._lines)  # RACE: before the look for a last line, so that it is not among these
        if 0 < few <= FEW_LINES and self._last is None and not self._dropped:  # as nearly always
            rest = self._lines[0] if few == 1 else b"".join(list(self._lines)[:few])
            if few == 1 or len(rest) <= self._most:
                self._hold(rest, repeat(None, few))
                return rest
        if self._sealed:
            self._lines.clear()  # RACE: what threads of jobs have still appended behind the last line
        elif (now := Real.monotonic()) >= self._hurry_at:
            self._give_up(0, spare_only=now < self._last_at)
            self._hurry_at = self._last_at if now < self._last_at else math.inf  # nothing more comes
        dropped = self._dropped
        lines = [self._dropped_line(dropped)] if dropped else []
        room = self._most - sum(map(len, lines))
        taken = 0
        sealed = False
        while not sealed and taken < len(self._lines) and (len(self._lines[taken]) <= room or not lines):
            lines.append(self._lines[taken])
            room -= len(lines[-1])
            taken += 1
            sealed = lines[-1] is self._last
        left, sealed = self._dropped - dropped, self._sealed or sealed
        self._hold(b"".join(lines), repeat(None, taken))
        self._dropped, self._sealed = left, sealed
        return self._rest

    def _hold(self, rest: bytes, taken: Iterable[None]) -> None:
        """Keep the chunk, and take the lines that are in it off the queue: from here on nothing takes memory."""
        self._rest = rest
        for _ in taken:
            self._lines.popleft()

    def _shed(self) -> None:
        if not self._lock.acquire(False):
            return  # whoever has it is writing, and sees to this
        try:
            self._keep_within_bounds()
        finally:
            self._lock.release()

    def _keep_within_bounds(self) -> None:
        """With the lock: where more waits than may, give up lines until it is half of that, but never the last line."""
        try:
            self._waiting_bytes = self._queued_bytes()  # what has been written since does not wait any more
            if self._waiting_bytes > MAX_WAITING_BYTES:
                self._give_up(MAX_WAITING_BYTES // 2)
        except MemoryError:
            pass  # nothing is given up yet, and whoever has the lock writes on

    def _queued_bytes(self) -> int:
        return sum(map(len, list(self._lines)))

    def _give_up(self, keep_bytes: int, *, spare_only: bool = False) -> None:
        """With the lock: forget the oldest lines until `keep_bytes` are left, those of jobs first."""
        lines = list(self._lines)
        known = len(lines)
        waiting = sum(map(len, lines))
        for spare in (True,) if spare_only else (True, False):
            kept: list[bytes] = []
            for line in lines:
                if waiting > keep_bytes and isinstance(line, Spare) is spare and line is not self._last:
                    waiting -= len(line)
                else:
                    kept.append(line)
            lines = kept
        for _ in range(known):  # RACE: lines that have been appended meanwhile stay where they are
            self._lines.popleft()
        self._lines.extendleft(reversed(lines))
        self._dropped += known - len(lines)
        self._waiting_bytes = waiting

    def receive(self) -> bool:
        """Take a line that a forked child has sent; whether there was one. Never waits."""
        try:
            line = self._from_children.recv(CHILD_LINE_BYTES, socket.MSG_DONTWAIT)
        except OSError:
            return False
        self.write(Spare(line))
        return True

    @property
    def receiving(self) -> int:
        """The descriptor that is readable when a forked child has sent a line."""
        return self._from_children.fileno()

    def _forked(self) -> None:
        """In a forked child: what waits is the parent's to write, and a lock held by its threads is free.

        The child's own lines go through the parent, which may be in the middle of one.
        """
        self._lock = threading.Lock()
        self._wake = Bell()
        self._lines.clear()
        self._rest, self._sent = b"", 0
        self._dropped = 0
        self._congested, self._turn_bytes = False, math.inf  # there is no writer thread here to leave lines to
        if not self._is_child:
            self._is_child = True
            os.close(self._fd)
            self._from_children.close()
            self._fd, self._write, self._most = self._to_parent.fileno(), self._send, 1

    def _send(self, line: bytes) -> int:
        try:
            return self._to_parent.send(line, socket.MSG_NOSIGNAL)
        except BlockingIOError:  # the parent is suspended, say; its child is not to be
            return len(line)

    def _wait_and_write(self) -> None:
        """The writer thread: wait until the reader is ready again."""
        while not self._gone:
            try:
                if not self._congested:
                    self._wake.wait()
                while self._congested and not self._gone:
                    self._write_when_ready()
            except Exception:  # no memory, say; without this thread nothing would ever leave again
                Real.sleep(RETRY_S)

    def _write_when_ready(self) -> None:
        if not _writable(self._fd, 1.0):
            return
        written = self._written_bytes
        self._write_waiting(TRIED_BYTES)
        if self._congested and self._written_bytes == written:
            Real.sleep(RETRY_S)  # writable, yet it took nothing: a full disk


def _open(fd: int) -> tuple[int, Callable[[bytes], int], int, frozenset[int]]:
    """A descriptor of our own for what `fd` refers to, and how to write to it without waiting.

    Then how much at once, and the errors after which nothing more can be written.
    """
    private = descriptors.private(fd)
    mode = os.fstat(private).st_mode
    if stat.S_ISSOCK(mode):
        return private, partial(_send, socket.socket(fileno=private).send), SOCKET_WRITE_BYTES, _GONE
    if stat.S_ISREG(mode):
        return private, partial(_write, private), WRITE_BYTES, _GONE - {errno.EIO}
    own = descriptors.opened_anew(private)
    if own is None:
        return private, partial(_ask_and_write, private), PIPE_WRITE_BYTES, _GONE
    os.close(private)
    return own, partial(_write, own), PIPE_WRITE_BYTES, _GONE


# Memory may be lacking for the number that the system's answer is; for nothing else, and before that all is out.


def _write(fd: int, data: bytes) -> int:
    size = len(data)
    try:
        return _os_write(fd, data)
    except MemoryError:
        return size


def _send(send: Callable[[bytes, int], int], data: bytes) -> int:
    size = len(data)
    try:
        return send(data, _SEND_FLAGS)
    except MemoryError:
        return size


def _ask_and_write(fd: int, data: bytes) -> int:
    if not _writable(fd, 0):
        raise BlockingIOError(errno.EAGAIN, "the reader is behind")
    return _write(fd, data[:PIPE_WRITE_BYTES])


def _writable(fd: int, timeout_s: float) -> bool:
    poller = poll()
    poller.register(fd, POLLOUT)
    return bool(poller.poll(timeout_s * 1000))
