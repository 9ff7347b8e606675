"""Each example is run by a real daemon, from within its directory, and does what it promises."""

import importlib.util
import json
import re
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from acceptance.conftest import Command, Launcher
from acceptance.harness import Daemon, instant

from jobd.testing import simulate

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
BERLIN = ZoneInfo("Europe/Berlin")
#: For what has to wait for a schedule of several seconds, on a machine that has other things to do.
LONG_S = 60.0


def target(name: str) -> str:
    """What is given to `jobd run` within the example."""
    return "jobs.toml" if Path(EXAMPLES, name, "jobs.toml").exists() else "jobs"


def copy(name: str, to: Path) -> None:
    """Put the example's files there."""
    shutil.copytree(EXAMPLES / name, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


def run(launch: Launcher, name: str, **variables: str) -> Daemon:
    """Start a daemon with a copy of the example, as its README says."""
    copy(name, launch.directory)
    return launch("", "run", target(name), env=variables)


def ends_well(daemon: Daemon) -> None:
    """The daemon stops with 0, on time, and its log is whole."""
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


class Status(ThreadingHTTPServer):
    """Tells a status to whoever asks, and counts the connections over which they do."""

    daemon_threads = True
    connections = 0

    def process_request(self, request: object, client_address: object) -> None:
        """A connection has been made."""
        self.connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]


