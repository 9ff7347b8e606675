"""Files of jobs, `jobs.toml` by custom: `[jobs.NAME]` for each job, `[defaults]` for what they have in common.

May import: keys, modules, job, policy, schedule, durations, textfile, tomllines, errors. `tomllib` parses; what it
says no line of, `tomllines` finds. Every fault of the file is found, up to `MAX_FAULTS`, each with its line; a job that
has one is no job. The functions that jobs call are found by whoever asks for the file.

Tricky: what a job has comes from four places. Its own table wins over what a decorator has declared about the function
that it calls, that over `[defaults]`, and that over the defaults of jobd. Values that may be secrets are not shown:
whatever stands in `env`, in any table, in what another program calls so, or where the file is no TOML.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobd import durations, keys, modules, policy, schedule, textfile, tomllines
from jobd import job as jobs
from jobd.errors import Fault, Unusable
from jobd.job import Command, Declaration, Job, Kind
from jobd.keys import KEYS, written
from jobd.policy import Policies

#: After so many, the rest is not worth it.
MAX_FAULTS = 50
#: Names of more parts than this keep the parser busy for minutes.
MAX_PARTS = 50

_HOW_TO_WRITE = 'write values as in every = "10s", and tables as in [jobs.NAME]'
_PART = r"""(?: (?<![\w-]) [\w-]++ | "[^"\n]*+" | '[^'\n]*+' ) [\ \t]*+"""
_PARTS = re.compile(rf"(?: {_PART} \. [\ \t]*+ ){{{MAX_PARTS}}}", re.VERBOSE)
#: Python reads no longer ones.
_DIGITS = re.compile("[0-9_]{4300}")
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MEANT_ENV = "did you mean env?"
#: What a faulty line begins with if something of it may be shown.
_KEY = re.compile(r"\s*([a-z_]+)\s*=")

