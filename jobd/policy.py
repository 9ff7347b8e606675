"""The policies of a job: how its ticks become runs, and how those are treated. Each is declared once.

May import: durations. The decorators, `jobs.toml` and docs/jobs.md derive from the declarations.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, TypedDict

from jobd import durations

#: Longer than any policy of a job can mean.
MAX_S = 366 * 86_400.0
#: More attempts than this are a loop, and want a schedule.
MAX_RETRIES = 1000
#: How many missed ticks at most have a run each, where a job wants that.
LATE_RUNS = 1000


class Overlap(Enum):
    """What becomes of a tick while a run of the same job is in flight."""

    ALLOW = "allow"
    SKIP = "skip"
    REPLACE = "replace"


class Missed(Enum):
    """What becomes of ticks that nobody could start a run for when they were due."""

    ONCE = "once"
    ALL = "all"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy, as declared."""

    #: Reads what somebody has written; raises `ValueError` with what is wrong and what would be right.
    read: Callable[[object], Any]
    #: What is to be written, for people.
    kind: str
    meaning: str


def seconds(value: object) -> float:
    """A duration in seconds, as people write it: ``"1m30s"``, or a number. Raises `ValueError` for anything else."""
    if isinstance(value, str):
        read = durations.parse(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        read = float(min(value, 2 * MAX_S))
    else:
        raise ValueError(f"is not a duration; {durations.HOW_TO_WRITE}")
    if read > MAX_S:
        raise ValueError("is too long; it must be at most 366d")
    return read


def _limit(value: object) -> float:
    read = seconds(value)
    if read == 0:
        raise ValueError("would end every run at once; write a duration above 0, or leave it out")
    return read


def _number(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return read


def _one_of(words: type[Enum]) -> Callable[[object], Enum]:
    def read(value: object) -> Enum:
        try:
            return words(value)
        except (ValueError, TypeError):
            raise ValueError(f"is not one of {', '.join(word.value for word in words)}") from None

    return read


def _policy(read: Callable[[object], Any], default: Any, kind: str, meaning: str) -> Any:
    return field(default=default, metadata={"policy": Policy(read, kind, meaning)})


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies of one job. Durations are in seconds."""

    jitter: float = _policy(
        seconds, 0.0, "duration",
        "Each run starts up to so much later than its tick, by chance. The ticks stay where they are.",
    )  # fmt: skip
    timeout: float | None = _policy(
        _limit, None, "duration",
        "An attempt that takes longer is cancelled, and its outcome is `timed_out`. A plain function cannot be "
        "interrupted: its `stopping` is set, and it ends when it ends.",
    )  # fmt: skip
    overlap: Overlap = _policy(  # noqa: RUF009 - it makes a field
        _one_of(Overlap), Overlap.ALLOW, "allow, skip or replace",
        "While a run of the job is in flight: `allow` starts another one beside it, `skip` starts none, `replace` "
        "cancels it and starts the new one when it has ended.",
    )  # fmt: skip
    max_running: int | None = _policy(
        _number(1, 999_999_999), None, "whole number",
        "Runs of this job in flight at once; a tick beyond is skipped.",
    )  # fmt: skip
    missed: Missed = _policy(  # noqa: RUF009 - likewise
        _one_of(Missed), Missed.ONCE, "once, all or skip",
        "When several ticks, or one that is more than a second late, could not be started on time: `once` starts one "
        "run for all of them, `all` one for each (the newest 1,000), `skip` none.",
    )  # fmt: skip
    retries: int = _policy(
        _number(0, MAX_RETRIES), 0, "whole number",
        "How often an attempt that has failed or timed out is followed by another one, within the same run.",
    )  # fmt: skip
    backoff: float = _policy(
        seconds, 1.0, "duration",
        "How long to wait before the second attempt; twice as long before each further one. Up to half of it is "
        "taken off by chance, so that many do not come back at once.",
    )  # fmt: skip
    backoff_max: float = _policy(
        seconds, 300.0, "duration", "The longest of those waits; at least the first of them, if nothing is said."
    )
    grace_period: float | None = _policy(
        seconds, None, "duration",
        "At a stop, runs of this job are cancelled after so long, if the daemon's own grace period is longer.",
    )  # fmt: skip


#: The declarations, by name.
DECLARED: dict[str, Policy] = {f.name: f.metadata["policy"] for f in fields(Policies)}
#: Of a job that says nothing.
PLAIN = Policies()


class Given(TypedDict, total=False):
    """Policies as the decorators take them."""

    jitter: str | float
    timeout: str | float
    overlap: str
    max_running: int
    missed: str
    retries: int
    backoff: str | float
    backoff_max: str | float
    grace_period: str | float


def read(given: Mapping[str, object]) -> tuple[Policies, dict[str, str]]:
    """The policies, and what is wrong with each that cannot be used. Names that are none are the caller's to refuse."""
    values, wrong = read_each(given)
    return made(values), wrong


def read_each(given: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, str]]:
    """The same, but what is said and nothing that follows from it."""
    values: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name, policy in DECLARED.items():
        if name in given:
            try:
                values[name] = policy.read(given[name])
            except ValueError as error:
                wrong[name] = str(error)
    return values, wrong


def made(values: Mapping[str, Any]) -> Policies:
    """The policies of these values, which have been read."""
    if not values:
        return PLAIN
    first = min(PLAIN.backoff, values.get("backoff_max", PLAIN.backoff))
    longest = max(PLAIN.backoff_max, values.get("backoff", 0.0))
    return Policies(**{"backoff": first, "backoff_max": longest, **values})


def shown(policies: Policies) -> list[str]:
    """Those that are not the default, as they are written in `jobs.toml`."""
    return [
        f"{name}={_written(getattr(policies, name))}"
        for name in DECLARED
        if getattr(policies, name) != getattr(PLAIN, name)
    ]


def _written(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    return durations.show(value) if isinstance(value, float) else str(value)
