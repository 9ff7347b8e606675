"""Configuration: what cannot be understood stops the start, with a line for every fault."""

import json
from pathlib import Path

import pytest

from .conftest import Command, Launcher
from .consistency import Line
from .harness import Daemon

BEAT = """
@every("0.1")
async def beat(): pass
"""
BAD_DURATIONS = [
    *(
        "",
        " ",
        "nan",
        "inf",
        "-inf",
        "1e308",
        "1e3",
        "-1",
        "+5",
        "1,5",
        "0x10",
        "true",
        "10 parsecs",
        "10 s",
        " 5",
        "5 ",
    ),
    *(
        "5\n",
        "1_000",
        "\uff15",
        "\u0665",
        "5s5",
        "s",
        "1h 30m",
        "30m1h",
        "1.5.2",
        ".",
        "5.",
        ".5",
        "'5s'",
        "\u201c5s\u201d",
    ),
    *("1" * 400, "5 # seconds", "5#", "\udcff", "1w", "10S", "1e-9", "99999999d"),
]
BAD_INTERVALS = [*BAD_DURATIONS, "0", "0s", "-0.0", "0.0000001", "0ms"]
BAD_COUNTS = ["", "0", "-1", "1.5", "many", "nan", "1_0", " 3", "\u0663", "1e2", "99999999999999999999", "0x3"]
BAD_LEVELS = ["", "loud", "INFO ", "10", "warn ing"]
#: Of each setting, values that are none.
BAD = {
    "JOBD_INTERVAL": BAD_INTERVALS,
    "JOBD_GRACE_PERIOD": BAD_DURATIONS,
    "JOBD_CANCEL_TIMEOUT": BAD_DURATIONS,
    "JOBD_DEMO_MIN": BAD_DURATIONS[:6],
    "JOBD_DEMO_MAX": BAD_DURATIONS[:6],
    "JOBD_MAX_RUNNING": BAD_COUNTS,
    "JOBD_LOG_LEVEL": BAD_LEVELS,
    "JOBD_LOG_FORMAT": ["", "xml", "JSON "],
}


def faults(daemon: Daemon) -> list[Line]:
    """The faults that a daemon has left with; it has started nothing."""
    assert daemon.exit_code() == 78
    daemon.assert_log_is_consistent()
    assert not daemon.events("run.started")
    assert not daemon.events("daemon.ready")
    found = daemon.events("config.invalid")
    assert all(fault["reason"] for fault in found)
    assert found
    return found


def bad_values_at_once() -> list[dict[str, str]]:
    """Environments that together hold every bad value, each variable once in each."""
    most = max(map(len, BAD.values()))
    return [{name: values[n % len(values)] for name, values in BAD.items()} for n in range(most)]


@pytest.mark.parametrize("start", range(0, len(BAD_INTERVALS), 8))
def test_every_bad_value_of_every_setting_is_refused(launch: Launcher, start: int) -> None:
    """One `config.invalid` for each fault, all at once, naming variable, value and source; exit code 78."""
    for environment in bad_values_at_once()[start : start + 8]:
        daemon = launch(BEAT, env=environment)
        told = {fault["setting"]: fault for fault in faults(daemon)}
        assert told.keys() == BAD.keys(), environment
        for name, fault in told.items():
            assert fault["value"] == environment[name].encode("utf-8", "backslashreplace").decode()
            assert fault["source"] == "environment"


GOOD = {
    "JOBD_INTERVAL": ["1ms", "0.001", "2d", "1h30m", "1d2h3m4s5ms", "90"],
    "JOBD_GRACE_PERIOD": ["0", "0s", "0.0", "250ms", "5m", "1.5h"],
    "JOBD_CANCEL_TIMEOUT": ["0", "0.5"],
    "JOBD_MAX_RUNNING": ["1", "007"],
    "JOBD_LOG_LEVEL": ["debug", "info"],
    "JOBD_LOG_FORMAT": ["json", "auto"],
}


