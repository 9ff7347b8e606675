"""What a job is, and how one is declared in Python.

May import: schedule, durations.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from jobd import durations, schedule

Function = TypeVar("Function", bound=Callable[[], Any])

#: Where `every` leaves its declaration on the function.
_MARK = "__jobd__"


class Kind(Enum):
    """What executes a job."""

    #: A coroutine function: a task on the job plane.
    COROUTINE = "coroutine"
    #: A plain function: a thread of its own for each run.
    FUNCTION = "function"


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What to run, and when."""

    name: str
    schedule: schedule.Every
    function: Callable[[], Any]
    kind: Kind
    #: The target it was found under, as the user wrote it.
    target: str


class Due(NamedTuple):
    """A row of ticks of one job that are due: one, or more if the earlier ones were missed."""

    job: Job
    first: int
    last: int
    #: The instant of the last one, in monotonic seconds and in nanoseconds since the epoch.
    due: float
    scheduled_ns: int


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a decorator says about a function."""

    schedule: schedule.Every
    name: str | None


def every(interval: str | float, *, name: str | None = None) -> Callable[[Function], Function]:
    """Declare the function a job that starts every `interval`, such as ``"10s"`` (a number is in seconds).

    The function itself stays as it is, to be called and tested like any other. `name` is the job's name, by default
    the function's. Raises `ValueError` for an interval that is none.
    """
    if not isinstance(interval, str | int | float) or isinstance(interval, bool):
        raise TypeError(f'every() takes an interval, as in @every("10s"), and not {type(interval).__name__}')
    if name is not None and not (isinstance(name, str) and name):
        raise TypeError(f'every() takes a name that is a text, as in name="poll", and not {name!r}')
    try:
        seconds = durations.parse(interval) if isinstance(interval, str) else interval
        schedule.Every(seconds)  # before `float`, which a huge int overflows
        declaration = Declaration(schedule.Every(float(seconds)), name)
    except ValueError as error:
        raise ValueError(f"every({interval!r}): {error}") from None

    def declare(function: Function) -> Function:
        if declared(function) is not None:
            raise ValueError(f"{function!r} is declared a job twice")
        setattr(function, _MARK, declaration)
        return function

    return declare


def declared(function: object) -> Declaration | None:
    """What a decorator has said about the object, if one has."""
    try:
        found = vars(function).get(_MARK)
    except Exception:  # an object without attributes of its own, or a proxy that answers with anything
        return None
    return found if isinstance(found, Declaration) else None


def kind_of(function: Callable[..., Any]) -> Kind:
    """Whether the callable returns a coroutine when called; partials and async ``__call__`` included."""
    while isinstance(function, functools.partial):
        function = function.func
    asynchronous = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - not asked whether it is callable, but which method is
    )
    return Kind.COROUTINE if asynchronous else Kind.FUNCTION
