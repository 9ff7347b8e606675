"""From targets to jobs: what each names, in Python or in a file, and everything that is wrong with it.

May import: modules, jobsfile, keys, job, schedule, errors. Runs the users' code at import, so it may never come back;
whoever calls it must be able to stop the process meanwhile. Files of jobs are read by `jobsfile`, which comes back
here for the functions that they call.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from jobd import job as jobs
from jobd import keys, modules, schedule
from jobd.errors import Fault, InvalidConfig, Unusable


@dataclass(frozen=True, slots=True)
class Lifespan:
    """What the jobs of a module share, and who opens and closes it."""

    module: str
    function: Callable[..., Any]

    def __eq__(self, other: object) -> bool:
        """Whether it is the same one; users' callables are not asked, because they may answer with anything."""
        return isinstance(other, Lifespan) and self.module == other.module and self.function is other.function

    def __hash__(self) -> int:
        return hash(self.module)


def _nothing() -> None:
    """Of what has come in place of nothing, there is nothing to take back."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the targets name."""

    jobs: list[jobs.Job]
    #: Those of the modules that targets or jobs name, in this order.
    lifespans: list[Lifespan]
    #: Has everything be as it was before this was loaded, for whoever does not use it after all.
    take_back: Callable[[], None] = field(default=_nothing, compare=False)


def load(targets: Sequence[str], interval_s: float, source: str, here: str, *, fresh: bool = False) -> Loaded:
    """The jobs that the targets name; one that declares no schedule starts every `interval_s`.

    `source` says where the targets come from, `here` is the directory that becomes importable. If `fresh`, modules in
    it that were imported for an earlier load are imported again, and after a fault the earlier ones are back. Raises
    `InvalidConfig` with every fault of every target.
    """
    if here not in sys.path:
        sys.path.insert(0, here)
    with modules.recorded(here, fresh=fresh) as take_back:
        loading = _Loading(schedule.Every(interval_s), source, here)
        for target in targets:
            loading.take(target)
        return loading.loaded(take_back)


class _Loading:
    """One load: what has been found so far."""

    def __init__(self, default: schedule.Every, source: str, here: str) -> None:
        self._default = default
        self._source = source
        self._here = here
        self._named: dict[str, jobs.Job] = {}
        self._lifespans: dict[str, Lifespan] = {}
        #: Modules that cannot be used, so that none is imported again to fail again.
        self._unusable: dict[str, Unusable] = {}
        self._faults: list[Fault] = []

    def loaded(self, take_back: Callable[[], None]) -> Loaded:
        """What has been found. Raises `InvalidConfig`."""
        if self._faults:
            raise InvalidConfig(self._faults)
        return Loaded(list(self._named.values()), list(self._lifespans.values()), take_back)

    def take(self, target: str) -> None:
        """Find what the target names."""
        try:
            if target.endswith(".toml"):
                self._take_file(target)
            else:
                self._take_functions(target)
        except Unusable as unusable:
            self._fault(target, str(unusable), modules.raised(unusable))

    def _fault(self, target: str, reason: str, failure: Mapping[str, Any] | None = None) -> None:
        self._faults.append(Fault("JOBD_JOBS", target, self._source, reason, failure))

    def _take_functions(self, target: str) -> None:
        for name, function in modules.looking(self._functions, target):
            try:
                job = modules.looking(self._job, function, name)
            except Unusable as unusable:
                reason = str(unusable) if name == target else f"{name} {unusable}"
                self._fault(target, reason, modules.raised(unusable))
                continue
            if second := self._second(job):
                self._fault(target, f"{name} {second}")

    def _second(self, job: jobs.Job) -> str | None:
        """Keep the job; what is wrong if there is another one of its name."""
        first = self._named.setdefault(job.name, job)
        if first is job:
            return None
        return f"is a second job named {job.name}, after {first.target}; names must differ"

    def _functions(self, target: str) -> list[tuple[str, object]]:
        """What the target names, each under a target of its own: ``package.module:function``."""
        if target.endswith(".py"):
            raise Unusable("is a file; write the module's name, without .py, and dots instead of slashes")
        name, colon, path = target.partition(":")
        if not all(part.isidentifier() for part in name.split(".")) or bool(colon) != bool(path):
            raise Unusable("is no target; write package.module, package.module:function or a path ending in .toml")
        module = self._module(name)
        if colon:
            return [(target, modules.attribute(module, path))]
        found: list[tuple[str, object]] = [(f"{name}:{modules.name_of(f)}", f) for f in modules.declared_in(module)]
        if not found:
            file = getattr(module, "__file__", None) or "no file"
            raise Unusable(
                f"declares no job; put @every above a function of {name} ({file}), or name one: {name}:function"
            )
        return found

    def _module(self, name: str) -> ModuleType:
        """The module; its lifespan is kept."""
        if name in self._unusable:
            raise self._unusable[name]
        try:
            module = modules.load(name)
            lifespan = modules.looking(modules.lifespan_of, module)
        except Unusable as unusable:
            self._unusable[name] = unusable
            raise
        if lifespan is not None:
            self._lifespans.setdefault(name, Lifespan(name, lifespan))
        return module

    def _job(self, function: object, target: str) -> jobs.Job:
        usable = modules.job_function(function)
        declared = jobs.declared(usable) or jobs.Declaration(self._default, None)
        name = declared.name or getattr(usable, "__name__", None) or target.rpartition(":")[2]
        if not isinstance(name, str):
            raise Unusable(f"has a name that is no text but {modules.a(type(name).__name__)}")
        kind = modules.kind_of(usable, bool(declared.isolated))
        if kind is jobs.Kind.PROCESS:
            _refuse_unspeakable(str.__str__(name))
        return jobs.Job(str.__str__(name), declared.schedule, usable, kind, target, declared.policies)

    def _take_file(self, target: str) -> None:
        from jobd import jobsfile  # only where there is one

        read = jobsfile.read(Path(self._here) / target, target, self._default, self._call)
        self._faults += read.faults
        for job in read.jobs:
            if second := self._second(job):
                self._faults.append(Fault(f"jobs.{job.name}", job.name, read.sources[job.name], second))

    def _call(self, target: str) -> Callable[..., Any]:
        """The function that a job of a file calls."""
        ((_, function),) = modules.looking(self._functions, target)
        return modules.looking(modules.job_function, function)


def _refuse_unspeakable(name: str) -> None:
    """Refuse a name that no process can be told."""
    try:
        keys.job_name(name)
    except ValueError as error:
        raise Unusable(f"has the name {name!r}, which {error}") from None