def test_good_values_are_taken(launch: Launcher) -> None:
    """Every way to write a duration that the manual shows starts a daemon."""
    for turn in range(6):
        settings = {name: values[turn % len(values)] for name, values in GOOD.items()}
        grace, timeout = settings.pop("JOBD_GRACE_PERIOD"), settings.pop("JOBD_CANCEL_TIMEOUT")
        arguments = ["run", "jobs", "--grace-period", grace, "--cancel-timeout", timeout]
        daemon = launch(BEAT, *arguments, *(f"--{k[5:].lower().replace('_', '-')}={v}" for k, v in settings.items()))
        daemon.wait_for("daemon.ready")
        assert daemon.stop() in (0, 3)


def test_faults_of_settings_and_of_targets_come_together(launch: Launcher) -> None:
    """A daemon with several wrong targets and a wrong setting names all of them before it leaves."""
    daemon = launch(BEAT, "run", "missing", "jobs:absent", "not/a/target", "jobs:", "--interval", "never")
    values = {fault["value"] for fault in faults(daemon)}
    assert values == {"missing", "jobs:absent", "not/a/target", "jobs:", "never"}


#: Modules that give no jobs, the target, and what the fault must mention.
USELESS = {
    "raises": ("raise ValueError('at import')", "jobs", "ValueError"),
    "syntax error": ("def", "jobs", "SyntaxError"),
    "leaves": ("sys.exit(0)", "jobs", "SystemExit"),
    "interrupts": ("raise KeyboardInterrupt", "jobs", "KeyboardInterrupt"),
    "raises without a text": (
        "class Rude(BaseException):\n    def __str__(self): raise ValueError\nraise Rude",
        "jobs",
        "jobs.Rude",
    ),
    "needs what is missing": ("import not_installed_at_all", "jobs", "ModuleNotFoundError"),
    "declares no job": ("def function(): pass", "jobs", None),
    "imports a job only": ("from other import beat", "jobs", None),
    "is missing": ("pass", "absent", None),
    "has a missing part": ("pass", "jobs.absent", None),
    "has no such function": ("pass", "jobs:absent", None),
    "names a number": ("job = 5", "jobs:job", None),
    "names a class": ("class job: pass", "jobs:job", None),
    "names a module": ("import os as job", "jobs:job", None),
    "names a coroutine": ("async def make(): pass\njob = make()", "jobs:job", None),
    "takes arguments": ("def job(argument, *, other): pass", "jobs:job", None),
    "declared with arguments": ("@every('1s')\ndef job(argument): pass", "jobs", None),
    "declared with a bad interval": ("@every('soon')\ndef job(): pass", "jobs", "ValueError"),
    "declared with no interval": ("@every(0)\ndef job(): pass", "jobs", "ValueError"),
    "declared with an endless interval": ("@every(float('inf'))\ndef job(): pass", "jobs", "ValueError"),
    "declared with no number": ("@every(float('nan'))\ndef job(): pass", "jobs", "ValueError"),
    "declared with nothing": ("@every\ndef job(): pass", "jobs", "TypeError"),
    "declared as a list": ("@every([1])\ndef job(): pass", "jobs", "TypeError"),
    "two of one name": ("@every(1)\ndef job(): pass\n@every(1, name='job')\ndef other(): pass", "jobs", None),
    "named twice": ("@every(1)\ndef job(): pass", "jobs jobs:job", None),
    "raises on access": ("def __getattr__(name): raise RuntimeError(name)", "jobs:job", "RuntimeError"),
    "exits on access": ("def __getattr__(name): sys.exit(name)", "jobs:job", "SystemExit"),
}


@pytest.mark.parametrize(("text", "target", "error"), USELESS.values(), ids=USELESS)
def test_target_that_gives_no_jobs_is_a_fault(launch: Launcher, text: str, target: str, error: str | None) -> None:
    """78 and one line with the reason; with `error` and `traceback` where the module's own code raised."""
    launch.write("other", BEAT)
    found = faults(launch(text, "run", *target.split()))
    assert len(found) == 1
    assert found[0]["setting"] == "JOBD_JOBS"
    assert found[0]["value"] in target.split()
    if error is not None:
        assert found[0]["error"]["type"] == error
        assert "Traceback" in found[0]["traceback"]


