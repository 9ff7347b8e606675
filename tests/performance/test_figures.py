"""How figures are computed, held against goals and shown."""

from bench.figures import Figure, Goal, percentile, spread, table


def test_a_ratio_is_taken_round_by_round() -> None:
    """So that a slow round counts on both sides."""
    figure = Figure(Goal("cost", 2.0, "x"), [2.0, 20.0, 3.0], "us", [1.0, 10.0, 1.0])
    assert figure.compared(figure.taken) == [2.0, 2.0, 3.0]
    assert figure.value == 2.0
    assert figure.met


def test_more_is_a_difference_from_the_floor() -> None:
    """Where a ratio would mean nothing."""
    figure = Figure(Goal("stop", 20.0, "more"), [35.0], "ms", [10.0])
    assert figure.value == 25.0
    assert not figure.met


def test_a_value_is_held_as_it_is() -> None:
    """The floor only stands beside it."""
    assert Figure(Goal("lateness", 1.0, "ms"), [0.5], "ms", [0.1]).value == 0.5


def test_gross_is_what_exceeds_the_goal_by_its_factor() -> None:
    """Or what was reached, where that is more."""
    assert not Figure(Goal("cost", 2.0, "x", held=2), [4.0], "us", [1.0]).gross
    assert Figure(Goal("cost", 2.0, "x", held=2), [4.1], "us", [1.0]).gross
    assert not Figure(Goal("cost", 2.0, "x", held=2, reached=5.0), [9.0], "us", [1.0]).gross
    assert not Figure(Goal("cost", 2.0, "x"), [100.0], "us", [1.0]).gross


def test_a_machine_that_delays_the_floor_is_no_regression() -> None:
    """Of a value, as opposed to a ratio."""
    goal = Goal("lateness", 0.1, "ms", held=10)
    assert Figure(goal, [5.0], "ms", [0.1]).gross
    assert not Figure(goal, [5.0], "ms", [0.6]).gross


def test_percentile_is_one_of_the_values() -> None:
    """The nearest rank."""
    values = [float(value) for value in range(1, 201)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (100, 198, 200)
    assert percentile([1.0], 99) == 1.0


def test_spread_shows_the_median_and_the_range() -> None:
    """The range only if there is one."""
    assert spread([3.0, 1.0, 2.0], "ms") == "2 ms (1 .. 3)"
    assert spread([2.0, 2.0], "ms") == "2 ms"
    assert spread([12345.0]) == "12,345"


def test_the_table_has_a_row_for_each_goal_and_rival() -> None:
    """With the ratio to the floor."""
    figure = Figure(Goal("cost", 2.0, "x", floor="bare"), [2.0], "us", [1.0], {"other": [5.0]})
    assert table([figure]).splitlines()[2:] == [
        "| cost | 2 us | bare: 1 us | 2 x | <= 2 x | met |",
        "|  |  | other: 5 us | 5 x |  |  |",
    ]
