"""The last fences: they end the process when nothing in Python can any more.

May import: descriptors, guard, last_words, signals.

Code that holds the GIL for good (a C extension in an endless loop) stops every thread of the process, the control
plane included. Two fences need no GIL:

- From the stop on, `faulthandler.dump_traceback_later` counts down in a thread of C. It prints where every thread
  stands to stderr and leaves with exit code 1.
- That can be missing: nobody could arm it, because the GIL was held before the signal came; a job has cancelled it or
  used it for itself; no thread was to be had. So the guard, a process of its own, counts too, and kills.
"""

import faulthandler
import os
import threading
from collections.abc import Sequence

from jobd import descriptors, signals
from jobd.guard import Guard
from jobd.last_words import LastWords, Printed

#: How much later than the first fence the second one falls: enough for the first to print its stacks.
GUARD_AFTER_S = 0.06


class LastFences:
    """Both fences, and the stacks that a fault, systemd's watchdog, the guard or a question makes the process print."""

    def __init__(self, bound_s: float, printed: Sequence[Printed] = ()) -> None:
        """Post the guard: the daemon may live for `bound_s` after a stop signal. For a process with one thread.

        What is left in `printed` when the process ends without a word is shown on stderr.
        """
        private = descriptors.private(2)  # a job that closes its stderr must not take this one along
        # Where the reader of stderr has stopped reading, the stacks are lost and not the end.
        self._stderr = descriptors.opened_anew(private) or private
        # Not in the main thread, which would get faulthandler's small stack for signals (`sigaltstack(2)`): all
        # handlers of Python use that, and half a dozen at once overflow it.
        thread = threading.Thread(target=self._enable)
        thread.start()
        thread.join()
        self.guard = Guard(bound_s + GUARD_AFTER_S, LastWords(printed, self._stderr))

    def _enable(self) -> None:
        faulthandler.enable(self._stderr, all_threads=True)
        faulthandler.register(signals.LAST_STACKS, self._stderr, all_threads=True)

    def show_stacks(self) -> None:
        """Print where every thread stands; with the GIL, so that none goes on meanwhile.

        Not straight to stderr: a socket that nobody reads any more would keep the GIL for good. What does not fit is
        lost.
        """
        try:
            dump = _Dump()
        except OSError:  # no descriptor is to be had, say
            return
        faulthandler.dump_traceback(dump.read_end, all_threads=True)
        os.lseek(dump.read_end, 0, os.SEEK_SET)
        LastWords([dump], self._stderr).show()
        os.close(dump.read_end)

    def unread_s(self) -> float:
        """How long ago the stop signal came that has just been read, if that is worth telling; otherwise 0."""
        return self.guard.unread_s()

    def allow(self, bound_s: float) -> None:
        """From here on the daemon may live for `bound_s` after a stop signal."""
        self.guard.allow(bound_s + GUARD_AFTER_S)

    def arm(self, within_s: float) -> None:
        """End the process with `ExitCode.FENCED`, `within_s` from now."""
        self.guard.kill_after(within_s + GUARD_AFTER_S)
        try:
            faulthandler.dump_traceback_later(within_s, exit=True, file=self._stderr)
        except Exception:  # no thread is to be had for it, or a job has spoilt the module; the stop goes on without it
            pass


class _Dump:
    """A file in memory, to be read like what is printed."""

    def __init__(self) -> None:
        self.read_end = os.memfd_create("jobd-stacks")

    def read(self, most: int) -> bytes:
        return os.read(self.read_end, most)
