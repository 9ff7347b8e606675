"""`jobd check`: what the daemon would run with and when, for people to read; starts nothing.

May import: settings, job, clock, envfile, render.
"""

from collections.abc import Iterator

from jobd import clock, envfile, render, settings
from jobd.job import Job
from jobd.settings import DECLARED, Resolved

#: How many ticks of each job are shown.
TICKS = 3


def lines(resolved: Resolved, file: envfile.EnvFile, jobs: list[Job]) -> Iterator[str]:
    """The report, line by line."""
    yield "Settings"
    yield from _table([_setting_row(key, resolved) for key in DECLARED])
    bound_s = resolved.settings.grace_period + resolved.settings.cancel_timeout + 1
    yield f"  A stop takes at most {bound_s:g}s: grace period, cancel timeout and 1s."
    for name, source in resolved.unknown.items():
        nearest = settings.nearest(name)
        hint = f"; did you mean {nearest}?" if nearest else ""
        yield f"  Ignored: {name} ({source}) is no setting{hint}"
    for name in file.duplicates:
        yield f"  Given twice: {name}; the last one counts ({file.sources[name]})"
    yield ""
    yield "Jobs"
    yield from _table([[job.name, str(job.schedule), job.kind.value, job.target] for job in jobs])
    yield ""
    yield "Next ticks, if the daemon started now"
    wall, now = clock.Clock(), clock.Real.monotonic()
    start_ns = wall.wall_ns(now)
    yield from _table(
        [[j.name, *(clock.stamp(start_ns + j.schedule.offset_ns(tick)) for tick in range(TICKS))] for j in jobs]
    )


def _setting_row(key: str, resolved: Resolved) -> list[str]:
    setting, given = DECLARED[key], resolved.given[key]
    return [setting.name, settings.shown(setting, given.text), f"from {given.source}"]


def _table(rows: list[list[str]]) -> Iterator[str]:
    rows = [[render.printable(cell).replace("\n", "\\n") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
