"""Files of text that people write for us: `.env` and `jobs.toml`. What can be none is refused before it is parsed.

Imports nothing of ours. Tricky: a FIFO is not waited for, one of the kernel's files not either, and no more is read
of an endless one than would be too much.
"""

import os
import stat
from pathlib import Path

#: A configuration is never this large; something that is was named by mistake.
MAX_BYTES = 262_144
#: With a longer argument or variable, its NUL included, no process can be started (execve(2), where a page has 4 KiB).
MAX_STRING_BYTES = 131_072


def read(path: Path) -> str:
    """The text. Raises `OSError`, or `ValueError` with what is wrong; `why` has the reason of both."""
    data = _bytes(path)
    if b"\0" in data:
        raise ValueError(f"line {line_of(data, data.index(0))} holds a NUL byte")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"line {line_of(data, error.start)} is not UTF-8") from None


def why(error: Exception) -> str:
    """The reason why a file cannot be used, for people."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def line_of(data: bytes, offset: int) -> int:
    """The number of the line that the byte stands in."""
    return len((data[:offset] + b".").splitlines())


def _bytes(path: Path) -> bytes:
    # O_NONBLOCK: opening a FIFO must not wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        data: bytes | None = file.read(MAX_BYTES + 1)
    if data is None:  # one of the kernel's, such as /proc/kmsg, would have us wait
        raise ValueError("nothing can be read from it")
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    return data
