"""Being told when somebody sets the wall clock. Imports nothing of ours.

The kernel tells it through a timer that never comes (`timerfd_create(2)`, TFD_TIMER_CANCEL_ON_SET): its descriptor
becomes readable when the clock jumps. Python knows such timers from 3.13 on, so the C library is called, by a module
that is imported only then: it takes a while, and a sandbox may forbid it.
"""

import asyncio
import os
import struct
from collections.abc import Callable

#: No loop that waits by select(2) can wait for a descriptor above that, with some room.
HIGHEST_FD = 1000
_CLOCK_REALTIME = 0
_TFD_TIMER_ABSTIME = 1
_TFD_TIMER_CANCEL_ON_SET = 2
#: An instant that no clock ever shows, as an `itimerspec` has it: no interval, and then seconds and nanoseconds.
_NEVER = struct.pack("llll", 0, 0, 2**40 if struct.calcsize("l") > 4 else 2**31 - 1, 0)


def listen(loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> bool:
    """Call `tell` on the loop each time that the wall clock is set; whether that can be done here."""
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        timer = libc.timerfd_create(_CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)

        def arm() -> bool:
            flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
            return bool(libc.timerfd_settime(timer, flags, _NEVER, None) == 0)

        def was_set() -> None:
            try:
                os.read(timer, 8)
            except OSError:  # ECANCELED is what it is for
                pass
            arm()
            tell()

        if not (0 <= timer < HIGHEST_FD and arm()):
            if timer >= 0:
                os.close(timer)
            return False
        loop.add_reader(timer, was_set)
    except Exception:  # another C library, a sandbox, or a descriptor that the loop cannot wait for
        return False
    return True
