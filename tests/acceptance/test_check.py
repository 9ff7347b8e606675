"""`jobd check` and the rest of the command line."""

import re
import signal
from pathlib import Path

import pytest

from .conftest import MODULE, Command, Launcher
from .harness import JOBD, PRELUDE, becoming_jobd, parsed

JOBS = """
log.info("imported")
print("printed")
@every("90s")
async def first(): open("started", "w")
@every("10ms", name="second job")
def other(): open("started", "w")
"""
PROGRAMS = pytest.mark.parametrize("program", [(JOBD,), MODULE], ids=["jobd", "python -m jobd"])
INSTANT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """A jobs module in the directory of the command."""
    path = tmp_path / "jobs.py"
    path.write_text(PRELUDE + JOBS)
    return path


@PROGRAMS
def test_check_shows_settings_jobs_and_ticks(command: Command, jobs: Path, program: tuple[str, ...]) -> None:
    """Settings with their sources, jobs with their schedules, and the next ticks; nothing is started."""
    (jobs.parent / ".env").write_text("JOBD_CANCEL_TIMEOUT=7s\n")
    done = command("check", "jobs", "--grace-period", "3s", program=program, JOBD_MAX_RUNNING="9")
    assert done.returncode == 0, done
    shown = {words[0]: line for line in done.stdout.splitlines() if (words := line.split())}
    for name, value, source in (
        ("JOBD_JOBS", "jobs", "command line"),
        ("JOBD_GRACE_PERIOD", "3s", "command line"),
        ("JOBD_MAX_RUNNING", "9", "environment"),
        ("JOBD_CANCEL_TIMEOUT", "7s", ".env"),
        ("JOBD_INTERVAL", "10s", "default"),
    ):
        assert value in shown[name]
        assert source in shown[name]
    assert "second job" in done.stdout
    assert len(re.findall(INSTANT, done.stdout)) >= 2
    assert "Traceback" not in done.stderr
    assert not (jobs.parent / "started").exists()


@pytest.mark.parametrize("place", ["", "absolute"])
def test_a_target_of_the_command_line_may_have_blanks(command: Command, launch: Launcher, place: str) -> None:
    """Each is one, however it is written; only those of JOBD_JOBS are separated by blanks."""
    file = command.directory / "my  jobs.toml"
    file.write_text("[jobs.first]\nshell = 'true'\n")
    (command.directory / "other.toml").write_text("[jobs.second]\nshell = 'true'\n")
    targets = str(file) if place else file.name, "other.toml"
    done = command("check", *targets)
    assert done.returncode == 0, done
    assert re.search(r"^  JOBD_JOBS .*my  jobs.toml other.toml +from command line$", done.stdout, re.MULTILINE)
    daemon = launch("", "run", *targets)
    assert daemon.wait_for("daemon.ready")["jobs"] == 2
    assert daemon.stop() == 0
    done = command("check", JOBD_JOBS=file.name)
    told = [parsed(line.encode())["value"] for line in done.stdout.splitlines(keepends=True)]
    assert (done.returncode, told) == (78, ["my", "jobs.toml"])


def test_check_shows_a_file_of_jobs(command: Command, jobs: Path) -> None:
    """Each job with its kind, the policies that are not the default, and ticks by whichever schedule."""
    (jobs.parent / "jobs.toml").write_text(
        "[defaults]\ntimeout = '90s'\n"
        "[jobs.backup]\ncron = '0 3 * * *'\ncommand = ['/bin/echo', 'x']\nenv.TOKEN = 'secret'\noverlap = 'skip'\n"
        "[jobs.aligned]\nevery = '1h'\nanchor = 'clock'\ncall = 'jobs:first'\n"
    )
    done = command("check", "jobs.toml")
    assert done.returncode == 0, done
    shown = re.findall(r"(?m)^  (?:backup|aligned) .*$", done.stdout)
    assert re.search(
        "cron 0 3 .* UTC +command /bin/echo +jobs.toml:backup +env=TOKEN timeout=1m30s overlap=skip", shown[0]
    )
    assert re.search("every 1h of the clock +coroutine +jobs.toml:aligned +timeout=1m30s$", shown[1])
    assert all(instant.endswith("T03:00:00") for instant in re.findall(INSTANT, shown[2]))
    assert all(instant.endswith(":00:00") for instant in re.findall(INSTANT, shown[3]))
    assert [len(re.findall(INSTANT, line)) for line in shown] == [0, 0, 3, 3]
    assert "secret" not in done.stdout
    assert "Lifespans" not in done.stdout
    assert not (jobs.parent / "started").exists()


def test_check_reports_every_fault_of_a_file_of_jobs(command: Command, jobs: Path) -> None:
    """Each with its line."""
    (jobs.parent / "jobs.toml").write_text("[jobs.a]\nevery = 5\ncall = 'jobs:absent'\ntimeot = 1\n")
    done = command("check", "jobs.toml")
    assert done.returncode == 78
    lines = [parsed(raw) for raw in done.stdout.encode().splitlines(keepends=True)]
    assert [line["source"] for line in lines] == ["jobs.toml line 4", "jobs.toml line 3"]


