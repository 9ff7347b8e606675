"""How a daemon starts, and how a stop that comes meanwhile is obeyed."""

import signal
import time

import pytest

from jobd import __version__

from .conftest import MODULE, Launcher
from .harness import JOBD, Daemon, catches, poll

BEAT = """
@every("0.1")
async def beat(): pass
"""
SLOW_IMPORTS = {
    "sleeps": "log.info('importing'); time.sleep(60)",
    "computes": "log.info('importing')\nwhile True: pass",
    "waits for a child": "log.info('importing'); threading.Event().wait()",
    "swallows everything": """
log.info('importing')
while True:
    try: time.sleep(60)
    except BaseException: pass
""",
}
BOTH = pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)


def assert_stopped_before_it_ran(daemon: Daemon) -> None:
    """Exit code 0; a consistent log without runs, if there is any log."""
    assert daemon.exit_code(within=2) == 0
    assert daemon.stderr == ""
    assert not daemon.events("daemon.ready")
    daemon.assert_log_is_consistent()


def test_first_line_says_what_has_started(launch: Launcher) -> None:
    """`daemon.starting` is the first line, with version, pid and Python's version."""
    daemon = launch(BEAT)
    daemon.wait_for("run.started")
    assert daemon.lines[0]["event"] == "daemon.starting"
    assert daemon.lines[0]["pid"] == daemon.pid
    assert daemon.lines[0]["version"] == __version__
    assert daemon.lines[0]["python"].startswith("3.")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_ready_comes_before_the_first_run(launch: Launcher) -> None:
    """`daemon.ready` says how many jobs there are and how long the start took, before any run starts."""
    daemon = launch(BEAT)
    daemon.wait_for("run.started")
    events = [line["event"] for line in daemon.lines]
    ready = daemon.events("daemon.ready")[0]
    assert events.index("daemon.ready") < events.index("run.started")
    assert ready["jobs"] == 1
    assert 0 < ready["startup_s"] < 20
    assert daemon.stop() == 0


def test_without_a_target_the_demo_job_runs(launch: Launcher) -> None:
    """Nothing said: the built-in demo job runs, for a time between its two settings."""
    daemon = launch("", "run", JOBD_INTERVAL="50ms", JOBD_DEMO_MIN="100ms", JOBD_DEMO_MAX="200ms")
    finished = daemon.wait_for("run.finished", count=3)
    assert finished["job"] == "run_job"
    assert finished["outcome"] == "succeeded"
    assert 0.1 <= finished["duration_s"] < 2
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_python_dash_m_is_the_same(launch: Launcher) -> None:
    """`python -m jobd` runs the same daemon."""
    daemon = launch(BEAT, program=MODULE)
    daemon.wait_for("run.finished", count=2)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_without_a_command_it_runs(launch: Launcher) -> None:
    """`jobd` alone is `jobd run`, with the targets of JOBD_JOBS."""
    launch.write("jobs", BEAT)
    daemon = launch("", "--interval", "1s", JOBD_JOBS="  jobs ")
    daemon.wait_for("run.finished", job="beat")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_no_argument_at_all(launch: Launcher) -> None:
    """`jobd` without any argument is `jobd run`."""
    launch.write("jobs", BEAT)
    daemon = launch("", JOBD_JOBS="jobs")
    daemon.wait_for("run.finished", job="beat")
    assert daemon.stop() == 0


@BOTH
@pytest.mark.parametrize("text", SLOW_IMPORTS.values(), ids=SLOW_IMPORTS)
def test_stop_during_an_import_that_never_ends(launch: Launcher, text: str, signum: signal.Signals) -> None:
    """A stop signal ends a daemon that still imports its jobs, at once, with 0 and without a traceback."""
    daemon = launch(text, JOBD_GRACE_PERIOD="30")
    daemon.wait_for("importing")
    daemon.signal(signum)
    assert_stopped_before_it_ran(daemon)


