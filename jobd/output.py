"""What anybody prints, cut into lines, with the run that it belongs to.

May import: run, clock.

Two ways lead here. What goes through `sys.stdout` and `sys.stderr` is taken on the thread that prints: the run is
known, and the order of its lines is kept. What is written to the descriptors 1 and 2 themselves, by a library's C code
or by a child, comes through a pipe each, which a thread reads; whose it is cannot be known.

Tricky: `print` writes a line in pieces, and threads print at once. So the start of a line waits for its end apart for
each run, thread and stream, until the run ends. A pipe must never be full for long, because C code that holds the GIL
may be writing to it: hence its size, and a reader that waits for nothing else.
"""

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from fcntl import F_DUPFD, F_SETPIPE_SZ, fcntl
from select import POLLIN, poll
from typing import Any, NoReturn, Protocol

from jobd import run as runs
from jobd.clock import Real
from jobd.run import Run

#: The streams, by their descriptor.
STREAMS = {1: "stdout", 2: "stderr"}
#: A longer line is handed on in pieces; so much fits into one line of the log even when each byte has to be escaped.
LINE_BYTES = 8_192
#: As much as Linux lets anybody have; `pipe(7)`.
PIPE_BYTES = 1_048_576
READ_BYTES = 65_536
#: At the end what is still in the pipes is read in smaller steps, so that the time may be looked at in between.
LAST_READ_BYTES = 4_096
#: How long the reader may keep the last reading waiting: it is about to hand on what it has just read.
READER_S = 0.05
#: Python's own, whatever a job puts into the module.
_read, _close, _dup2 = os.read, os.close, os.dup2


