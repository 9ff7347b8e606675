"""Schedules and policies, by the clock on the wall: what the log tells of ticks, overlaps, timeouts and attempts."""

import os
from datetime import timedelta
from itertools import pairwise
from signal import SIGCONT, SIGSTOP, SIGTERM, sigtimedwait

import pytest

from .conftest import Launcher
from .consistency import Line
from .harness import Daemon, instant

#: For schedules that cannot be quicker than a second.
LONG_S = 60.0


def scheduled(daemon: Daemon, job: str) -> list[float]:
    """The instants of the ticks that have been started, in seconds since the epoch."""
    return [instant(line, "scheduled_at").timestamp() for line in daemon.events("run.started", job=job)]


def assert_one_at_a_time(daemon: Daemon, job: str) -> None:
    """No run of the job has started before the one before it had ended."""
    events = [line["event"] for line in daemon.lines if line.get("job") == job and line["event"].startswith("run.")]
    assert events == ["run.started", "run.finished"] * (len(events) // 2)


def ends_well(daemon: Daemon) -> None:
    """The daemon stops with 0, on time, and its log is whole."""
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_anchor_clock(launch: Launcher) -> None:
    """Ticks lie at whole multiples of the interval since the epoch, after the next start too; tick 0 is the first."""
    for _ in range(2):
        daemon = launch("@every('0.4', anchor='clock')\nasync def job(): pass")
        daemon.wait_for("run.finished", count=4)
        ends_well(daemon)
        started = daemon.events("run.started")
        multiples = [instant(line, "scheduled_at").timestamp() * 1e6 / 400_000 for line in started]
        assert all(abs(each - round(each)) < 1e-4 for each in multiples), multiples
        assert len({round(each) - line["tick"] for each, line in zip(multiples, started, strict=True)}) == 1
        assert instant(started[0], "scheduled_at") > instant(daemon.events("daemon.starting")[0])


def test_cron_each_second(launch: Launcher) -> None:
    """With six fields the first is the seconds; each whole second has its tick, and none comes early."""
    daemon = launch("from jobd import cron\n@cron('* * * * * *')\nasync def job(): pass")
    daemon.wait_for("run.finished", count=4, timeout=LONG_S)
    ends_well(daemon)
    for line in daemon.events("run.started"):
        assert instant(line, "scheduled_at").microsecond == 0
        assert instant(line) >= instant(line, "scheduled_at")
    started = daemon.events("run.started")
    offsets = [instant(line, "scheduled_at") - timedelta(seconds=line["tick"]) for line in started]
    assert len(set(offsets)) == 1


def test_cron_every_other_second(launch: Launcher) -> None:
    """A step means seconds that it divides."""
    daemon = launch("from jobd import cron\n@cron('*/2 * * * * *', timezone='Asia/Tokyo')\ndef job(): pass")
    daemon.wait_for("run.finished", count=2, timeout=LONG_S)
    ends_well(daemon)
    assert all(at % 2 == 0 for at in scheduled(daemon, "job"))


def test_overlap_skip(launch: Launcher) -> None:
    """While a run is in flight the ticks that come are skipped, each once, with the reason; then it goes on."""
    daemon = launch("@every('0.2', overlap='skip')\nasync def job(): await asyncio.sleep(0.7)")
    daemon.wait_for("run.finished", count=3, outcome="succeeded")
    ends_well(daemon)
    assert_one_at_a_time(daemon, "job")
    skipped = daemon.events("tick.skipped", job="job", reason="overlap")
    assert len(skipped) >= 3
    assert set(daemon.outcomes()) <= {"succeeded", "cancelled"}


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("async def job(): await asyncio.sleep(600)", "cancelled"),
        ("def job(): current_run().stopping.wait(600)", "succeeded"),
    ],
    ids=["coroutine", "function"],
)
def test_overlap_replace(launch: Launcher, body: str, outcome: str) -> None:
    """The next tick ends the run in flight, and starts when that has ended: there are never two."""
    daemon = launch(f"@every('0.4', overlap='replace')\n{body}", JOBD_GRACE_PERIOD="0.2")
    daemon.wait_for("run.finished", count=3, outcome=outcome)
    daemon.wait_for("run.started", count=4)
    ends_well(daemon)
    assert_one_at_a_time(daemon, "job")
    assert set(daemon.outcomes()) == {outcome}


def test_replace_waits_for_what_cannot_be_interrupted(launch: Launcher) -> None:
    """The newest tick waits, and those before it are skipped."""
    daemon = launch("@every('0.2', overlap='replace')\ndef job(): time.sleep(1)", JOBD_GRACE_PERIOD="3")
    daemon.wait_for("run.finished", count=3)
    ends_well(daemon)
    assert_one_at_a_time(daemon, "job")
    assert len(daemon.events("tick.skipped", reason="overlap")) >= 2


