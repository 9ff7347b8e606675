"""`jobd check`: what the daemon would run with and when, for people to read; starts nothing.

May import: settings, loader, modules, job, policy, schedule, clock, durations, envfile, render.
"""

from collections.abc import Iterator

from jobd import clock, durations, envfile, modules, policy, render, schedule, settings
from jobd.job import Job
from jobd.loader import Loaded
from jobd.settings import DECLARED, Resolved

#: How many ticks of each job are shown.
TICKS = 3


def lines(resolved: Resolved, file: envfile.EnvFile, loaded: Loaded) -> Iterator[str]:
    """The report, line by line."""
    yield "Settings"
    yield from _table([_setting_row(key, resolved) for key in DECLARED])
    bound_s = resolved.settings.grace_period + resolved.settings.cancel_timeout + 1
    yield f"  A stop takes at most {durations.show(bound_s)}: grace period, cancel timeout and 1s."
    for name, source in resolved.unknown.items():
        nearest = settings.nearest(name)
        hint = f"; did you mean {nearest}?" if nearest else ""
        yield f"  Ignored: {name} ({source}) is no setting{hint}"
    for name in file.duplicates:
        yield f"  Given twice: {name}; the last one counts ({file.sources[name]})"
    yield ""
    yield "Jobs"
    yield from _table([_job_row(job) for job in loaded.jobs])
    yield ""
    if loaded.lifespans:
        yield "Lifespans"
        yield from _table([[lifespan.module, modules.name_of(lifespan.function)] for lifespan in loaded.lifespans])
        yield ""
    yield "Next ticks, if the daemon started now"
    wall, now = clock.Clock(), clock.Real.monotonic()
    start_ns = wall.wall_ns(now)
    yield from _table([[job.name, *map(clock.stamp, _next_ticks(job, start_ns))] for job in loaded.jobs])


def _job_row(job: Job) -> list[str]:
    kind = f"{job.kind.value} {job.command.arguments[0]}" if job.command else job.kind.value
    return [job.name, str(job.schedule), kind, job.target, " ".join(_command_terms(job) + policy.shown(job.policies))]


def _command_terms(job: Job) -> list[str]:
    """How the command is executed, where that is not as the daemon is."""
    if job.command is None:
        return []
    terms = {"cwd": job.command.cwd, "env": ",".join(name for name, _ in job.command.env), "user": job.command.user}
    return [f"{name}={term}" for name, term in terms.items() if term]


def _next_ticks(job: Job, start_ns: int) -> list[int]:
    ticks = job.schedule
    if isinstance(ticks, schedule.Every):
        return [start_ns + ticks.offset_ns(tick) for tick in range(TICKS)]
    found = [ticks.after(start_ns)]
    while len(found) < TICKS:
        found.append(ticks.after(found[-1]))
    return found


def _setting_row(key: str, resolved: Resolved) -> list[str]:
    setting, given = DECLARED[key], resolved.given[key]
    return [setting.name, settings.shown(setting, given.text), f"from {given.source}"]


def _table(rows: list[list[str]]) -> Iterator[str]:
    rows = [[render.printable(cell).replace("\n", "\\n") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
