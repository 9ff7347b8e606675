"""The guard: a process beside the daemon that needs neither its GIL, nor its threads, nor its descriptors.

May import: children, clock, signals.

It knows by when the daemon has to be gone, and kills it if it is not; and it ends the processes that jobs have left
behind, at the daemon's word, or by itself where a fence has fallen. It sleeps until a signal comes, a word, or the
daemon's end, which is its own. A daemon that leaves by itself sends it ahead.

Tricky:

- It is no child of the daemon (it is forked twice), so that a job that waits for all of its children does not wait for
  the guard.
- It can look into the pipe of signals only by reading it, so it puts back what it has read.
- A process that was stopped, or a control group that was frozen, has not had the time that has passed. So the last
  second before the end is counted in small steps, and not while the daemon is stopped.
- A signal may be read, and the GIL lost before anything else is done. So the daemon announces each reading (`brace`).
  That it was none for the stop (`relax`) may find no room on the line, so it stands in shared memory, too.
"""

import json
import math
import mmap
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from select import PIPE_BUF, POLLIN, POLLOUT, poll
from typing import NoReturn, Protocol

from jobd import children, signals
from jobd.children import Family, Killed
from jobd.clock import Real

#: How often the guard looks whether a signal has been read, and the steps in which it counts the last second.
STEP_S = 0.05
#: This much before the end is counted in steps: what a daemon that was frozen needs to leave by itself.
LAST_S = 1.0
#: From the signal for the stacks to SIGKILL.
STACKS_S = 0.04
#: How long the daemon waits for the guard's answer, beyond what the answer takes.
ANSWER_S = 0.15
#: How long the daemon waits at its very end until the guard has gone ahead; it takes a millisecond.
LEAVE_S = 0.05
#: How many of those that were killed the answer names: one datagram has to hold them.
_NAMED = 1000

_INSTANT = struct.Struct("d")
#: What is said, and a number of seconds.
_WORD = struct.Struct("=cd")
_GONE_WITHIN, _BRACED, _NOTE, _TERMINATE, _END, _LEAVE = b"G", b"B", b"N", b"T", b"E", b"L"
#: Nothing here waits for a guard that hangs, or is hit by SIGPIPE for one that has been killed.
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Printed(Protocol):
    """A pipe into which is printed, and which the daemon reads."""

    read_end: int

    def read(self, most: int) -> bytes:
        """What is there, `most` bytes of it; never waits."""