class Answer(BaseHTTPRequestHandler):
    """One connection, over which any number of requests may come."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer one of them."""
        body = json.dumps({"path": self.path, "healthy": True}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads that."""


@pytest.fixture
def status() -> Iterator[Status]:
    """A server on this machine."""
    with Status(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_01_poll_http(launch: Launcher, status: Status) -> None:
    """What the server tells is in the log, and all polls share one connection."""
    daemon = run(launch, "01_poll_http", STATUS_URL=f"http://127.0.0.1:{status.server_port}/status.json")
    daemon.wait_for("status", count=3, timeout=LONG_S, job="poll", path="/status.json", healthy=True)
    ends_well(daemon)
    assert set(daemon.outcomes()) == {"succeeded"}
    assert status.connections == 1


def test_02_sqlite_backup(launch: Launcher, tmp_path: Path) -> None:
    """Each copy can be opened and is whole, while somebody else writes; the newest seven stay."""
    backups = tmp_path / "copies"
    backups.mkdir()
    for day in range(1, 9):
        (backups / f"2001-01-0{day}T033000.db").touch()
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.execute("CREATE TABLE orders (number INTEGER)")
        database.executemany("INSERT INTO orders VALUES (?)", [(number,) for number in range(1000)])
        database.commit()
        database.execute("INSERT INTO orders VALUES (1000)")  # and is still at it
        daemon = run(
            launch, "02_sqlite_backup", DATABASE=str(tmp_path / "shop.db"), BACKUPS=str(backups),
            BACKUP_AT="* * * * * *",
        )  # fmt: skip
        daemon.wait_for("backed up", count=2, timeout=LONG_S)
        ends_well(daemon)
    assert set(daemon.outcomes()) == {"succeeded"}
    copies = sorted(path.name for path in backups.iterdir())
    ours = [path for path in copies if not path.startswith("2001")]
    assert len(copies) == 7
    assert copies[-len(ours) :] == ours
    assert len(ours) == min(7, len(daemon.events("backed up")))
    for name in ours:
        with closing(sqlite3.connect(backups / name)) as found:
            assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert found.execute("SELECT count(*), max(number) FROM orders").fetchall() == [(1000, 999)]


def test_03_command(launch: Launcher) -> None:
    """Each line that the command prints is a line of the log, which knows its run."""
    daemon = run(launch, "03_command")
    finished = daemon.wait_for("run.finished", job="disk", outcome="succeeded", exit_status=0)
    ends_well(daemon)
    output = daemon.events("job.output", job="disk", run_id=finished["run_id"], stream="stdout")
    assert len(output) == 2
    assert output[0]["line"].startswith("Filesystem")
    assert output[1]["line"].endswith(" /")


def test_04_cpu_in_a_process(launch: Launcher, tmp_path: Path) -> None:
    """The right number of primes, from an interpreter that is not the daemon's."""
    tracer = tmp_path / "tracer"
    tracer.mkdir()
    (tracer / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"with open({str(tmp_path / 'interpreters')!r}, 'a') as file:\n"
        "    file.write(f'{os.getpid()} {os.getppid()} {sys.orig_argv}\\n')\n"
    )
    daemon = run(launch, "04_cpu_in_a_process", PYTHONPATH=str(tracer))
    primes = daemon.wait_for("primes", timeout=LONG_S)
    assert (primes["job"], primes["below"], primes["count"]) == ("count_primes", 200_000, 17_984)
    daemon.wait_for("run.finished", run_id=primes["run_id"], outcome="succeeded")
    ends_well(daemon)
    children = re.findall(rf"^(\d+) {daemon.pid} .*jobd\.child", (tmp_path / "interpreters").read_text(), re.MULTILINE)
    assert len(children) == len(daemon.events("run.started"))


def test_05_checkpoint(launch: Launcher, tmp_path: Path) -> None:
    """A stop saves how far it has come, and the next start goes on from there; so does the one after."""
    checkpoint = tmp_path / "state" / "checkpoint.json"
    checkpoint.parent.mkdir()
    so_far = 0
    for _ in range(2):
        daemon = run(launch, "05_checkpoint", CHECKPOINT=str(checkpoint))
        assert daemon.wait_for("going on", job="work")["done"] == so_far
        ends_well(daemon)
        assert daemon.outcomes() == ["succeeded"]
        (saved,) = daemon.events("saved")
        assert json.loads(checkpoint.read_text()) == {"done": saved["done"]}
        assert so_far <= saved["done"] < 1000
        so_far = saved["done"] + 5
        checkpoint.write_text(json.dumps({"done": so_far}))  # the stop may have come before the first item


def test_06_retry(launch: Launcher, tmp_path: Path) -> None:
    """It tries again as long as nothing is there; then the run has succeeded, and there was one."""
    daemon = run(launch, "06_retry", INBOX=str(tmp_path / "mail.txt"), BACKOFF="0.3s")
    retrying = daemon.wait_for("run.retrying")
    assert (retrying["job"], retrying["attempt"], retrying["error"]["type"]) == ("fetch", 1, "FileNotFoundError")
    (tmp_path / "mail.partial").write_text("Dear all")
    (tmp_path / "mail.partial").rename(tmp_path / "mail.txt")
    assert daemon.wait_for("fetched", run_id=retrying["run_id"])["characters"] == 8
    finished = daemon.wait_for("run.finished", run_id=retrying["run_id"], outcome="succeeded")
    ends_well(daemon)
    assert finished["attempts"] == len(daemon.events("run.retrying")) + 1 <= 6
    assert len(daemon.events("run.started")) == 1


def test_07_cron_in_a_time_zone(launch: Launcher, command: Command) -> None:
    """The next ticks are half past eight in Berlin on weekdays, whatever that is in UTC; nothing runs before."""
    daemon = run(launch, "07_cron_in_a_time_zone")
    daemon.wait_for("daemon.ready", jobs=1)
    checked = command("check", "jobs")
    assert checked.returncode == 0
    _, _, ticks = checked.stdout.partition("Next ticks")
    told = [datetime.fromisoformat(text) for text in re.findall(r"\S+Z\b", ticks)]
    assert len(told) == 3
    for tick in told:
        assert tick.tzinfo is not None
        assert (tick.hour, tick.minute) in ((6, 30), (7, 30))
        there = tick.astimezone(BERLIN)
        assert (there.hour, there.minute, there.second) == (8, 30, 0)
        assert there.weekday() < 5
    ends_well(daemon)


def test_07_over_a_change_of_the_clocks() -> None:
    """From Friday to Monday the clocks are set ahead, or back: it is half past eight there, and another hour in UTC."""
    spec = importlib.util.spec_from_file_location("good_morning", EXAMPLES / "07_cron_in_a_time_zone" / "jobs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for start, hours in ((datetime(2026, 3, 27, tzinfo=UTC), [7, 6]), (datetime(2026, 10, 23, tzinfo=UTC), [6, 7])):
        story = simulate(module.good_morning, start=start, lasting="3d12h")
        scheduled = [run.scheduled_at for run in story.runs]
        assert [(at.hour, at.minute) for at in scheduled] == [(hour, 30) for hour in hours]
        assert [at.astimezone(BERLIN).hour for at in scheduled] == [8, 8]
        assert [at.strftime("%a") for at in scheduled] == ["Fri", "Mon"]
        assert all(0 <= (run.started_at - run.scheduled_at).total_seconds() <= 10 for run in story.runs)
        assert {run.outcome for run in story.runs} == {"succeeded"}


def test_08_toml_alone(launch: Launcher) -> None:
    """The heartbeat is on the clock's whole five seconds, and what takes too long is timed out."""
    daemon = run(launch, "08_toml_alone")
    daemon.wait_for("run.finished", job="load", outcome="succeeded", timeout=LONG_S)
    slow = daemon.wait_for("run.finished", job="slow", timeout=LONG_S)
    assert (slow["outcome"], slow["signal"]) == ("timed_out", "SIGTERM")
    assert slow["duration_s"] >= 3
    alive = daemon.wait_for("job.output", job="heartbeat", timeout=LONG_S)
    assert alive["line"].startswith("alive since ")
    ends_well(daemon)
    for line in daemon.events("run.started", job="heartbeat"):
        assert instant(line, "scheduled_at").timestamp() % 5 == 0


@pytest.mark.parametrize("name", NAMES)
def test_check_finds_nothing_wrong(name: str, command: Command, tmp_path: Path) -> None:
    """`jobd check` shows the jobs and their next ticks, with exit code 0, in an environment without variables."""
    copy(name, tmp_path)
    checked = command("check", target(name))
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "Next ticks" in checked.stdout


def test_every_example_is_told_of_and_tested() -> None:
    """The list in examples/README.md has each directory once, with a file that is there; each has its test here."""
    listed = re.findall(r"^\| \[(\w+)\]\(([\w./]+)\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert [name for name, _ in listed] == NAMES
    for name, file in listed:
        assert file.startswith(f"{name}/")
        assert (EXAMPLES / file).is_file()
        assert f"test_{name}" in globals()