class Pipe:
    """What stands behind a standard descriptor: a pipe of ours."""

    def __init__(self) -> None:
        """Make it. Raises `OSError` where no descriptors are to be had."""
        # Our own writing end stays open, so that the pipe never comes to an end, and closed descriptors can be mended.
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_end, False)
        try:
            fcntl(self.write_end, F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:  # this user's pipes hold too much already
            pass

    def read(self, most: int) -> bytes:
        """What is there, `most` bytes of it."""
        try:
            return _read(self.read_end, most)
        except BlockingIOError:
            return b""


#: Both, by the descriptor that they stand behind.
Pipes = dict[int, Pipe]


def pipes() -> Pipes:
    """Make both pipes, before anything is diverted to them. Raises `OSError` where no descriptors are to be had."""
    return {fd: Pipe() for fd in STREAMS}


#: Told the run, if it is known, the stream and a line without its end.
Take = Callable[[Run | None, str, bytes], None]


class Lines(Protocol):
    """Lines of the log that forked children have sent."""

    @property
    def receiving(self) -> int:
        """The descriptor that is readable then."""

    def receive(self) -> bool:
        """Take one, if there is one; whether there was."""


class Output:
    """The two standard streams of this process, turned into lines."""

    def __init__(self, pipes: Pipes, take: Take, lines: Lines) -> None:
        """Divert both streams, and their descriptors with all that children write there, to `take`.

        What forked children have made `lines` of is taken, too. Raises `RuntimeError` where no thread is to be had;
        then nothing has changed.
        """
        self._take = take
        self._lines = lines
        self._starts: dict[tuple[int, str, str], Cutter] = {}
        self._reading = threading.Lock()
        self._pipes = pipes
        self._cutters = {fd: Cutter(None, stream, take) for fd, stream in STREAMS.items()}
        threading.Thread(target=self._read_on, name="jobd output", daemon=True).start()
        for fd, stream in STREAMS.items():
            _dup2(self._pipes[fd].write_end, fd)
            text = _Text(_Raw(fd, stream, self._printed), "utf-8", "backslashreplace", write_through=True)
            setattr(sys, stream, text)
            setattr(sys, f"__{stream}__", text)

    def mend(self) -> None:
        """Open descriptor 1 and 2 again where somebody has closed them, and nobody has taken them since."""
        for fd, pipe in self._pipes.items():
            try:
                got = fcntl(pipe.write_end, F_DUPFD, fd)  # the lowest from there on that is free
            except Exception:  # none is to be had, or an audit hook of a job's forbids it
                return
            if got != fd:
                _close(got)

    def finish(self, timeout_s: float) -> None:
        """Hand on what is in the pipes and what waits for the end of its line, for `timeout_s` at most."""
        deadline = Real.monotonic() + timeout_s
        if self._reading.acquire(timeout=READER_S):
            try:
                self._read_up(deadline)
            finally:
                self._reading.release()
        for cutter in list(self._starts.values()):
            cutter.end()

    def _read_up(self, deadline: float) -> None:
        for fd, cutter in self._cutters.items():
            while self._read(fd, LAST_READ_BYTES) and Real.monotonic() < deadline:
                pass
            cutter.end()
        while self._lines.receive() and Real.monotonic() < deadline:
            pass

    def _printed(self, stream: str, data: bytes) -> None:
        run = runs.current.get(None)
        key: tuple[int, str, str] = (threading.get_ident(), stream, "")
        if run is None:
            starts = self._starts
        elif run.ended:  # what it has left running prints on; nobody will end those lines but we
            starts, key = self._starts, (*key[:2], run.run_id)
        elif run.printed is None:
            starts = run.printed = {}
        else:
            starts = run.printed
        cutter = starts.get(key)
        if cutter is None:
            cutter = starts[key] = Cutter(run, stream, self._take)
        cutter.write(data)
        if starts is self._starts and not cutter.has_begun:  # threads, and runs that have ended, come and go
            starts.pop(key, None)

    def _read(self, fd: int, most: int) -> bool:
        """Hand on what has been written to `fd`, `most` bytes of it; whether there was anything."""
        data = self._pipes[fd].read(most)
        self._cutters[fd].write(data)
        return bool(data)

    def _read_on(self) -> None:
        poller = poll()
        written: dict[int, int] = {pipe.read_end: fd for fd, pipe in self._pipes.items()}
        for read_end in written:
            poller.register(read_end, POLLIN)
        poller.register(self._lines.receiving, POLLIN)
        while True:
            try:
                for read_end, _ in poller.poll():
                    self._read_from(written.get(read_end))
            except Exception:  # no memory, say; without this thread whoever prints would wait for ever
                Real.sleep(READER_S)

    def _read_from(self, fd: int | None) -> None:
        with self._reading:
            if fd is None:
                self._lines.receive()
            else:
                self._read(fd, READ_BYTES)


class Cutter:
    """Cuts what one writer writes to one stream into lines. Not to be used by two threads at once."""

    def __init__(self, run: Run | None, stream: str, take: Take) -> None:
        """Hand the lines of `stream` on to `take`, as those of `run`."""
        self._run = run
        self._stream = stream
        self._take = take
        self._start = b""

    @property
    def has_begun(self) -> bool:
        """Whether it keeps the start of a line."""
        return bool(self._start)

    def write(self, data: bytes) -> None:
        """Hand on every line that is complete; keep the start of the next one."""
        *lines, start = (self._start + data).split(b"\n")
        *pieces, self._start = _pieces(start)
        for line in lines:
            self._hand_on(line.removesuffix(b"\r"))
        for piece in pieces:
            self._take(self._run, self._stream, piece)

    def end(self) -> None:
        """Nothing more comes: hand on the start of a line that has no end."""
        start, self._start = self._start, b""
        if start:
            self._hand_on(start)

    def _hand_on(self, line: bytes) -> None:
        for piece in _pieces(line):
            self._take(self._run, self._stream, piece)


def _pieces(line: bytes) -> Iterator[bytes]:
    """The line in pieces of `LINE_BYTES` at most, cut between characters of UTF-8."""
    begin = 0
    while len(line) - begin > LINE_BYTES:
        end = begin + LINE_BYTES
        while end > begin + LINE_BYTES - 4 and line[end] & 0xC0 == 0x80:  # the inside of a character
            end -= 1
        yield line[begin:end]
        begin = end
    yield line[begin:]


class _Raw(io.RawIOBase):
    """The lower half of `sys.stdout` or `sys.stderr`: bytes go to `take`, in the thread that writes them."""

    def __init__(self, fd: int, stream: str, take: Callable[[str, bytes], None]) -> None:
        self._fd = fd
        self._stream = stream
        self._take = take
        self.name = f"<{stream}>"
        self.mode = "wb"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: Any) -> int:
        written = bytes(data)
        self._take(self._stream, written)
        return len(written)

    def close(self) -> None:
        """Stay open: a job that closes it would silence all the others."""


class _Text(io.TextIOWrapper):
    """The upper half. It stays as it is, because all jobs share it."""

    def close(self) -> None:
        """Stay open, likewise."""

    def reconfigure(self, **options: Any) -> None:
        """Stay as it is: without a buffer, in UTF-8."""

    def detach(self) -> NoReturn:
        """Raise `io.UnsupportedOperation`: what is detached is lost for everybody."""
        raise io.UnsupportedOperation("jobd's standard streams cannot be detached")
