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
        for each in self._printed:
            while (data := each.read(PIPE_BUF)) and self.say(data):
                pass

    def say(self, words: bytes) -> bool:
        """Say this, of no more than `PIPE_BUF` bytes, on the same stderr; whether somebody reads it at once."""
        reader = poll()
        reader.register(self._stderr, POLLOUT)
        try:
            return bool(reader.poll(0) and os.write(self._stderr, words))
        except OSError:  # nobody does
            return False
