"""Lines on the wall clock: nothing comes twice when it is set, and nothing goes without a word."""

import math

import pytest

from jobd.crontab import Cron
from jobd.job import Job, Kind
from jobd.line import line_of
from jobd.policy import LATE_RUNS, Missed, Policies
from jobd.schedule import Aligned, Every
from jobd.spawner import Spawner
from jobd.virtual import VirtualLoop, Wall

from .helpers import nothing
from .test_spawner import Offers

SECOND_NS = 1_000_000_000
HOUR = 3600.0


def wall_job(schedule: Every | Aligned | Cron, name: str = "job", **policies: float) -> Job:
    """A job on the wall clock."""
    return Job(name, schedule, nothing, Kind.COROUTINE, "tests:job", Policies(**policies))  # type: ignore[arg-type]


class Walled:
    """A spawner and its wall clock, which starts at one hour and half a second past the epoch."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.wall = Wall(round((HOUR + 0.5) * SECOND_NS))
        self.offers = Offers(loop)
        self.steps: list[float] = []
        self.spawner = Spawner(loop, self.wall, self.offers.take, self.steps.append)
        self.spawner.is_told_of_clock = True

    def set(self, by_s: float) -> None:
        """Set the wall clock ahead, or back."""
        self.wall.stepped_ns = round(by_s * SECOND_NS)
        self.spawner.look_at_clock()
        self.loop.settle()

    @property
    def scheduled_s(self) -> list[float]:
        """The instants of the rows, in seconds past the first hour."""
        return [row.scheduled_ns / SECOND_NS - HOUR for row in self.offers.rows]

    @property
    def numbers(self) -> list[tuple[int, int]]:
        """The ticks of the rows."""
        return [(row.first, row.last) for row in self.offers.rows]


@pytest.fixture
def walled(loop: VirtualLoop) -> Walled:
    """A spawner whose wall clock can be set."""
    return Walled(loop)


def test_ticks_lie_on_whole_multiples(walled: Walled) -> None:
    """Tick 0 is the first one after the start, wherever that lies."""
    walled.spawner.start([wall_job(Aligned(10.0))])
    walled.loop.run_until(30)
    assert walled.scheduled_s == [10, 20, 30]
    assert walled.numbers == [(0, 0), (1, 1), (2, 2)]
    assert walled.offers.at == pytest.approx([9.5, 19.5, 29.5])
    assert all(at >= row.due for at, row in zip(walled.offers.at, walled.offers.rows, strict=True))


def test_a_clock_that_is_set_ahead_makes_ticks_due(walled: Walled) -> None:
    """In one row, at once; and it is told."""
    walled.spawner.start([wall_job(Aligned(10.0))])
    walled.loop.run_until(12)
    walled.set(35)
    assert (walled.numbers, walled.scheduled_s) == ([(0, 0), (1, 3)], [10, 40])
    walled.loop.pass_time(10)
    assert walled.scheduled_s == [10, 40, 50]
    assert walled.steps == [35]


def test_a_clock_that_is_set_back_repeats_nothing(walled: Walled) -> None:
    """It waits until the clock shows something new."""
    walled.spawner.start([wall_job(Aligned(10.0))])
    walled.loop.run_until(32)
    walled.set(-25)
    walled.loop.pass_time(40)
    assert walled.scheduled_s == [10, 20, 30, 40]
    assert walled.numbers == [(n, n) for n in range(4)]
    assert walled.steps == [-25]


def test_what_the_clock_has_not_shown_before_comes(walled: Walled) -> None:
    """Set back to before the start: those ticks are new, and only then are those passed over that are not."""
    walled.spawner.start([wall_job(Aligned(10.0))])
    walled.loop.run_until(32)
    walled.set(-55)
    walled.loop.pass_time(80)
    assert walled.scheduled_s == [10, 20, 30, -20, -10, 0, 40, 50]
    assert walled.numbers == [(n, n) for n in range(8)]


def test_a_clock_that_was_far_off_was_wrong(walled: Walled) -> None:
    """The new time holds at once, and what it shows again comes again."""
    walled.spawner.start([wall_job(Aligned(10.0))])
    walled.loop.run_until(200)
    walled.set(-100)
    walled.loop.pass_time(20)
    assert walled.scheduled_s[-2:] == [110, 120]


def test_cron_makes_up_for_up_to_three_hours(walled: Walled) -> None:
    """As cron(8) has it: back by two hours repeats nothing."""
    walled.spawner.start([wall_job(Cron("0 * * * *"))])
    walled.loop.run_until(3 * HOUR)
    assert walled.scheduled_s == [HOUR, 2 * HOUR, 3 * HOUR]
    walled.set(-2 * HOUR)
    walled.loop.pass_time(3 * HOUR)
    assert walled.scheduled_s == [HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR]


def test_nobody_tells_when_the_clock_is_set(walled: Walled) -> None:
    """Then it is looked at now and then."""
    walled.spawner.is_told_of_clock = False
    walled.spawner.start([wall_job(Cron("0 * * * *"))])
    walled.loop.run_until(60)
    walled.wall.stepped_ns = round(HOUR * SECOND_NS)
    walled.loop.run_until(75)
    assert walled.numbers == [(0, 0)]


@pytest.mark.parametrize("others", [[], [wall_job(Aligned(600.0), "other")]], ids=["alone", "beside another"])
def test_a_job_that_a_reload_adds_begins_at_the_time_that_it_is(walled: Walled, others: list[Job]) -> None:
    """Not where the wall clock stood when anybody looked at it last: it has been set since, or has slept."""
    walled.spawner.start(others)
    walled.loop.run_until(60)
    walled.wall.stepped_ns = round(1.5 * HOUR * SECOND_NS)
    walled.spawner.start([*others, wall_job(Cron("0 * * * *"), "new")])
    walled.loop.pass_time(HOUR)
    assert [row.scheduled_ns / SECOND_NS for row in walled.offers.rows if row.job.name == "new"] == [3 * HOUR]
    assert walled.steps == [1.5 * HOUR]


def test_a_job_that_stays_keeps_its_place(walled: Walled) -> None:
    """A reload with the same schedule: neither the phase nor the numbers change, whatever else does."""
    walled.spawner.start([wall_job(Aligned(10.0)), wall_job(Aligned(20.0), "gone")])
    walled.loop.run_until(25)
    walled.spawner.start([wall_job(Aligned(10.0), jitter=0.0)])
    walled.loop.run_until(40)
    assert [row.last for row in walled.offers.rows if row.job.name == "job"] == [0, 1, 2, 3]
    assert [row.last for row in walled.offers.rows if row.job.name == "gone"] == [0]


def test_a_job_that_changes_goes_on_with_its_numbers(walled: Walled) -> None:
    """Also one that has gone and comes back: no number of a tick is told twice."""
    walled.spawner.start([wall_job(Aligned(10.0))])
    walled.loop.run_until(25)
    walled.spawner.start([])
    walled.loop.run_until(65)
    walled.spawner.start([wall_job(Aligned(20.0))])
    walled.loop.run_until(100)
    assert walled.numbers == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert walled.scheduled_s == [10, 20, 80, 100]


@pytest.mark.parametrize("schedule", [Aligned(10.0), Cron("*/10 * * * * *")], ids=["every", "cron"])
def test_all_missed_ticks_have_rows_of_their_own(walled: Walled, schedule: Aligned | Cron) -> None:
    """Where the job wants a run for each: the newest thousand."""
    job = Job("job", schedule, nothing, Kind.COROUTINE, "tests:job", Policies(missed=Missed.ALL))
    walled.spawner.start([job])
    walled.loop.run_until(15)
    walled.loop.stall(40)
    walled.loop.settle()
    assert walled.numbers == [(n, n) for n in range(5)]
    walled.loop.stall(20_000)
    walled.loop.pass_time(0.1)  # the first few leave, and then the others
    late = walled.numbers[5:]
    assert late[0][0] == 5
    assert [last - first for first, last in late[1:]] == [0] * (LATE_RUNS - 1)
    assert walled.scheduled_s[5:] == [10.0 * n for n in range(2006 - LATE_RUNS, 2006)]


@pytest.mark.parametrize("missed", [Missed.ONCE, Missed.ALL])
def test_what_is_missed_stays_missed_when_the_clock_is_set_back(walled: Walled, missed: Missed) -> None:
    """Set back a little while nobody looked: every tick that is due by the new time still has its row."""
    job = Job("job", Aligned(10.0), nothing, Kind.COROUTINE, "tests:job", Policies(missed=missed))
    walled.spawner.start([job])
    walled.loop.run_until(12)
    walled.loop.stall(45)
    walled.set(-5)
    walled.loop.pass_time(10)
    assert walled.scheduled_s == ([10, 20, 30, 40, 50, 60] if missed is Missed.ALL else [10, 50, 60])
    assert [n for first, last in walled.numbers for n in range(first, last + 1)] == list(range(6))


@pytest.mark.parametrize("missed", [Missed.ONCE, Missed.ALL])
def test_a_stall_that_ends_in_what_was_shown_before(walled: Walled, missed: Missed) -> None:
    """Nothing of that comes again, and what lies before it comes as if it ended there."""
    job = Job("job", Aligned(10.0), nothing, Kind.COROUTINE, "tests:job", Policies(missed=missed))
    walled.spawner.start([job])
    walled.loop.run_until(32)
    walled.set(-55)
    walled.loop.stall(48)
    walled.loop.pass_time(20)
    assert walled.scheduled_s == [10, 20, 30, *([-20, -10, 0] if missed is Missed.ALL else [0]), 40]
    assert [n for first, last in walled.numbers for n in range(first, last + 1)] == list(range(7))


@pytest.mark.parametrize("missed", [Missed.ONCE, Missed.ALL])
@pytest.mark.parametrize("steps", [(-12, 4, -20, 8), (-13, 1, -13, 20), (-5, 8, -9, 30)])
def test_whatever_the_clock_has_shown_before_comes_once(
    walled: Walled, missed: Missed, steps: tuple[float, float, float, float]
) -> None:
    """Set back again and again, with a stall at the end: every instant has one tick, and every tick an instant."""
    job = Job("job", Aligned(1.0), nothing, Kind.COROUTINE, "tests:job", Policies(missed=missed))
    walled.spawner.start([job])
    first_back, then, second_back, stall = steps
    walled.loop.run_until(15)
    walled.set(first_back)
    walled.loop.pass_time(then)
    walled.set(second_back)
    shown = set(walled.scheduled_s)
    walled.loop.stall(stall)
    walled.loop.pass_time(60)
    assert len(walled.scheduled_s) == len(set(walled.scheduled_s))
    numbers = [n for first, last in walled.numbers for n in range(first, last + 1)]
    assert numbers == list(range(len(numbers)))
    now_s = walled.wall.exact_ns(walled.loop.time()) / SECOND_NS - HOUR
    first_s = min(15.5 + first_back, 15.5 + first_back + then + second_back, 0.5)
    all_s = shown | set(range(math.ceil(first_s), math.floor(now_s) + 1))
    assert len(numbers) == len(all_s)
    assert set(walled.scheduled_s) == all_s if missed is Missed.ALL else set(walled.scheduled_s) < all_s


def test_of_more_than_a_thousand_none_comes_that_was_shown_before(walled: Walled) -> None:
    """The newest thousand are those before it."""
    job = Job("job", Cron("* * * * * *"), nothing, Kind.COROUTINE, "tests:job", Policies(missed=Missed.ALL))
    walled.spawner.start([job])
    walled.loop.run_until(1500)
    walled.set(-2900)
    count = len(walled.numbers)
    walled.loop.stall(2600)
    walled.loop.pass_time(1)
    assert walled.scheduled_s[count:] == list(range(1 - LATE_RUNS, 1))


def test_jitter_on_the_wall_clock(walled: Walled) -> None:
    """Late by less than the gap, each tick once."""
    walled.spawner.start([wall_job(Aligned(10.0), jitter=10.0)])
    walled.loop.run_until(1000)
    late = [at - row.due for at, row in zip(walled.offers.at, walled.offers.rows, strict=True)]
    assert walled.numbers == [(n, n) for n in range(len(late))]
    assert len(late) in (99, 100)
    assert 0 <= min(late) < 2 < 8 < max(late) <= 10
    assert all(row.put_off_s == pytest.approx(l, abs=1e-3) for row, l in zip(walled.offers.rows, late, strict=True))


class Counting(Wall):
    """A wall clock that is not asked for ever."""

    asked = 0

    def instant(self, wall_ns: int) -> float:
        self.asked += 1
        assert self.asked < 100
        return super().instant(wall_ns)


@pytest.mark.parametrize("missed", [Missed.ONCE, Missed.ALL])
@pytest.mark.parametrize("days", [100, 1000, 10_000])
def test_a_tick_is_due_in_its_own_instant_however_long_the_machine_has_been_up(days: int, missed: Missed) -> None:
    """Floats of so many seconds are coarser than nanoseconds: there and back, an instant may be an earlier one."""
    job = Job("job", Aligned(1.0), nothing, Kind.COROUTINE, "tests:job", Policies(missed=missed))
    earlier = 0
    for number in range(200):
        up_s = days * 86_400 + number * 1.2345
        wall = Counting(1_767_225_600 * SECOND_NS - round(up_s * 1e9) + number * 7_654_321)
        line = line_of(job, up_s, wall, 7)
        instant_ns = line.place.instant_ns
        earlier += wall.exact_ns(line.due) < instant_ns
        row, line.place, due = line.look(line.due)
        assert row is not None
        assert (row.first, row.last, row.scheduled_ns) == (7, 7, instant_ns)
        assert (line.tick, line.place.instant_ns) == (8, instant_ns + SECOND_NS)
        assert due > row.due
    assert earlier > 10


@pytest.mark.parametrize("schedule", [Every(1000.0), Aligned(1000.0)])
@pytest.mark.parametrize("follows", [Every(300.0), Aligned(300.0), None])
def test_a_tick_that_jitter_puts_off_is_not_lost_when_its_job_changes(
    walled: Walled, schedule: Every | Aligned, follows: Every | Aligned | None
) -> None:
    """Whether that goes or has another schedule: its run comes at once, and its number is nobody else's."""
    old = wall_job(schedule, jitter=1000.0)
    walled.spawner.start([old])
    walled.loop.run_until(400)  # the tick on the wall clock lies at 399.5
    walled.spawner.start([] if follows is None else [wall_job(follows)])
    assert walled.offers.of(old) == [(0, 0)]
    walled.loop.run_until(2500)
    assert walled.offers.of(old) == [(0, 0)]
    assert all(first == last for first, last in walled.numbers)
    assert [last for _, last in walled.numbers] == list(range(len(walled.numbers)))
    assert (len(walled.numbers) > 1) == (follows is not None)


def test_a_tick_that_jitter_puts_off_stays_so_while_its_job_does(walled: Walled) -> None:
    """A reload that leaves the schedules as they are must not have all runs come at once."""
    jobs = [wall_job(Aligned(1000.0), name=str(n), jitter=1000.0) for n in range(10)]
    walled.spawner.start(jobs)
    walled.loop.run_until(400)
    walled.spawner.start(jobs)
    walled.loop.settle()
    assert len(walled.numbers) < 10
    walled.loop.run_until(1399)
    assert walled.numbers == [(0, 0)] * 10
