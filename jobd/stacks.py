"""Where a run stands in the code, read from another thread while it runs. Imports nothing of ours.

Reading frames of a thread that goes on is safe under the GIL; what is read may be out of date by the time it is
shown, which is all that a person needs.
"""

import asyncio
import sys
from types import CodeType, FrameType
from typing import Any

#: Frames shown at most; the outermost are left out.
MOST = 30


def of_task(task: asyncio.Task[Any], skip: frozenset[CodeType]) -> list[str]:
    """Where a suspended task stands: the chain of coroutines that wait for one another, outermost first.

    `skip` names our own code, which is of no interest to whoever looks for the fault.
    """
    stack: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None and len(stack) < 10 * MOST:
        frame = _attribute(awaited, "frame")
        if frame is not None and frame.f_code not in skip:
            stack.append(_place(frame.f_code, frame.f_lineno))
        awaited = _attribute(awaited, "await")
    return stack[-MOST:]


def of_thread(ident: int | None, skip: frozenset[CodeType]) -> list[str]:
    """Where a thread stands, outermost first; empty if it does not run any more."""
    frame: FrameType | None = sys._current_frames().get(ident or 0)
    stack: list[str] = []
    while frame is not None and len(stack) < MOST:
        if frame.f_code not in skip:
            stack.append(_place(frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return stack[::-1]


def _attribute(awaited: Any, name: str) -> Any:
    """``cr_frame`` or ``cr_await`` and the like, whichever kind of generator it is."""
    for prefix in ("cr_", "gi_", "ag_"):
        if hasattr(awaited, prefix + name):
            return getattr(awaited, prefix + name)
    # A generator names what it delegates to otherwise.
    return getattr(awaited, "gi_yieldfrom", None) if name == "await" else None


def _place(code: CodeType, line: int | None) -> str:
    return f"{code.co_filename}:{line} in {code.co_qualname}"
