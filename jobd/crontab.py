"""Schedules as `crontab(5)` writes them, in a time zone.

May import: nothing of ours. Parsing and iterating is `cronsim`'s, which keeps to Debian's cron. What happens when the
clocks change is decided here, for five fields and for six: where hour and minute are fixed, a time that the change
leaves out comes at the first moment after it, and one that comes twice counts once. Where either has a star, the job
follows the clock: what is left out does not come, and a repeated hour repeats its ticks. `cronsim` is asked for times
without a zone only, because those that it finds in one are wrong where midnight is left out, or half an hour is.

Tricky: a schedule keeps its place, because to find the next tick from there costs a tenth of beginning anew. It is
asked from one thread only. And this file cannot be called `cron`: once it is imported, ``from jobd import cron`` would
give the file and not the decorator.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import groupby, islice
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim

_SECOND = timedelta(seconds=1)
_SECOND_NS = 1_000_000_000
_DAY_S = 86_400
_EPOCH = datetime(1970, 1, 1)
#: What crontab(5) knows by a name.
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
HOW_TO_WRITE = (
    'write minute, hour, day of the month, month and day of the week, as in "30 3 * * mon-fri", or seconds before them'
)
#: Ticks that were missed are counted one by one up to here; of what lies between that and the last, nobody knows.
MOST_COUNTED = 1000


class Cron:
    """A tick whenever the wall clock of the time zone matches the expression."""

    #: As `cron(8)` has it: a change of less than three hours is taken for one that is made up for.
    forgets_ns = 3 * 3600 * _SECOND_NS

    def __init__(self, expression: str, timezone: str | None = None) -> None:
        """Raises `ValueError` for an expression or a time zone that is none, with what would be right."""
        self.expression = " ".join(expression.split())
        self.timezone = timezone
        self._zone = _zone(timezone)
        self._fields = _MACROS.get(self.expression.lower(), self.expression)
        self._place: tuple[int, Iterator[int]] | None = None
        parts = self._fields.split()
        self._fixed = len(parts) in (5, 6) and not any(part.startswith("*") for part in parts[-5:-3])
        try:
            self.after(0)
        except StopIteration:
            raise ValueError(f"never comes; {HOW_TO_WRITE}") from None
        except Exception as error:
            raise ValueError(f"is no cron expression ({str(error).lower()}); {HOW_TO_WRITE}") from None

    def after(self, instant_ns: int) -> int:
        """The first tick after the instant."""
        place, self._place = self._place, None
        ticks = place[1] if place and place[0] == instant_ns else self._ticks(instant_ns)
        found = next(tick for tick in ticks if tick > instant_ns)  # what a change of the clocks moves may coincide
        self._place = (found, ticks)
        return found

    def latest(self, first_ns: int, now_ns: int) -> tuple[int, int]:
        """The last tick due by now, and how many ticks after `first_ns` it comes, `MOST_COUNTED` at most."""
        last, count = self._count(first_ns, now_ns, MOST_COUNTED)
        if count == MOST_COUNTED:
            last = self._newest(now_ns, 1)
        return last, count

    def newest(self, first_ns: int, now_ns: int, most: int) -> tuple[int, int]:
        """The first of the newest `most` ticks due by now, and how many ticks after `first_ns` it comes."""
        older = self._count(first_ns, now_ns, MOST_COUNTED + most)[1] + 1 - most
        return (self._newest(now_ns, most), older) if older > 0 else (first_ns, 0)

    def _count(self, first_ns: int, now_ns: int, most: int) -> tuple[int, int]:
        """The last tick due by now, and how many ticks after `first_ns` it comes; `most` at most."""
        last, count = first_ns, 0
        while count < most and (following := self.after(last)) <= now_ns:
            last, count = following, count + 1
        return last, count

    def _newest(self, now_ns: int, most: int) -> int:
        """The first of the newest ticks due by now."""
        *_, first_ns = islice(self._back(now_ns), most)
        return first_ns

    def _back(self, now_ns: int) -> Iterator[int]:
        """The ticks due by now, the last one first."""
        # What a change of the clocks moves may be later than local times say, and may coincide.
        for tick, _ in groupby(self._ticks(now_ns + self.forgets_ns, back=True)):
            if tick <= now_ns:
                yield tick

    def _ticks(self, instant_ns: int, *, back: bool = False) -> Iterator[int]:
        if not self._fixed:
            return (tick_s * _SECOND_NS for tick_s in self._shown(instant_ns // _SECOND_NS, -1 if back else 1))
        start = datetime.fromtimestamp(instant_ns // _SECOND_NS, self._zone)
        # Iterated without a zone, so that each local time comes once; then it is found in the zone.
        return (_ns(_real(tick, self._zone)) for tick in CronSim(self._fields, start.replace(tzinfo=None), back))

    def _shown(self, second: int, way: int) -> Iterator[int]:
        """The seconds, from this one on or back, in which the clock shows what matches.

        Iterated without a zone from one change of the clocks to the next, between which it shows each time once.
        """
        while True:
            offset = self._offset(second + way)
            for local in CronSim(self._fields, _EPOCH + timedelta(seconds=second + offset), way < 0):
                tick = (local - _EPOCH) // _SECOND - offset
                if (change := self._change(second, tick, offset)) is not None:
                    second = change - way
                    break
                yield tick
                second = tick
            else:
                return

    def _change(self, second: int, tick: int, offset: int) -> int | None:
        """The first second on the way to the tick in which the clock is ahead by something else, if there is one."""
        while second != tick:
            next_day = max(second - _DAY_S, min(second + _DAY_S, tick))
            if self._offset(next_day) != offset:
                return self._first_change(second, next_day, offset)
            second = next_day
        return None

    def _first_change(self, before: int, after: int, offset: int) -> int:
        while abs(after - before) > 1:
            middle = (before + after) // 2
            if self._offset(middle) == offset:
                before = middle
            else:
                after = middle
        return after

    def _offset(self, second: int) -> int:
        """How many seconds the clock is ahead of UTC."""
        ahead = datetime.fromtimestamp(second, self._zone).utcoffset()
        return ahead // _SECOND if ahead else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cron) and (self.expression, self.timezone) == (other.expression, other.timezone)

    def __hash__(self) -> int:
        return hash((self.expression, self.timezone))

    def __str__(self) -> str:
        return f"cron {self.expression} {self.timezone or 'UTC'}"


def _real(local: datetime, zone: tzinfo) -> datetime:
    """The local time in its zone, for the first time; the first moment after a gap that it falls into."""
    at = local.replace(tzinfo=zone)
    while at.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
        local += timedelta(minutes=1)
        at = local.replace(tzinfo=zone)
    return at


def _ns(instant: datetime) -> int:
    return int(instant.timestamp()) * _SECOND_NS


def _zone(name: str | None) -> tzinfo:
    if name is None or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except Exception:  # not there, no file name, no file
        import difflib

        near = difflib.get_close_matches(str(name), available_timezones(), n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else "write one like Europe/Berlin"
        raise ValueError(f"timezone {name!r} is no time zone that this machine knows; {hint}") from None
