"""The lineup: lines come in the order of what is due, those that are due together in the order of their jobs."""

import math
from collections import deque
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.job import Due
from jobd.line import Line, Steady
from jobd.lineup import Lineup

from .helpers import job_of, python
from .virtual import Wall

INTERVALS = st.lists(st.sampled_from([1, 1, 2, 3, 0.5]), min_size=1, max_size=6)


def lines_of(intervals: list[float]) -> list[Line]:
    """A line for each, whose job is named by its place among them; all begin at 0."""
    wall = Wall()
    return [Steady(job_of(name=str(order), interval_s=interval), 0.0, wall) for order, interval in enumerate(intervals)]


def taken(rows: Iterable[Due]) -> list[tuple[float, int]]:
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
    rows: deque[Due] = deque()
    for half_seconds in range(13):
        while lined_up.next_due <= half_seconds / 2:
            batch: deque[Due] = deque()
            lined_up.take_due(half_seconds / 2, batch, most)
            assert 1 <= len(batch) <= most
            rows += batch
    assert taken(rows) == due_until(6, intervals)


def test_nobody_is_never_due() -> None:
    """And there is nothing to take."""
    rows: deque[Due] = deque()
    nobody = Lineup(())
    nobody.take_due(1e9, rows, math.inf)
    assert (nobody.next_due, rows) == (math.inf, deque())


def test_those_left_over_are_due_at_once() -> None:
    """Where more are due together than were wanted, the others wait for no instant."""
    rows: deque[Due] = deque()
    lined_up = Lineup(lines_of([1, 1, 1]))
    lined_up.take_due(0.0, rows, 2)
    assert lined_up.next_due <= 0
    lined_up.take_due(0.0, rows, math.inf)
    assert taken(rows) == [(0, 0), (0, 1), (0, 2)]
    assert lined_up.next_due == 1


def test_memory_may_run_out_at_any_allocation() -> None:
    """Whichever allocation of CPython's fails, and the two after it: each line is taken once at each instant."""
    pytest.importorskip("_testcapi", reason="this Python cannot be asked to have no memory")
    wrong = python("""
        from collections import deque
        import _testcapi
        from jobd.clock import Clock
        from jobd.job import Job, Kind
        from jobd.line import Steady
        from jobd.lineup import Lineup
        from jobd.schedule import Every

        wall = Clock()
        intervals = [1, 2, 1, 3, 2, 0.5]
        due = sorted((n * each, str(job)) for job, each in enumerate(intervals) for n in range(int(300 / each)))

        def taken(first, count):
            rows, instant = deque(), 0.0
            lined_up = Lineup(
                Steady(Job(str(order), Every(each), print, Kind.FUNCTION, ""), 0.0, wall)
                for order, each in enumerate(intervals)
            )
            _testcapi.set_nomemory(first, first + count)
            while instant < 300:
                try:
                    lined_up.take_due(instant, rows, 100_000)
                    instant += 0.5
                except MemoryError:
                    pass
            _testcapi.remove_mem_hooks()
            assert all(row.first == row.last for row in rows)
            return [(row.due, row.job.name) for row in rows]

        for count in (1, 3):
            for first in [*range(200), *range(5000, 5200)]:
                if taken(first, count) != due:
                    print(first, count)
    """)
    assert wrong == ""
