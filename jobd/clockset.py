"""Being told when somebody sets the wall clock. Imports nothing of ours.

The kernel tells it through a timer that never comes (`timerfd_create(2)`, TFD_TIMER_CANCEL_ON_SET): its descriptor
becomes readable when the clock jumps. Python knows such timers from 3.13 on, so the C library is called.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable

_CLOCK_REALTIME = 0
_TFD_TIMER_ABSTIME = 1
_TFD_TIMER_CANCEL_ON_SET = 2
#: An instant that no clock ever shows; `timespec` has room for it.
_NEVER_S = 2**40


class _Time(ctypes.Structure):
    _fields_ = [
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    ]


def listen(loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> bool:
    """Call `tell` on the loop each time that the wall clock is set; whether that can be done here."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        timer = libc.timerfd_create(_CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        never = _Time(0, 0, _NEVER_S, 0)

        def arm() -> bool:
            flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
            return bool(libc.timerfd_settime(timer, flags, ctypes.byref(never), None) == 0)

        def was_set() -> None:
            try:
                os.read(timer, 8)
            except OSError:  # ECANCELED is what it is for
                pass
            arm()
            tell()

        if timer < 0 or not arm():
            return False
        loop.add_reader(timer, was_set)
    except Exception:  # another C library, or a descriptor that the loop cannot wait for
        return False
    return True
