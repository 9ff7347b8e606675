"""What it looks like when the machine has run out of something: memory, descriptors, threads, stack.

Imports nothing of ours. That is nobody's fault in jobd and passes: what failed is done again later. Any other
exception of our own code is a fault, and ends the daemon.
"""

import errno
import mmap
from collections.abc import Callable, Iterable

#: What the kernel answers when it has no memory, no descriptor, no thread or no room in a buffer to give.
_LACKS = {
    errno.ENOMEM: "memory",
    errno.ENOBUFS: "memory",
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
    errno.EAGAIN: "threads",
}
#: What CPython says where it has found no memory to say that it has found none; what it was doing stands before that.
_NO_EXCEPTION = ("error return without exception set", "returned NULL without setting an exception")
#: As much as Python takes from the system at once for small objects, and room for a long line of the log.
RESERVE_BYTES = 2 * 1024 * 1024


def lacking(error: BaseException) -> str | None:
    """``memory``, ``descriptors``, ``threads`` or ``stack``: what was lacking; None for an error of another kind."""
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, SystemError) and str(error).endswith(_NO_EXCEPTION):  # CPython had none to make one
        return "memory"
    if isinstance(error, RecursionError):  # a job has lowered the limit, which holds for every thread
        return "stack"
    if isinstance(error, OSError):
        return _LACKS.get(error.errno or 0)
    if isinstance(error, RuntimeError) and error.args == ("can't start new thread",):
        return "threads"
    return None


def do_all(works: Iterable[Callable[[], None]]) -> None:
    """Do each of the works; where the machine lets us down in one, the others come first, and then it is raised."""
    let_down: BaseException | None = None
    for work in works:
        try:
            work()
        except BaseException as error:
            if not lacking(error):
                raise
            let_down = error
    if let_down is not None:
        raise let_down


class Reserve:
    """Address space that is kept for the moment in which there is no other.

    It takes no memory until it is needed, because nobody writes to it.
    """

    def __init__(self) -> None:
        self._kept: mmap.mmap | None = None
        self.keep()

    def keep(self) -> None:
        """Set the reserve aside, where it can be had."""
        if self._kept is None:
            try:
                self._kept = mmap.mmap(-1, RESERVE_BYTES)
            except (OSError, MemoryError):  # another time
                pass

    def spend(self) -> None:
        """Give it to whoever asks the system for memory next."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