def test_check_shows_lifespans(command: Command, jobs: Path) -> None:
    """With their modules."""
    with jobs.open("a") as file:
        file.write("from jobd import lifespan\n@lifespan\nasync def shared(): yield\n")
    done = command("check", "jobs")
    assert done.returncode == 0, done
    assert "Lifespans\n  jobs  shared\n" in done.stdout


def test_check_names_every_setting(command: Command, jobs: Path) -> None:
    """No setting is missing in the report."""
    shown = command("check", "jobs").stdout
    names = ("JOBS", "INTERVAL", "GRACE_PERIOD", "CANCEL_TIMEOUT", "MAX_RUNNING", "LOG_LEVEL", "LOG_FORMAT")
    for name in (*names, "DEMO_MIN", "DEMO_MAX"):
        assert f"JOBD_{name}" in shown


def test_check_without_a_target_shows_the_demo(command: Command) -> None:
    """Nothing said: the demo job."""
    done = command("check")
    assert done.returncode == 0
    assert "run_job" in done.stdout
    assert done.stderr == ""


def test_check_reports_every_fault_and_leaves_with_78(command: Command, jobs: Path) -> None:
    """The same lines as the daemon's, on the same stream."""
    done = command("check", "jobs", "absent", JOBD_INTERVAL="never", JOBD_GRACE_PERIOD="")
    assert done.returncode == 78
    lines = [parsed(raw) for raw in done.stdout.encode().splitlines(keepends=True)]
    faults = [line for line in lines if line["event"] == "config.invalid"]
    assert {fault["value"] for fault in faults} == {"absent", "never", ""}


@pytest.mark.parametrize("text", ["raise ValueError", "sys.exit(0)", "os.environ.clear(); 1 / 0", "def"])
def test_check_survives_what_a_module_raises(command: Command, tmp_path: Path, text: str) -> None:
    """A module that cannot be imported is 78 here too."""
    (tmp_path / "jobs.py").write_text(PRELUDE + text)
    done = command("check", "jobs")
    assert done.returncode == 78
    assert '"config.invalid"' in done.stdout


def test_check_mentions_unknown_variables(command: Command, jobs: Path) -> None:
    """A typing error in a variable's name shows up."""
    done = command("check", "jobs", JOBD_GRACE="5")
    assert done.returncode == 0
    assert "JOBD_GRACE " in done.stdout + done.stderr


def test_check_ends_though_a_module_has_left_a_thread(command: Command, tmp_path: Path) -> None:
    """A thread that a module starts at import does not keep the check from ending."""
    (tmp_path / "jobs.py").write_text(PRELUDE + "threading.Thread(target=time.sleep, args=(60,)).start()\n" + JOBS)
    assert command("check", "jobs").returncode == 0


@pytest.mark.parametrize(("action", "code"), [("SIG_IGN", 0), ("default_int_handler", -signal.SIGINT)])
def test_check_is_ended_by_ctrl_c_unless_that_is_ignored(command: Command, jobs: Path, action: str, code: int) -> None:
    """A shell that starts it in the background of a script ignores it for it."""
    jobs.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n" + jobs.read_text())
    program = becoming_jobd(f"signal.signal(signal.SIGINT, signal.{action})")
    assert command("check", "jobs", program=program).returncode == code


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_check_shows_any_name_in_any_locale(command: Command, tmp_path: Path, locale: str) -> None:
    """Names outside ASCII are shown somehow, whatever the terminal can do."""
    (tmp_path / "jobs.py").write_text(PRELUDE + "@every(1, name='caf\u00e9 \\ud800')\ndef job(): pass\n")
    done = command("check", "jobs", LC_ALL=locale, PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert done.returncode == 0, done
    assert "caf" in done.stdout


@PROGRAMS
def test_version(command: Command, program: tuple[str, ...]) -> None:
    """`--version` says the name and the version, and leaves with 0."""
    done = command("--version", program=program)
    assert done.returncode == 0
    assert re.fullmatch(r"jobd \d+\.\d+\S*\n", done.stdout)
    assert done.stderr == ""


@PROGRAMS
@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["run", "--help"], ["check", "--help"]], ids=" ".join)
def test_help(command: Command, program: tuple[str, ...], arguments: list[str]) -> None:
    """`--help` works everywhere, and starts nothing."""
    done = command(*arguments, program=program)
    assert done.returncode == 0
    assert "jobd" in done.stdout
    assert done.stderr == ""


def test_help_of_run_names_every_setting(command: Command) -> None:
    """The flags' help names the variables and their defaults."""
    shown = command("run", "--help").stdout
    for name in ("JOBD_INTERVAL", "JOBD_GRACE_PERIOD", "JOBD_CANCEL_TIMEOUT", "JOBD_MAX_RUNNING", "JOBD_LOG_FORMAT"):
        assert name in shown
    assert "20s" in shown


@PROGRAMS
@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["run", "--nope"],
        ["--nope"],
        ["run", "--interval"],
        ["check", "--graceperiod", "5"],
        ["--inter", "5"],
    ],
    ids=" ".join,
)
def test_wrong_command_line_leaves_with_2(command: Command, program: tuple[str, ...], arguments: list[str]) -> None:
    """What is no command line is told on stderr, not in the log; 2."""
    done = command(*arguments, program=program)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage" in done.stderr
