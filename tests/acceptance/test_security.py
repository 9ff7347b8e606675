"""What leaks and what does not: files, sockets, secrets, and text that pretends to be more than text."""

import stat
from pathlib import Path

import pytest

from .conftest import Command, Launcher
from .harness import becoming_jobd

#: In no output of anything, ever.
SECRET = "hunter2-correct-horse"


def test_it_makes_no_file(launch: Launcher) -> None:
    """Whatever the umask, the working directory holds afterwards what it held before."""
    daemon = launch(program=(*becoming_jobd("os.umask(0)"), "run"), JOBD_DEMO_MIN="0", JOBD_DEMO_MAX="0")
    daemon.wait_for("run.finished")
    assert daemon.stop() == 0
    assert list(launch.directory.iterdir()) == []


@pytest.mark.parametrize("manager", ["", "@jobd-test-nobody"], ids=["nobody", "manager"])
def test_its_sockets_are_pairs_without_a_name_and_one_for_a_service_manager(launch: Launcher, manager: str) -> None:
    """None that others could reach; and where a manager has asked to be told, one to send datagrams from."""
    settings = {"NOTIFY_SOCKET": manager} if manager else {}
    daemon = launch("@every('1h')\nasync def job(): log.info('runs')", env=settings)
    daemon.wait_for("runs")
    sockets = [path for path in Path(f"/proc/{daemon.pid}/fd").iterdir() if stat.S_ISSOCK(path.stat().st_mode)]
    inodes = {str(path.readlink()).strip("socket:[]") for path in sockets}
    for table in ("tcp", "tcp6", "udp", "udp6"):
        rows = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        assert not [row for row in rows if row.split()[9] in inodes]
    rows = Path("/proc/net/unix").read_text().splitlines()[1:]
    ours = [fields for row in rows if (fields := row.split())[6] in inodes]
    assert len(ours) == len(inodes)
    assert [fields for fields in ours if len(fields) > 7] == []  # a name
    alone = [fields[4] for fields in ours if fields[5] != "03"]  # of its kinds, what is not connected
    assert alone == (["0002"] if manager else [])
    assert [fields[4] for fields in ours].count("0002") == len(alone)
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    "line",
    [
        f'PASSWORD="{SECRET}',
        f"PASSWORD: {SECRET}",
        f"{SECRET}",
        f"export PASSWORD {SECRET}",
        f"PASSWORD='{SECRET}\nOTHER=1",
        f"JOBD_DB_PASSWORD: {SECRET}",
        f'JOBD_DB_PASSWORD="{SECRET}',
    ],
)
@pytest.mark.parametrize("verb", ["run", "check"])
def test_a_faulty_line_of_the_file_does_not_show_its_secret(command: Command, verb: str, line: str) -> None:
    """Who mistypes a password into `.env` finds the fault by its line, and not the password in the log."""
    (command.directory / ".env").write_text(f"JOBD_INTERVAL=1s\n{line}\n")
    done = command(verb)
    assert done.returncode == 78
    assert ".env line 2" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_check_shows_nothing_of_the_jobs_own_variables(command: Command) -> None:
    """Only jobd's settings are shown, whatever else the environment and the file hold."""
    (command.directory / ".env").write_text(f"DATABASE_URL=postgres://app:{SECRET}@db/app\n")
    done = command("check", API_TOKEN=SECRET)
    assert done.returncode == 0
    assert SECRET not in done.stdout + done.stderr


def test_a_traceback_shows_no_values(launch: Launcher) -> None:
    """Neither the variables of a frame nor the environment reach the log with an exception."""
    daemon = launch(
        """
        @every("1h")
        def job():
            password = os.environ["PASSWORD"]
            raise RuntimeError("cannot log in")
        """,
        PASSWORD=SECRET,
    )
    daemon.wait_for("run.finished", outcome="failed")
    assert daemon.stop() == 0
    assert SECRET.encode() not in b"".join(daemon.log.raw)


def test_a_name_does_not_command_the_terminal_of_who_checks(command: Command) -> None:
    """Escape sequences in a job's name are shown, not sent; a newline does not make a second row."""
    (command.directory / "jobs.py").write_text(
        "from jobd import every\n@every('1s', name='\\x1b]0;owned\\x07 two\\nlines')\ndef job(): pass\n"
    )
    done = command("check", "jobs")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\\x1b]0;owned\\x07 two\\nlines" in done.stdout
