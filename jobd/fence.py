"""The last fences: they end the process when nothing in Python can any more.

May import: clock, descriptors, signals.

Code that holds the GIL for good (a C extension in an endless loop) stops every thread of the process, the control
plane included. Two fences need no GIL:

- From the stop on, `faulthandler.dump_traceback_later` counts down in a thread of C. It prints where every thread
  stands to stderr and leaves with exit code 1.
- If the GIL was held before the signal came, nobody could arm that. So a guard, a process forked at the start, waits
  at the other end of the pipe of `signals`. It sleeps until signals come, and only a stop signal that nobody has read
  for the whole time bound makes it act: SIGQUIT, for the stacks, then SIGKILL. If the GIL comes back in time, the
  guard's note of when the signal came lets the stop sequence count from there.

Tricky: the guard can look into the pipe only by reading it, so it puts back what it has read. It counts time in its own
small steps, so that a machine that was suspended or a frozen control group is not taken for a process that hangs.
"""

import faulthandler
import mmap
import os
import select
import signal
import struct
from itertools import pairwise
from typing import NoReturn

from jobd import descriptors, signals
from jobd.clock import Real

#: How often the guard looks whether a signal has been read.
LOOK_EVERY_S = 0.05

_INSTANT = struct.Struct("d")


class LastFences:
    """Both fences, and the stacks that a fault, systemd's watchdog or SIGQUIT makes the process print."""

    def __init__(self, bound_s: float) -> None:
        """Post the guard: a stop signal may wait for `bound_s`. To be called while the process has no other thread."""
        private = descriptors.private(2)  # a job that closes its stderr must not take this one along
        # Where the reader of stderr has stopped reading, the stacks are lost and not the end.
        self._stderr = descriptors.opened_anew(private) or private
        faulthandler.enable(self._stderr, all_threads=True)
        faulthandler.register(signal.SIGQUIT, self._stderr, all_threads=True)
        self._unread_since = mmap.mmap(-1, _INSTANT.size)  # shared with the guard
        end, self._lifeline = os.pipe2(os.O_CLOEXEC)  # ours stays open until the process ends, however it does
        daemon = os.getpid()
        try:
            self._guard = os.fork()
        except OSError:  # no more processes are to be had; the other fence stands
            self._guard = -1
        if self._guard == 0:
            _stand_guard(daemon, end, bound_s, self._unread_since)
        os.close(end)

    def unread_s(self) -> float:
        """How long ago the stop signal came that has just been read, if that is worth telling; otherwise 0."""
        since: float = _INSTANT.unpack(self._unread_since)[0]
        return Real.monotonic() - since if since else 0.0

    def arm(self, within_s: float) -> None:
        """End the process with `ExitCode.FENCED`, `within_s` from now."""
        try:
            faulthandler.dump_traceback_later(within_s, exit=True, file=self._stderr)
        except RuntimeError:  # no thread is to be had for it; the stop goes on without this fence
            pass

    def dismiss(self) -> None:
        """Send the guard away, so that nothing of the daemon is left when it has ended."""
        if self._guard < 0:
            return
        try:
            if os.waitpid(self._guard, os.WNOHANG)[0]:  # gone already: its number may be somebody else's by now
                return
            os.kill(self._guard, signal.SIGKILL)
            for _ in range(20):  # it takes less than a millisecond, and nothing here waits without a limit
                if os.waitpid(self._guard, os.WNOHANG)[0]:
                    return
                Real.sleep(0.001)
        except OSError:  # somebody's os.wait() has seen its end
            pass


def _stand_guard(daemon: int, lifeline: int, bound_s: float, unread_since: mmap.mmap) -> NoReturn:
    """In the forked child: wait for the daemon's end, or for the moment to bring it about."""
    try:
        for signum in (*signals.CAUGHT, signal.SIGQUIT):
            signal.signal(signum, signal.SIG_IGN)  # a Ctrl-C is meant for the daemon
        os.chdir("/")
        _tell_name()
        _close_all_but(lifeline, *signals.pipe())
        if _is_stuck(lifeline, bound_s, unread_since) and os.getppid() == daemon:
            os.kill(daemon, signal.SIGQUIT)
            Real.sleep(LOOK_EVERY_S)
            os.kill(daemon, signal.SIGKILL)
    finally:
        os._exit(0)


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


def _is_stuck(lifeline: int, bound_s: float, unread_since: mmap.mmap) -> bool:
    """Wait: True once a stop signal has gone unread for `bound_s`, False once the daemon has ended."""
    poller = select.poll()
    poller.register(lifeline, select.POLLIN)
    poller.register(signals.fileno(), select.POLLIN)
    waited_s = 0.0
    while waited_s < bound_s:
        if any(fd == lifeline for fd, _ in poller.poll()):
            return False
        before = Real.monotonic()
        Real.sleep(LOOK_EVERY_S)
        if not signals.stop_waits():
            waited_s = 0.0
            continue
        if not waited_s:
            unread_since[:] = _INSTANT.pack(before)
        waited_s += min(Real.monotonic() - before, 2 * LOOK_EVERY_S)
    return True
