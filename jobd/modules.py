"""The users' modules: imports them, finds in them what a target names, and forgets them to import them afresh.

May import: clock, errors, job, render. Runs the users' code, at import and when a thing in a module is looked at, so
all of it can raise anything; what comes out is `Unusable`, with what was raised as its cause.

Tricky: what an import has brought in is known by its name only, in `sys.modules`, where a module may put anything in
its own place. And what is forgotten must be the user's: packages that are installed below the current directory, in an
environment, may refuse to be imported twice.
"""

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from jobd import job as jobs
from jobd import render
from jobd.clock import Real
from jobd.errors import Unusable
from jobd.job import Kind

Found = TypeVar("Found")

#: The names of all that loads have imported, and what tells whether the file of each has changed since.
_imported: dict[str, tuple[int, ...]] = {}
#: What tells nothing of a file, and is equal to no other.
_UNSURE = (-1,)


class _Last:
    """The last load: what there was when it ended, and when that was. What has come since then, runs have imported."""

    names: Collection[str] = ()
    ended_ns = 0


#: Times of files may be behind the clock by so much.
_COARSE_NS = 20_000_000
#: The directory of Python's own modules: what becomes importable may be the root of all directories, this one included.
_PYTHONS = Path(inspect.__file__).parent
#: Directories of packages that are installed.
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def looking(look: Callable[..., Found], *at: Any) -> Found:
    """What is found; whatever a module or a function answers with when it is looked at is its own fault."""
    try:
        return look(*at)
    except Unusable:
        raise
    except BaseException as error:
        raise Unusable(f"raises {type(error).__name__} when it is looked at") from _from_the_module_on(error)


def load(name: str) -> ModuleType:
    """The module."""
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
        raise Unusable(reason) from _from_the_module_on(error)
    except BaseException as error:  # SystemExit and the like too: a module may not end the daemon
        raise Unusable(f"importing {name} raised {type(error).__name__}") from _from_the_module_on(error)


def attribute(module: ModuleType, path: str) -> object:
    """What the module has under that path."""
    found: object = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except BaseException as error:
            raise Unusable(f"{name_of(module)} has no {path}") from _from_the_module_on(error)
    return found


def declared_in(module: ModuleType) -> list[Callable[..., Any]]:
    """The functions that a decorator has declared jobs in this very module, in the order of the code."""
    return _own(module, lambda value: jobs.declared(value) is not None)


def lifespan_of(module: ModuleType) -> Callable[..., Any] | None:
    """What a decorator has declared a lifespan in this very module."""
    found = _own(module, jobs.is_lifespan)
    if len(found) > 1:
        names = ", ".join(map(name_of, found))
        raise Unusable(f"has {len(found)} lifespans ({names}); a module has one, which may open and close everything")
    return found[0] if found else None


def name_of(function: object) -> str:
    """What the function is called."""
    return str(getattr(function, "__name__", type(function).__name__))


def job_function(function: object) -> Callable[..., Any]:
    """The object, which can be the function of a job."""
    if jobs.is_lifespan(function):
        raise Unusable("is a lifespan and no job; name the module, or another function")
    if not callable(function):
        raise Unusable(f"is no job but {a(type(function).__name__)}; name a function or a coroutine function")
    if isinstance(function, type):
        raise Unusable("is no job but a class; name a function or a coroutine function")
    if _generates(function):
        raise Unusable("is a generator function, of which a call runs no line; let it return instead of yield")
    _refuse_arguments(function)
    return function


def kind_of(function: Callable[..., Any], isolated: bool) -> Kind:
    """What executes the function, which may have to have an interpreter of its own for each run."""
    kind = jobs.kind_of(function)
    if not isolated:
        return kind
    if kind is Kind.COROUTINE:
        raise Unusable(
            "is a coroutine function, and isolation is for plain functions; leave that out, or write def instead of "
            "async def"
        )
    _refuse_unreachable(function)
    return Kind.PROCESS


