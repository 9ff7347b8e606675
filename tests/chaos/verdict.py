"""What is wrong with a round: what was seen of it against what its plan lets expect. Excuses nothing by itself."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from acceptance.consistency import (
    Line,
    assert_consistent,
    assert_no_start_after_stop_request,
    assert_well_formed,
)
from acceptance.harness import SLACK_S, parsed

from jobd import durations

from .expectation import Expectation, Log
from .jobs import SAYS
from .plan import Plan
from .round import Seen

#: How long a job with an interval of 100 ms may not be started on a machine that does much else.
BEATS_WITHIN_S = 2.5
#: By how much the count of ticks may be off the clock: what lies between two lines of the log on a busy machine.
TICKS_SLACK_S = 1.5
#: What faulthandler prints.
DUMP = re.compile(
    r"""Fatal\ Python\ error:.* | Timeout\ \(.*\)! | (Current\ )?[Tt]hread\ 0x[0-9a-f]+.* | \ \ File\ ".*
    | \ \ <no\ Python\ frame> | \ \ Garbage-collecting | \ \ \.\.\.
    | Extension\ modules:.* | \.\.\. | Python\ runtime\ state:.* | \s*""",
    re.VERBOSE,
)

#: What jobs, and shells that they start, print.
PRINTED = re.compile(rf".*{SAYS}.*|Terminated|Killed")


def complaints(plan: Plan, expected: Expectation, seen: Seen) -> list[str]:
    """Everything that is wrong; nothing, if the round went as it must."""
    lines, garbage = _parsed(seen.log)
    return [
        *_end(plan, expected, seen),
        *_stderr(expected, seen),
        *_leftovers(expected, seen),
        *_torn(expected, seen, garbage),
        *_log(plan, expected, seen, lines),
    ]


def _end(plan: Plan, expected: Expectation, seen: Seen) -> Iterator[str]:
    yield from (f"deaf to {name}" for name in seen.deaf_to)
    if seen.exit_code is None:
        yield f"still there long after the time bound of {plan.bound_s:g} s"
        return
    if seen.exit_code not in expected.exits:
        yield f"exit code {seen.exit_code}, expected one of {sorted(expected.exits)}"
    if seen.stop_at is None:
        if not expected.ends_by_itself:
            yield "ended before it was asked to"
        return
    took_s = seen.ended_at - seen.stop_at - seen.suspended_s
    if took_s > plan.bound_s + SLACK_S:
        yield f"took {took_s:.2f} s to stop, and the time bound is {plan.bound_s:g} s"


def _stderr(expected: Expectation, seen: Seen) -> Iterator[str]:
    junk = seen.stderr.decode("utf-8", "backslashreplace").splitlines()
    if expected.may_dump_stacks:
        junk = [line for line in junk if not DUMP.fullmatch(line)]
    if expected.may_show_last_words:
        junk = [line for line in junk if not PRINTED.fullmatch(line)]
    if junk:
        yield f"on stderr: {junk[:5]}"


def _leftovers(expected: Expectation, seen: Seen) -> Iterator[str]:
    if expected.may_leave_children:
        return
    left = [one for one in seen.left if not one.startswith(expected.may_leave)]
    detached = [one for one in seen.detached if not one.startswith(expected.may_leave)]
    if left:
        yield f"left behind: {left}"
    if detached:
        yield f"left behind, in a session of its own: {detached}"


def _torn(expected: Expectation, seen: Seen, garbage: list[bytes]) -> Iterator[str]:
    """Every line is whole, apart from one that meets the end of the process or of its reader."""
    if garbage and expected.last_line_may_be_torn and not seen.log.endswith(b"\n"):
        garbage = garbage[:-1]
    if garbage:
        yield f"no JSON lines: {[line[:200] for line in garbage[:3]]}"


def _log(plan: Plan, expected: Expectation, seen: Seen, lines: list[Line]) -> Iterator[str]:
    if expected.log is Log.NONE:
        return
    whole = expected.log is Log.WHOLE and seen.exit_code is not None and not _has_dropped(lines)
    checks: list[Callable[[], Iterator[str]]] = [
        lambda: _asserted(assert_consistent if whole else _assert_true, lines),
        lambda: _exit_code_is_told(expected, seen, lines),
        lambda: _outcomes(expected, lines),
    ]
    if whole and plan.runs:
        checks += [lambda: _ticks(plan, lines), lambda: _beats(expected, lines)]
    for check in checks:
        yield from check()


def _asserted(check: Callable[[Sequence[Line]], None], lines: Sequence[Line]) -> Iterator[str]:
    try:
        check(lines)
    except AssertionError as error:
        yield f"log: {check.__name__}: {str(error).splitlines()[0][-300:]}"
    except (LookupError, TypeError) as error:
        yield f"log: {check.__name__}: {error!r}"


def _assert_true(lines: Sequence[Line]) -> None:
    """What holds even where lines are missing."""
    for line in lines:
        assert_well_formed(line)
    assert_no_start_after_stop_request(lines)
    stopped = [place for place, line in enumerate(lines) if line["event"] == "daemon.stopped"]
    assert stopped in ([], [len(lines) - 1]), "something after daemon.stopped"
    for event in ("run.started", "run.finished"):
        runs = [line["run_id"] for line in lines if line["event"] == event]
        assert len(runs) == len(set(runs)), f"two {event} of one run"


def _exit_code_is_told(expected: Expectation, seen: Seen, lines: list[Line]) -> Iterator[str]:
    stopped = [line for line in lines if line["event"] == "daemon.stopped"]
    if not stopped or (expected.may_be_cut_off and seen.exit_code not in (0, 3)):
        return
    if stopped[-1]["exit_code"] != seen.exit_code:
        yield f"the log tells exit code {stopped[-1]['exit_code']}, it was {seen.exit_code}"
    if seen.exit_code in (0, 3) and (seen.exit_code == 3) != bool(stopped[-1]["runs"].get("abandoned")):
        yield f"exit code {seen.exit_code}, with {stopped[-1]['runs']}"


def _outcomes(expected: Expectation, lines: list[Line]) -> Iterator[str]:
    cancelling = False
    for line in lines:
        cancelling |= line["event"] == "shutdown.cancelling" or (
            line["event"] == "run.finished" and line["outcome"] == "abandoned"
        )
        if line["event"] != "run.finished":
            continue
        job, outcome = line["job"], line["outcome"]
        if outcome in ("cancelled", "abandoned"):
            told = cancelling or outcome in expected.ends[job]  # by the job's own policies
            if outcome == "cancelled" and not told and expected.log is Log.WHOLE:
                yield f"{job} cancelled, and nobody has told so"
            if outcome == "abandoned" and job not in expected.may_be_abandoned:
                yield f"{job} abandoned"
        elif outcome not in expected.ends[job]:
            yield f"{job} {outcome}: {line.get('error')}"


def _ticks(plan: Plan, lines: list[Line]) -> Iterator[str]:
    """Every tick that came due before the stop is accounted for, and no other."""
    begin, end = _instant(lines, "daemon.ready"), _instant(lines, "shutdown.requested")
    if begin is None or end is None:
        return
    for name, interval in plan.jobs:
        interval_s = durations.parse(interval or plan.settings["JOBD_INTERVAL"])
        counted = sum(
            1 if line["event"] == "run.started" else line["count"]
            for line in lines
            if line["event"] in ("run.started", "tick.skipped") and line["job"] == name
        )
        due_s = end - begin
        if not (due_s - TICKS_SLACK_S) / interval_s <= counted <= (due_s + TICKS_SLACK_S) / interval_s + 1:
            yield f"{counted} ticks of {name}, every {interval_s:g} s for {due_s:.2f} s"


def _beats(expected: Expectation, lines: list[Line]) -> Iterator[str]:
    """Jobs that nobody hinders are started all the time, until the stop."""
    begin, end = _instant(lines, "daemon.ready"), _instant(lines, "shutdown.requested")
    if begin is None or end is None:
        return
    for name in expected.beating:
        started = [_seconds(line) for line in lines if line["event"] == "run.started" and line["job"] == name]
        gap = max(later - earlier for earlier, later in pairwise([begin, *started, end]))
        if gap > BEATS_WITHIN_S:
            yield f"{name} not started for {gap:.2f} s"


def _parsed(log: bytes) -> tuple[list[Line], list[bytes]]:
    lines: list[Line] = []
    garbage: list[bytes] = []
    for raw in io.BytesIO(log):
        try:
            lines.append(parsed(raw))
        except ValueError:
            garbage.append(raw)
    return lines, garbage


def _has_dropped(lines: list[Line]) -> bool:
    return any(line["event"] == "log.dropped" for line in lines)


def _instant(lines: list[Line], event: str) -> float | None:
    return next((_seconds(line) for line in lines if line["event"] == event), None)


def _seconds(line: Line) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()
