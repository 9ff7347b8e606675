"""From targets to jobs: imports what they name, and reports everything that is wrong with it.

May import: job, schedule, errors. Runs the users' code at import, so it can raise anything or never come back;
whoever calls it must be able to stop the process meanwhile. A reader for another kind of target stands beside
`_from_python`.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, TypeVar

from jobd import job as jobs
from jobd import schedule
from jobd.errors import Fault, InvalidConfig

Found = TypeVar("Found")


def load(targets: Sequence[str], interval_s: float, source: str, here: str) -> list[jobs.Job]:
    """The jobs that the targets name; one that declares no schedule starts every `interval_s`.

    `source` says where the targets come from, `here` is the directory that becomes importable. Raises `InvalidConfig`
    with every fault of every target.
    """
    if here not in sys.path:
        sys.path.insert(0, here)
    default = schedule.Every(interval_s)
    named: dict[str, jobs.Job] = {}
    faults: list[Fault] = []

    def fault(target: str, reason: str, raised: BaseException | None = None) -> None:
        faults.append(Fault("JOBD_JOBS", target, source, reason, raised))

    for target in targets:
        try:
            functions = _looking(_functions, target)
        except _Unusable as unusable:
            fault(target, str(unusable), unusable.__cause__)
            continue
        for name, function in functions:
            try:
                job = _looking(_job, function, name, default)
            except _Unusable as unusable:
                fault(target, str(unusable) if name == target else f"{name} {unusable}", unusable.__cause__)
                continue
            first = named.setdefault(job.name, job)
            if first is not job:
                fault(target, f"{name} is a second job named {job.name}, after {first.target}; names must differ")
    if faults:
        raise InvalidConfig(faults)
    return list(named.values())


class _Unusable(Exception):
    """A target that gives no jobs; the cause, if there is one, was raised by the user's code."""


def _looking(look: Callable[..., Found], *at: Any) -> Found:
    """What is found; whatever a module or a function answers with when it is looked at is its own fault."""
    try:
        return look(*at)
    except _Unusable:
        raise
    except BaseException as error:
        raise _Unusable(f"raises {type(error).__name__} when it is looked at") from _from_the_module_on(error)


def _functions(target: str) -> list[tuple[str, object]]:
    """What the target names, each under a target of its own: ``package.module:function``."""
    if target.endswith(".toml"):
        raise _Unusable("is a file of jobs, which this version cannot read; name a package.module")
    if target.endswith(".py"):
        raise _Unusable("is a file; write the module's name, without .py, and dots instead of slashes")
    name, colon, path = target.partition(":")
    if not all(part.isidentifier() for part in name.split(".")) or bool(colon) != bool(path):
        raise _Unusable("is no target; write package.module or package.module:function")
    module = _import(name)
    if colon:
        return [(target, _attribute(module, path))]
    found: list[tuple[str, object]] = [(f"{name}:{_name(function)}", function) for function in _declared_in(module)]
    if not found:
        file = getattr(module, "__file__", None) or "no file"
        raise _Unusable(
            f"declares no job; put @every above a function of {name} ({file}), or name one: {name}:function"
        )
    return found


def _name(function: object) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            reason = f"there is no module {missing} in the current directory or among the installed packages"
        else:
            reason = (
                f"importing {name} failed: it needs the module {missing}; install that with {sys.executable} -m pip"
            )
        raise _Unusable(reason) from _from_the_module_on(error)
    except BaseException as error:  # SystemExit and the like too: a module may not end the daemon
        raise _Unusable(f"importing {name} raised {type(error).__name__}") from _from_the_module_on(error)


def _from_the_module_on(error: BaseException) -> BaseException:
    """The exception, its traceback without the machinery of importing, which is in nobody's code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return error.with_traceback(trace)


def _is_machinery(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")


def _attribute(module: ModuleType, path: str) -> object:
    found: object = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except BaseException as error:
            raise _Unusable(f"{_name(module)} has no {path}") from _from_the_module_on(error)
    return found


def _declared_in(module: ModuleType) -> Iterator[Callable[..., Any]]:
    """The functions that a decorator has declared jobs in this very module, in the order of the code."""
    seen: set[int] = set()
    for value in list(getattr(module, "__dict__", {}).values()):  # a module may put anything in its place
        here = jobs.declared(value) is not None and getattr(value, "__module__", None) == module.__name__
        if here and id(value) not in seen:
            seen.add(id(value))
            yield value


def _job(function: object, target: str, default: schedule.Every) -> jobs.Job:
    if not callable(function):
        raise _Unusable(f"is no job but {_a(type(function).__name__)}; name a function or a coroutine function")
    if isinstance(function, type):
        raise _Unusable("is no job but a class; name a function or a coroutine function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _Unusable("is a generator function, of which a call runs no line; let it return instead of yield")
    _refuse_arguments(function)
    declared = jobs.declared(function)
    name = (declared and declared.name) or getattr(function, "__name__", None) or target.rpartition(":")[2]
    if not isinstance(name, str):
        raise _Unusable(f"has a name that is no text but {_a(type(name).__name__)}")
    ticks = declared.schedule if declared else default
    return jobs.Job(name=name, schedule=ticks, function=function, kind=jobs.kind_of(function), target=target)


def _refuse_arguments(function: Callable[..., Any]) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not tell
        return
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise _Unusable(f"takes arguments ({', '.join(needed)}); a job is called without any")


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
