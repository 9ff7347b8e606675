"""The judge of the rounds finds what is wrong, and nothing else."""

import json
from collections.abc import Callable
from dataclasses import replace
from signal import SIGTERM
from typing import Any

import pytest

from .expectation import expectation
from .plan import Anchor, Pause, Plan, Reader, Send, Start, Step
from .round import Seen
from .verdict import complaints

PLAN = Plan(
    seed=0,
    jobs=(("beats", "100ms"), ("raises", "1")),
    importing="quick",
    settings={"JOBD_GRACE_PERIOD": "1", "JOBD_CANCEL_TIMEOUT": "1", "JOBD_INTERVAL": "1", "JOBD_LOG_LEVEL": "info"},
    reader=Reader.READS,
    reader_after_s=0,
    start=Start(),
    anchor=Anchor.RUNNING,
    steps=(Step(0.05, Send(())),),
)


def line(event: str, second: float = 0, level: str = "info", **fields: Any) -> dict[str, Any]:
    """A line of a log."""
    return {"timestamp": f"2026-01-01T00:00:{second:09.6f}Z", "level": level, "event": event, **fields}


def run(number: int, second: float, outcome: str = "succeeded", job: str = "beats") -> list[dict[str, Any]]:
    """The lines of a run of this tick."""
    known: dict[str, Any] = {"job": job, "run_id": f"{job}-{number}", "tick": number}
    level = {"succeeded": "info", "failed": "error", "cancelled": "warning", "abandoned": "error"}[outcome]
    failure: dict[str, Any] = {"error": {"type": "E", "message": ""}, "traceback": ""} if outcome == "failed" else {}
    return [
        line("run.started", second, **known, scheduled_at="", lateness_s=0),
        line("run.finished", second, level, **known, outcome=outcome, duration_s=0, **failure),
    ]


def log(*runs: list[dict[str, Any]], end_s: float = 0.2, exit_code: int = 0, **counts: int) -> list[dict[str, Any]]:
    """A log with these runs."""
    return [
        line("daemon.starting", version="", pid=1, python=""),
        line("daemon.ready", jobs=1, startup_s=0),
        *(each for lines in runs for each in lines),
        line("shutdown.requested", end_s, signal="SIGTERM", running=0, grace_period_s=1),
        line("daemon.stopped", end_s, exit_code=exit_code, uptime_s=1, shutdown_s=0, runs=counts),
    ]


def written(lines: list[dict[str, Any]]) -> bytes:
    """The log as it comes."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


GOOD = Seen(exit_code=0, stop_at=100, ended_at=100.5, log=written(log(run(0, 0), run(1, 0.1), succeeded=2)))


def found(seen: Seen, plan: Plan = PLAN) -> list[str]:
    """What is wrong with a round."""
    return complaints(plan, expectation(plan), seen)


def test_a_round_that_went_well_is_good() -> None:
    """Nothing is wrong with it."""
    assert found(GOOD) == []


@pytest.mark.parametrize(
    ("spoilt", "complaint"),
    [
        (lambda: replace(GOOD, exit_code=3), "exit code 3, expected"),
        (lambda: replace(GOOD, exit_code=-9), "exit code -9"),
        (lambda: replace(GOOD, exit_code=None), "still there"),
        (lambda: replace(GOOD, stop_at=None), "before it was asked"),
        (lambda: replace(GOOD, ended_at=105), "took 5.00 s"),
        (lambda: replace(GOOD, deaf_to=["SIGTERM"]), "deaf to SIGTERM"),
        (lambda: replace(GOOD, stderr=b"Traceback"), "on stderr"),
        (lambda: replace(GOOD, stderr=b'  File "x", line 1 in f\n'), "on stderr"),
        (lambda: replace(GOOD, left=["sleep"]), "left behind"),
        (lambda: replace(GOOD, detached=["sleep"]), "session of its own"),
        (lambda: replace(GOOD, log=b"junk\n" + GOOD.log), "no JSON lines"),
        (lambda: replace(GOOD, log=GOOD.log + b'{"event'), "no JSON lines"),
        (lambda: replace(GOOD, log=b""), "log: "),
        (lambda: replace(GOOD, log=GOOD.log.rpartition(b"{")[0]), "log: "),
        (lambda: with_log(run(0, 0), run(0, 0), succeeded=2), "started twice"),
        (lambda: with_log(run(0, 0)[:1]), "no end"),
        (lambda: with_log(run(0, 0, "failed"), failed=1), "beats failed"),
        (lambda: with_log(run(0, 0, "cancelled"), cancelled=1), "nobody has told"),
        (lambda: with_log(run(0, 0, "abandoned"), abandoned=1), "beats abandoned"),
        (lambda: with_log(run(0, 0), exit_code=3, succeeded=1), "the log tells exit code 3"),
        (lambda: with_log(run(0, 0, job="raises"), succeeded=1), "raises succeeded"),
        (lambda: with_log(run(0, 0), end_s=4, succeeded=1), "ticks of beats"),
        (lambda: with_log(run(0, 0), *skipped(1, 40), end_s=4, succeeded=1), "beats not started for 4.00 s"),
        (lambda: with_log(*(run(n, 0) for n in range(40)), succeeded=40), "40 ticks of beats"),
    ],
)
def test_what_is_wrong_is_found(spoilt: Callable[[], Seen], complaint: str) -> None:
    """Each thing that no daemon may do, alone."""
    assert complaint in "; ".join(found(spoilt()))


def test_what_the_plan_excuses_is_excused() -> None:
    """A reader that went away, a job that refuses to end, a job that leaves a session."""
    gone = replace(PLAN, reader=Reader.LEAVES)
    assert found(replace(GOOD, log=GOOD.log[:-20]), gone) == []
    stubborn = replace(PLAN, jobs=(("swallows_cancellation", "1"),))
    abandoned = log(run(0, 0, "abandoned", "swallows_cancellation"), exit_code=3, abandoned=1)
    assert found(replace(GOOD, exit_code=3, log=written(abandoned)), stubborn) == []
    detaching = replace(PLAN, jobs=(*PLAN.jobs, ("detaches_a_grandchild", "1h")))
    assert found(replace(GOOD, detached=["orphan (jobd run)"]), detaching) == []
    assert found(replace(GOOD, detached=["jobd (jobd run)"]), detaching) != []


def test_only_a_suspension_that_may_last_for_the_rest_of_the_stop_excuses_the_fence() -> None:
    """A short one does not, and one from before the stop does not either."""
    stop, short, long = Step(0.1, Send((SIGTERM,))), Step(0.1, Pause(0.2)), Step(0.1, Pause(1.8))
    for steps, excused in {(stop, long): True, (stop, short): False, (long, stop): False}.items():
        plan = replace(PLAN, steps=steps)
        fenced = replace(GOOD, exit_code=1, log=GOOD.log.rpartition(b'{"timestamp')[0], stderr=b"Timeout (0:00:01)!\n")
        assert (found(fenced, plan) == []) == excused


def with_log(*runs: list[dict[str, Any]], **parts: Any) -> Seen:
    """The good round, with another log."""
    return replace(GOOD, log=written(log(*runs, **parts)))


def skipped(first: int, count: int) -> list[list[dict[str, Any]]]:
    """A line about ticks without a run."""
    return [[line("tick.skipped", 3, "warning", job="beats", tick=first, count=count, reason="missed")]]
