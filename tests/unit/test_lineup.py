"""The lineup: lines come in the order of what is due, those that are due together in the order of their jobs."""

import math
from heapq import heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.job import Due
from jobd.line import Line, Steady
from jobd.lineup import Lineup

from .helpers import job_of
from .virtual import Wall

INTERVALS = st.lists(st.sampled_from([1, 1, 2, 3, 0.5]), min_size=1, max_size=6)


def lines_of(intervals: list[float]) -> list[Line]:
    """A line for each, whose job is named by its place among them; all begin at 0."""
    wall = Wall()
    return [Steady(job_of(name=str(order), interval_s=interval), 0.0, wall) for order, interval in enumerate(intervals)]


def taken(rows: list[Due]) -> list[tuple[float, int]]:
    """When each row was due, and whose it is."""
    assert all(row.first == row.last for row in rows)
    return [(row.due, int(row.job.name)) for row in rows]


def due_until(instant: float, intervals: list[float]) -> list[tuple[float, int]]:
    """What is due by then, in the order in which it should come."""
    return sorted(
        (tick * interval, order)
        for order, interval in enumerate(intervals)
        for tick in range(math.floor(instant / interval) + 1)
    )


@given(INTERVALS, st.integers(1, 7))
def test_lines_come_in_the_order_of_time_and_of_their_jobs(intervals: list[float], most: int) -> None:
    """However few are taken at once, and whichever fall together."""
    lined_up = Lineup(lines_of(intervals))
    rows: list[Due] = []
    for half_seconds in range(13):
        while lined_up.next_due <= half_seconds / 2:
            batch: list[Due] = []
            lined_up.take_due(half_seconds / 2, batch, most)
            assert 1 <= len(batch) <= most
            rows += batch
    assert taken(rows) == due_until(6, intervals)


def test_nobody_is_never_due() -> None:
    """And there is nothing to take."""
    rows: list[Due] = []
    nobody = Lineup(())
    nobody.take_due(1e9, rows, math.inf)
    assert (nobody.next_due, rows) == (math.inf, [])


def test_those_left_over_are_due_at_once() -> None:
    """Where more are due together than were wanted, the others wait for no instant."""
    rows: list[Due] = []
    lined_up = Lineup(lines_of([1, 1, 1]))
    lined_up.take_due(0.0, rows, 2)
    assert lined_up.next_due <= 0
    lined_up.take_due(0.0, rows, math.inf)
    assert taken(rows) == [(0, 0), (0, 1), (0, 2)]
    assert lined_up.next_due == 1


@given(INTERVALS, st.lists(st.integers(0, 40), max_size=8))
def test_memory_that_is_lacking_loses_no_line(intervals: list[float], failures: list[int]) -> None:
    """Whichever calls that take memory fail: what was not taken is taken the next time, and nothing twice."""
    calls = iter(range(10_000))

    def push(heap: list[float], instant: float) -> None:
        if next(calls) in failures:
            raise MemoryError
        heappush(heap, instant)

    rows: list[Due] = []
    lined_up = Lineup(lines_of(intervals))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobd.lineup.heappush", push)
        for half_seconds in range(13):
            while lined_up.next_due <= half_seconds / 2:
                try:
                    lined_up.take_due(half_seconds / 2, rows, math.inf)
                except MemoryError:
                    pass
    assert taken(rows) == due_until(6, intervals)