#: Finds the function that a `call` names, or raises `Unusable`.
Find = Callable[[str], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class JobsFile:
    """What a file says."""

    jobs: list[Job] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    #: Where each job stands, by its name: ``jobs.toml line 3``.
    sources: dict[str, str] = field(default_factory=dict)


def read(path: Path, shown: str, default: schedule.Every, find: Find) -> JobsFile:
    """The file at `path`, which messages call `shown`; a job without a schedule has the default one.

    Raises `Unusable` for a file that cannot be read at all.
    """
    keys.groups_of.cache_clear()
    try:
        text = textfile.read(path)
    except FileNotFoundError:
        raise Unusable("there is no such file; write the path of one, from the current directory on") from None
    except (OSError, ValueError) as error:
        raise Unusable(f"cannot be used: {textfile.why(error)}") from None
    try:
        document = _parse(text)
    except _NoToml as error:
        line = text.split("\n")[error.line - 1]
        reason = f"is no TOML: {error}; {_HOW_TO_WRITE}"
        above = text.split("\n")[: error.line]
        return JobsFile(faults=[Fault(shown, _masked(line, above), f"{shown} line {error.line}", reason)])
    reader = _Reader(shown, tomllines.find(text), default, find)
    try:
        reader.take(document)
    except _Enough:
        pass  # of the faults
    return reader.read


class _NoToml(Exception):
    """The text is no TOML."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


class _Enough(Exception):
    """So many faults have been found that the rest is not looked for."""


class _Reader:
    """Goes through a document once, and collects its jobs and its faults."""

    def __init__(self, shown: str, lines: dict[tuple[str, ...], int], default: schedule.Every, find: Find) -> None:
        self.read = JobsFile()
        self._shown = shown
        self._lines = lines
        self._default = default
        self._find = find
        self._defaults: dict[str, Any] = {}

    def take(self, document: dict[str, Any]) -> None:
        """Read everything."""
        for name in document:
            if name in ("defaults", "jobs"):
                continue
            hint = jobs.nearest(name, {"defaults": None, "jobs": None}) or "; write [jobs.NAME] or [defaults]"
            self._fault((name,), document[name], f"is no table of a file of jobs{hint}")
        self._defaults = self._values(("defaults",), document.get("defaults", {}), keys.DEFAULTS)
        tables = document.get("jobs", {})
        if not isinstance(tables, dict) or not tables:
            self._fault(("jobs",), tables, "has no job; write [jobs.NAME], and below it what to run and when")
            return
        for name, table in tables.items():
            before = len(self.read.faults)
            job = self._job(("jobs", name), table)
            if job is not None and len(self.read.faults) == before:
                self.read.jobs.append(job)
                self.read.sources[name] = self._source(("jobs", name))

    def _source(self, path: tuple[str, ...]) -> str:
        return f"{self._shown} line {tomllines.nearest(self._lines, path)}"

    def _fault(
        self, path: tuple[str, ...], value: object, reason: str, failure: Mapping[str, Any] | None = None
    ) -> None:
        """Keep the fault of what stands there; whatever a variable holds is not shown."""
        setting = ".".join(map(keys.name_written, path))[: keys.MAX_SHOWN]
        secret = _may_be_env(path) or reason.endswith(_MEANT_ENV)
        shown = "***" if secret else written(value)
        self.read.faults.append(Fault(setting, shown, self._source(path), reason, failure))
        if len(self.read.faults) == MAX_FAULTS:
            raise _Enough

    def _values(self, path: tuple[str, ...], table: object, known: Mapping[str, keys.Key]) -> dict[str, Any]:
        """What the table says, read; what cannot be is a fault."""
        if not isinstance(table, dict):
            self._fault(path, table, f"is no table; write [{path[0]}] above its keys")
            return {}
        values: dict[str, Any] = {}
        for name, value in table.items():
            at = (*path, name)
            if name not in known:
                self._fault(at, value, _unknown(name, known))
                continue
            try:
                values[name] = known[name].read(value)
            except ValueError as error:
                self._fault(at, value, str(error))
        if "env" in values:
            values["env"] = self._variables((*path, "env"), values["env"])
        return values

    def _variables(self, path: tuple[str, ...], table: dict[str, object]) -> dict[str, str]:
        variables: dict[str, str] = {}
        for name, value in table.items():
            try:
                variables[name] = keys.variable(name, value)
            except ValueError as error:
                self._fault((*path, name), value, str(error))
        return variables

    def _job(self, path: tuple[str, ...], table: object) -> Job | None:
        """The job, unless there is too little to make one of; where it has a fault, it is none."""
        name = path[-1]
        if not isinstance(table, dict):
            self._fault(path, table, "is no table of a job; write [jobs.NAME] above its keys")
            return None
        if not name or _NO_NAME.search(name):
            self._fault(path, name, "is no name of a job; write a text that has no control characters")
        own = self._values(path, table, KEYS)
        self._refuse_seconds(path, table)
        if not any(run in table for run in keys.RUNS):
            self._fault(path, table, "has nothing to run; write call, command or shell")
            return None
        self._refuse_misfits(path, own, table)
        values = {key: value for key, value in self._defaults.items() if _fits(key, table)} | own
        if "env" in values:
            values["env"] = self._defaults.get("env", {}) | values["env"]
        function, declared = self._called(path, own)
        kind = Kind.COMMAND if function is jobs.NO_FUNCTION else self._kind(path, own, function, declared)
        if kind in (Kind.COMMAND, Kind.PROCESS):
            self._refuse_unspeakable(path)
        ticks = self._ticks(table, values, declared)
        return Job(
            name=name,
            schedule=ticks,
            function=function,
            kind=kind,
            target=f"{self._shown}:{name}",
            policies=self._policies(path, ticks, table, own, declared),
            command=_command(values),
        )

    def _refuse_unspeakable(self, path: tuple[str, ...]) -> None:
        try:
            keys.job_name(path[-1])
        except ValueError as error:
            self._fault(path, path[-1], str(error))

    def _refuse_seconds(self, path: tuple[str, ...], table: dict[str, object]) -> None:
        for choice in (keys.RUNS, keys.SCHEDULES):
            first, *others = [key for key in table if key in choice] or [""]
            for key in others:
                self._fault((*path, key), table[key], f"is one too many beside {first}; write one of them")

    def _refuse_misfits(self, path: tuple[str, ...], own: dict[str, Any], table: dict[str, object]) -> None:
        for key in own:
            if not _fits(key, table):
                goes_with = " or ".join(KEYS[key].goes_with)
                self._fault((*path, key), table[key], f"goes with {goes_with} only; leave it out")

    def _called(self, path: tuple[str, ...], own: dict[str, Any]) -> tuple[Callable[..., Any], Declaration]:
        """The function that the job calls, if it does, and what a decorator says about that."""
        plain = Declaration(self._default, None)
        if "call" not in own:
            return jobs.NO_FUNCTION, plain
        try:
            function = self._find(own["call"])
        except Unusable as unusable:
            self._fault((*path, "call"), own["call"], str(unusable), modules.raised(unusable))
            return jobs.NO_FUNCTION, plain
        return function, jobs.declared(function) or plain

    def _kind(
        self, path: tuple[str, ...], own: dict[str, Any], function: Callable[..., Any], declared: Declaration
    ) -> Kind:
        said = own["isolation"] == "process" if "isolation" in own else declared.isolated
        try:
            kind = modules.looking(modules.kind_of, function, bool(said))
            by_default = said is None and self._defaults.get("isolation") == "process"
            if by_default and kind is Kind.FUNCTION:
                kind = modules.looking(modules.kind_of, function, True)
        except Unusable as unusable:
            if "isolation" in own:
                self._fault((*path, "isolation"), own["isolation"], f"cannot be: {own['call']} {unusable}")
            else:
                self._fault((*path, "call"), own["call"], str(unusable))
            return Kind.FUNCTION
        return kind

    def _ticks(self, table: dict[str, object], values: dict[str, Any], declared: Declaration) -> Any:
        """The schedule; None where it is one that cannot be read."""
        if "cron" in values:
            return jobs.calendar(values["cron"], values.get("timezone"))
        if "every" in values:
            return jobs.regular(values["every"], values.get("anchor", "start"))
        return None if any(key in table for key in keys.SCHEDULES) else declared.schedule

    def _policies(
        self, path: tuple[str, ...], ticks: Any, table: dict[str, object], own: dict[str, Any], declared: Declaration
    ) -> Policies:
        """The job's own, before those of its function, before those of all jobs."""
        said = self._defaults | dict(declared.given) | own
        chosen = {name: value for name, value in said.items() if name in policy.DECLARED}
        policies = policy.made(chosen)
        for name, reason in jobs.unfit(ticks, policies).items():
            self._fault((*path, name), table.get(name, durations.show(getattr(policies, name))), reason)
        return policies


def _may_be_env(path: tuple[str, ...]) -> bool:
    """Whether variables may stand there, also as other programs write them: ``environment``, ``envFrom``."""
    in_a_job = path[0] == "jobs" and len(path) > 2  # whose name says nothing
    return any("env" in name.lower() for name in (path[2:] if in_a_job else path))


def _fits(key: str, table: dict[str, object]) -> bool:
    """Whether the key means something for the job."""
    goes_with = KEYS[key].goes_with
    return not goes_with or any(other in table for other in goes_with)


def _command(values: dict[str, Any]) -> Command | None:
    if "call" in values:
        return None
    arguments = values.get("command") or ("/bin/sh", "-c", values.get("shell", ""))
    user = values.get("user")
    groups = keys.groups_of(user) if user else ()
    return Command(arguments, values.get("cwd"), tuple(values.get("env", {}).items()), user, groups)


def _unknown(name: str, known: Mapping[str, keys.Key]) -> str:
    if known is keys.DEFAULTS and name in KEYS:
        return "is no default for all jobs; write it below [jobs.NAME]"
    if name == "name":
        return "is no key of a job; its name is that of its table, [jobs.NAME]"
    hint = f"; {_MEANT_ENV}" if "env" in name.lower() else jobs.nearest(name, known)
    hint = hint or f"; the keys are {', '.join(known)}"
    return f"is no key of a job{hint}"


def _parse(text: str) -> dict[str, Any]:
    import tomllib  # only where there is a file

    if parts := _PARTS.search(text):
        raise _NoToml(_line_at(text, parts.start()), f"a name has more than {MAX_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise _NoToml(_line_at(text, _deepest(text)), "arrays or tables are too deep in one another") from None
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else _line_at(text, len(text.rstrip()))
        reason = str(error)[: place.start()] if place else str(error)
        raise _NoToml(line, f"{reason[:1].lower()}{reason[1:200]}") from None
    except ValueError:
        digits = _DIGITS.search(text)
        raise _NoToml(_line_at(text, digits.start() if digits else 0), "a number is too long") from None


def _line_at(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _deepest(text: str) -> int:
    """Where most brackets are open."""
    depth = most = place = 0
    for bracket in re.finditer(r"[\[\]{}]", text):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > most:
            most, place = depth, bracket.start()
    return place


def _masked(line: str, above: list[str]) -> str:
    """What may be shown of a faulty line: in another place than its own, a secret may look like anything."""
    key = _KEY.match(line)
    table = next((each for each in reversed(above) if each.lstrip().startswith("[")), "")
    if key is None or key[1] not in KEYS or "env" in f"{table}{line}".lower():
        return "***"
    return line.strip()[: keys.MAX_SHOWN]