@pytest.mark.parametrize("program", [(JOBD,), MODULE], ids=["script", "module"])
@pytest.mark.parametrize("delay_s", [0, 0.003, 0.006, 0.01, 0.02, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6])
def test_stop_at_any_moment_of_the_start(launch: Launcher, delay_s: float, program: tuple[str, ...]) -> None:
    """From the moment its signals wait a stop signal ends the process with 0, wherever the start is."""
    daemon = launch(BEAT, program=program)
    poll(lambda: catches(daemon.pid, signal.SIGTERM), "SIGTERM waits")
    time.sleep(delay_s)
    assert daemon.stop(within=2) == 0
    if daemon.lines:
        daemon.assert_log_is_consistent()
    assert daemon.stderr == ""


@pytest.mark.parametrize("delay_s", [0.15, 0.25, 0.4, 0.6])
def test_stop_some_time_after_the_spawn(launch: Launcher, delay_s: float) -> None:
    """A supervisor that changes its mind: SIGTERM a moment after the spawn, whatever the daemon is at."""
    daemon = launch(BEAT)
    time.sleep(delay_s)
    caught = catches(daemon.pid, signal.SIGTERM)
    code = daemon.stop(within=2)
    assert code == 0 or (not caught and code == -signal.SIGTERM)
    if daemon.lines:
        daemon.assert_log_is_consistent()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda signum: signum.name)
def test_signals_that_an_import_has_taken_are_taken_back(launch: Launcher, signum: signal.Signals) -> None:
    """A module that ignores SIGTERM, blocks it and clears the wake-up descriptor at import does not keep it."""
    daemon = launch(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, lambda *args: os._exit(99))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
        signal.set_wakeup_fd(-1)

        @every("0.1")
        async def beat(): pass
        """
    )
    daemon.wait_for("run.finished", count=2)
    assert daemon.stop(signum, within=2) == 0
    daemon.assert_log_is_consistent()


def test_import_may_use_asyncio(launch: Launcher) -> None:
    """A module that runs an event loop of its own at import starts as any other."""
    daemon = launch("asyncio.run(asyncio.sleep(0))" + BEAT)
    daemon.wait_for("run.finished", count=2)
    assert daemon.stop(signal.SIGINT, within=2) == 0
    daemon.assert_log_is_consistent()


def test_status_can_be_asked_for_during_the_import(launch: Launcher) -> None:
    """SIGUSR1 during a long import is answered, and does not end the process."""
    daemon = launch(SLOW_IMPORTS["sleeps"])
    daemon.wait_for("importing")
    daemon.signal(signal.SIGUSR1)
    assert daemon.wait_for("daemon.status")["running"] == 0
    daemon.signal(signal.SIGTERM)
    assert_stopped_before_it_ran(daemon)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, []),
        ({"JOBD_GRACE_PERIOD": "1m"}, [("Kubernetes", 30.0, 66.0)]),
        ({"JOBD_GRACE_PERIOD": "1m", "NOTIFY_SOCKET": "@nobody"}, []),
        ({"JOBD_GRACE_PERIOD": "2m", "NOTIFY_SOCKET": "@nobody"}, [("systemd", 90.0, 126.0)]),
    ],
    ids=["defaults", "a minute", "a minute under systemd", "two minutes under systemd"],
)
def test_a_stop_longer_than_supervisors_wait_is_told_at_the_start(
    launch: Launcher, settings: dict[str, str], told: list[tuple[str, float, float]]
) -> None:
    """Grace period and cancel timeout beyond what Kubernetes or systemd waits by default: a warning, and it runs."""
    daemon = launch("@every('1h')\nasync def job(): pass", env={"JOBD_CANCEL_TIMEOUT": "5"} | settings)
    daemon.wait_for("run.finished")
    lines = daemon.events("config.long_stop")
    assert [(line["supervisor"], line["limit_s"], line["bound_s"]) for line in lines] == told
    assert daemon.stop(within=1) == 0
