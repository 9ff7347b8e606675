"""Runs the benchmarks: ``python -m bench`` all of them, which writes RESULTS.md; ``--quick`` in a form for CI.

The quick form makes less of everything, two benchmarks at a time and without the peers. It fails only where a figure
that can be trusted on a busy machine is far from its goal, or from what was reached, and is so again when nothing else
runs.
"""

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import (
    cadence,
    counting,
    crowd,
    dispatch,
    drift,
    harness,
    idle,
    instructions,
    long_waits,
    precision,
    registry,
    sleepers,
    stalled_reader,
    start,
)
from bench.figures import Figure, rests, table
from bench.peers import environment

RESULTS = harness.ROOT / "bench" / "RESULTS.md"
Measure = Callable[[bool], list[Figure]]

#: In the order in which the results tell of them.
BENCHMARKS: dict[str, Measure] = {
    "dispatch": dispatch.measure,
    "instructions": instructions.measure,
    "cadence": cadence.measure,
    "crowd": crowd.measure,
    "precision": precision.measure,
    "long_waits": long_waits.measure,
    "stalled_reader": stalled_reader.measure,
    "drift": drift.measure,
    "registry": registry.measure,
    "sleepers": sleepers.measure,
    "start": start.measure,
    "idle": idle.measure,
}
#: What is not to share the machine, even in the quick form.
ALONE = ("dispatch", "cadence", "precision")

METHOD = """\
Every figure is taken beside its floor or rival in the same run: in turns, forwards and backwards, or all at the same
time where that disturbs nobody. Shown is the median of the rounds, and from where to where they go; ratios are taken
round by round. A program under measurement is a process of its own whose stdout is a pipe that is read, jobd as its
users start it (`jobd run MODULE`). CPU time is that of the process, all threads, user and system, between two ticks.
Lateness is noted by the job itself, in its first line: now minus the tick's instant. Instructions are those in user
space of some more ticks, counted once with {counter}, because they repeat to 1 %, and never while time is taken.

Goals that are ratios hold anywhere. Those in milliseconds and microseconds were set for a machine on which the bare
task and its callback took 2.2 us, and `clock_nanosleep` in C was 0.06 ms late; what both are here stands in `dispatch`
and in `precision`.\
"""


@dataclass(frozen=True)
class Outcome:
    """What came of a benchmark: figures, or the reason why not."""

    name: str
    figures: list[Figure]
    reason: str
    took_s: float
    load: float


def run(name: str, quick: bool) -> Outcome:
    """Run one of them; what goes wrong in it is told, and does not end the others."""
    begun, load = time.monotonic(), os.getloadavg()[0]
    figures, reason = [], ""
    try:
        figures = BENCHMARKS[name](quick)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    outcome = Outcome(name, figures, reason, time.monotonic() - begun, load)
    print(f"{name}, {outcome.took_s:.0f} s\n{_body(outcome)}\n", file=sys.stderr)
    return outcome


def quick(names: Sequence[str] = tuple(BENCHMARKS)) -> list[str]:
    """What is grossly worse than it should be."""
    outcomes = [_quickly(name) for name in names if name in ALONE]
    with ThreadPoolExecutor(2) as pool:
        outcomes += pool.map(_quickly, [name for name in names if name not in ALONE])
    again = [_quickly(each.name) for each in outcomes if _complaints(each)]
    return [complaint for outcome in again for complaint in _complaints(outcome)]


def _quickly(name: str) -> Outcome:
    return run(name, quick=True)


def _complaints(outcome: Outcome) -> list[str]:
    found = [f"{outcome.name}: {outcome.reason}"] if outcome.reason else []
    return found + [
        f"{outcome.name}: {figure.goal.what}\n{table([figure])}" for figure in outcome.figures if figure.gross
    ]


def page(outcomes: list[Outcome]) -> str:
    """The results, as Markdown."""
    figures = [figure for outcome in outcomes for figure in outcome.figures]
    return "\n\n".join(
        [
            "# What jobd costs, and how punctual it is",
            f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}, which took "
            f"{sum(each.took_s for each in outcomes) / 60:.0f} minutes. "
            f"{sum(figure.met for figure in figures)} of {len(figures)} goals are met.",
            "## Machine",
            _machine(),
            "## Method",
            METHOD.format(counter=counting.tool() or "nothing: there is neither perf nor valgrind here"),
            *(
                f"## {each.name}\n\n{_docstring(each.name)}\n\n{_body(each)}\n\n{_circumstances(each)}"
                for each in outcomes
            ),
            "",
        ]
    )


def _body(outcome: Outcome) -> str:
    if outcome.reason:
        return f"Could not be measured: {outcome.reason}"
    return f"{table(outcome.figures)}\n\n{rests(outcome.figures)}".rstrip()


def _docstring(name: str) -> str:
    return (sys.modules[BENCHMARKS[name].__module__].__doc__ or "").strip()


def _circumstances(outcome: Outcome) -> str:
    return f"`python bench/{outcome.name}.py`, {outcome.took_s:.0f} s; load when it began: {outcome.load:.1f}."


def _machine() -> str:
    cpu = next(
        (line.partition(": ")[2] for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    rows = {
        "CPU": f"{cpu}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        "jobd": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jobd", "structlog", "orjson")),
        "peers": ", ".join(
            f"{name} {version or '(could not be installed)'}" for name, version in environment.versions().items()
        ),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure jobd beside the floor of each figure."
    )
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller sizes, no peers; fails if far off")
    asked = parser.parse_args()
    harness.leave_nothing_behind()
    if asked.quick:
        complaints = quick(asked.names or tuple(BENCHMARKS))
        sys.exit("\n".join(complaints) if complaints else 0)
    environment.make()
    outcomes = [run(name, quick=False) for name in asked.names or BENCHMARKS]
    if not asked.names:
        RESULTS.write_text(page(outcomes))
    sys.exit(any(outcome.reason for outcome in outcomes))


if __name__ == "__main__":
    main()