def test_module_may_hold_objects_that_cannot_be_looked_at(launch: Launcher) -> None:
    """Proxies that raise on every attribute (as web frameworks have them) beside the jobs are no business of ours."""
    daemon = launch(
        """
        class Proxy:
            def __getattribute__(self, name): raise RuntimeError("working outside of request context")
        class Slotted:
            __slots__ = ()
        class Odd:
            __dict__ = 5
        class Meta(type):
            def __getattribute__(cls, name): raise RuntimeError(name)
        class Closed(metaclass=Meta): pass
        proxy, slotted, odd = Proxy(), Slotted(), Odd()
        """,
        beside=BEAT,
    )
    daemon.wait_for("run.finished", count=2)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_jobs_of_other_modules_are_not_taken_along(launch: Launcher) -> None:
    """A module stands for the jobs that it declares, not for those that it imports."""
    launch.write("other", "@every('0.1')\nasync def stranger(): pass")
    daemon = launch("from other import stranger", beside=BEAT)
    assert daemon.wait_for("daemon.ready")["jobs"] == 1
    daemon.wait_for("run.finished", job="beat")
    assert daemon.stop() == 0
    assert not daemon.events("run.started", job="stranger")


@pytest.mark.parametrize("what", ["run", "check"])
def test_a_faulty_line_of_the_file_hides_no_other_fault(command: Command, tmp_path: Path, what: str) -> None:
    """All come at once: those of the file, of settings in it and elsewhere, of targets; and what is not known."""
    (tmp_path / ".env").write_text("JOBD_INTERVAL=soon\nno assignment\nJOBD_JOBS=nowhere\nJOBD_LOG_FORMAT=json\n")
    done = command(what, JOBD_DEMO_MIN="20s", JOBD_INTERVALL="5s")
    assert done.returncode == 78
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    told = {line["setting"] for line in lines if line["event"] == "config.invalid"}
    assert told == {".env", "JOBD_INTERVAL", "JOBD_JOBS", "JOBD_DEMO_MIN"}
    assert [line["nearest"] for line in lines if line["event"] == "config.unknown"] == ["JOBD_INTERVAL"]


def test_a_faulty_line_of_the_file_makes_up_no_other_fault(command: Command, tmp_path: Path) -> None:
    """What it was to give is not known, so it is not held against what another line gives."""
    (tmp_path / ".env").write_text('JOBD_DEMO_MIN=20s\nJOBD_DEMO_MAX="30s\n')
    done = command("check")
    assert done.returncode == 78
    (line,) = map(json.loads, done.stdout.splitlines())
    assert (line["event"], line["setting"], line["source"]) == ("config.invalid", ".env", ".env line 2")


def test_empty_list_of_targets_is_a_fault(launch: Launcher) -> None:
    """JOBD_JOBS set to nothing is not the same as unset."""
    for nothing in ("", "  "):
        assert faults(launch("", "run", JOBD_JOBS=nothing))[0]["setting"] == "JOBD_JOBS"


def test_unknown_variable_is_a_warning_with_the_nearest_name(launch: Launcher) -> None:
    """A typing error in a JOBD_ variable is told and starts the daemon all the same."""
    daemon = launch(BEAT, JOBD_GRACE_PERIODE="5s", JOBD_INTERVALL="1s", JOBD_="x", JOBD_ZZZZZZZZ="\udcff")
    daemon.wait_for("run.finished")
    told = {line["setting"]: line["nearest"] for line in daemon.events("config.unknown", source="environment")}
    assert told["JOBD_GRACE_PERIODE"] == "JOBD_GRACE_PERIOD"
    assert told["JOBD_INTERVALL"] == "JOBD_INTERVAL"
    assert {"JOBD_", "JOBD_ZZZZZZZZ"} <= told.keys()
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_faults_are_told_even_if_the_level_hides_less(launch: Launcher) -> None:
    """JOBD_LOG_LEVEL=error still shows what is wrong."""
    daemon = launch(BEAT, JOBD_LOG_LEVEL="error", JOBD_INTERVAL="never")
    assert daemon.exit_code() == 78
    assert [line["event"] for line in daemon.lines] == ["config.invalid"]


def test_demo_range_that_is_upside_down_is_a_fault(launch: Launcher) -> None:
    """The demo's shortest time may not be longer than its longest."""
    found = faults(launch("", "run", JOBD_DEMO_MIN="10s", JOBD_DEMO_MAX="5s"))
    assert found[0]["setting"] in ("JOBD_DEMO_MIN", "JOBD_DEMO_MAX")
