"""The keys of a job in a file: each declared once, with how it is read and what it goes with.

May import: job, policy, durations, textfile. The policies are those of `policy`. Readers take what a TOML document can
hold, and raise `ValueError` with what is wrong and what would be right.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from jobd import durations, policy, textfile
from jobd import job as jobs

#: What a job runs; each has one of them.
RUNS = ("call", "command", "shell")
#: When; with neither, a job has the schedule that its function declares, or starts every `JOBD_INTERVAL`.
SCHEDULES = ("every", "cron")
_COMMANDS = ("command", "shell")
#: A value is shown up to here.
MAX_SHOWN = 200
#: Of a list or a table, so many things are looked at to show it, and lists in lists down to here.
_MAX_ITEMS = 20
_MAX_DEPTH = 3
#: A name that needs no quotes.
_BARE = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_SHOWN}}}")


@dataclass(frozen=True, slots=True)
class Key:
    """One key, as declared."""

    #: Reads the value; raises `ValueError`.
    read: Callable[[object], Any]
    #: What is to be written, for people.
    kind: str
    meaning: str
    #: The keys of which a job needs one for this to mean something; none: it does for every job.
    goes_with: tuple[str, ...] = ()


def text(value: object) -> str:
    """A text that the system takes, as an argument or a path. Raises `ValueError`."""
    if not isinstance(value, str):
        raise ValueError("is no text; write one, in quotes")
    if "\0" in value:
        raise ValueError("holds a NUL byte, which the system does not take; leave it out")
    try:
        encoded = os.fsencode(value)
    except UnicodeEncodeError:
        raise ValueError(
            "holds a character that the locale cannot express; use one of UTF-8, such as LC_ALL=C.UTF-8"
        ) from None
    if len(encoded) >= textfile.MAX_STRING_BYTES:
        raise ValueError(
            f"is too long for any process to be given; write fewer than {textfile.MAX_STRING_BYTES} bytes, a variable "
            "with its name, or put it into a file"
        )
    return value


def job_name(name: str) -> None:
    """The name of a job whose processes are told it. Raises `ValueError`."""
    text(f"JOBD_JOB={name}")


def variable(name: str, value: object) -> str:
    """The value of a variable of that name. Raises `ValueError`."""
    if not name or "=" in name or "\0" in name:
        raise ValueError('has a name that no variable can have; write NAME = "value", and no = in the name')
    if name in jobs.MARKS:
        raise ValueError("is set by jobd itself, for each run; give yours another name")
    known = text(value)
    text(f"{name}={known}")
    return known


def _some(value: object) -> str:
    if value == "":
        raise ValueError("is empty; write a text, or leave it out")
    return text(value)


def _word(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"is not one of {', '.join(words)}; write one, in quotes")
        return value

    return read


def _interval(value: object) -> str | float:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError(f"is no interval; {durations.HOW_TO_WRITE}, in quotes")
    jobs.regular(value, "start")
    return value


def _expression(value: object) -> str:
    expression = _some(value)
    jobs.calendar(expression, None)
    return expression


def _timezone(value: object) -> str:
    name = _some(value)
    try:
        jobs.calendar("@daily", name)
    except ValueError as error:
        raise ValueError(str(error).removeprefix(f"timezone {name!r} ")) from None
    return name


def _target(value: object) -> str:
    module, _, function = _some(value).partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *function.split(".")]):
        raise ValueError("is no function; write package.module:function")
    return f"{module}:{function}"


def _arguments(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or value[0] == "":
        raise ValueError('is no command; write a list, as in ["/usr/local/bin/backup", "--full"]')
    for number, argument in enumerate(value):
        try:
            text(argument)
        except ValueError as error:
            raise ValueError(f"has an argument, number {number}, that {error}") from None
    return tuple(value)


def _user(value: object) -> str:
    import pwd  # only where a job has one

    name = _some(value)
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ValueError("is no user of this machine; write the name of one, or leave it out") from None
    if os.geteuid() not in (0, uid):
        raise ValueError("is another user than ours, which only root may take on; leave it out, or start jobd as root")
    return name


@cache
def groups_of(user: str) -> tuple[int, ...]:
    """The groups of a user who is not ours.

    They are looked up with the jobs, and not for each run: Python holds the GIL meanwhile, and where a directory of
    users does not answer, that takes long. So it is done once for each user, too, until the cache is cleared.
    """
    import pwd

    try:
        account = pwd.getpwnam(user)
    except KeyError:  # there was one a moment ago; its runs will tell
        return ()
    return () if account.pw_uid == os.geteuid() else tuple(os.getgrouplist(user, account.pw_gid))


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError('is no table; write one, as in { NAME = "value" }')
    return value


_OWN = {
    "every": Key(_interval, "duration", "Starts so often."),
    "cron": Key(
        _expression, "cron expression", "Starts whenever the clock matches: the five fields of crontab(5), or six."
    ),
    "timezone": Key(_timezone, "time zone", "That of the clock; by default UTC.", ("cron",)),
    "anchor": Key(
        _word("start", "clock"), "start or clock",
        "Where the ticks lie: tick 0 at the start of the daemon, or all at whole multiples of the interval since the "
        "epoch.", ("every",),
    ),
    "call": Key(_target, "package.module:function", "The function to call."),
    "command": Key(_arguments, "list of texts", "The program to execute, and its arguments."),
    "shell": Key(_some, "text", "What /bin/sh is to execute."),
    "isolation": Key(
        _word("thread", "process"), "thread or process",
        "What a plain function runs in: a thread, or an interpreter of its own for each run.", ("call",),
    ),
    "cwd": Key(_some, "path", "Where the command is executed; by default where jobd was started.", _COMMANDS),
    "env": Key(_table, "table of texts", "What its environment has beside the daemon's.", _COMMANDS),
    "user": Key(_user, "name", "Whose process it is; only root may name another one.", _COMMANDS),
}  # fmt: skip
#: The declarations, by name.
KEYS: dict[str, Key] = _OWN | {name: Key(p.read, p.kind, p.meaning) for name, p in policy.DECLARED.items()}
#: Those that can be said for all jobs.
DEFAULTS = {name: key for name, key in KEYS.items() if name not in (*RUNS, *SCHEDULES)}


def written(value: object) -> str:
    """The value as a TOML document has it, clipped. Of a table, only the names are shown."""
    return _written(value, _MAX_DEPTH)[:MAX_SHOWN]


def name_written(name: str) -> str:
    """The name as a TOML document has it, in quotes where it must be, and clipped."""
    return name if _BARE.fullmatch(name) else _written(name, 0)


def _written(value: object, depth: int) -> str:
    if isinstance(value, str):
        return json.dumps(value[:MAX_SHOWN], ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if abs(value) < 1 << 64 else hex(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name_written(name)} = ***" for name in list(value)[:_MAX_ITEMS]) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_written(item, depth - 1) for item in value[:_MAX_ITEMS] if depth) + "]"
    return str(value)
