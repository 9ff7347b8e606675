"""The settings: each declared once, with its name, how it is read, its default and its meaning.

May import: durations, schedule, envfile, errors, job. `--help`, docs/settings.md and .env.example derive from the
declarations. A setting comes from the command line, the environment, the `.env` file or its default, in this order,
and `Resolved` knows which.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from jobd import durations, envfile, schedule
from jobd.errors import Fault
from jobd.job import MARKS

PREFIX = "JOBD_"
#: A name that looks like ours, also with something in front that is no part of a name: a quote, a byte order mark.
_OURS = re.compile(rf"\W*{PREFIX}")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as declared."""

    #: The environment variable.
    name: str
    #: Reads the text; raises `ValueError` with what is wrong and what would be right.
    read: Callable[[str], Any]
    #: As a user would write it; None where unset means something of its own.
    default: str | None
    #: What is to be written, for people: ``duration``, ``whole number``.
    kind: str
    meaning: str
    #: Whether it is shown as ``***``.
    secret: bool = False

    @property
    def flag(self) -> str:
        """The command-line flag: ``--interval``."""
        return "--" + self.name.removeprefix(PREFIX).lower().replace("_", "-")


def _targets(text: str) -> tuple[str, ...]:
    targets = tuple(text.split())
    if not targets:
        raise ValueError(
            "names no target; write package.module, package.module:function or a path ending in .toml, "
            "separated by spaces"
        )
    return targets


def _duration(text: str) -> float:
    seconds = durations.parse(text)
    if seconds > schedule.MAX_INTERVAL_S:
        raise ValueError("is too long; it must be at most 366d")
    return seconds


def _interval(text: str) -> float:
    return schedule.Every(durations.parse(text)).interval_s


def _positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) == 0:
        raise ValueError("is no number of runs; write a whole number from 1 to 999999999, or leave it unset")
    return int(text)


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return text

    return read


