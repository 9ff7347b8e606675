"""SIGHUP: jobs and settings are read again, and what runs is not touched."""

import os
import signal
import time
from pathlib import Path

import pytest

from jobd import signals

from .conftest import Launcher
from .consistency import Line
from .harness import JOBD, Daemon, instant, poll

STEADY = "@every('0.5')\nasync def steady(): log.info('version', number=1)"


def reload(daemon: Daemon, event: str = "daemon.reloaded") -> dict[str, object]:
    """Ask for it, and wait for what comes of it."""
    count = len(daemon.events(event)) + 1
    daemon.signal(signal.SIGHUP)
    daemon.wait_for(event, count=count)
    return daemon.events(event)[-1]


def rewrite(launch: Launcher, *texts: str) -> None:
    """Write the module anew."""
    launch.write("jobs", *texts)


def test_jobs_are_added_changed_and_removed(launch: Launcher) -> None:
    """Each is named, and those that stay keep their phase."""
    daemon = launch(STEADY, beside="@every('1h')\nasync def goes(): pass\n@every('1h')\nasync def changes(): pass")
    daemon.wait_for("run.finished", job="steady", count=2)
    rewrite(launch, STEADY, "@every('2h')\nasync def changes(): pass\n@every('0.3')\nasync def comes(): pass")
    told = reload(daemon)
    assert (told["added"], told["changed"], told["removed"]) == (["comes"], ["changes"], ["goes"])
    daemon.wait_for("run.finished", job="comes", count=2)
    daemon.wait_for("run.finished", job="steady", count=5)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    started = daemon.events("run.started", job="steady")
    first = instant(started[0], "scheduled_at")
    offsets = [(instant(line, "scheduled_at") - first).total_seconds() / 0.5 for line in started]
    assert offsets == [line["tick"] for line in started]
    assert [line["tick"] for line in daemon.events("run.started", job="changes")] == [0, 1]


def test_new_code_is_used(launch: Launcher) -> None:
    """Also when the file has been written within the same second, with the same length."""
    daemon = launch(STEADY)
    daemon.wait_for("version", number=1)
    rewrite(launch, STEADY.replace("number=1", "number=2"))
    assert reload(daemon)["changed"] == ["steady"]
    daemon.wait_for("version", number=2)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_a_reload_that_is_asked_for_at_the_start_comes_when_all_is_ready(launch: Launcher) -> None:
    """What is being imported may be older than what made somebody ask."""
    daemon = launch("open('importing', 'w').close(); time.sleep(1)", beside=STEADY)
    poll((launch.directory / "importing").exists, "the import")
    rewrite(launch, STEADY.replace("number=1", "number=2"))
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("daemon.reloaded")
    daemon.wait_for("version", number=2)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_runs_in_flight_are_not_touched(launch: Launcher) -> None:
    """They end with the code they have begun with, also where their job has gone."""
    daemon = launch(STEADY, beside="@every('1h')\nasync def long():\n    await asyncio.sleep(1); log.info('old')")
    daemon.wait_for("run.started", job="long")
    rewrite(launch, STEADY)
    assert reload(daemon)["removed"] == ["long"]
    daemon.wait_for("run.finished", job="long", outcome="succeeded")
    assert daemon.events("old")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_what_is_wrong_changes_nothing(launch: Launcher) -> None:
    """It is told, and the old jobs go on, on their old grid."""
    daemon = launch(STEADY)
    daemon.wait_for("run.finished")
    rewrite(launch, STEADY, "raise RuntimeError('half an edit')")
    assert reload(daemon, "reload.refused")["faults"] == 1
    (invalid,) = daemon.events("config.invalid")
    assert invalid["error"]["message"] == "half an edit"
    before = len(daemon.events("run.finished"))
    daemon.wait_for("run.finished", count=before + 2)
    rewrite(launch, STEADY.replace("number=1", "number=3"))
    reload(daemon)
    daemon.wait_for("version", number=3)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_what_was_refused_is_read_again(launch: Launcher, tmp_path: Path) -> None:
    """Also where the cause lay elsewhere, and the module's file is the same as when it was refused."""
    daemon = launch(STEADY)
    daemon.wait_for("version", number=1)
    (tmp_path / "broken").touch()
    rewrite(launch, "if os.path.exists('broken'): raise RuntimeError", STEADY.replace("number=1", "number=2"))
    reload(daemon, "reload.refused")
    (tmp_path / "broken").unlink()
    assert reload(daemon)["changed"] == ["steady"]
    daemon.wait_for("version", number=2)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_a_module_that_came_with_what_was_refused_is_read_again(launch: Launcher) -> None:
    """Though no job that is in use has ever needed it."""
    daemon = launch(STEADY)
    daemon.wait_for("version", number=1)
    launch.write("helper", "NUMBER = 2")
    rewrite(launch, "import helper", "raise RuntimeError")
    reload(daemon, "reload.refused")
    launch.write("helper", "NUMBER = 3")
    rewrite(launch, "import helper", STEADY.replace("number=1", "number=helper.NUMBER"))
    reload(daemon)
    daemon.wait_for("version")
    daemon.wait_for("version", number=3)
    assert not daemon.events("version", number=2)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_a_module_that_only_runs_import_is_read_again(launch: Launcher) -> None:
    """As if a target had brought it in."""
    launch.write("helper", "NUMBER = 1")
    daemon = launch("@every('0.2')\ndef late():\n    import helper\n    log.info('version', number=helper.NUMBER)")
    daemon.wait_for("version", number=1)
    for number in (2, 3):
        launch.write("helper", f"NUMBER = {number}")
        reload(daemon)
        daemon.wait_for("version", number=number)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