@contextlib.contextmanager
def recorded(here: str, *, fresh: bool) -> Iterator[Callable[[], None]]:
    """Remember what is imported meanwhile, and what runs have imported since the last time.

    If `fresh`, and any of what was imported before and lies under the directory `here` has changed since, forget that
    first. If an exception comes by, or whenever what is yielded is called, it is put back, and what has been imported
    from there since then is forgotten.
    """
    if _Last.names:  # else what is there is nobody's whom we know
        _record(_Last.names, _Last.ended_ns)
    known = dict(_imported)
    old: dict[str, ModuleType] = {}
    before: dict[str, ModuleType] = {}
    began_ns = _now_ns()

    def take_back() -> None:
        _put_back(old)
        if before and fresh:  # else nothing was imported after what was forgotten, or all of it stays
            _take_out(_users(sys.modules.keys() - before.keys() - old.keys(), here), {})
        _imported.update({name: known[name] for name in old})
        _Last.names = frozenset([*_Last.names, *old])

    try:
        if fresh:
            _forget(here, old)
        before.update(sys.modules)
        try:
            yield take_back
        finally:
            _record(before, began_ns)
            _Last.names, _Last.ended_ns = frozenset(sys.modules), _now_ns()
    except BaseException:
        take_back()
        raise


def raised(unusable: Unusable) -> dict[str, Any] | None:
    """The fields `error` and `traceback` of the exception that made it unusable, if one did."""
    return None if unusable.__cause__ is None else render.failure(unusable.__cause__)


def _generates(function: Callable[..., Any]) -> bool:
    if type(function) is FunctionType:
        return bool(function.__code__.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR))
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _own(module: ModuleType, wanted: Callable[[object], bool]) -> list[Any]:
    found: dict[int, Any] = {}
    for value in _values(module):
        if wanted(value) and getattr(value, "__module__", None) == module.__name__:
            found.setdefault(id(value), value)
    return list(found.values())


def _values(module: ModuleType) -> list[object]:
    try:
        return list(module.__dict__.values())
    except BaseException:  # a module may put anything in its place
        return []


def _refuse_arguments(function: Callable[..., Any]) -> None:
    if type(function) is FunctionType and not vars(function).keys() & {"__wrapped__", "__signature__"}:
        code = function.__code__
        if not (code.co_argcount or code.co_kwonlyargcount):
            return  # as nearly always, and to ask for the signature takes longer than all the rest
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not tell
        return
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise Unusable(f"takes arguments ({', '.join(needed)}); a job is called without any")


def _refuse_unreachable(function: Callable[..., Any]) -> None:
    """Refuse what an interpreter that knows its module and its name only cannot find."""
    hint = "with isolation, a job is a function of its own at the top of its module"
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str):
        raise Unusable(f"is {a(type(function).__name__)}, which no other interpreter can import; {hint}")
    if "<" in path:
        raise Unusable(f"is {path}, which no other interpreter can import; {hint}")
    found: object = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is not function or module == "__main__":
        raise Unusable(f"is not what another interpreter imports as {module}:{path}; {hint}")


def _forget(here: str, old: dict[str, ModuleType]) -> None:
    """Move the user's modules from `sys.modules` to the old ones, if any has changed."""
    users = _users(_imported, here)
    if all(_imported[name] == _stamp(sys.modules[name]) for name in users):
        return  # so they keep what they have in their globals
    _take_out(users, old)
    importlib.invalidate_caches()


def _take_out(names: Collection[str], taken: dict[str, ModuleType]) -> None:
    """Move the modules from `sys.modules` to the ones that have been taken."""
    for name in names:
        taken[name] = sys.modules[name]
        del sys.modules[name]
        _drop_cache(taken[name])
    for name in names:
        _unbind(name, taken[name])


