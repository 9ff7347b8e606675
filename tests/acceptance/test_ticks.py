"""Ticks: on an exact grid, the first at once, each accounted for exactly once."""

import os
import signal
from datetime import timedelta

import pytest

from .conftest import Launcher
from .harness import Daemon, instant

BEAT = """
@every("0.1")
async def beat(): pass
"""


def assert_on_grid(daemon: Daemon, job: str, interval: timedelta) -> None:
    """Each tick n of the job is shown at exactly the instant of tick 0 plus n intervals."""
    started = daemon.events("run.started", job=job)
    anchor = instant(started[0], "scheduled_at") - started[0]["tick"] * interval
    for line in started:
        assert instant(line, "scheduled_at") == anchor + line["tick"] * interval, line


@pytest.mark.parametrize("interval", ["50ms", "0.1", "125ms", "77ms"])
def test_ticks_lie_on_an_exact_grid(launch: Launcher, interval: str) -> None:
    """Tick n is scheduled at exactly the anchor plus n intervals, to the microsecond."""
    daemon = launch(f"@every({interval!r})\nasync def beat(): pass")
    daemon.wait_for("run.started", count=15)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    seconds = float(interval[:-2]) / 1000 if interval.endswith("ms") else float(interval)
    assert_on_grid(daemon, "beat", timedelta(microseconds=round(seconds * 1e6)))


def test_interval_that_is_no_whole_number_of_microseconds_does_not_drift(launch: Launcher) -> None:
    """With a third of a tenth of a second, tick n lies within a microsecond of n thirds."""
    daemon = launch("@every(0.1 / 3)\nasync def beat(): pass")
    daemon.wait_for("run.started", count=40)
    assert daemon.stop() == 0
    started = daemon.events("run.started")
    anchor = instant(started[0], "scheduled_at")
    for line in started:
        off_s = (instant(line, "scheduled_at") - anchor).total_seconds() - line["tick"] * 0.1 / 3
        assert abs(off_s) <= 2e-6


