"""What the jobs of a module share: open before the first run, closed after the last, within the time of the stop."""

import signal

import pytest

from .conftest import Command, Launcher

SHARED = """
from jobd import lifespan
shared = None
@lifespan
async def life():
    global shared
    shared = "open"
    log.info("opened")
    yield
    log.info("closing")
    shared = None
    log.info("closed")
@every("0.2")
async def uses():
    assert shared == "open"
"""


def events(lines: list[dict[str, object]], *names: str) -> list[object]:
    """Those of these events, in order."""
    return [line["event"] for line in lines if line["event"] in names]


def test_it_is_open_for_every_run(launch: Launcher) -> None:
    """Opened before the daemon says that it is ready, and closed when the last run has ended."""
    daemon = launch(SHARED, beside="@every('1h')\nasync def long(): await asyncio.sleep(0.8); assert shared == 'open'")
    daemon.wait_for("run.finished", count=3)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert set(daemon.outcomes()) == {"succeeded"}
    assert events(daemon.lines, "opened", "daemon.ready") == ["opened", "daemon.ready"]
    assert events(daemon.lines, "run.finished", "closing", "closed", "daemon.stopped")[-4:] == [
        "run.finished", "closing", "closed", "daemon.stopped",
    ]  # fmt: skip


def test_one_that_fails_to_open_stops_the_start(command: Command, tmp_path: str) -> None:
    """With a clear error; nothing runs."""
    (tmp_path / "jobs.py").write_text(  # type: ignore[operator]
        "from jobd import every, lifespan\n"
        "@lifespan\nasync def life():\n    raise ConnectionError('no database')\n    yield\n"
        "@every('1s')\nasync def job(): print('runs')\n"
    )
    done = command("run", "jobs")
    assert done.returncode == 78
    assert '"config.invalid"' in done.stdout
    assert "the lifespan of jobs raised ConnectionError when it was opened" in done.stdout
    assert "no database" in done.stdout
    assert "run.started" not in done.stdout
    assert "lifespan.abandoned" not in done.stdout


def test_a_second_one_that_fails_closes_the_first(launch: Launcher) -> None:
    """What is open is closed again."""
    launch.write("other", SHARED.replace("uses", "others"))
    launch.write("jobs", SHARED.replace('log.info("opened")', 'raise ValueError("here")'))
    daemon = launch("", "run", "other", "jobs")
    assert daemon.exit_code() == 78
    assert events(daemon.lines, "opened", "closing", "closed") == ["opened", "closing", "closed"]
    assert not daemon.events("lifespan.abandoned")


def test_a_stop_while_it_opens(launch: Launcher) -> None:
    """It is cancelled; nobody waits for it longer than for anything else."""
    daemon = launch(
        """
        from jobd import lifespan
        @lifespan
        async def life():
            log.info("opening")
            await asyncio.sleep(60)
            yield
        @every("1s")
        async def job(): pass
        """
    )
    daemon.wait_for("opening")
    assert daemon.stop(within=2) == 0
    assert not daemon.events("run.started")
    assert not daemon.events("config.invalid")


@pytest.mark.parametrize("hold", ["await asyncio.sleep(60)", "time.sleep(60)"], ids=["waits", "blocks"])
def test_one_that_does_not_close_is_named(launch: Launcher, hold: str) -> None:
    """The daemon leaves all the same, with the code that says that something was left."""
    deaf = f"try:\n        {hold}\n    except asyncio.CancelledError:\n        {hold}  # stands"
    daemon = launch(
        f"from jobd import lifespan\n@lifespan\nasync def life():\n    yield\n    {deaf}\n"
        "@every('1h')\nasync def job(): pass",
        JOBD_GRACE_PERIOD="0.5",
        JOBD_CANCEL_TIMEOUT="2",  # of which a fifth is left after the second cancellation
    )
    daemon.wait_for("run.finished")
    assert daemon.stop() == 3
    (abandoned,) = daemon.events("lifespan.abandoned")
    # What blocks has not been cancelled, or not yet: it stands in the first of the two.
    expected = daemon.line_of("# stands") if hold.startswith("await") else "jobs.py"
    assert any(expected in place for place in abandoned["stack"]), abandoned["stack"]


def test_a_run_that_refuses_to_end_does_not_keep_it_open(launch: Launcher) -> None:
    """It is closed before the time is up."""
    daemon = launch(
        SHARED,
        beside="@every('1h')\nasync def deaf():\n    while True:\n        try: await asyncio.sleep(60)\n"
        "        except asyncio.CancelledError: pass",
        JOBD_GRACE_PERIOD="0.2",
        JOBD_CANCEL_TIMEOUT="4",  # of which a fifth is left after the second cancellation
    )
    daemon.wait_for("run.started", job="deaf")
    assert daemon.stop() == 3
    assert daemon.events("closed")
    assert not daemon.events("lifespan.abandoned")


def test_requests_to_reload_while_it_opens_come_one_after_the_other(launch: Launcher) -> None:
    """One that is refused in the end closes nothing that is in use."""
    slow = SHARED.replace('log.info("opened")', "await asyncio.sleep(OPENS_S); log.info('opened', number=NUMBER); FAIL")
    check = "@every('0.2')\nasync def uses_it(): assert shared == 'open'; log.info('uses', number=NUMBER)"

    def write(number: int, opens_s: float, fail: str = "pass") -> None:
        launch.write("jobs", f"NUMBER, OPENS_S = {number}, {opens_s}", slow.replace("FAIL", fail), check)

    write(1, 0)
    daemon = launch("", "run", "jobs")
    daemon.wait_for("uses", number=1)
    write(2, 0.5)
    daemon.signal(signal.SIGHUP)
    write(3, 0.5, "raise ValueError")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("reload.refused")
    count = len(daemon.events("uses"))
    daemon.wait_for("uses", count=count + 3)
    assert daemon.stop() == 0
    assert set(daemon.outcomes()) == {"succeeded"}


def test_one_that_fails_to_close_is_told(launch: Launcher) -> None:
    """Nothing else changes."""
    daemon = launch(SHARED.replace('log.info("closing")', 'raise OSError("gone")'))
    daemon.wait_for("run.finished")
    assert daemon.stop() == 0
    (failed,) = daemon.events("lifespan.failed")
    assert failed["error"] == {"type": "OSError", "message": "gone"}
    assert failed["module"] == "jobs"
