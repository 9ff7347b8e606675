"""What leads to the process of a run: a pipe behind each of its streams, and a line to the process of a function.

May import: clock, ending, output, run. On the line, whole messages go both ways; each begins with a letter that says
what it is, except the first, which tells the process what it is to do. `child` stands at the other end.
"""

import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from jobd import ending
from jobd.clock import Real
from jobd.output import Cutter
from jobd.run import Run

#: Of each descriptor, so much is read at once at most, then it is the others' turn; and so much at least, however long
#: it takes to make lines of that.
READ_BYTES = 65_536
LEAST_BYTES = 512
#: A message on the line counts for so much at least: it has to be taken by itself, however short it is.
LEAST_MESSAGE_BYTES = 256
#: What takes longer than that is read in smaller pieces, what is done in a tenth of it in larger ones.
READ_S = 0.004
#: The longest message: a line of the log, or the result.
MESSAGE_BYTES = 262_144
#: From the process: a finished line of the log; what the function has come to. To it: the run is to end; SIGTERM has
#: been sent.
LOGGED, RESULT, STOP, TERMINATED = b"L", b"R", b"S", b"T"
#: Nobody waits for a peer that hangs, or is hit by SIGPIPE for one that has died.
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
#: Kept here, because a job may put something else into the module.
_loads, _dumps = json.loads, json.dumps


class Pipe:
    """What the process writes to one of its streams."""

    def __init__(self, cutter: Cutter, theirs: list[int]) -> None:
        """Add the end that the process gets to `theirs`."""
        self.fd, write_end = os.pipe2(os.O_CLOEXEC)
        theirs.append(write_end)
        os.set_blocking(self.fd, False)
        self._cutter = cutter
        self._most = 8 * LEAST_BYTES

    def read(self) -> int | None:
        """Hand on what is there; how much that was, or None if nothing will come any more."""
        try:
            data = os.read(self.fd, self._most)
        except BlockingIOError:
            return 0
        except OSError:  # a job has closed it
            return None
        if not data:
            return None
        before = Real.monotonic()
        self._cutter.write(data)
        took_s = Real.monotonic() - before
        if took_s > READ_S:
            self._most = max(LEAST_BYTES, self._most // 2)
        elif took_s < READ_S / 10:
            self._most = min(READ_BYTES, self._most * 2)
        return len(data)

    def close(self) -> None:
        """Hand on the start of a line that has no end; nothing more is read."""
        try:
            self._cutter.end()
        finally:
            os.close(self.fd)


class Line:
    """The line to the process of a function: lines of the log and the result come, and what it has to know goes."""

    def __init__(self, forward: Callable[[bytes], None], theirs: list[int]) -> None:
        """Add the end that the process gets to `theirs`; `forward` takes what it logs."""
        self._ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.append(other.detach())
        self.fd = self._ours.fileno()
        self._forward = forward
        #: What the function has come to: nothing, or `error` and `traceback`; None while that is not known.
        self.result: dict[str, Any] | None = None

    def send(self, message: bytes) -> None:
        """Send it. Raises `OSError` where that cannot be done at once."""
        self._ours.send(message, _FLAGS)

    def tell(self, message: bytes) -> None:
        """Send it, if the process is there to hear it."""
        try:
            self.send(message)
        except OSError:
            pass

    def read(self) -> int | None:
        """Take what is there; how much that was, or None if nothing will come any more."""
        read = 0
        while read < READ_BYTES:
            try:
                message = self._ours.recv(MESSAGE_BYTES, _FLAGS)
            except BlockingIOError:
                break
            except ConnectionResetError:  # once: it has gone without hearing all; what it has said is still there
                read += LEAST_MESSAGE_BYTES
                continue
            except OSError:  # a job has closed the line
                return None
            if not message:
                return None
            read += max(len(message), LEAST_MESSAGE_BYTES)
            self._take(message[:1], message[1:])
        return read

    def _take(self, word: bytes, message: bytes) -> None:
        if word == LOGGED:
            if message.endswith(b"\n"):  # else the next line, whosever it is, would go on where this one has no end
                self._forward(message)
        elif word == RESULT and self.result is None:
            self.result = _result(message)

    def close(self) -> None:
        """Nothing more is read."""
        self._ours.close()


def _result(message: bytes) -> dict[str, Any]:
    """What the function has come to; the process is the job's own, and may send anything."""
    try:
        result = _loads(message)
        if not result:
            return {}
        error = result["error"]
        return ending.told(str(error["type"]), str(error["message"]), str(result["traceback"]))
    except (ValueError, TypeError, LookupError):
        return ending.told("ProcessDied", "its process has sent something that is no result")


def task(run: Run, log: dict[str, str]) -> bytes:
    """What the process of a function has to do, and to know. Raises `AttributeError` for a function without a name."""
    function = run.of.function
    known = {
        "module": function.__module__,
        "function": function.__qualname__,
        "path": [entry for entry in sys.path if isinstance(entry, str)],
        "job": run.job,
        "run_id": run.run_id,
        "tick": run.tick,
        "scheduled_ns": run.scheduled_ns,
        "attempt": run.attempt,
    }
    return _dumps(known | log).encode()