class LastWords:
    """What was printed last and is still unread when the daemon has died: often what a library in C died of."""

    def __init__(self, printed: Sequence[Printed], stderr: int) -> None:
        """`show` what is left in `printed` on `stderr`."""
        self._printed = printed
        self._stderr = stderr

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that are needed for it."""
        return [self._stderr, *(each.read_end for each in self._printed)]

    def show(self) -> None:
        """Hand it on, as far as somebody reads it at once."""
        reader = poll()
        reader.register(self._stderr, POLLOUT)
        try:
            for each in self._printed:
                while (data := each.read(PIPE_BUF)) and reader.poll(0):
                    os.write(self._stderr, data)
        except OSError:  # nobody reads it
            pass


class Guard:
    """The guard, as the daemon sees it. Where there is none (any more), the daemon does what it can by itself."""

    def __init__(self, bound_s: float, last_words: "LastWords") -> None:
        """Post it: the daemon may live for `bound_s` after a stop signal. For a process with one thread."""
        self._bound_s = bound_s
        self._family = Family(os.getpid())
        self._noted = False
        self._told = False
        self._ending = False
        self._deaf = False
        self._unread_since = mmap.mmap(-1, _INSTANT.size)  # shared with the guard
        self._braced = mmap.mmap(-1, 1)  # likewise
        self._line, line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handle = _handle(os.getpid())
        watch = _Watch(line, handle, bound_s, self._family, self._unread_since, self._braced, last_words)
        _fork_twice(watch.stand)
        line.close()
        if handle is not None:
            os.close(handle)
        os.register_at_fork(after_in_child=self._line.close)  # it would look as if the daemon still lived

    def unread_s(self) -> float:
        """How long ago the stop signal came that has just been read, if that is worth telling; otherwise 0."""
        since: float = _INSTANT.unpack(self._unread_since)[0]
        return Real.monotonic() - since if since else 0.0

    def brace(self) -> None:
        """Signals are about to be read: if one of them asks for the stop, that is to be on time whatever happens."""
        if not self._told:
            self._braced[0] = True
            self._tell(_BRACED, max(0.0, self._bound_s - self.unread_s()))

    def relax(self) -> None:
        """None of the signals has asked for the stop."""
        if not self._told:
            self._braced[0] = False
            self._tell(_GONE_WITHIN, math.inf)

    def kill_after(self, within_s: float) -> None:
        """Kill this process if it is still there in `within_s`, and its children with it."""
        self._told = True
        self._tell(_GONE_WITHIN, within_s)

    def note(self) -> None:
        """Remember the children that are there now, and theirs."""
        self._noted = children.any_left()
        if self._noted and self._ask(_NOTE) is None:
            self._family.note()

    def terminate(self) -> None:
        """Ask those that have been noted to end."""
        if self._noted and (self._deaf or not self._tell(_TERMINATE)):
            self._family.note()
            self._family.terminate()

    def end(self, within_s: float) -> list[Killed]:
        """Let no child be started any more, ask those that are left to end, and kill who has not within `within_s`.

        May be called again, for those that have slipped through.
        """
        until = Real.monotonic() + within_s
        if not self._ending:
            self._ending = True
            children.start_no_more()
        if not self._noted and not children.any_left():
            return []
        answer = self._ask(_END, within_s, within_s + children.KILL_S)
        if answer is None:
            return self._family.end(max(0.0, until - Real.monotonic()))
        return [Killed(*each) for each in json.loads(answer)]

    def dismiss(self) -> None:
        """Send it away, and wait until it has gone, so that nothing of the daemon outlives it."""
        if self._deaf or not self._tell(_LEAVE):
            return
        until = Real.monotonic() + LEAVE_S
        try:
            poller = poll()
            poller.register(self._line, POLLIN)
            while poller.poll(max(0.0, until - Real.monotonic()) * 1000) and self._line.recv(65_536, _FLAGS):
                pass  # an answer that comes too late
        except (OSError, ValueError):
            pass

    def _tell(self, word: bytes, seconds: float = 0.0) -> bool:
        try:
            self._line.send(_WORD.pack(word, seconds), _FLAGS)
        except OSError:  # somebody has killed it, or it hangs, or it never was
            return False
        return True

    def _ask(self, word: bytes, seconds: float = 0.0, takes_s: float = 0.0) -> bytes | None:
        """The answer; None if there is none in time, and from then on."""
        if self._deaf or not self._tell(word, seconds):
            return None
        until = Real.monotonic() + takes_s + ANSWER_S
        poller = poll()
        try:
            poller.register(self._line, POLLIN)
            while poller.poll(max(0.0, until - Real.monotonic()) * 1000):
                answer = self._line.recv(65_536, _FLAGS)
                if not answer:
                    break
                if answer[:1] == word:  # and not one that comes too late
                    return answer[1:]
        except (OSError, ValueError):
            pass
        self._deaf = True  # no time is to be lost on it again
        return None


class _Watch:
    """What the guard does, in its own process."""

    def __init__(
        self,
        line: socket.socket,
        handle: int | None,
        bound_s: float,
        family: Family,
        unread_since: mmap.mmap,
        braced: mmap.mmap,
        last_words: LastWords,
    ) -> None:
        self._line = line
        self._handle = handle  # of the daemon; None on old kernels, where the end of the line is the daemon's
        self._bound_s = bound_s
        self._family = family
        self._unread_since = unread_since
        self._braced = braced
        self._last_words = last_words
        self._dismissed = False
        self._daemon = os.getpid()  # still: the guard is yet to be forked
        self._poller = poll()
        #: By when the daemon has to be gone, as the clock has it, and what is left of the last of that, as we count it.
        self._gone_at = math.inf
        self._left_s = 0.0
        #: Whether it stands only while the daemon reads signals.
        self._withdrawable = False
        #: Since when signals may have been waiting.
        self._seen_at: float | None = None

    def stand(self) -> NoReturn:
        """Watch until the daemon has ended, or bring that about; then there is no child of its left."""
        self._prepare()
        if self._outstays():
            self._family.note()
            self._signal_daemon(signals.LAST_STACKS)
            Real.sleep(STACKS_S)
            self._family.note()
            self._signal_daemon(signal.SIGKILL)
        self._family.kill(LAST_S)
        if not self._dismissed:
            self._last_words.show()
        os._exit(0)

    def _prepare(self) -> None:
        for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            signal.signal(signum, signal.SIG_IGN)  # a Ctrl-C is meant for the daemon
        os.chdir("/")
        _tell_name()
        kept = [self._line.fileno(), *signals.pipe(), *self._last_words.descriptors]
        if self._handle is not None:
            kept.append(self._handle)
            self._poller.register(self._handle, POLLIN)
        _close_all_but(*kept)
        self._poller.register(self._line, POLLIN)
        self._poller.register(signals.fileno(), POLLIN)

    def _outstays(self) -> bool:
        """Wait: False once the daemon has ended, or is about to, True once its time is up."""
        while True:
            before = Real.monotonic()
            ready = [fd for fd, _ in self._poller.poll(self._sleep_ms(before))]
            woken = Real.monotonic()
            if self._handle in ready or (self._line.fileno() in ready and not self._obey()):
                return False
            self._look_for_signals(signals.fileno() in ready, woken)
            if before >= self._gone_at - LAST_S:
                self._family.note()  # while they can still be found by their parent
                if not children.is_stopped(self._daemon):
                    self._left_s -= min(woken - before, 2 * STEP_S) + Real.monotonic() - woken
                if self._left_s <= 0 and not self._withdrawn():
                    return True

    def _withdrawn(self) -> bool:
        """Forget an instant that the daemon has taken back, where there was no room on the line to say so."""
        if not self._withdrawable or self._braced[0]:
            return False
        self._set(math.inf)
        return True

    def _sleep_ms(self, now: float) -> float | None:
        """How long may be slept, at most."""
        to_last_s = self._gone_at - LAST_S - now
        if to_last_s <= 0:
            return max(0.001, min(STEP_S, self._left_s)) * 1000
        if self._seen_at is not None:
            return STEP_S * 1000
        return None if to_last_s == math.inf else min(to_last_s, 86_400) * 1000 + 1

    def _obey(self) -> bool:
        """Hear a word; whether the daemon lives, and wants to be watched."""
        try:
            message = self._line.recv(_WORD.size)
        except OSError:
            message = b""
        if not message:  # a job may have closed the line
            self._poller.unregister(self._line)
            return self._handle is not None
        word, seconds = _WORD.unpack(message)
        if word in (_GONE_WITHIN, _BRACED):
            self._set(seconds, withdrawable=bool(word == _BRACED))
        elif word == _NOTE:
            self._family.note()
            self._answer(_NOTE)
        elif word == _TERMINATE:
            self._family.terminate()
        elif word == _END:
            self._answer(_END + json.dumps(self._family.end(seconds)[:_NAMED]).encode())
        self._dismissed = bool(word == _LEAVE)
        return not self._dismissed

    def _answer(self, answer: bytes) -> None:
        try:
            self._line.send(answer, _FLAGS)
        except OSError:  # the daemon has not waited
            pass

    def _set(self, within_s: float, *, withdrawable: bool = False) -> None:
        self._withdrawable = withdrawable
        self._gone_at = Real.monotonic() + within_s
        self._left_s = min(within_s, LAST_S)
        self._listen_to_signals()

    def _look_for_signals(self, came: bool, now: float) -> None:
        """Look, a step after a signal has come, whether it has been read."""
        if came:
            self._seen_at = now
        elif self._seen_at is not None and now >= self._seen_at + STEP_S:
            if signals.stop_waits():
                self._unread_since[:] = _INSTANT.pack(self._seen_at)
                if self._gone_at == math.inf:
                    self._set(self._seen_at + self._bound_s - now)
            self._seen_at = None
        self._listen_to_signals()

    def _listen_to_signals(self) -> None:
        # Not while some are known to wait: it would wake us all the time.
        wanted = self._seen_at is None and self._gone_at == math.inf
        self._poller.register(signals.fileno(), POLLIN if wanted else 0)

    def _signal_daemon(self, signum: signal.Signals) -> None:
        try:
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signum)
            else:
                os.kill(self._daemon, signum)  # the line is open, so it is still the daemon's number
        except OSError:
            pass


def _fork_twice(stand: Callable[[], NoReturn]) -> None:
    """Call `stand` in a process that is no child of ours, if processes are to be had."""
    try:
        between = os.fork()
    except OSError:
        return
    if between == 0:
        try:
            if os.fork() == 0:
                stand()
        finally:
            os._exit(0)
    try:
        os.waitpid(between, 0)
    except ChildProcessError:  # SIGCHLD is ignored
        pass


def _handle(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):  # an old kernel
        return None


def _tell_name() -> None:
    """Be told apart from the daemon in `ps -o comm` and `top` (`proc(5)`)."""
    try:
        with open("/proc/self/comm", "w") as comm:
            comm.write("jobd-guard")
    except OSError:  # no /proc
        pass


def _close_all_but(*kept: int) -> None:
    edges = [-1, *sorted(kept), os.sysconf("SC_OPEN_MAX")]
    for low, high in pairwise(edges):
        os.closerange(low + 1, high)