def test_max_running(launch: Launcher) -> None:
    """Of one job; a tick beyond is skipped with that reason."""
    daemon = launch("@every('0.2', max_running=2)\nasync def job(): await asyncio.sleep(600)", JOBD_GRACE_PERIOD="0.2")
    daemon.wait_for("tick.skipped", reason="max_running", count=2)
    ends_well(daemon)
    assert daemon.outcomes() == ["cancelled", "cancelled"]
    assert len(daemon.events("run.started")) == 2


@pytest.mark.parametrize(
    ("body", "least_s"),
    [
        ("async def job(): await asyncio.sleep(600)", 0.5),
        ("def job(): current_run().stopping.wait(600)", 0.5),
        ("def job(): time.sleep(1.2)", 1.2),
        ("async def job():\n    try: await asyncio.sleep(600)\n    except asyncio.CancelledError: pass", 0.5),
    ],
    ids=["coroutine", "function", "a function that does not look", "a coroutine that swallows it"],
)
def test_timeout(launch: Launcher, body: str, least_s: float) -> None:
    """What takes too long is timed out, and its end comes when it has really ended."""
    daemon = launch(f"@every('1h', timeout='500ms')\n{body}")
    finished = daemon.wait_for("run.finished")
    assert finished["outcome"] == "timed_out"
    assert finished["duration_s"] >= least_s
    ends_well(daemon)


def test_timeout_that_is_not_reached(launch: Launcher) -> None:
    """It changes nothing."""
    daemon = launch(
        "@every('0.2', timeout='30s')\nasync def job(): pass\n@every('0.2', timeout='30s')\ndef other(): pass"
    )
    for job in ("job", "other"):
        daemon.wait_for("run.finished", job=job, count=3, outcome="succeeded")
    ends_well(daemon)
    assert set(daemon.outcomes()) == {"succeeded"}


@pytest.mark.parametrize("kind", ["async def", "def"], ids=["coroutine", "function"])
def test_retries_with_backoff(launch: Launcher, kind: str) -> None:
    """One run with three attempts; each wait is twice as long as the one before, up to half of it taken off."""
    daemon = launch(
        f"@every('1h', retries=5, backoff='0.4s')\n{kind} job():\n"
        "    log.info('attempt', number=current_run().attempt)\n"
        "    if current_run().attempt < 3: raise ConnectionError('not yet')"
    )
    finished = daemon.wait_for("run.finished")
    ends_well(daemon)
    assert (finished["outcome"], finished["attempts"]) == ("succeeded", 3)
    assert len(daemon.events("run.started")) == 1
    retrying = daemon.events("run.retrying", run_id=finished["run_id"])
    assert [line["attempt"] for line in retrying] == [1, 2]
    assert {line["error"]["message"] for line in retrying} == {"not yet"}
    for line, longest_s in zip(retrying, (0.4, 0.8), strict=True):
        assert longest_s / 2 <= line["delay_s"] <= longest_s
    attempts = daemon.events("attempt")
    assert [line["number"] for line in attempts] == [1, 2, 3]
    for line, after in zip(retrying, attempts[1:], strict=True):
        assert (instant(after) - instant(line)).total_seconds() >= line["delay_s"] - 0.05


def test_an_attempt_that_falls_due_while_the_plane_is_held_is_made_once(launch: Launcher) -> None:
    """However long another job holds it."""
    daemon = launch(
        "@every('1h', retries=1, backoff='0.2s')\nasync def job():\n"
        "    log.info('attempt', number=current_run().attempt)\n"
        "    if current_run().attempt == 1: raise ConnectionError('not yet')",
        beside="@every('1h')\nasync def holds():\n    await asyncio.sleep(0.05)\n    time.sleep(3)",
    )
    finished = daemon.wait_for("run.finished", job="job")
    daemon.wait_for("run.finished", job="holds")
    ends_well(daemon)
    assert (finished["outcome"], finished["attempts"]) == ("succeeded", 2)
    assert [line["number"] for line in daemon.events("attempt")] == [1, 2]