@pytest.mark.parametrize(
    ("refused", "setting"),
    [("@lifespan\nasync def life():\n    raise ValueError('no')\n    yield", ""), ("", "JOBD_INTERVAL=soon\n")],
    ids=["lifespan", "setting"],
)
def test_nothing_of_what_is_refused_stays(launch: Launcher, tmp_path: Path, refused: str, setting: str) -> None:
    """Neither a module nor a variable of a file: who imports late gets what goes with the jobs that are in use."""
    sees = (
        "from jobd import lifespan\nimport helper\n@every('0.3')\ndef sees():\n"
        "    import helper\n    log.info('sees', module=helper.NUMBER, file=os.environ['MINE'])"
    )
    (tmp_path / ".env").write_text("MINE=1\n")
    launch.write("helper", "NUMBER = 1")
    daemon = launch(sees)
    daemon.wait_for("sees", module=1, file="1")
    (tmp_path / ".env").write_text(f"MINE=2\n{setting}")
    launch.write("helper", "NUMBER = 2")
    rewrite(launch, sees, refused)
    assert reload(daemon, "reload.refused")["faults"] == 1
    count = len(daemon.events("sees"))
    daemon.wait_for("sees", count=count + 2)
    seen = daemon.events("sees")[count + 1]  # of a run that has begun since
    assert (seen["module"], seen["file"]) == (1, "1")
    (tmp_path / ".env").write_text("MINE=2\n")
    rewrite(launch, sees)
    reload(daemon)
    daemon.wait_for("sees", module=2, file="2")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