def _drop_cache(module: ModuleType) -> None:
    """Have the file compiled again: after an edit within the same second, the cache would be taken for up to date."""
    if file := _file_of(module):
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            Path(importlib.util.cache_from_source(str(file))).unlink()


def _unbind(name: str, module: ModuleType) -> None:
    """Have the module's package not know it any more, if that stays: it would hand it out instead of a new one."""
    package, _, child = name.rpartition(".")
    with contextlib.suppress(Exception):  # a package may be anything
        if vars(sys.modules[package])[child] is module:
            delattr(sys.modules[package], child)


def _record(before: Collection[str], since_ns: int) -> None:
    """Remember what is there beside what was before that instant, and how its files are now."""
    for name, module in sys.modules.copy().items():
        if name not in before:
            stamp = _stamp(module)
            # RACE: written since then: nobody knows which of the two was imported, so it counts as changed.
            _imported[name] = stamp if _written_ns(module) < since_ns else _UNSURE


def _now_ns() -> int:
    """What no time of a file is behind that is written from now on."""
    return Real.time_ns() - _COARSE_NS


def _put_back(old: dict[str, ModuleType]) -> None:
    """Have the old modules again, and none that was imported in their place."""
    sys.modules.update(old)
    for name, module in old.items():
        package, _, child = name.rpartition(".")
        with contextlib.suppress(Exception):  # a package may be anything
            if package:
                setattr(sys.modules[package], child, module)


def _file_of(module: ModuleType) -> Path | None:
    try:
        return None if module.__file__ is None else Path(str(module.__file__))
    except BaseException:  # it has none, or is an object that answers with anything
        return None


def _places(module: ModuleType) -> list[Path]:
    """Where its Python code lies: the file, or the directories of a package that has none."""
    if file := _file_of(module):
        return [file] if file.suffix == ".py" else []
    try:
        return [Path(str(place)) for place in module.__path__]
    except BaseException:  # it has none, or is an object that answers with anything
        return []


def _stamp(module: ModuleType) -> tuple[int, ...]:
    """What is another one once its file has been written anew."""
    try:
        status = Path(str(_file_of(module))).stat()
    except (OSError, ValueError):
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _written_ns(module: ModuleType) -> int:
    """When its file was last written, or put where it is: that time nobody can set."""
    try:
        return Path(str(_file_of(module))).stat().st_ctime_ns
    except (OSError, ValueError):
        return 0


def _users(names: Iterable[str], here: str) -> list[str]:
    """Those of the modules that are there, to the last line, and are the user's."""
    there = sys.modules.copy()  # RACE: runs import at the same time
    found = [(name, there[name]) for name in names if name in there]
    return [name for name, module in found if _is_users(name, module, here) and not _is_being_imported(module)]


def _is_being_imported(module: ModuleType) -> bool:
    """Whether a thread is about to look for it in `sys.modules`, once its last line has come."""
    try:
        return bool(module.__spec__._initializing)  # type: ignore[union-attr]
    except BaseException:  # it has none, or is an object that answers with anything
        return False


def _is_users(name: str, module: ModuleType, here: str) -> bool:
    """Whether the module is Python code of the user's, and in the directory."""
    places = _places(module)
    ours = name.partition(".")[0] in ("jobd", "__main__")
    return bool(here and places) and not ours and all(_is_users_place(place, here) for place in places)


def _is_users_place(place: Path, here: str) -> bool:
    # Where the directory is in an environment, that says nothing of what is in the directory.
    in_environment = place.is_relative_to(sys.prefix) and not Path(here).is_relative_to(sys.prefix)
    pythons = in_environment or place.is_relative_to(_PYTHONS)
    return place.is_relative_to(here) and not pythons and _INSTALLED.isdisjoint(place.parts)


def _from_the_module_on(error: BaseException) -> BaseException:
    """The exception, its traceback without the machinery of importing, which is in nobody's code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return error.with_traceback(trace)


def _is_machinery(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")


def a(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
