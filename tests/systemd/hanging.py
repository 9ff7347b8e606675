"""Modules of jobs, each of which hangs its daemon in a way of its own, once: the next daemon is let be.

Each logs ``hung`` at last, and stands in `the_place_where_it_hangs` from then on.
"""

_ONCE = """
import asyncio, gc, itertools, os, selectors, threading, time, structlog, jobd
from pathlib import Path

HUNG = Path(os.environ["STATE_DIRECTORY"], "hung")

def tell():
    HUNG.touch()
    structlog.get_logger().info("hung")

def the_place_where_it_hangs(*args, **kwargs):
    {hang}
"""

_BLOCKS = _ONCE.format(hang="time.sleep(600)")

#: The event loop of the jobs is blocked.
ON_THE_JOB_LOOP = (
    _BLOCKS
    + """
@jobd.every("1h")
async def hangs():
    if not HUNG.exists():
        tell()
        the_place_where_it_hangs()
"""
)

#: C code never lets go of the GIL, and so of every thread.
ON_THE_GIL = (
    _ONCE.format(hang="-1 in itertools.count()")
    + """
@jobd.every("1h")
async def hangs():
    if not HUNG.exists():
        tell()
        the_place_where_it_hangs()
"""
)

#: A job looks for the other event loop of the process, finds it, and gives it something to do that never ends.
ON_THE_CONTROL_LOOP = (
    _BLOCKS
    + """
@jobd.every("1h")
async def hangs():
    if not HUNG.exists():
        mine = asyncio.get_running_loop()
        others = [loop for loop in gc.get_objects() if isinstance(loop, asyncio.BaseEventLoop) and loop is not mine]
        tell()
        for loop in others:
            loop.call_soon_threadsafe(the_place_where_it_hangs)
"""
)

#: A job replaces what every event loop waits with, as libraries that make Python cooperative do.
IN_SELECT = (
    _BLOCKS
    + """
@jobd.every("1h")
def hangs():
    if not HUNG.exists():
        tell()
        selectors.SelectSelector.select = selectors.EpollSelector.select = the_place_where_it_hangs
"""
)

#: As soon as it is imported, before there is any event loop.
AT_IMPORT = (
    _ONCE.format(hang="-1 in itertools.count()")
    + """
tell()
the_place_where_it_hangs()
"""
)
