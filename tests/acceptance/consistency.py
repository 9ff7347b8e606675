"""What every log of jobd proves by itself, whatever happened. Knows the contract's page on the log, nothing else."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

Line = dict[str, Any]

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
LEVELS = {"debug", "info", "warning", "error", "critical"}

#: The fields that each event has beside the common three.
FIELDS = {
    "daemon.starting": {"version", "pid", "python"},
    "daemon.ready": {"jobs", "startup_s"},
    "run.started": {"job", "run_id", "tick", "scheduled_at", "lateness_s"},
    "run.retrying": {"job", "run_id", "attempt", "delay_s", "error"},
    "run.finished": {"job", "run_id", "tick", "outcome", "duration_s"},
    "tick.skipped": {"job", "tick", "count", "reason"},
    "shutdown.requested": {"signal", "running", "grace_period_s"},
    "shutdown.waiting": {"running", "runs", "remaining_s"},
    "shutdown.cancelling": {"running", "runs", "reason"},
    "shutdown.abandoned": {"job", "run_id", "age_s", "stack"},
    "job.blocking": {"job", "run_id", "blocked_s", "stack"},
    "job.output": {"job", "run_id", "stream", "line"},
    "daemon.reloaded": {"added", "changed", "removed"},
    "config.unknown": {"setting", "source", "nearest"},
    "config.invalid": {"setting", "value", "source", "reason"},
    "daemon.stopped": {"exit_code", "uptime_s", "shutdown_s", "runs"},
}

#: The level of each event where it is not `info`.
LEVEL_OF_EVENT = {
    "tick.skipped": "warning",
    "shutdown.cancelling": "warning",
    "shutdown.abandoned": "error",
    "job.blocking": "warning",
    "run.retrying": "warning",
    "config.unknown": "warning",
    "config.invalid": "error",
}
LEVEL_OF_OUTCOME = {
    "succeeded": "info", "cancelled": "warning", "failed": "error", "timed_out": "error", "abandoned": "error"
}  # fmt: skip
SKIP_REASONS = {"overlap", "max_running", "missed"}


def assert_consistent(lines: Sequence[Line]) -> None:
    """The whole log of a daemon that has ended keeps every promise of the contract."""
    for line in lines:
        assert_well_formed(line)
    assert_nothing_after_the_end(lines)
    assert_one_end_for_each_run(lines)
    assert_each_tick_once(lines)
    assert_no_start_after_stop_request(lines)
    assert_counts_are_true(lines)


def assert_well_formed(line: Line) -> None:
    """The line has the common fields, those of its event, and its event's level."""
    event = line["event"]
    assert TIMESTAMP.fullmatch(line["timestamp"]), line
    assert line["level"] in LEVELS, line
    missing = FIELDS.get(event, set()) - line.keys()
    assert not missing, f"{event} lacks {missing}: {line}"
    assert line["level"] == _level(line), line
    if event == "run.finished":
        assert line.get("attempts", 2) > 1, line
    if event == "run.finished" and line["outcome"] in ("failed", "timed_out"):
        assert line["error"].keys() == {"type", "message"}, line
        assert isinstance(line["traceback"], str), line
    if event == "tick.skipped":
        assert line["reason"] in SKIP_REASONS, line
        assert line["count"] >= 1, line


def assert_nothing_after_the_end(lines: Sequence[Line]) -> None:
    """`daemon.stopped` is there, once, as the last line."""
    places = [place for place, line in enumerate(lines) if line["event"] == "daemon.stopped"]
    assert places == [len(lines) - 1], [line["event"] for line in lines][-20:]


def assert_one_end_for_each_run(lines: Iterable[Line]) -> None:
    """Each `run.started` has exactly one `run.finished`, after it, which tells of the same job and tick."""
    open_runs: dict[str, Line] = {}
    seen: set[str] = set()
    for line in lines:
        if line["event"] == "run.started":
            assert line["run_id"] not in seen, f"started twice: {line}"
            seen.add(line["run_id"])
            open_runs[line["run_id"]] = line
        elif line["event"] == "run.finished":
            started = open_runs.pop(line["run_id"], None)
            assert started is not None, f"an end without a start, or a second end: {line}"
            assert (line["job"], line["tick"]) == (started["job"], started["tick"])
    assert not open_runs, f"no end: {open_runs}"


def assert_each_tick_once(lines: Iterable[Line]) -> None:
    """Of each job, each tick from 0 to the highest is in one `run.started` or inside one `tick.skipped`."""
    ticks: defaultdict[str, list[int]] = defaultdict(list)
    for line in lines:
        if line["event"] == "run.started":
            ticks[line["job"]].append(line["tick"])
        elif line["event"] == "tick.skipped":
            ticks[line["job"]] += range(line["tick"], line["tick"] + line["count"])
    for job, seen in ticks.items():
        assert sorted(seen) == list(range(max(seen) + 1)), f"ticks of {job}: {sorted(seen)}"


def assert_no_start_after_stop_request(lines: Sequence[Line]) -> None:
    """No run starts once the stop has been asked for, and that is told once."""
    events = [line["event"] for line in lines]
    assert events.count("shutdown.requested") <= 1
    if "shutdown.requested" in events:
        assert "run.started" not in events[events.index("shutdown.requested") :]


def assert_counts_are_true(lines: Sequence[Line]) -> None:
    """What `daemon.stopped` counts is what the log tells, run by run."""
    outcomes = Counter(line["outcome"] for line in lines if line["event"] == "run.finished")
    counted = {outcome: count for outcome, count in lines[-1]["runs"].items() if count}
    assert counted == dict(outcomes)


def _level(line: Line) -> str:
    event = line["event"]
    if event == "run.finished":
        return LEVEL_OF_OUTCOME[line["outcome"]]
    return LEVEL_OF_EVENT.get(event, "info") if event in FIELDS else str(line["level"])