@pytest.mark.parametrize(
    "raises",
    [
        "raise Slow",
        "@lifespan\nasync def life():\n    raise Slow\n    yield",
        "@lifespan\nasync def life():\n    yield\n    raise Slow",
    ],
    ids=["import", "opening", "closing"],
)
def test_what_an_exception_says_of_itself_is_not_asked_on_the_control_plane(launch: Launcher, raises: str) -> None:
    """It may take for ever; so it is asked on the thread where it was raised."""
    slow = (
        "from jobd import lifespan\nimport threading\nclass Slow(Exception):\n    def __str__(self):\n"
        "        log.info('asked', main=threading.get_native_id() == os.getpid())\n        return 'said so'"
    )
    daemon = launch(STEADY)
    daemon.wait_for("version")
    rewrite(launch, slow, raises, STEADY.replace("number=1", "number=2"))
    daemon.signal(signal.SIGHUP)
    if "yield\n    raise" in raises:
        daemon.wait_for("version", number=2)
        rewrite(launch, STEADY)
        daemon.signal(signal.SIGHUP)
    told = daemon.wait_for("lifespan.failed" if "yield\n    raise" in raises else "config.invalid")
    assert isinstance(told["error"], dict)
    assert told["error"]["message"] == "said so"
    assert {line["main"] for line in daemon.events("asked")} == {False}
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_one_that_does_not_end_is_told(launch: Launcher) -> None:
    """With the place where it stands; the jobs go on, and so does a stop."""
    daemon = launch(STEADY)
    daemon.wait_for("run.finished")
    rewrite(launch, STEADY, "time.sleep(600)")
    daemon.signal(signal.SIGHUP)
    waiting = daemon.wait_for("reload.waiting")
    assert any("jobs.py" in place for place in waiting["stack"])
    before = len(daemon.events("run.finished"))
    daemon.wait_for("run.finished", count=before + 2)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_nothing_has_changed(launch: Launcher) -> None:
    """Then modules are not imported again, and keep what they have in their globals."""
    daemon = launch("count = []\n@every('0.2')\nasync def counts(): count.append(1); log.info('count', n=len(count))")
    daemon.wait_for("count", n=2)
    told = reload(daemon)
    assert (told["added"], told["changed"], told["removed"]) == ([], [], [])
    daemon.wait_for("count", n=5)
    assert daemon.stop() == 0


def test_settings_are_read_again(launch: Launcher, tmp_path: Path) -> None:
    """Variables of the jobs' own follow the file as well; a flag still wins, and what is refused changes neither."""
    (tmp_path / ".env").write_text("JOBD_INTERVAL=1h\nMINE=one\n")
    launch.write("jobs", "async def job(): log.info('mine', mine=os.environ.get('MINE')); await asyncio.sleep(60)")
    daemon = launch("", "run", "jobs:job", "--grace-period", "60")
    daemon.wait_for("mine", mine="one")
    (tmp_path / ".env").write_text("JOBD_INTERVAL=0.3\nMINE=two\nJOBD_CANCEL_TIMEOUT=3\n")
    assert reload(daemon)["changed"] == ["job"]
    daemon.wait_for("mine", mine="two")
    (tmp_path / ".env").write_text("JOBD_INTERVAL=soon\n")
    reload(daemon, "reload.refused")
    assert daemon.events("config.invalid")[0]["setting"] == "JOBD_INTERVAL"
    (tmp_path / ".env").write_text("JOBD_INTERVAL=soon\nMINE=three\n")
    reload(daemon, "reload.refused")
    count = len(daemon.events("mine"))
    daemon.wait_for("mine", count=count + 1)
    assert not daemon.events("mine", mine="three")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_for("shutdown.requested")["grace_period_s"] == 60
    time.sleep(2 * signals.ONE_REQUEST_S)
    assert daemon.stop() == 0


