"""The spawner: every tick of every job is offered once, in order, and never early."""

import asyncio
import time
from collections import defaultdict, deque

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from jobd.job import Due, Job
from jobd.schedule import Every
from jobd.spawner import FIRST_ROWS, GIVE_WAY_S, ROWS_PER_TURN, Spawner

from .helpers import job_of
from .virtual import VirtualLoop, Wall, virtual_loop

DAY_S = 86_400.0


class Offers:
    """Takes what the spawner offers, and remembers when."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.rows: list[Due] = []
        self.at: list[float] = []
        self.batches: list[int] = []

    def take(self, rows: deque[Due]) -> None:
        """Be the spawner's `offer`."""
        self.batches.append(len(rows))
        self.rows += rows
        self.at += [self.loop.time()] * len(rows)
        rows.clear()

    def of(self, job: Job) -> list[tuple[int, int]]:
        """The first and the last tick of each row of the job."""
        return [(row.first, row.last) for row in self.rows if row.job is job]


@pytest.fixture
def offers(loop: VirtualLoop) -> Offers:
    """Where the ticks go."""
    return Offers(loop)


@pytest.fixture
def spawner(loop: VirtualLoop, offers: Offers) -> Spawner:
    """A spawner that has no jobs yet."""
    return Spawner(loop, Wall(), offers.take)


def test_the_first_tick_of_each_job_is_due_at_the_start(loop: VirtualLoop, spawner: Spawner, offers: Offers) -> None:
    """Tick 0 does not wait for an interval to pass, and jobs due together come in the order of their targets."""
    jobs = [job_of(name=name) for name in "abc"]
    spawner.start(jobs)
    loop.settle()
    assert [(row.job, row.first, row.last) for row in offers.rows] == [(job, 0, 0) for job in jobs]
    assert offers.at == [0, 0, 0]


def test_ticks_of_several_jobs_come_in_the_order_of_time(loop: VirtualLoop, spawner: Spawner, offers: Offers) -> None:
    """Each at its instant; what is due together, in the order of the jobs."""
    three, two = job_of(name="three", interval_s=3), job_of(name="two", interval_s=2)
    spawner.start([three, two])
    loop.run_until(6)
    assert [(at, row.job.name, row.last) for at, row in zip(offers.at, offers.rows, strict=True)] == [
        (0, "three", 0),
        (0, "two", 0),
        (2, "two", 1),
        (3, "three", 1),
        (4, "two", 2),
        (6, "three", 2),
        (6, "two", 3),
    ]


def test_a_day_of_ticks_is_exact_and_takes_a_moment(loop: VirtualLoop, spawner: Spawner, offers: Offers) -> None:
    """After 8,640 ticks of ten seconds, the last one is due after exactly a day: nothing has added up."""
    began = time.process_time()
    spawner.start([job_of(interval_s=10)])
    loop.run_until(DAY_S)
    assert [(row.first, row.last) for row in offers.rows] == [(n, n) for n in range(8_641)]
    assert [row.due for row in offers.rows] == [n * 10.0 for n in range(8_641)]
    assert all(0 <= at - row.due < 1e-6 for at, row in zip(offers.at, offers.rows, strict=True))
    assert time.process_time() - began < 3


def test_a_stall_gives_one_row_and_keeps_the_phase(loop: VirtualLoop, spawner: Spawner, offers: Offers) -> None:
    """What came due while nothing turned is offered as one row, and the next tick lies on the old grid."""
    job = job_of(interval_s=10)
    spawner.start([job])
    loop.run_until(20)
    loop.stall(37)
    loop.run_until(60)
    assert offers.of(job) == [(0, 0), (1, 1), (2, 2), (3, 5), (6, 6)]
    assert (offers.at[3], offers.rows[3].due) == (57, 50)
    assert (offers.at[4], offers.rows[4].due) == (60, 60)


def test_a_stall_that_ends_on_a_tick_includes_it(loop: VirtualLoop, spawner: Spawner, offers: Offers) -> None:
    """The tick whose instant is now is due now, not an interval later."""
    job = job_of(interval_s=10)
    spawner.start([job])
    loop.settle()
    loop.stall(30)
    loop.settle()
    assert offers.of(job) == [(0, 0), (1, 3)]


def test_the_grid_is_shown_exactly(loop: VirtualLoop, spawner: Spawner, offers: Offers) -> None:
    """The instants for people lie on whole intervals from the anchor, to the nanosecond."""
    loop.stall(1000.5)
    spawner.start([job_of(interval_s=0.1)])
    loop.pass_time(100)
    assert [row.scheduled_ns for row in offers.rows] == [1_000_500_000_000 + n * 100_000_000 for n in range(1_001)]


def test_stop_returns_what_is_due_and_was_not_offered(loop: VirtualLoop, spawner: Spawner, offers: Offers) -> None:
    """Ticks that came due before the stop are handed over to be accounted for; nothing is offered afterwards."""
    slow, fast = job_of(name="slow", interval_s=100), job_of(name="fast", interval_s=1)
    spawner.start([slow, fast])
    loop.run_until(2)
    loop.stall(3.5)
    left = spawner.stop()
    loop.run_until(1000)
    assert [(row.job.name, row.first, row.last) for row in left] == [("fast", 3, 5)]
    assert offers.of(fast) == [(0, 0), (1, 1), (2, 2)]
    assert offers.of(slow) == [(0, 0)]


