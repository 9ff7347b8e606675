"""The last fence: ends the process when nothing in Python can any more. Imports nothing of ours but exits.

`faulthandler.dump_traceback_later` waits in a thread that needs no GIL, so it falls even while C code holds that
for good. It prints where every thread stands to stderr and leaves with `ExitCode.FENCED`, which is its own choice
of code.
"""

import faulthandler
import os
import signal


class LastFence:
    """Arms `faulthandler`, and has it print where the process stands when it is killed by a fault or asked to."""

    def __init__(self) -> None:
        """From here on SIGSEGV, SIGABRT (systemd's watchdog), SIGQUIT and the like print every thread's stack."""
        try:
            self._stderr = os.dup(2)  # a job that closes its stderr must not take this one along
        except OSError:  # closed by whoever started us
            self._stderr = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        faulthandler.enable(self._stderr, all_threads=True)
        faulthandler.register(signal.SIGQUIT, self._stderr, all_threads=True)

    def arm(self, within_s: float) -> None:
        """End the process with `ExitCode.FENCED`, `within_s` from now."""
        faulthandler.dump_traceback_later(within_s, exit=True, file=self._stderr)