def test_lateness_is_the_start_minus_the_instant(launch: Launcher) -> None:
    """`lateness_s` is never negative, and agrees with the line's own timestamp."""
    daemon = launch(BEAT)
    daemon.wait_for("run.started", count=5)
    assert daemon.stop() == 0
    off_s = []
    for line in daemon.events("run.started"):
        late_s = (instant(line) - instant(line, "scheduled_at")).total_seconds()
        assert line["lateness_s"] >= 0
        off_s.append(abs(late_s - line["lateness_s"]))
    assert sorted(off_s)[len(off_s) // 2] < 0.1  # a busy machine may have come between the two in one of them


def test_first_tick_is_due_at_once(launch: Launcher) -> None:
    """Tick 0 of an hourly job does not wait for an hour."""
    daemon = launch("@every('1h')\nasync def hourly(): pass")
    ready, started = daemon.wait_for("daemon.ready"), daemon.wait_for("run.started")
    assert started["tick"] == 0
    assert (instant(started) - instant(ready)).total_seconds() < 10
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


@pytest.mark.parametrize(
    "job",
    ["async def slow(): await asyncio.sleep(1.2)", "def slow(): time.sleep(1.2)"],
    ids=["coroutine", "plain function"],
)
def test_runs_longer_than_the_interval_overlap(launch: Launcher, job: str) -> None:
    """A run that is not over does not keep the next tick from starting one."""
    daemon = launch(f"@every('0.2')\n{job}", JOBD_GRACE_PERIOD="3")
    daemon.wait_for("run.finished", count=2)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    events = [line["event"] for line in daemon.lines]
    assert events[: events.index("run.finished")].count("run.started") >= 3
    assert set(daemon.outcomes()) == {"succeeded"}


def test_each_run_has_an_id_of_its_own(launch: Launcher) -> None:
    """No two runs share a `run_id`, not even over two daemons."""
    seen: list[str] = []
    for _ in range(2):
        daemon = launch(BEAT)
        daemon.wait_for("run.started", count=4)
        assert daemon.stop() == 0
        seen += [line["run_id"] for line in daemon.events("run.started")]
    assert len(seen) == len(set(seen))


def test_several_targets_keep_their_own_schedules(launch: Launcher) -> None:
    """A module, a function of another and a module in a package run side by side, each on its own grid."""
    launch.write("one", "@every('0.1')\nasync def fast(): pass\n@every('0.3', name='renamed')\ndef slow(): pass")
    launch.write("two", "async def plain(): pass\ndef not_a_job(argument): pass")
    (launch.directory / "package").mkdir()
    launch.write("package/inner", "@every('0.25')\ndef deep(): pass")
    daemon = launch("", "run", "one", "two:plain", "package.inner", JOBD_INTERVAL="200ms")
    assert daemon.wait_for("daemon.ready")["jobs"] == 4
    intervals = {"fast": 0.1, "renamed": 0.3, "plain": 0.2, "deep": 0.25}
    for job in intervals:
        daemon.wait_for("run.started", job=job, count=4)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert {line["job"] for line in daemon.events("run.started")} == set(intervals)
    for job, interval_s in intervals.items():
        assert_on_grid(daemon, job, timedelta(seconds=interval_s))


def test_declared_schedule_wins_over_the_default_interval(launch: Launcher) -> None:
    """`module:function` keeps the function's own schedule; JOBD_INTERVAL is for those without one."""
    daemon = launch(BEAT, "run", "jobs:beat", JOBD_INTERVAL="1h")
    daemon.wait_for("run.started", count=3)
    assert daemon.stop() == 0


def test_a_frozen_process_makes_up_for_missed_ticks_with_one_run(launch: Launcher) -> None:
    """After SIGSTOP over several intervals: one `tick.skipped` (missed), one late run at once, the old phase."""
    daemon = launch("@every('0.2')\nasync def beat(): pass")
    before = daemon.wait_for("run.finished", count=2)["tick"]
    os.kill(daemon.pid, signal.SIGSTOP)
    pause(1.3)
    os.kill(daemon.pid, signal.SIGCONT)
    skipped = daemon.wait_for_missed("beat", 3)
    late = daemon.wait_for("run.started", tick=skipped["tick"] + skipped["count"])
    daemon.wait_for_run(late["tick"] + 2, "beat")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert skipped["tick"] > before
    assert skipped["count"] <= 15
    assert late["lateness_s"] < 1
    assert_on_grid(daemon, "beat", timedelta(seconds=0.2))


def pause(seconds: float) -> None:
    """Let time pass for a process that is stopped and can tell us nothing."""
    signal.sigtimedwait([], seconds)


def test_long_freeze_gives_no_burst(launch: Launcher) -> None:
    """However many ticks were missed, hardly more runs start in the instant after."""
    daemon = launch("@every('10ms')\nasync def beat(): pass")
    daemon.wait_for("run.started", count=5)
    os.kill(daemon.pid, signal.SIGSTOP)
    pause(1.5)
    os.kill(daemon.pid, signal.SIGCONT)
    row = daemon.wait_for_missed("beat", 100)
    first = daemon.wait_for("run.started", tick=row["tick"] + row["count"])
    daemon.wait_for_run(first["tick"] + 15, "beat")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    soon = [
        line for line in daemon.events("run.started") if abs((instant(line) - instant(first)).total_seconds()) < 0.05
    ]
    assert len(soon) < 15


def test_cap_on_running_skips_ticks(launch: Launcher) -> None:
    """With JOBD_MAX_RUNNING runs in flight a tick is skipped (max_running), whichever job's it is."""
    daemon = launch(
        """
        @every("0.1")
        async def slow(): await asyncio.sleep(0.55)
        @every("0.1")
        def other(): time.sleep(0.55)
        """,
        JOBD_MAX_RUNNING="3",
        JOBD_GRACE_PERIOD="3",
    )
    daemon.wait_for("run.finished", count=6)
    daemon.wait_for("tick.skipped", reason="max_running", count=6)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert most_in_flight(daemon) == 3


def most_in_flight(daemon: Daemon) -> int:
    """How many runs the log shows in flight at once, at most."""
    steps = {"run.started": 1, "run.finished": -1}
    running, most = 0, 0
    for line in daemon.lines:
        running += steps.get(line["event"], 0)
        most = max(most, running)
    return most


def test_cap_of_one_lets_every_job_go_on_in_the_end(launch: Launcher) -> None:
    """A cap of one run is not a dead end: when the run ends, a later tick starts the next."""
    daemon = launch("@every('0.1')\nasync def only(): await asyncio.sleep(0.15)", JOBD_MAX_RUNNING="1")
    daemon.wait_for("run.finished", count=4)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert most_in_flight(daemon) == 1


def test_many_jobs_due_together_all_start(launch: Launcher) -> None:
    """Four hundred jobs with the same instant: each has its tick 0, and none is skipped."""
    daemon = launch(
        """
        async def nothing(): pass
        for number in range(400):
            def make():
                async def job(): pass
                return job
            globals()[f"job{number}"] = every("1h", name=f"job{number}")(make())
        """
    )
    daemon.wait_for("run.finished", count=400)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert {line["job"] for line in daemon.events("run.started")} == {f"job{n}" for n in range(400)}
    assert not daemon.events("tick.skipped")
