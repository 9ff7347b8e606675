"""What the guard does, in its own process: it watches the daemon, and the time.

May import: kin, children, clock, last_words, signals, title.

It sleeps until a signal comes, a word, or the daemon's end, which is its own; if that was a crash, it first ends the
processes of the runs. The words that it understands are declared here; `guard` says them.

Tricky:

- It can look into the pipe of signals only by reading it, so it puts back what it has read.
- A line that ends is not the daemon's end: a job may have closed it, or replaced the process by another program.
- A process that was stopped, or a control group that was frozen, has not had the time that has passed. So the last
  second before the end is counted in small steps, and not while the daemon is stopped.
"""

import json
import math
import mmap
import os
import signal
import socket
import struct
from itertools import pairwise
from select import POLLIN, poll
from typing import NoReturn

from jobd import children, signals, title
from jobd.children import Family
from jobd.clock import Real
from jobd.kin import Orphans
from jobd.last_words import LastWords

#: How often the guard looks whether a signal has been read, and the steps in which it counts the last second.
STEP_S = 0.05
#: This much before the end is counted in steps: what a daemon that was frozen needs to leave by itself.
LAST_S = 1.0
#: From the signal for the stacks to SIGKILL: as long as the time bound allows, because on a busy machine the threads
#: are printed one at a time.
STACKS_S = 0.1
#: After a crash: how long the process of a run may take to become what it is, by which it is known; it takes
#: milliseconds. And how long one may take to end when it is asked.
STARTING_S = 0.2
ORPHANS_S = 1.0
#: How many of those that were killed the answer names: one datagram has to hold them.
_NAMED = 1000

#: Said on stderr where a job has called `execve` without a process of its own.
REPLACED = b"jobd: a job has replaced the daemon by another program, which is killed\n"
#: How an instant stands in shared memory.
INSTANT = struct.Struct("d")
#: What is said, and a number of seconds.
WORD = struct.Struct("=cd")
GONE_WITHIN, BRACED, RELAXED, ALLOW = b"G", b"B", b"R", b"A"
NOTE, TERMINATE, END, LEAVE = b"N", b"T", b"E", b"L"
#: What the daemon does about signals, as it stands in shared memory: nothing; it reads and obeys some; it has obeyed
#: one that asks for the stop.
DONE, READING, OBEYED = range(3)
#: Nobody waits for a peer that hangs, or is hit by SIGPIPE for one that has been killed.
FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Sentry:
    """What the guard does, in its own process."""

    def __init__(
        self,
        line: socket.socket,
        handle: int | None,
        bound_s: float,
        family: Family,
        orphans: Orphans,
        unread_since: mmap.mmap,
        reading: mmap.mmap,
        last_words: LastWords,
    ) -> None:
        self._line = line
        self._handle = handle  # of the daemon; None on old kernels, where the end of the line is the daemon's
        self._bound_s = bound_s
        self._family = family
        self._orphans = orphans
        self._unread_since = unread_since
        self._reading = reading
        self._last_words = last_words
        self._dismissed = False
        self._daemon = os.getpid()  # still: the guard is yet to be forked
        self._program = children.stat_of(self._daemon) if children.proc_is_ours() else None
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
            Real.sleep(STARTING_S)
            self._orphans.end(ORPHANS_S)
        os._exit(0)

    def _prepare(self) -> None:
        for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            signal.signal(signum, signal.SIG_IGN)  # a Ctrl-C is meant for the daemon
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what has come until now goes: it was blocked for that
        os.chdir("/")
        title.tell("jobd-guard")
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
        """Forget an instant that was for a stop signal among those that are read, if there is none.

        Or one that the daemon has taken back, where there was no room on the line to say so.
        """
        if not self._withdrawable or self._reading[0] == OBEYED or self._has_read_stop():
            return False
        self._relax()
        if self._gone_at == math.inf and self._reading[0] == READING:
            self._set(self._bound_s, withdrawable=True)  # it may still be about to read
        return self._left_s > 0

    def _has_read_stop(self) -> bool:
        """Whether the daemon has read a stop signal, and not obeyed it yet."""
        return self._reading[0] == READING and signals.stop_is_read()

    def _relax(self) -> None:
        """Nothing that has been read asks for the stop; what waits, and came later, has its own instant."""
        since = self._since()
        if since and signals.stop_waits():
            self._set(since + self._bound_s - Real.monotonic())
            return
        if self._reading[0] == DONE:  # else it may have been read just now, and its instant is yet to be asked for
            self._unread_since[:] = INSTANT.pack(0.0)
        self._set(math.inf)

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
            message = self._line.recv(WORD.size)
        except OSError:
            message = b""
        if not message:  # a job may have closed the line
            self._poller.unregister(self._line)
            self._end_other_program()
            return self._handle is not None
        word, seconds = WORD.unpack(message)
        if word in (GONE_WITHIN, BRACED):
            self._set(seconds, withdrawable=bool(word == BRACED))
        elif word == RELAXED:
            self._relax()
        elif word == ALLOW:
            self._bound_s = seconds
        elif word == NOTE:
            self._family.note()
            self._answer(NOTE)
        elif word == TERMINATE:
            self._family.terminate()
        elif word == END:
            self._answer(END + json.dumps(self._family.end(seconds)[:_NAMED]).encode())
        self._dismissed = bool(word == LEAVE)
        return not self._dismissed

    def _end_other_program(self) -> None:
        """Kill what has taken the daemon's place, if that is another program; its supervisor would not notice."""
        program = children.stat_of(self._daemon)
        if self._handle is None or self._program is None or program is None or program.program == children.HIDDEN:
            return
        if program.has_been(self._program):
            return
        self._last_words.say(REPLACED)
        self._family.note()
        self._signal_daemon(signal.SIGKILL)

    def _answer(self, answer: bytes) -> None:
        try:
            self._line.send(answer, FLAGS)
        except OSError:  # the daemon has not waited
            pass

    def _set(self, within_s: float, *, withdrawable: bool = False) -> None:
        self._withdrawable = withdrawable
        self._gone_at = Real.monotonic() + within_s
        self._left_s = min(within_s, LAST_S)
        self._listen_to_signals()

    def _look_for_signals(self, came: bool, now: float) -> None:
        """Look, a step after a signal has come, whether it has been obeyed."""
        if came:
            self._seen_at = now
        elif self._seen_at is not None and now >= self._seen_at + STEP_S:
            if signals.stop_waits() or self._has_read_stop():  # in this order: it may be read meanwhile
                since = self._since() or self._seen_at
                self._unread_since[:] = INSTANT.pack(since)
                if self._gone_at == math.inf or self._withdrawable:
                    self._set(since + self._bound_s - now)
            self._seen_at = None
        self._listen_to_signals()

    def _listen_to_signals(self) -> None:
        # Not while some are known to wait: it would wake us all the time.
        wanted = self._seen_at is None and (self._gone_at == math.inf or self._withdrawable)
        self._poller.register(signals.fileno(), POLLIN if wanted else 0)

    def _since(self) -> float:
        """Since when a stop signal has waited, when somebody looked; 0 if none has."""
        since: float = INSTANT.unpack(self._unread_since)[0]
        return since

    def _signal_daemon(self, signum: signal.Signals) -> None:
        try:
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signum)
            else:
                os.kill(self._daemon, signum)  # the line is open, so it is still the daemon's number
        except OSError:
            pass


def _close_all_but(*kept: int) -> None:
    edges = [-1, *sorted(kept), os.sysconf("SC_OPEN_MAX")]
    for low, high in pairwise(edges):
        os.closerange(low + 1, high)