def _setting(
    name: str, read: Callable[[str], Any], default: str | None, kind: str, meaning: str, *, secret: bool = False
) -> Any:
    return field(metadata={"setting": Setting(name, read, default, kind, meaning, secret)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one daemon, read and found good. Durations are in seconds."""

    jobs: tuple[str, ...] = _setting(
        "JOBD_JOBS", _targets, "jobd.demo:run_job", "targets, separated by spaces",
        "What to run: package.module (every job declared in it), package.module:function, or a path ending in .toml.",
    )  # fmt: skip
    interval: float = _setting(
        "JOBD_INTERVAL", _interval, "10s", "duration", "Interval of a job that declares no schedule."
    )
    grace_period: float = _setting(
        "JOBD_GRACE_PERIOD", _duration, "20s", "duration",
        "How long a drain waits for the runs in flight; 0 cancels them at once. "
        "20 + 5 fits into the 30 s that Kubernetes allows.",
    )  # fmt: skip
    cancel_timeout: float = _setting(
        "JOBD_CANCEL_TIMEOUT", _duration, "5s", "duration", "How long cancelled runs may take to clean up."
    )
    max_running: int | None = _setting(
        "JOBD_MAX_RUNNING", _positive, None, "whole number",
        "Runs in flight at once, over all jobs; a tick beyond is skipped. Unset: unlimited.",
    )  # fmt: skip
    log_level: str = _setting(
        "JOBD_LOG_LEVEL", _one_of("debug", "info", "warning", "error"), "info", "debug, info, warning or error",
        "The least level that is logged.",
    )  # fmt: skip
    log_format: str = _setting(
        "JOBD_LOG_FORMAT", _one_of("json", "console", "auto"), "auto", "json, console or auto",
        "How lines look; auto means console on a terminal, else json.",
    )  # fmt: skip
    demo_min: float = _setting(
        "JOBD_DEMO_MIN", _duration, "5s", "duration", "The shortest time that the demo job sleeps."
    )
    demo_max: float = _setting(
        "JOBD_DEMO_MAX", _duration, "15s", "duration", "The longest time that the demo job sleeps."
    )


#: The declarations, by the attribute of `Settings` that holds the value.
DECLARED: dict[str, Setting] = {f.name: f.metadata["setting"] for f in fields(Settings)}

#: The variables whose values anybody may see.
PUBLIC = frozenset(setting.name for setting in DECLARED.values() if not setting.secret)

_DEFAULTS: dict[str, Any] = {key: s.read(s.default) if s.default else None for key, s in DECLARED.items()}
DEFAULTS = Settings(**_DEFAULTS)

#: What this process runs with; the demo job asks.
in_use = DEFAULTS


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody wrote it."""

    text: str | None
    source: str
    #: What the text was put together from, where it came in pieces: the targets of the command line.
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where each setting's value comes from, and what it is. `settings` holds the default where a fault was found."""

    settings: Settings
    given: dict[str, Given]
    faults: list[Fault]
    #: Variables that look like ours and are no settings, with their source.
    unknown: dict[str, str]


_DEMO = {DECLARED["demo_min"].name, DECLARED["demo_max"].name}


def resolve(
    flags: Mapping[str, str], environment: Mapping[str, str], file: envfile.EnvFile, targets: Sequence[str] = ()
) -> Resolved:
    """Read every setting from the first place that gives it. `flags` is keyed by attribute of `Settings`; `targets`
    are those of the command line, of which each is one, whatever blanks it has.
    """
    given = {key: _given(key, setting, flags, environment, file) for key, setting in DECLARED.items()}
    if targets:
        pieces = tuple(target for target in targets if target.strip())  # a variable of a script may be empty
        given["jobs"] = Given(" ".join(targets), "command line", pieces)
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for key, setting in DECLARED.items():
        text, source = given[key].text, given[key].source
        values[key] = _DEFAULTS[key]
        if text is None:
            continue
        try:
            read = setting.read(text)
            values[key] = given[key].pieces or read
        except ValueError as error:
            faults.append(Fault(setting.name, shown(setting, text), source, str(error)))
    least, most = given["demo_min"], given["demo_max"]
    wrong = {fault.setting for fault in faults} | {name for name in _DEMO if _may_hide(name, file)}
    if values["demo_min"] > values["demo_max"] and not wrong & _DEMO:
        faults.append(_wrong_way_round(least, most))
    return Resolved(Settings(**values), given, faults, _unknown(environment, file))


def shown(setting: Setting, text: str | None) -> str:
    """The value as it may be shown to anybody."""
    if text is None:
        return "unset"
    return "***" if setting.secret else text


def nearest(name: str) -> str | None:
    """The setting that the name resembles most, if it resembles one."""
    import difflib  # only here, because it is needed only for a typing error

    # Without what all have in common, or any name would resemble any other.
    bare = {setting.name.removeprefix(PREFIX): setting.name for setting in DECLARED.values()}
    found = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=0.5)
    return bare[found[0]] if found else None


def _may_hide(name: str, file: envfile.EnvFile) -> bool:
    """Whether a faulty line of the file may be the one that gives this setting."""
    return name not in file.values and name in file.faulty


def _wrong_way_round(least: Given, most: Given) -> Fault:
    """The range of the demo job's sleep is none; the fault is that of the one that somebody has written."""
    if most.source == "default":
        reason = f"is more than JOBD_DEMO_MAX, {most.text}; it must be at most that"
        return Fault("JOBD_DEMO_MIN", least.text or "", least.source, reason)
    reason = f"is less than JOBD_DEMO_MIN, {least.text}; it must be at least that"
    return Fault("JOBD_DEMO_MAX", most.text or "", most.source, reason)


def _given(
    key: str, setting: Setting, flags: Mapping[str, str], environment: Mapping[str, str], file: envfile.EnvFile
) -> Given:
    if key in flags:
        return Given(flags[key], f"command line ({setting.flag})")
    if setting.name in environment:
        return Given(environment[setting.name], "environment")
    if setting.name in file.values:
        return Given(file.values[setting.name], file.sources[setting.name])
    return Given(setting.default, "default")


def _unknown(environment: Mapping[str, str], file: envfile.EnvFile) -> dict[str, str]:
    known = {setting.name for setting in DECLARED.values()}
    marks = MARKS if environment.keys() >= MARKS else frozenset()  # all of them, where jobd is a command of jobd's
    sources = file.sources | {name: "environment" for name in environment if name not in marks}
    return {name: source for name, source in sources.items() if _OURS.match(name) and name not in known}
