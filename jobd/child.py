"""The process of a function: ``python -m jobd.child FD``. Not for people: jobd starts it, with a line to itself as FD.

May import: job, joblog, log, render, run, schedule, wires. It hears what to do, makes the run known to the function as
in the daemon, calls it, and tells what it has come to. It leaves as any program does: what the function has left for
its exit is done, and threads are waited for, but not for long.

Tricky: a SIGTERM ends the function wherever it stands, by a SystemExit in the main thread, so that its `finally` blocks
are run; a second one must not come amid those. Where a line of the log is being made, whatever is raised would be taken
for something that is wrong with what the line shows; there it comes when the line is done. And a process that the
function has forked may come back from it; it has nothing to tell.
"""

import faulthandler
import inspect
import json
import os
import signal
import socket
import struct
import sys
import time
from _thread import get_ident, start_new_thread
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from jobd import joblog, log, render, wires
from jobd import run as runs
from jobd.job import Job, Kind
from jobd.run import Run
from jobd.schedule import MAX_INTERVAL_S, Every

#: What the shell says of a process that SIGTERM has ended.
TERMINATED = 128 + signal.SIGTERM
#: How long the interpreter may take to leave, once the result is told.
LEAVE_S = 5.0
#: How long the function may take to hear a SIGTERM before it is sent again.
HEARD_S = 0.05
#: How long jobd may take to hear a line of the log, and how often the result is told until it has been heard.
_SEND_TIMEOUT = struct.pack("ll", 1, 0)
_TRIES = 10


def main() -> NoReturn:
    """Do what the line says, and leave."""
    line = _Line(int(sys.argv[1]))
    task = line.task()
    sys.path[:] = task["path"]
    run = _run(task)
    terminated = _Terminated(run)
    signal.signal(signal.SIGTERM, terminated)
    faulthandler.enable()
    joblog.JobLines(task["level"], log.renderer(task["layout"]), partial(_log, line, terminated), of=run)
    start_new_thread(line.listen, (run, terminated))
    runs.current.set(run)
    pid = os.getpid()
    result, code = _result(task["module"], task["function"])
    if os.getpid() == pid:
        terminated.over = True
        line.tell(result)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, LEAVE_S)
    sys.exit(code)


def _log(line: "_Line", terminated: "_Terminated", made: bytes) -> None:
    line.log(made)
    terminated.line_is_made()


def _run(task: dict[str, Any]) -> Run:
    """The run, as the function may see it. When its job is due is the daemon's business."""
    target = f"{task['module']}:{task['function']}"
    run = Run(
        Job(task["job"], Every(MAX_INTERVAL_S), _nothing, Kind.PROCESS, target),
        task["run_id"],
        task["tick"],
        task["tick"],
    )
    run.scheduled_ns, run.attempt, run.begun = task["scheduled_ns"], task["attempt"], True
    return run


def _nothing() -> None:
    """In place of the function, which is not there before its module is."""


def _result(module: str, qualname: str) -> tuple[dict[str, Any], int]:
    """What the function has come to, and the code to leave with."""
    skip = 2  # so that a traceback begins with the job's own first line
    try:
        function = _found(module, qualname)
        skip = 1
        _refuse_awaitable(function())
    except BaseException as error:
        return render.failure(error, skip), _code(error)
    return {}, 0


def _found(module: str, qualname: str) -> Any:
    __import__(module)  # not importlib's function, which leaves its own lines in every traceback
    found: Any = sys.modules[module]
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _refuse_awaitable(result: Any) -> None:
    try:
        awaitable = inspect.isawaitable(result)
    except BaseException:  # a proxy that cannot be asked what it is
        return
    if awaitable:
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            "the function is no coroutine function, yet it returned an awaitable; declare it with `async def`"
        )


def _code(error: BaseException) -> int:
    """What a program would leave with that lets this through."""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return error.code or 0
    return 1


class _Terminated:
    """What a SIGTERM does: it ends the function, once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._thread = get_ident()
        #: Whether there is no function to be ended any more, or it is being ended.
        self.over = False
        #: Whether it is to be ended when the line of the log that is being made is done.
        self._waits = False

    def insist(self) -> None:
        """A SIGTERM has been sent: see to it that it is heard, unless the function hears it by itself.

        One that comes just before the function begins to wait is noted, and Python looks at that when the wait is over.
        """
        pause_s = HEARD_S
        while True:
            time.sleep(pause_s)
            if self.over or not self._hears:
                return
            signal.pthread_kill(self._thread, signal.SIGTERM)  # which the wait is interrupted by
            pause_s *= 2  # what begins a wait anew each time that it is interrupted must come to its end, too

    @property
    def _hears(self) -> bool:
        """Whether the function has left SIGTERM to us."""
        hears: object = signal.getsignal(signal.SIGTERM)
        return hears is self

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self._run.ask_to_stop()
        if _makes_a_line(frame):
            self._waits = True
        elif not self.over:
            self._exit()

    def line_is_made(self) -> None:
        """What has waited for that may come."""
        if self._waits and not self.over and get_ident() == self._thread:
            self._exit()

    def _exit(self) -> NoReturn:
        self.over = True
        sys.exit(TERMINATED)


def _makes_a_line(frame: FrameType | None) -> bool:
    """Whether the code that is executed there makes a line of the log."""
    while frame is not None:
        if frame.f_code in joblog.MAKES_LINES or frame.f_globals is vars(render):
            return True
        frame = frame.f_back
    return False


class _Line:
    """The line to the daemon, from this end."""

    def __init__(self, fd: int) -> None:
        self._line = socket.socket(fileno=fd)
        self._line.set_inheritable(False)
        self._line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)

    def task(self) -> dict[str, Any]:
        """What is to be done. It has been sent before this process was there."""
        task: dict[str, Any] = json.loads(self._line.recv(wires.MESSAGE_BYTES))
        return task

    def listen(self, run: Run, terminated: "_Terminated") -> None:
        """In a thread of its own: hear that the run is to end, or that jobd has gone."""
        while word := self._word():
            run.ask_to_stop()
            if word == wires.TERMINATED:
                terminated.insist()
        run.ask_to_stop()

    def _word(self) -> bytes:
        try:
            return self._line.recv(1)
        except OSError:
            return b""

    def log(self, line: bytes) -> None:
        """Hand on a line of the log; it is lost where jobd does not take it."""
        self._send(wires.LOGGED + line)

    def tell(self, result: dict[str, Any]) -> None:
        """Tell what the function has come to."""
        message = wires.RESULT + (render.line(result) if result else b"{}")
        for _ in range(_TRIES):
            if self._send(message):
                return

    def _send(self, message: bytes) -> bool:
        try:
            self._line.send(message, socket.MSG_NOSIGNAL)
        except BlockingIOError:  # jobd is suspended, say; its child is not to be
            return False
        except OSError:  # it has gone
            pass
        return True


if __name__ == "__main__":
    main()
