"""The guard: a process beside the daemon that needs neither its GIL, nor its threads, nor its descriptors.

May import: sentry, kin, children, clock, last_words, signals.

It knows by when the daemon has to be gone, and kills it if it is not; and it ends the processes that jobs have left
behind, at the daemon's word, or by itself where a fence has fallen. A daemon that leaves by itself sends it ahead. This
is the daemon's side of it: posting it, and the words between the two; what it does then stands in `sentry`.

Tricky:

- It is no child of the daemon (it is forked twice), so that a job that waits for all of its children does not wait for
  the guard.
- A signal may be read, and the GIL lost before anything else is done. So the daemon announces each reading (`brace`).
  That it was none for the stop (`relax`) may find no room on the line, so it stands in shared memory, too. And so does
  what was read: a daemon that loses the GIL over another signal has all the time there is.
"""

import json
import mmap
import os
import signal
import socket
from collections.abc import Callable
from select import POLLIN, poll
from typing import NoReturn

from jobd import children, kin, sentry, signals
from jobd.children import Family, Killed
from jobd.clock import Real
from jobd.last_words import LastWords

#: How long the daemon waits for the guard's answer, beyond what the answer takes.
ANSWER_S = 0.15
#: How long the daemon waits at its very end until the guard has gone ahead; it takes a millisecond.
LEAVE_S = 0.05
#: Kept here, because a job may put something else into the module.
_loads = json.loads


class Guard:
    """The guard, as the daemon sees it. Where there is none (any more), the daemon does what it can by itself."""

    def __init__(self, bound_s: float, last_words: LastWords) -> None:
        """Post it: the daemon may live for `bound_s` after a stop signal. For a process with one thread."""
        #: What the ids of the daemon's runs begin with: by that they are known when it has gone.
        self.daemon_name = kin.new_name()
        self._bound_s = bound_s
        self._family = Family(os.getpid())
        self._noted = False
        self._noted_here = False  # and not by the guard
        self._told = False
        self._ending = False
        self._deaf = False
        self._unread_since = mmap.mmap(-1, sentry.INSTANT.size)  # shared with the guard
        self._reading = mmap.mmap(-1, 1)  # likewise
        signals.read_into(memoryview(mmap.mmap(-1, signals.MOST)))  # likewise
        self._line, line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handle = children.handle_of(os.getpid())
        shared = self._unread_since, self._reading
        watch = sentry.Sentry(line, handle, bound_s, self._family, kin.Orphans(self.daemon_name), *shared, last_words)
        _post(watch.stand)
        line.close()
        if handle is not None:
            os.close(handle)
        os.register_at_fork(after_in_child=self._line.close)  # it would look as if the daemon still lived

    def unread_s(self) -> float:
        """How long ago the stop signal came that has just been read, if that is worth telling; otherwise 0."""
        since: float = sentry.INSTANT.unpack(self._unread_since)[0]
        return Real.monotonic() - since if since else 0.0

    def brace(self) -> None:
        """Signals are about to be read: if one of them asks for the stop, that is to be on time whatever happens."""
        if not self._told:
            self._reading[0] = sentry.READING
            self._tell(sentry.BRACED, max(0.0, self._bound_s - self.unread_s()))

    def relax(self) -> None:
        """None of the signals has asked for the stop."""
        if not self._told:
            self._reading[0] = sentry.DONE
            self._tell(sentry.RELAXED)

    def allow(self, bound_s: float) -> None:
        """From here on the daemon may live for `bound_s` after a stop signal."""
        self._bound_s = bound_s
        self._tell(sentry.ALLOW, bound_s)

    def kill_after(self, within_s: float) -> None:
        """Kill this process if it is still there in `within_s`, and its children with it."""
        self._told = True
        self._reading[0] = sentry.OBEYED
        self._tell(sentry.GONE_WITHIN, within_s)

    def note(self) -> None:
        """Remember the children that are there now, and theirs."""
        self._noted = children.any_left()
        self._noted_here = self._noted and self._ask(sentry.NOTE) is None
        if self._noted_here:
            self._family.note()

    def terminate(self) -> None:
        """Ask those that have been noted to end."""
        if self._noted and (self._deaf or not self._tell(sentry.TERMINATE)):
            if not self._noted_here:  # late, because the guard has taken with it what it had noted
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
        answer = self._ask(sentry.END, within_s, within_s + children.KILL_S)
        if answer is None:
            return self._family.end(max(0.0, until - Real.monotonic()))
        return [Killed(*each) for each in _loads(answer)]

    def dismiss(self) -> None:
        """Send it away, and wait until it has gone, so that nothing of the daemon outlives it."""
        if not self._deaf and self._tell(sentry.LEAVE):
            self._hear(None, Real.monotonic() + LEAVE_S)

    def _tell(self, word: bytes, seconds: float = 0.0) -> bool:
        try:
            self._line.send(sentry.WORD.pack(word, seconds), sentry.FLAGS)
        except OSError:  # somebody has killed it, or it hangs, or it never was
            return False
        return True

    def _ask(self, word: bytes, seconds: float = 0.0, takes_s: float = 0.0) -> bytes | None:
        """The answer; None if there is none in time, and from then on."""
        if self._deaf or not self._tell(word, seconds):
            return None
        answer = self._hear(word, Real.monotonic() + takes_s + ANSWER_S)
        self._deaf = answer is None  # no time is to be lost on it again
        return answer

    def _hear(self, word: bytes | None, until: float) -> bytes | None:
        """The answer to `word`; None if there is none by `until`, or it has gone."""
        try:
            while self._is_heard(until) and (said := self._line.recv(65_536, sentry.FLAGS)):
                if said[:1] == word:  # and not one that comes too late
                    return said[1:]
        except (OSError, ValueError):
            pass
        return None

    def _is_heard(self, until: float) -> bool:
        poller = poll()
        poller.register(self._line, POLLIN)
        return bool(poller.poll(max(0.0, until - Real.monotonic()) * 1000))


def _post(stand: Callable[[], NoReturn]) -> None:
    """Call `stand` in a process that is no child of ours, if processes are to be had.

    No signal reaches it before it unblocks them: a Ctrl-C goes to everybody at the terminal.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        _fork_twice(stand)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fork_twice(stand: Callable[[], NoReturn]) -> None:
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
