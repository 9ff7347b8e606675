"""What has been printed last and is still unread when the process has died: often what a library in C died of.

Imports nothing of ours. Both processes show such words on the real stderr: the guard those of a daemon that has died,
the daemon itself the stacks that somebody has asked for.
"""

import os
from collections.abc import Sequence
from select import PIPE_BUF, POLLOUT, poll
from typing import Protocol


class Printed(Protocol):
    """A pipe into which is printed, and which the daemon reads."""

    read_end: int

    def read(self, most: int) -> bytes:
        """What is there, `most` bytes of it; never waits."""


class LastWords:
    """What is left unread in some pipes, and whom to show it."""

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
