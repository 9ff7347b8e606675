"""Goals, what was measured for them, and how both are shown. Imports the standard library only."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Goal:
    """What a figure should be: in the unit ``x`` a ratio to the floor, in ``more`` a difference from it."""

    what: str
    at_most: float
    unit: str
    floor: str = ""
    #: What was reached where the goal was not, so that the quick form can tell when it gets worse.
    reached: float | None = None
    #: How many times that the quick form lets pass, on a machine that is busy with other things; None if anything.
    held: float | None = None
    #: Where the goal is not met: what it is spent on, and what the rest would cost.
    rest: str = ""


@dataclass(frozen=True)
class Figure:
    """What was measured for a goal, round by round; the floor likewise, and rivals by their names."""

    goal: Goal
    taken: Sequence[float]
    #: Of what was measured.
    unit: str = ""
    floor: Sequence[float] = ()
    rivals: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """What is held against the goal."""
        return median(self.compared(self.taken))

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        return self.value <= self.goal.at_most

    @property
    def gross(self) -> bool:
        """Whether something has gone badly wrong, not just the machine been busy, which the floor would show, too."""
        goal = self.goal
        if goal.held is None:
            return False
        limit = goal.held * max(goal.at_most, goal.reached or 0.0)
        if self.floor and goal.unit != "x":
            limit = max(limit, goal.held * median(self.floor))
        return self.value > limit

    def compared(self, taken: Sequence[float]) -> list[float]:
        """To the floor, round by round, as the goal's unit says."""
        if self.goal.unit == "x":
            return [one / other for one, other in zip(taken, self.floor, strict=True)]
        if self.floor and self.goal.unit == "more":
            return [one - other for one, other in zip(taken, self.floor, strict=True)]
        return list(taken)


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many percent of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def spread(values: Sequence[float], unit: str = "") -> str:
    """The median, and from where to where the rounds go."""
    shown = [
        f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}" for value in (median(values), min(values), max(values))
    ]
    return f"{shown[0]} {unit}".strip() + (f" ({shown[1]} .. {shown[2]})" if len(set(values)) > 1 else "")


def table(figures: Sequence[Figure]) -> str:
    """The figures as a table of Markdown."""
    rows = ["| what | jobd | floor or rival | ratio | goal | |", "|---|---|---|---|---|---|"]
    for figure in figures:
        rows += _rows(figure)
    return "\n".join(rows)


def rests(figures: Sequence[Figure]) -> str:
    """What is to be said of the goals that are not met."""
    return "\n".join(
        f"- **{figure.goal.what}:** {figure.goal.rest}" for figure in figures if figure.goal.rest and not figure.met
    )


def _rows(figure: Figure) -> list[str]:
    goal = figure.goal
    floor = f"{goal.floor}: {spread(figure.floor, figure.unit)}" if figure.floor else goal.floor
    limit = f"<= {goal.at_most:g} {figure.unit + ' ' if goal.unit == 'more' else ''}{goal.unit}"
    row = [goal.what, spread(figure.taken, figure.unit), floor, _ratio(figure, figure.taken), limit]
    rows = [[*row, "met" if figure.met else "**not met**"]]
    for name, taken in figure.rivals.items():
        rows.append(["", "", f"{name}: {spread(taken, figure.unit)}", _ratio(figure, taken), "", ""])
    return [f"| {' | '.join(row)} |" for row in rows]


def _ratio(figure: Figure, taken: Sequence[float]) -> str:
    if not figure.floor or not all(figure.floor):
        return ""
    return spread([one / other for one, other in zip(taken, figure.floor, strict=True)], "x")