def test_a_process_that_a_job_has_moved_finds_the_same_again(launch: Launcher, tmp_path: Path) -> None:
    """Modules, files and settings are read from where the daemon was started, and from what it was started with."""
    (tmp_path / ".env").write_text("JOBD_INTERVAL=0.3\n")
    moves = "@every('1h')\ndef moves(): os.chdir('/'); os.environ.clear()"
    launch.write("jobs", "async def job(): log.info('version', number=1)", moves)
    daemon = launch("", "run", "jobs", "jobs:job", "--grace-period", "0", JOBD_CANCEL_TIMEOUT="1.5")
    daemon.wait_for("run.finished", job="moves")
    daemon.wait_for("version", number=1)
    launch.write("jobs", "async def job(): log.info('version', number=2)", moves)
    assert reload(daemon)["changed"] == ["job"]
    daemon.wait_for("version", number=2, count=3)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_the_next_stop_has_the_new_grace_period(launch: Launcher, tmp_path: Path) -> None:
    """And the new limit of runs holds from the next tick on."""
    (tmp_path / ".env").write_text("JOBD_GRACE_PERIOD=60\n")
    jobd = ("env", "--unset=JOBD_GRACE_PERIOD", JOBD)
    daemon = launch("@every('0.3')\nasync def long(): await asyncio.sleep(60)", program=jobd)
    daemon.wait_for("run.started", count=2)
    (tmp_path / ".env").write_text("JOBD_GRACE_PERIOD=0.5\nJOBD_MAX_RUNNING=1\n")
    reload(daemon)
    daemon.wait_for("tick.skipped", reason="max_running")
    assert daemon.stop(within=5) == 0
    assert daemon.events("shutdown.requested")[0]["grace_period_s"] == 0.5
    assert set(daemon.outcomes()) == {"cancelled"}
    daemon.assert_log_is_consistent()


def test_a_file_of_jobs_is_read_again(launch: Launcher, tmp_path: Path) -> None:
    """As it was with modules."""
    file = tmp_path / "jobs.toml"
    file.write_text('[jobs.one]\nevery = "0.2"\ncommand = ["echo", "one"]\n')
    daemon = launch("", "run", "jobs.toml")
    daemon.wait_for("job.output", line="one")
    file.write_text('[jobs.one]\nevery = "0.2"\ncommand = ["echo", "two"]\n[jobs.more]\nevery = "1h"\nshell = "true"\n')
    told = reload(daemon)
    assert (told["added"], told["changed"]) == (["more"], ["one"])
    daemon.wait_for("job.output", line="two")
    file.write_text('[jobs.one]\nevry = "0.2"\n')
    reload(daemon, "reload.refused")
    assert any("line 2" in line["source"] for line in daemon.events("config.invalid"))
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_lifespans_are_opened_anew(launch: Launcher) -> None:
    """And the old ones close when the runs that may use them have ended."""
    life = (
        "from jobd import lifespan\n@lifespan\nasync def life():\n"
        "    log.info('open', of=VERSION); yield; log.info('close', of=VERSION)\n"
        "@every('1h')\nasync def long(): await asyncio.sleep(1.5); log.info('used', of=VERSION)"
    )
    daemon = launch("VERSION = 1", beside=life)
    daemon.wait_for("run.started")
    rewrite(launch, "VERSION = 2", life)
    reload(daemon)
    assert [line["of"] for line in daemon.events("open")] == [1, 2]
    assert not daemon.events("close")
    daemon.wait_for("close", of=1)
    assert daemon.events("used", of=1)
    assert daemon.stop() == 0
    assert [line["of"] for line in daemon.events("close")] == [1, 2]
    daemon.assert_log_is_consistent()