def test_stop_returns_all_that_is_due_however_many_jobs_there_are(
    loop: VirtualLoop, spawner: Spawner, offers: Offers
) -> None:
    """More jobs than one turn offers: what the turns before the stop did not get to is returned."""
    jobs = [job_of(name=str(n)) for n in range(10 * ROWS_PER_TURN)]
    spawner.start(jobs)
    spawner.resume()
    assert len(offers.rows) == FIRST_ROWS
    left = spawner.stop()
    assert [row.job for row in [*offers.rows, *left]] == jobs


def test_stop_is_harmless_before_the_start_and_twice(loop: VirtualLoop, spawner: Spawner, offers: Offers) -> None:
    """A spawner without jobs has nothing left to return."""
    assert not spawner.stop()
    spawner.start([job_of()])
    loop.settle()
    assert not spawner.stop()
    assert not spawner.stop()
    loop.run_out()
    assert len(offers.rows) == 1


def test_what_is_due_when_the_jobs_change_is_offered_before_that(
    loop: VirtualLoop, spawner: Spawner, offers: Offers
) -> None:
    """As ticks of the jobs as they were, so that who looks then what still goes on sees their runs."""
    old, new = job_of(), job_of()
    spawner.start([old])
    loop.run_until(5)
    loop.stall(7)
    spawner.start([new])
    assert offers.of(old) == [(0, 0), (1, 1)]
    loop.run_until(25)
    assert offers.of(old) == [(0, 0), (1, 1)]
    assert offers.of(new) == [(2, 2)]


def test_stop_from_within_an_offer_is_the_end(loop: VirtualLoop) -> None:
    """A stop that is asked for while ticks are being offered leaves no timer behind."""
    taken: list[Due] = []

    def take(rows: deque[Due]) -> None:
        taken.extend(rows)
        rows.clear()
        assert not stopping.stop()

    stopping = Spawner(loop, Wall(), take)
    stopping.start([job_of()])
    loop.run_until(100)
    assert len(taken) == 1


def test_no_turn_of_the_loop_offers_more_than_its_share(loop: VirtualLoop, spawner: Spawner, offers: Offers) -> None:
    """Whatever else waits for the loop comes in between; the first few rows leave before the others are made."""
    jobs = [job_of(name=str(n)) for n in range(FIRST_ROWS + 3 * ROWS_PER_TURN + 1)]
    turns: list[int] = []

    def between() -> None:
        turns.append(len(offers.rows))
        if len(turns) < 7:
            loop.call_soon(between)
        if len(turns) == 2:
            loop.stall(GIVE_WAY_S)

    loop.call_soon(between)
    spawner.start(jobs)
    loop.settle()
    assert turns == [0, 4, 4, 68, 132, 196, 197]
    assert offers.batches[:2] == [FIRST_ROWS, ROWS_PER_TURN]
    assert {row.due for row in offers.rows} == {0}


def test_the_next_crowd_begins_with_few_rows_again(loop: VirtualLoop, spawner: Spawner, offers: Offers) -> None:
    """Each instant at which many are due is a crowd of its own."""
    spawner.start([job_of(name=str(n), interval_s=10) for n in range(FIRST_ROWS + ROWS_PER_TURN)])
    loop.run_until(11)
    assert offers.batches == [FIRST_ROWS, ROWS_PER_TURN] * 2


def test_a_hundred_thousand_jobs_have_their_ticks(loop: VirtualLoop, spawner: Spawner, offers: Offers) -> None:
    """As many jobs as that are registered and offered within seconds, each tick once."""
    jobs = [job_of(name=str(n), interval_s=60) for n in range(100_000)]
    spawner.start(jobs)
    loop.run_until(59)
    assert len(offers.rows) == len({row.job for row in offers.rows}) == 100_000
    assert {row.last for row in offers.rows} == {0}


def test_long_intervals_are_not_early(loop: VirtualLoop, spawner: Spawner, offers: Offers) -> None:
    """A wait of days that the spawner cuts into pieces ends at its instant."""
    spawner.start([job_of(interval_s=3 * DAY_S)])
    loop.run_until(10 * DAY_S)
    assert offers.at == pytest.approx([0, 3 * DAY_S, 6 * DAY_S, 9 * DAY_S], abs=1e-6)
    assert all(at >= row.due for at, row in zip(offers.at, offers.rows, strict=True))


_steps = st.lists(st.tuples(st.booleans(), st.floats(0, 30)), max_size=12)


@profile(max_examples=60)
@given(st.lists(st.floats(0.05, 20), min_size=1, max_size=5), _steps)
def test_every_tick_is_offered_exactly_once_whatever_stalls(
    intervals: list[float], steps: list[tuple[bool, float]]
) -> None:
    """Rows of a job follow one another without gap or overlap, never early, and together with what `stop` returns
    they hold every tick that has come due.
    """
    with virtual_loop() as loop:
        offers = Offers(loop)
        spawner = Spawner(loop, Wall(), offers.take)
        jobs = [job_of(name=str(n), interval_s=interval) for n, interval in enumerate(intervals)]
        spawner.start(jobs)
        for stalled, seconds in steps:
            if stalled:
                loop.stall(seconds)
            else:
                loop.pass_time(seconds)
        assert all(at >= row.due for at, row in zip(offers.at, offers.rows, strict=True))
        rows: defaultdict[Job, list[Due]] = defaultdict(list)
        for row in [*offers.rows, *spawner.stop()]:
            rows[row.job].append(row)
        for job in jobs:
            ticks = [tick for row in rows[job] for tick in range(row.first, row.last + 1)]
            assert ticks == list(range(len(ticks)))
            assert isinstance(job.schedule, Every)
            assert job.schedule.due(len(ticks) - 1, 0) <= loop.time() < job.schedule.due(len(ticks), 0)
            assert all(row.due == job.schedule.due(row.last, 0) for row in rows[job])
