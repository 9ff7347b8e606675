"""Where a run stands in the code, read from another thread while it runs. May import: garbage.

Reading frames of a thread that goes on is safe under the GIL; what is read may be out of date by the time it is
shown, which is all that a person needs.

Tricky: what is looked at here may end meanwhile, and then we are the last to hold it, and everything in it: so it is
left to `garbage`.
"""

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Iterator
from contextvars import Context
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any

from jobd import garbage

#: Python's own, whatever a job puts into the module.
_referents = gc.get_referents
#: Frames shown at most; the outermost are left out.
MOST = 30

#: How often to look at a task that can be seen neither at rest nor in a step.
_TRIES = 10

#: Where each kind of coroutine keeps its frame and what it waits for. Other awaitables are not asked: they may be of a
#: job's making and answer with anything.
_PARTS: dict[type, tuple[str, str]] = {
    CoroutineType: ("cr_frame", "cr_await"),
    GeneratorType: ("gi_frame", "gi_yieldfrom"),
    AsyncGeneratorType: ("ag_frame", "ag_await"),
}


async def _generate() -> AsyncGenerator[None, None]:
    yield


def _steps() -> Iterator[type]:
    """What is awaited for a step of an asynchronous generator, such as the one that a lifespan is made of."""
    generator = _generate()
    for step in (generator.__anext__(), generator.athrow(Exception)):
        yield type(step)
        step.close()


_STEPS = frozenset(_steps())


def _generator_of(awaited: Any) -> Any:
    """The generator, if that is a step of one; it has no attribute for that."""
    if type(awaited) not in _STEPS:
        return awaited
    try:
        return next((each for each in _referents(awaited) if type(each) is AsyncGeneratorType), None)
    except Exception:  # an audit hook of a job's forbids the question
        return None


def of_task(task: asyncio.Task[Any], skip: frozenset[CodeType], ident: int | None) -> list[str]:
    """Where a task stands, outermost first; empty where it has not begun, or has ended.

    `skip` names our own code, which is of no interest to whoever looks for the fault. `ident` is the thread that may be
    executing the task at this moment.
    """
    for _ in range(_TRIES):  # RACE: it may begin or end a step between two looks
        if stack := _of_suspended(task, skip) or _of_executed(task, skip, ident):
            return stack
    return []


def _of_suspended(task: asyncio.Task[Any], skip: frozenset[CodeType]) -> list[str]:
    """The chain of coroutines that wait for one another; our own at most while the task is being executed."""
    stack: list[str] = []
    awaited: Any = task.get_coro()
    seen: list[object] = [task, awaited]
    while (parts := _PARTS.get(type(awaited := _generator_of(awaited)))) and len(stack) < 10 * MOST:
        frame, awaited = getattr(awaited, parts[0]), getattr(awaited, parts[1])
        seen += (frame, awaited)
        if frame is not None and frame.f_code not in skip:
            stack.append(_place(frame.f_code, frame.f_lineno))
    garbage.drop(seen)
    return stack[-MOST:]


def _of_executed(task: asyncio.Task[Any], skip: frozenset[CodeType], ident: int | None) -> list[str]:
    """What the thread stands in, if that is a step of the task."""
    frames = of_all_threads()
    bottom, frame = getattr(task.get_coro(), "cr_frame", None), frames.get(ident or 0)
    seen: list[object] = [frames, bottom]
    stack: list[str] = []
    is_executed = False
    while frame is not None:  # once: when it comes by again, the thread may have moved on
        is_executed = is_executed or frame is bottom
        if len(stack) < MOST and frame.f_code not in skip:
            stack.append(_place(frame.f_code, frame.f_lineno))
        seen.append(frame)
        frame = frame.f_back
    garbage.drop(seen)
    return stack[::-1] if is_executed else []


def of_thread(ident: int | None, skip: frozenset[CodeType], frames: dict[int, FrameType] | None = None) -> list[str]:
    """Where a thread stands, outermost first; empty if it does not run any more.

    Who asks for many threads gives `frames`, what `of_all_threads` says: it looks at every thread each time.
    """
    if frames is None:
        frames = of_all_threads()
    frame: FrameType | None = frames.get(ident or 0)
    seen: list[object] = [frames]
    stack: list[str] = []
    while frame is not None and len(stack) < MOST:
        if frame.f_code not in skip:
            stack.append(_place(frame.f_code, frame.f_lineno))
        seen.append(frame)
        frame = frame.f_back
    garbage.drop(seen)
    return stack[::-1]


def context_of(ident: int | None) -> Context | None:
    """The context of what a thread's event loop executes at this moment, if it executes anything.

    It reaches further than the loop's current task: into tasks that this one has created, and callbacks of timers.
    """
    frames = of_all_threads()
    frame = frames.get(ident or 0)
    seen: list[object] = [frames]
    context: Context | None = None
    while frame is not None and context is None:
        seen.append(frame)
        if frame.f_code is _HANDLE and (handle := frame.f_locals.get("self")) is not None:
            context = handle._context
            seen += (handle, context)
        frame = frame.f_back
    garbage.drop(seen)
    return context


#: Where every callback of a loop passes through.
_HANDLE: CodeType = asyncio.Handle._run.__code__


def of_all_threads() -> dict[int, FrameType]:
    """The frame in which each thread stands; empty where an audit hook of a job's forbids the question."""
    try:
        return sys._current_frames()
    except Exception:
        return {}


def _place(code: CodeType, line: int | None) -> str:
    return f"{code.co_filename}:{line} in {code.co_qualname}"