def test_retries_come_to_an_end(launch: Launcher) -> None:
    """Then the run has failed, or timed out, whatever its last attempt has."""
    daemon = launch(
        "@every('1h', retries=2, backoff='50ms')\ndef fails(): raise ValueError('never')",
        beside="@every('1h', retries=1, backoff='50ms', timeout='0.3s')\nasync def hangs(): await asyncio.sleep(600)",
    )
    fails = daemon.wait_for("run.finished", job="fails")
    hangs = daemon.wait_for("run.finished", job="hangs")
    ends_well(daemon)
    assert (fails["outcome"], fails["attempts"], fails["error"]["message"]) == ("failed", 3, "never")
    assert (hangs["outcome"], hangs["attempts"]) == ("timed_out", 2)
    assert len(daemon.events("run.retrying", job="fails")) == 2
    assert len(daemon.events("run.retrying", job="hangs")) == 1


def test_a_stop_does_not_wait_for_another_attempt(launch: Launcher) -> None:
    """The run ends at once, as its last attempt has; that is no abandoned run."""
    daemon = launch(
        "@every('1h', retries=5, backoff='1h', backoff_max='1h')\ndef job(): raise OSError('down')",
        JOBD_GRACE_PERIOD="60",
    )
    daemon.wait_for("run.retrying")
    assert daemon.stop(within=10) == 0
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["failed"]
    assert daemon.events("run.finished")[0]["error"]["message"] == "down"


def test_a_grace_period_of_its_own(launch: Launcher) -> None:
    """A job that may be cancelled sooner is; the others have the daemon's time."""
    daemon = launch(
        "@every('1h', grace_period='0.2s')\nasync def brief(): await asyncio.sleep(600)",
        beside="@every('1h')\nasync def long():\n    while not os.path.exists('go'): await asyncio.sleep(0.05)",
        JOBD_GRACE_PERIOD="60",
    )
    for job in ("brief", "long"):
        daemon.wait_for("run.started", job=job)
    daemon.signal(SIGTERM)
    daemon.wait_for("run.finished", job="brief", outcome="cancelled")
    assert not daemon.events("run.finished", job="long")
    (launch.directory / "go").touch()
    assert daemon.exit_code() == 0
    daemon.assert_log_is_consistent()
    assert daemon.outcomes("long") == ["succeeded"]


def test_jitter_moves_runs_and_not_the_grid(launch: Launcher) -> None:
    """Ticks stay where they are, and are told in their order; the runs come later by chance."""
    daemon = launch("@every('0.4', jitter='0.3')\nasync def job(): pass")
    daemon.wait_for("run.finished", count=6)
    ends_well(daemon)
    started = daemon.events("run.started")
    for before, after in pairwise(started):
        apart = instant(after, "scheduled_at") - instant(before, "scheduled_at")
        assert apart == (after["tick"] - before["tick"]) * timedelta(seconds=0.4)
    assert max(line["lateness_s"] for line in started) > 0.01


def frozen(launch: Launcher, missed: str) -> Daemon:
    """A daemon that was held for five ticks of its job, and has gone on; it has stopped since."""
    daemon = launch(f"@every('0.3', missed={missed!r})\nasync def job(): pass")
    before = daemon.wait_for("run.finished", count=2)["tick"]
    os.kill(daemon.pid, SIGSTOP)
    sigtimedwait([], 1.5)  # for a process that is stopped and can tell us nothing
    os.kill(daemon.pid, SIGCONT)

    def beyond(lines: list[Line]) -> bool:
        return any(line["tick"] > before + 7 for line in lines if line["event"] == "run.finished")

    assert daemon.log.wait_until(beyond, 20)
    ends_well(daemon)
    return daemon


def longest(daemon: Daemon) -> Line:
    """The longest row of missed ticks; a busy machine may have made shorter ones."""
    return max(daemon.events("tick.skipped", reason="missed"), key=lambda line: int(line["count"]))


def test_missed_skip(launch: Launcher) -> None:
    """Nothing is made up for: the ticks are skipped, and the next run is one that is on time."""
    daemon = frozen(launch, "skip")
    assert longest(daemon)["count"] >= 4
    assert max(line["lateness_s"] for line in daemon.events("run.started")) < 1


def test_missed_all(launch: Launcher) -> None:
    """Each tick has its run, late as it may be, and none is skipped."""
    daemon = frozen(launch, "all")
    assert not daemon.events("tick.skipped")
    started = daemon.events("run.started")
    assert [line["tick"] for line in started] == list(range(len(started)))
    assert len([line for line in started if line["lateness_s"] > 0.3]) >= 3


def test_missed_once(launch: Launcher) -> None:
    """One run for all of them, which is that of the newest tick; those before it are skipped."""
    daemon = frozen(launch, "once")
    skipped = longest(daemon)
    assert skipped["count"] >= 3
    after = daemon.lines[daemon.lines.index(skipped) :]
    late = next(line for line in after if line["event"] == "run.started")
    assert late["tick"] == skipped["tick"] + skipped["count"]
