"""What a job is, and how one is declared in Python.

May import: policy, schedule, durations; crontab where a job asks for it.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, Unpack

from jobd import durations, policy, schedule
from jobd.policy import PLAIN, Policies

if TYPE_CHECKING:
    from jobd.crontab import Cron

Function = TypeVar("Function", bound=Callable[..., Any])

#: Where the decorators leave what they declare on the function.
_MARK = "__jobd__"
_LIFESPAN_MARK = "__jobd_lifespan__"

#: What the environment of each command tells about its run.
MARKS = frozenset({"JOBD_JOB", "JOBD_RUN_ID", "JOBD_TICK", "JOBD_SCHEDULED_AT"})


class Kind(Enum):
    """What executes a job."""

    __hash__ = object.__hash__  # each is only itself; Enum's own is a call into Python, for every run

    #: A coroutine function: a task on the job plane.
    COROUTINE = "coroutine"
    #: A plain function: a thread of its own for each run.
    FUNCTION = "function"
    #: A plain function: a fresh interpreter of its own for each run.
    PROCESS = "process"
    #: A command: a process group of its own for each run.
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Command:
    """A program to execute."""

    #: The program and its arguments; a shell's, where the user has asked for one.
    arguments: tuple[str, ...]
    #: Where it is executed; None: where jobd was started.
    cwd: str | None = None
    #: What its environment has beside the daemon's.
    env: tuple[tuple[str, str], ...] = ()
    #: Whose process it is; None: the daemon's user.
    user: str | None = None
    #: In which groups that user is, where it is not the daemon's.
    groups: tuple[int, ...] = ()


def _nothing() -> NoReturn:
    raise TypeError("a command is no function")


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What to run, when, and by which policies."""

    name: str
    schedule: "schedule.Every | schedule.Aligned | Cron"
    function: Callable[[], Any]
    kind: Kind
    #: The target it was found under, as the user wrote it.
    target: str
    policies: Policies = PLAIN
    #: What a job of the kind `COMMAND` executes instead of the function.
    command: Command | None = None


#: In place of a command's function.
NO_FUNCTION: Callable[[], Any] = _nothing