def test_a_lifespan_that_is_open_is_not_opened_again(launch: Launcher, tmp_path: Path) -> None:
    """With a module that has not been imported again: whatever is added beside it, or is refused, or goes."""
    shared = (
        "from jobd import lifespan\n@lifespan\nasync def life():\n    global http\n    http = ['open']\n"
        "    log.info('open', of=__name__); yield; http.clear(); log.info('close', of=__name__)\n"
    )
    (tmp_path / ".env").write_text("JOBD_JOBS=jobs\n")
    launch.write("other", shared, "@every('1h')\nasync def joins(): pass")
    launch.write("broken", shared.replace("yield", "raise OSError; yield"), "@every('1h')\nasync def no(): pass")
    launch.write("jobs", shared, "@every('0.2')\nasync def uses(): assert http == ['open']")
    daemon = launch("", "run")
    daemon.wait_for("run.finished", job="uses")
    for targets, event in (
        ("jobs broken", "reload.refused"),
        ("jobs other", "daemon.reloaded"),
        ("jobs", "daemon.reloaded"),
    ):
        (tmp_path / ".env").write_text(f"JOBD_JOBS={targets}\n")
        reload(daemon, event)
        count = len(daemon.events("run.finished", job="uses"))
        daemon.wait_for("run.finished", job="uses", count=count + 2)
    assert [line["of"] for line in daemon.events("open")] == ["jobs", "broken", "other"]
    assert [line["of"] for line in daemon.events("close")] == ["other"]
    assert daemon.stop() == 0
    assert [line["of"] for line in daemon.events("close")] == ["other", "jobs"]
    assert set(daemon.outcomes()) == {"succeeded"}
    daemon.assert_log_is_consistent()


def test_many_requests_at_once(launch: Launcher) -> None:
    """Each is heard, some together; a stop in the middle of it is a stop."""
    daemon = launch(STEADY)
    daemon.wait_for("run.finished")
    for _ in range(20):
        daemon.signal(signal.SIGHUP)
    daemon.wait_for("daemon.reloaded")
    os.kill(daemon.pid, signal.SIGHUP)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_the_log_level_changes_for_every_logger(launch: Launcher, tmp_path: Path) -> None:
    """Also for those that were made, and used, before: of modules that are not imported again, and of the daemon."""
    library = tmp_path / "site"
    library.mkdir()
    (library / "installed.py").write_text(
        "import logging, structlog\n"
        "log, std = structlog.get_logger(), logging.getLogger('installed')\n"
        "def say():\n"
        "    log.debug('structured'); std.debug('plain'); log.error('said')\n"
    )
    (tmp_path / ".env").write_text("JOBD_LOG_LEVEL=warning\n")
    daemon = launch(
        "import sys\nsys.path.insert(0, 'site')\nimport installed\nlog.debug('early')\n"
        "@every('0.2')\nasync def job(): installed.say()\n"
        "@every('0.5', isolation='process')\ndef isolated(): log.debug('apart')\n",
    )
    daemon.wait_for("said", count=2)
    assert {line["event"] for line in daemon.lines} == {"said"}
    (tmp_path / ".env").write_text("JOBD_LOG_LEVEL=debug\n")
    reload(daemon)
    for event in ("structured", "plain", "apart", "run.started", "run.finished"):
        daemon.wait_for(event)
    (tmp_path / ".env").write_text("JOBD_LOG_LEVEL=error\n")
    daemon.signal(signal.SIGHUP)
    count = len(daemon.events("said"))

    def said_alone(lines: list[Line]) -> bool:
        return len(lines) > count and [line["event"] for line in lines[-5:]] == ["said"] * 5

    assert daemon.log.wait_until(said_alone, 20)
    assert daemon.stop() == 0
    assert not daemon.events("shutdown.requested")


def test_a_level_is_changed_while_a_job_holds_the_lock_of_logging(launch: Launcher, tmp_path: Path) -> None:
    """As one does that configures logging, for as long as that takes it: nobody waits for it."""
    (tmp_path / ".env").write_text("JOBD_LOG_LEVEL=info\n")
    daemon = launch(
        "@every('1h')\n"
        "def holds():\n"
        "    with logging._lock:\n"
        "        log.info('held')\n"
        "        time.sleep(60)\n"
        "@every('0.1')\nasync def beat(): log.debug('beat')\n"
    )
    daemon.wait_for("held")
    (tmp_path / ".env").write_text("JOBD_LOG_LEVEL=debug\nJOBD_GRACE_PERIOD=0\nJOBD_CANCEL_TIMEOUT=0.5\n")
    reload(daemon)
    daemon.wait_for("beat", count=5)
    assert daemon.stop() == 3
    daemon.assert_log_is_consistent()
