"""Descriptors that are ours alone. Imports nothing of ours and nothing heavy.

Tricky: O_NONBLOCK belongs to the open file, which is shared with whoever started us; setting it would break their
writes. Opening a pipe or a terminal anew through /proc/self/fd (`proc(5)`) gives an open file of our own. A regular
file opened anew would have an offset of its own, so it is not.
"""

import os
import stat
from fcntl import F_DUPFD_CLOEXEC, fcntl


def complete() -> None:
    """Open what is closed of stdin, stdout and stderr, so that no pipe of ours ever takes their place."""
    while (fd := _nowhere()) <= 2:  # it gets the lowest number that is free
        os.set_inheritable(fd, True)
    os.close(fd)


def private(fd: int) -> int:
    """Another descriptor for what `fd` refers to (nothing, if it is closed), which no child inherits."""
    try:
        return fcntl(fd, F_DUPFD_CLOEXEC, 3)
    except OSError:  # closed
        return _nowhere()


def opened_anew(fd: int) -> int | None:
    """A descriptor for writing without waiting to the pipe or terminal behind `fd`; None where that cannot be."""
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return None
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # no /proc, or a pipe of another user's
        return None


def _nowhere() -> int:
    """A descriptor from which nothing comes, and into which nothing goes."""
    try:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # an image without /dev
        import socket  # too heavy for everybody

        ours, theirs = socket.socketpair()
        theirs.close()
        return ours.detach()