@dataclass(slots=True)
class Due:
    """A row of ticks of one job that are due: one, or more if the earlier ones were missed."""

    job: Job
    first: int
    last: int
    #: The instant of the last one, in monotonic seconds and in nanoseconds since the epoch.
    due: float
    scheduled_ns: int
    #: By how much the job's jitter puts its run off, in seconds.
    put_off_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a decorator says about a function."""

    schedule: "schedule.Every | schedule.Aligned | Cron"
    name: str | None
    policies: Policies = PLAIN
    #: The policies that it names, and nothing that follows from them.
    given: Mapping[str, Any] = field(default_factory=dict)
    #: Whether each run has an interpreter of its own; None: it says nothing of that.
    isolated: bool | None = None


def every(
    interval: str | float,
    *,
    name: str | None = None,
    anchor: str = "start",
    isolation: str | None = None,
    **policies: Unpack[policy.Given],
) -> Callable[[Function], Function]:
    """Declare the function a job that starts every `interval`, such as ``"10s"`` (a number is in seconds).

    The function itself stays as it is, to be called and tested like any other. `name` is the job's name, by default
    the function's. With ``anchor="clock"`` the ticks lie at whole multiples of the interval since the epoch, by the
    wall clock; by default tick 0 comes when the daemon starts. With ``isolation="process"`` each run of a plain
    function has an interpreter of its own; with ``"thread"``, as by default, a thread. The policies are those of
    docs/jobs.md.

    Raises `ValueError` for an interval or a policy that cannot be used, `TypeError` for one that is unknown.
    """
    if not isinstance(interval, str | int | float) or isinstance(interval, bool):
        raise TypeError(f'every() takes an interval, as in @every("10s"), and not {type(interval).__name__}')
    try:
        ticks = regular(interval, anchor)
    except ValueError as error:
        raise ValueError(f"every({interval!r}): {error}") from None
    return _declare(f"every({interval!r})", ticks, name, isolation, policies)


def cron(
    expression: str,
    *,
    timezone: str | None = None,
    name: str | None = None,
    isolation: str | None = None,
    **policies: Unpack[policy.Given],
) -> Callable[[Function], Function]:
    """Declare the function a job that starts whenever the clock matches `expression`, such as ``"30 3 * * mon-fri"``.

    The fields are those of `crontab(5)`: minute, hour, day of the month, month, day of the week; with six, the first
    are the seconds. `timezone` is one like ``"Europe/Berlin"``, by default UTC. Everything else is as with `every`.

    Raises `ValueError` for an expression, a time zone or a policy that cannot be used, `TypeError` for one that is
    unknown.
    """
    if not isinstance(expression, str):
        raise TypeError(f'cron() takes an expression, as in @cron("0 3 * * *"), and not {type(expression).__name__}')
    if timezone is not None and not isinstance(timezone, str):
        raise TypeError(f'cron() takes a timezone that is a text, as in timezone="Europe/Berlin", not {timezone!r}')
    try:
        ticks = calendar(expression, timezone)
    except ValueError as error:
        raise ValueError(f"cron({expression!r}): {error}") from None
    return _declare(f"cron({expression!r})", ticks, name, isolation, policies)


def lifespan(function: Function) -> Function:
    """Declare the function the lifespan of what the jobs of its module share.

    It is an asynchronous context manager, or an asynchronous generator function with one ``yield``: what stands before
    that is done on the event loop of the jobs before the first run, what stands after it when the last run has ended,
    within the time bound of the stop. Raises `TypeError` for a function of another kind.
    """
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise TypeError(
            f"@lifespan takes an asynchronous generator function (async def with a yield), not {function!r}"
        )
    setattr(function, _LIFESPAN_MARK, True)
    return function


def regular(interval: str | float, anchor: object) -> schedule.Every | schedule.Aligned:
    """The schedule of ticks at regular intervals. Raises `ValueError`."""
    if anchor not in ("start", "clock"):
        raise ValueError(f"anchor {anchor!r} is not one of start, clock")
    return _regular(interval, schedule.Every if anchor == "start" else schedule.Aligned)


@functools.lru_cache(64, typed=True)  # of many jobs, most have the interval of another one
def _regular(
    interval: str | float, kind: type[schedule.Every] | type[schedule.Aligned]
) -> schedule.Every | schedule.Aligned:
    seconds = durations.parse(interval) if isinstance(interval, str) else interval
    kind(seconds)  # before `float`, which a huge int overflows
    return kind(float(seconds))


def calendar(expression: str, timezone: str | None) -> "Cron":
    """The schedule of a cron expression. Raises `ValueError`."""
    from jobd.crontab import Cron  # only where a job has one: it takes a while to import

    return Cron(expression, timezone)


def _declare(
    by: str, ticks: Any, name: str | None, isolation: str | None, given: Mapping[str, object]
) -> Callable[[Function], Function]:
    if name is not None and not (isinstance(name, str) and name):
        raise TypeError(f'{by} takes a name that is a text, as in name="poll", and not {name!r}')
    if isolation not in (None, "thread", "process"):
        raise ValueError(f"{by}: isolation {isolation!r} is not one of thread, process")
    for unknown in given.keys() - policy.DECLARED.keys():
        raise TypeError(f"{by} knows no {unknown}{nearest(unknown, policy.DECLARED)}")
    values, wrong = policy.read_each(given)
    policies = policy.made(values)
    wrong |= unfit(ticks, policies)
    if wrong:
        raise ValueError(f"{by}: " + "; ".join(f"{key} {given[key]!r} {reason}" for key, reason in wrong.items()))
    isolated = None if isolation is None else isolation == "process"
    declaration = Declaration(ticks, name, policies, values, isolated)

    def declare(function: Function) -> Function:
        if declared(function) is not None:
            raise ValueError(f"{function!r} is declared a job twice")
        setattr(function, _MARK, declaration)
        return function

    return declare


def unfit(ticks: object, policies: Policies) -> dict[str, str]:
    """What is wrong with each of the policies that does not go with that schedule, or with another one."""
    wrong: dict[str, str] = {}
    interval_s = getattr(ticks, "interval_s", None)
    if interval_s is not None and policies.jitter > interval_s:
        wrong["jitter"] = f"is longer than the interval, {durations.show(interval_s)}; it must be at most that"
    if policies.backoff > policies.backoff_max:
        most = durations.show(policies.backoff_max)
        wrong["backoff"] = f"is longer than backoff_max, {most}; it must be at most that"
    return wrong


def nearest(name: str, names: Mapping[str, Any]) -> str:
    """``; did you mean …?`` with the name that it resembles most, or nothing."""
    import difflib  # only here, because it is needed only for a typing error

    found = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def declared(function: object) -> Declaration | None:
    """What a decorator has said about the object, if one has."""
    found = _mark(function, _MARK)
    return found if isinstance(found, Declaration) else None


def is_lifespan(function: object) -> bool:
    """Whether the object has been declared a lifespan."""
    return _mark(function, _LIFESPAN_MARK) is True


def _mark(function: object, mark: str) -> object:
    try:
        return vars(function).get(mark)
    except Exception:  # an object without attributes of its own, or a proxy that answers with anything
        return None


def kind_of(function: Callable[..., Any]) -> Kind:
    """Whether the callable returns a coroutine when called; partials and async ``__call__`` included."""
    if type(function) is FunctionType and function.__code__.co_flags & inspect.CO_COROUTINE:
        return Kind.COROUTINE  # as most are, and `inspect` takes ten times as long to say so
    while isinstance(function, functools.partial):
        function = function.func
    asynchronous = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - not asked whether it is callable, but which method is
    )
    return Kind.COROUTINE if asynchronous else Kind.FUNCTION
