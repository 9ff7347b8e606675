"""A bell that wakes one thread, whatever becomes of memory meanwhile. Imports nothing of ours.

`threading.Event` is written in Python: where memory runs out between two of its lines, its lock may stay taken for
good, and then whoever sets it waits for ever. A bell is one lock of C.
"""

from _thread import allocate_lock


class Bell:
    """Rung by any thread, and waited for by one."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Let the thread that waits go on, or the next that would wait. Never waits."""
        try:
            self._lock.release()
        except (RuntimeError, MemoryError):  # it has been rung already, or there is no memory to say so
            pass

    def wait(self, timeout_s: float = -1) -> bool:
        """Wait until the bell is rung, for `timeout_s` at most if that is not negative; whether it was."""
        return self._lock.acquire(True, timeout_s)
