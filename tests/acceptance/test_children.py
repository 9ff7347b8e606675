"""Children in every shape: what they inherit, and that none outlives the daemon."""

import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Launcher
from .harness import Daemon, becoming_jobd, in_session, parsed, poll

SHORT = {"JOBD_GRACE_PERIOD": "0.3", "JOBD_CANCEL_TIMEOUT": "1"}

#: Children that end when they are asked to: how many processes that makes, and how the run ends then.
POLITE = {
    "of a coroutine": (
        1,
        "cancelled",
        "async def job(): await (await asyncio.create_subprocess_exec('sleep', '600')).wait()",
    ),
    "of a coroutine's shell": (
        2,
        "cancelled",
        "async def job(): await (await asyncio.create_subprocess_shell('sleep 600; true')).communicate()",
    ),
    "of a function": (1, "succeeded", "def job(): subprocess.run(['sleep', '600'])"),
    "of a function that checks": (1, "failed", "def job(): subprocess.run(['sleep', '600'], check=True)"),
    "read by a function": (1, "succeeded", "def job(): subprocess.run(['sleep', '600'], capture_output=True)"),
    "in a pipeline": (3, "succeeded", "def job(): subprocess.run('sleep 600 | cat | cat', shell=True)"),
    "of os.system": (1, "succeeded", "def job(): os.system('sleep 600')"),
    "in a session of its own": (
        1,
        "succeeded",
        "def job(): subprocess.run(['sleep', '600'], start_new_session=True)",
    ),
    "in a session of its own, with a child": (
        2,
        "succeeded",
        "def job(): subprocess.run('sleep 600; true', shell=True, start_new_session=True)",
    ),
    "stopped": (
        1,
        "succeeded",
        "def job():\n    child = subprocess.Popen(['sleep', '600'])\n    child.send_signal(19)\n    child.wait()",
    ),
    "a hundred": (
        100,
        "succeeded",
        "def job():\n    for child in [subprocess.Popen(['sleep', '600']) for _ in range(100)]: child.wait()",
    ),
}

#: Children that are there when no run is: how many processes.
LEFT_OPEN = {
    "started and forgotten": (1, "def job(): subprocess.Popen(['sleep', '600'])"),
    "a pool": (
        2,
        """
        from concurrent.futures import ProcessPoolExecutor
        pool = ProcessPoolExecutor(2)
        def job(): list(pool.map(len, ["a", "b", "c", "d"])); pool.submit(time.sleep, 600); pool.submit(int)
        """,
    ),
    "a pool of multiprocessing": (
        2,
        "import multiprocessing\ndef job():\n    global pool\n    pool = multiprocessing.Pool(2)",
    ),
    "a daemonic process": (
        1,
        "from multiprocessing import Process\ndef job(): Process(target=time.sleep, args=(600,), daemon=True).start()",
    ),
    "a process": (
        1,
        "import multiprocessing\ndef job(): multiprocessing.Process(target=time.sleep, args=(600,)).start()",
    ),
    "a spawned process and its tracker": (
        2,
        "import multiprocessing\ndef job():\n"
        "    multiprocessing.get_context('spawn').Process(target=time.sleep, args=(600,)).start()",
    ),
    "a fork server, its tracker and a process": (
        3,
        "import multiprocessing\ndef job():\n"
        "    multiprocessing.get_context('forkserver').Process(target=time.sleep, args=(600,)).start()",
    ),
    "a fork": (1, "def job():\n    if os.fork() == 0: time.sleep(600)"),
    "one that ignores SIGTERM": (2, """def job(): subprocess.Popen("trap '' TERM; sleep 600; true", shell=True)"""),
    "one that is stopped and ignores SIGTERM": (
        1,
        "def job():\n"
        "    subprocess.Popen(['sleep', '600'], preexec_fn=lambda: signal.signal(15, signal.SIG_IGN)).send_signal(19)",
    ),
    "one that floods its output": (1, "def job(): subprocess.Popen(['yes'])"),
    "a family whose middle has gone": (
        1,
        """def job(): subprocess.Popen("trap '' TERM; sleep 600 & wait", shell=True, start_new_session=True)""",
    ),
}


def family_of(pid: int) -> list[int]:
    """The living descendants of a process."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := stat_of(int(entry.name))) and stat[0] not in "ZX":
            parents[int(entry.name)] = int(stat[1])
    found = [pid]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found[1:]


def stat_of(pid: int) -> list[str]:
    """State, parent, and so on; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def alive(pids: list[int]) -> list[int]:
    """Those that have not ended."""
    return [pid for pid in pids if stat_of(pid)[:1] not in ([], ["Z"], ["X"])]


def assert_gone(pids: list[int]) -> None:
    """All of them have ended; whoever has been killed may take a moment for it on a busy machine."""
    poll(lambda: not alive(pids), f"the end of {pids}", timeout=2)


def family_grown(daemon: Daemon, count: int) -> list[int]:
    """The daemon's descendants, as soon as jobs have started so many."""
    daemon.wait_for("daemon.starting")  # from then on the guard is on its own
    poll(lambda: len(family_of(daemon.pid)) >= count, f"{count} children")
    return family_of(daemon.pid)


def guard_of(daemon: Daemon) -> int:
    """The guard's process."""

    def found() -> list[int]:
        pids = in_session(daemon.process.pid)
        return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "jobd-guard\n"]

    poll(found, "the guard")
    return found()[0]


@pytest.mark.parametrize(("count", "outcome", "text"), POLITE.values(), ids=POLITE)
def test_child_of_a_leftover_is_asked_to_end(launch: Launcher, count: int, outcome: str, text: str) -> None:
    """SIGTERM reaches the whole family when the leftovers are cancelled; who waits for it ends in time, 0."""
    daemon = launch(f"@every('1h')\n{text}", JOBD_GRACE_PERIOD="0.3", JOBD_CANCEL_TIMEOUT="5")
    daemon.wait_for("run.started")
    family = family_grown(daemon, count)
    assert daemon.stop(within=4) == 0
    assert_gone(family)
    daemon.assert_log_is_consistent(stderr=daemon.stderr)
    assert daemon.outcomes() == [outcome]
    assert not daemon.events("children.killed")


@pytest.mark.parametrize(("count", "text"), LEFT_OPEN.values(), ids=LEFT_OPEN)
def test_children_that_are_left_open_do_not_outlive_the_daemon(launch: Launcher, count: int, text: str) -> None:
    """With no run in flight there is no grace period for them: asked to end, killed if they do not; 0."""
    daemon = launch(textwrap.dedent(text).replace("def job", "@every('1h')\ndef job"), JOBD_GRACE_PERIOD="30")
    daemon.wait_for("run.finished")
    family = family_grown(daemon, count)
    assert daemon.stop(within=2) == 0
    assert_gone(family)
    daemon.assert_log_is_consistent(stderr=daemon.stderr)
    assert daemon.outcomes() == ["succeeded"]


def test_shared_memory_is_removed_by_who_is_there_for_it(launch: Launcher) -> None:
    """Python's helper outlives the daemon by a moment, to do its work: segments that nobody has unlinked are gone."""
    daemon = launch(
        """
        from multiprocessing import shared_memory
        @every("1h")
        def job():
            global memory
            memory = shared_memory.SharedMemory(create=True, size=100)
            log.info("created", segment=memory.name)
        """
    )
    segment = Path("/dev/shm") / daemon.wait_for("created")["segment"]
    family = family_grown(daemon, 1)
    assert segment.exists()
    assert daemon.stop(within=1) == 0
    assert_gone(family)
    assert not segment.exists()
    daemon.assert_log_is_consistent()
    assert not daemon.events("children.killed")


def test_child_that_ignores_sigterm_is_killed_and_named(launch: Launcher) -> None:
    """The run that waits for it is abandoned; the child is killed, with its own, and the log says which."""
    daemon = launch(
        """
        @every("1h")
        def job(): subprocess.run("trap '' TERM; sleep 600; sleep 601", shell=True)
        """,
        env=SHORT,
    )
    family = family_grown(daemon, 2)
    assert daemon.stop() == 3
    assert_gone(family)
    daemon.assert_log_is_consistent()
    line = daemon.events("children.killed")[0]
    assert (line["level"], line["count"]) == ("warning", 2)
    assert {child["pid"]: child["command"] for child in line["children"]} == dict(
        zip(family, ["sh", "sleep"], strict=True)
    )


def test_child_of_a_shell_that_has_ended_is_remembered(launch: Launcher) -> None:
    """The shell obeys SIGTERM and leaves a child that does not, which belongs to nobody then: killed all the same."""
    daemon = launch(
        """
        @every("1h")
        def job(): subprocess.run("(trap '' TERM; sleep 600; true) & wait", shell=True)
        """,
        env=SHORT,
    )
    family = family_grown(daemon, 3)
    assert daemon.stop() == 0
    assert_gone(family)
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["succeeded"]
    assert daemon.events("children.killed")[0]["count"] == 2


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without a guard"])
def test_child_that_clean_up_starts_is_left_alone_until_the_end(launch: Launcher, guarded: bool) -> None:
    """A cancelled run may run a command in its `finally`; nobody sends that one a signal while there is time."""
    daemon = launch(
        """
        @every("1h")
        async def job():
            try: await (await asyncio.create_subprocess_exec("sleep", "600")).wait()
            finally:
                code = await (await asyncio.create_subprocess_exec("sleep", "0.5")).wait()
                log.info("cleaned", code=code)
        """,
        JOBD_GRACE_PERIOD="0.3",
        JOBD_CANCEL_TIMEOUT="5",
    )
    family_grown(daemon, 1)
    if not guarded:
        _kill_guard(daemon)
    assert daemon.stop(within=4) == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("cleaned", code=0)
    assert daemon.outcomes() == ["cancelled"]


def test_children_that_work_are_let_work_in_the_drain(launch: Launcher) -> None:
    """A run that waits for its child has the grace period, and so has the child."""
    daemon = launch(
        "@every('1h')\ndef job(): log.info('child', code=subprocess.run(['sleep', '0.7']).returncode)",
        JOBD_GRACE_PERIOD="10",
    )
    family_grown(daemon, 1)
    assert daemon.stop(within=3) == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("child", code=0)


def test_child_has_a_moment_to_clean_up_at_the_end(launch: Launcher) -> None:
    """A child that outlives its run gets SIGTERM before SIGKILL, and the time for a short clean-up."""
    daemon = launch(
        """
        script = "trap 'echo done > cleaned; exit' TERM; touch ready; while :; do sleep 0.01; done"
        @every("1h")
        def job(): subprocess.Popen(script, shell=True)
        """
    )
    poll((daemon.directory / "ready").exists, "the trap")
    assert daemon.stop(within=2) == 0
    daemon.assert_log_is_consistent(stderr=daemon.stderr)
    assert (daemon.directory / "cleaned").read_text() == "done\n"


def test_the_end_names_twenty_of_many_children(launch: Launcher) -> None:
    """A hundred children that ignore SIGTERM are killed in time; the line about them stays short."""
    daemon = launch(
        """
        def ignore(): signal.signal(signal.SIGTERM, signal.SIG_IGN)
        @every("1h")
        def job():
            for _ in range(100): subprocess.Popen(["sleep", "600"], preexec_fn=ignore)
        """
    )
    daemon.wait_for("run.finished")
    family = family_grown(daemon, 100)
    assert daemon.stop() == 0
    assert_gone(family)
    daemon.assert_log_is_consistent()
    line = daemon.events("children.killed")[0]
    assert (line["count"], len(line["children"])) == (100, 20)


def test_children_that_start_others_without_end_are_all_killed(launch: Launcher) -> None:
    """A family that ignores SIGTERM and grows while it is being killed has no survivor."""
    daemon = launch(
        """
        @every("1h")
        def job(): subprocess.Popen("trap '' TERM; while :; do sleep 0.02 & sleep 0.01; done", shell=True)
        """
    )
    daemon.wait_for("run.finished")
    family_grown(daemon, 2)
    assert daemon.stop() == 0
    poll(lambda: not in_session(daemon.process.pid), "the end of all", timeout=2)
    daemon.assert_log_is_consistent(stderr=daemon.stderr)


@pytest.mark.parametrize("then", ["pass", "[child.wait() for child in children]"])
def test_shells_that_go_on_when_their_command_is_ended_leave_none(launch: Launcher, then: str) -> None:
    """Whose command is asked to end before the shell is would start the next one, and leave it to nobody."""
    daemon = launch(
        f"""
        @every("1h")
        def job():
            children = [subprocess.Popen("while :; do sleep 600; done", shell=True) for _ in range(30)]
            {then}
        """,
        env=SHORT,
    )
    family_grown(daemon, 60)
    assert daemon.stop() == 0
    poll(lambda: not in_session(daemon.process.pid), "the end of all", timeout=2)
    daemon.assert_log_is_consistent()


def test_run_that_starts_children_without_end_leaves_none(launch: Launcher) -> None:
    """A function that ignores the stop and starts one child after the other: abandoned, and no child is left."""
    daemon = launch(
        """
        @every("1h")
        def job():
            while True: subprocess.run(["sleep", "0.02"])
        """,
        env=SHORT,
    )
    family_grown(daemon, 1)
    assert daemon.stop() == 3
    poll(lambda: not in_session(daemon.process.pid), "the end of all", timeout=2)
    daemon.assert_log_is_consistent(stderr=daemon.stderr)


def test_fork_that_goes_on_with_the_job_ends_with_the_daemon(launch: Launcher) -> None:
    """A job that forks and lets both go on: the child is no daemon, and does not outlive the one there is."""
    daemon = launch("@every('1h')\ndef job():\n    os.fork()\n    current_run().stopping.wait()", env=SHORT)
    family = family_grown(daemon, 1)
    assert daemon.stop() == 0
    assert_gone(family)
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["succeeded"]


def test_zombies_do_not_delay_the_stop(launch: Launcher) -> None:
    """Children that have ended, and that nobody has waited for, are none to end."""
    daemon = launch(
        "children = []\n@every('1h')\ndef job():\n    for _ in range(20): children.append(subprocess.Popen(['true']))"
    )
    daemon.wait_for("run.finished")
    assert daemon.stop(within=1) == 0
    daemon.assert_log_is_consistent()
    assert not daemon.events("children.killed")


@pytest.mark.alone  # three floods take what there is, and the last lines have six tenths of a second
def test_flood_into_a_stalled_reader_does_not_delay_the_stop(launch: Launcher) -> None:
    """Children that fill every pipe, with nobody at the other end of the log: gone within the bound, with them."""
    daemon = launch(
        """
        @every("1h")
        def job():
            for stream in (None, subprocess.STDOUT): subprocess.Popen(["yes"], stderr=stream)
            subprocess.run("trap '' TERM; yes >&2; yes", shell=True)
        """,
        read=False,
        env=SHORT,
    )
    poll(lambda: len(family_of(daemon.pid)) >= 4, "the flood")
    family = family_of(daemon.pid)
    assert daemon.stop() in (0, 3)
    assert_gone(family)


def test_child_that_holds_the_log_open_does_not_keep_its_reader(launch: Launcher) -> None:
    """A forked child shares the log's pipe; it is killed with the rest, so the log has an end."""
    daemon = launch("@every('1h')\ndef job():\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(600)")
    daemon.wait_for("run.finished")
    family_grown(daemon, 1)
    assert daemon.stop(within=2) == 0
    daemon.assert_log_is_consistent()


def test_who_has_left_the_family_is_left_alone_and_does_not_delay_the_stop(launch: Launcher) -> None:
    """A daemon that a job has started in the classic way, by forking twice, is nobody's child any more."""
    daemon = launch(
        """
        @every("1h")
        def job():
            if (child := os.fork()) == 0:
                os.setsid()
                if os.fork() == 0:
                    with open("far", "w") as file: file.write(str(os.getpid()))
                    os.execvp("sleep", ["sleep", "60"])
                os._exit(0)
            os.waitpid(child, 0)
            while not os.path.exists("far") or not open("far").read(): time.sleep(0.01)
        """,
        JOBD_GRACE_PERIOD="30",
    )
    daemon.wait_for("run.finished")
    far = int((daemon.directory / "far").read_text())
    try:
        poll(lambda: Path(f"/proc/{far}/comm").read_text() == "sleep\n", "sleep")
        assert daemon.stop(within=1) == 0
        daemon.assert_log_is_consistent()
        assert alive([far])
    finally:
        os.kill(far, signal.SIGKILL)


def test_who_was_there_before_the_daemon_is_left_alone(launch: Launcher) -> None:
    """A start script that becomes jobd may have children: the reader of its log, say. They are not the jobs'."""
    sleep = "os.execvp('sh', ['sh', '-c', 'exec sleep 60 >/dev/null 2>&1'])"
    before = f"if not (p := os.fork()): {sleep}\nopen('before', 'w').write(str(p))"
    daemon = launch(
        "@every('1h')\ndef job(): subprocess.run(['sleep', '600'])", program=becoming_jobd(before), env=SHORT
    )
    daemon.wait_for("run.started")
    family_grown(daemon, 2)
    before_pid = int((daemon.directory / "before").read_text())
    try:
        assert daemon.stop() == 0
        daemon.assert_log_is_consistent()
        assert alive([before_pid])
    finally:
        os.kill(before_pid, signal.SIGKILL)


def test_job_that_waits_for_all_children_waits_for_its_own(launch: Launcher) -> None:
    """`os.wait()` until there is no child any more comes to an end: the daemon has none of its own."""
    daemon = launch(
        """
        @every("1h")
        def job():
            children = [subprocess.Popen(["true"]) for _ in range(3)]
            try:
                while True: log.info("ended", pid=os.wait()[0])
            except ChildProcessError: pass
        """
    )
    daemon.wait_for("run.finished")
    assert len(daemon.events("ended")) == 3
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent(stderr=daemon.stderr)


def test_ignored_sigchld_keeps_no_child_alive(launch: Launcher) -> None:
    """A module that ignores SIGCHLD loses exit codes, and its children all the same."""
    daemon = launch(
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "@every('1h')\ndef job(): subprocess.Popen(['sleep', '600'])\n"
        "@every('1h')\ndef waiter(): subprocess.run(['sleep', '601'])",
        env=SHORT,
    )
    daemon.wait_for("run.finished", job="job")
    family = family_grown(daemon, 2)
    assert daemon.stop() == 0
    assert_gone(family)
    daemon.assert_log_is_consistent()


def test_children_of_a_module_that_cannot_be_loaded_are_ended(launch: Launcher) -> None:
    """What an import has started does not outlive the refusal of its configuration."""
    daemon = launch("subprocess.Popen(['sleep', '600'])\nraise OSError('no database')")
    assert daemon.exit_code() == 78
    poll(lambda: not in_session(daemon.process.pid), "the end of all", timeout=2)


def test_children_of_an_import_that_is_stopped_are_ended(launch: Launcher) -> None:
    """A stop while the jobs are imported: at once, with what the import has started."""
    daemon = launch("log.info('importing')\nsubprocess.run(['sleep', '600'])")
    family = family_grown(daemon, 1)
    assert daemon.stop(within=2) == 0
    assert_gone(family)
    daemon.assert_log_is_consistent()


def test_children_do_not_outlive_a_third_signal(launch: Launcher) -> None:
    """Leaving now means leaving nobody: children get their moment, then SIGKILL."""
    daemon = launch(
        """
        @every("1h")
        def job(): subprocess.run("trap '' TERM; sleep 600; true", shell=True)
        """,
        JOBD_GRACE_PERIOD="30",
        JOBD_CANCEL_TIMEOUT="30",
    )
    family = family_grown(daemon, 2)
    for told in ("shutdown.waiting", "shutdown.cancelling"):
        daemon.signal(signal.SIGTERM)
        daemon.wait_for(told)
        time.sleep(0.3)  # signals closer together count as one
    daemon.signal(signal.SIGTERM)
    assert daemon.exit_code(within=3) == 3
    assert_gone(family)
    daemon.assert_log_is_consistent()


#: Whoever is forked has signals waiting in its very first moment, as from a Ctrl-C on the terminal.
SIGNALLED_IN_THE_FORK = """
import os, signal
def signalled(): os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGTERM)
os.register_at_fork(after_in_child=signalled)
from jobd.__main__ import main
main()
"""


def test_guard_hears_no_signal_of_its_own_from_its_first_moment_on(launch: Launcher) -> None:
    """They are meant for the daemon."""
    daemon = launch("@every('0.1')\nasync def beat(): pass", program=(sys.executable, "-c", SIGNALLED_IN_THE_FORK))
    daemon.wait_for("run.finished")
    assert guard_of(daemon)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def _kill_guard(daemon: Daemon) -> None:
    os.kill(guard_of(daemon), signal.SIGKILL)


def _freeze_guard(daemon: Daemon) -> None:
    os.kill(guard_of(daemon), signal.SIGSTOP)


@pytest.mark.parametrize("harm", [_kill_guard, _freeze_guard], ids=["killed", "frozen"])
def test_daemon_that_has_lost_its_guard_goes_on_and_stops(launch: Launcher, harm: Callable[[Daemon], None]) -> None:
    """The daemon ends its children itself then, and in time."""
    daemon = launch(
        """
        @every("0.1")
        async def quick(): pass
        @every("1h")
        def job(): subprocess.run("trap '' TERM; sleep 600; true", shell=True)
        @every("1h")
        def polite(): subprocess.run(["sleep", "601"])
        """,
        env=SHORT,
    )
    family = family_grown(daemon, 3)
    guard = guard_of(daemon)
    harm(daemon)
    daemon.wait_for("run.finished", job="quick", count=len(daemon.events("run.finished")) + 3)
    assert daemon.stop() == 3
    os.kill(guard, signal.SIGKILL) if alive([guard]) else None
    assert_gone(family)
    daemon.assert_log_is_consistent()
    assert daemon.events("children.killed")


def test_daemon_runs_without_a_guard_where_no_process_is_to_be_had(launch: Launcher) -> None:
    """A full process table at the start: jobs run, and what they start later is ended."""
    no_fork = "def fork(): raise BlockingIOError(11, 'no process')\nreal, os.fork = os.fork, fork\n"
    code = f"import os, sys\n{no_fork}sys.argv[0] = 'jobd'\nfrom jobd.__main__ import main\nmain()"
    daemon = launch(
        "@every('1h')\ndef job(): subprocess.run('sleep 600; true', shell=True)",
        program=(sys.executable, "-c", code),
        env=SHORT,
    )
    family = family_grown(daemon, 2)
    assert daemon.stop() == 0
    assert_gone(family)
    daemon.assert_log_is_consistent()


def test_guard_leaves_with_a_daemon_that_dies(launch: Launcher) -> None:
    """After SIGKILL to the daemon the guard has nothing to do, even where a forked child shares all descriptors."""
    daemon = launch("@every('1h')\ndef job():\n    if os.fork() == 0: time.sleep(600)")
    daemon.wait_for("run.finished")
    family = family_grown(daemon, 1)
    guard = guard_of(daemon)
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.process.wait()
    try:
        poll(lambda: not alive([guard]), "the end of the guard")
    finally:
        for pid in family:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["def", "async def"], ids=["function", "coroutine"])
def test_a_program_that_takes_the_daemons_place_is_killed(launch: Launcher, kind: str) -> None:
    """It would keep the daemon's number and run no jobs; so its supervisor hears of an end, and no child is left."""
    daemon = launch(
        f"""
        @every("1h")
        def starts(): subprocess.Popen(["sleep", "601"])
        @every("0.5")
        {kind} replaces():
            if current_run().tick: os.execv("/bin/sleep", ["sleep", "602"])
        """
    )
    family = family_grown(daemon, 1)
    assert daemon.exit_code() == -signal.SIGKILL
    assert_gone(family)
    poll(lambda: "replaced the daemon" in daemon.stderr, "the reason")


#: Says what a process has inherited: in a file, since its streams are part of the question.
PROBE = """
import json, os
def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith(name))
def open_files():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try: found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError: pass  # it has been closed meanwhile
    return found
def probe(ours=None):
    fds = open_files()
    names = [name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG"))]
    masks = {"blocked": status("SigBlk"), "ignored": status("SigIgn"), "caught": status("SigCgt")}
    with open("probed.part", "w") as file: json.dump(masks | {"fds": fds, "names": names, "ours": ours}, file)
    os.rename("probed.part", "probed")
"""
PROBING = "[sys.executable, '-c', 'import probe; probe.probe()']"

#: Ways to a new program.
EXECUTED = {
    "subprocess": f"def job(): subprocess.run({PROBING}, check=True)",
    "asyncio": f"async def job(): await (await asyncio.create_subprocess_exec(*{PROBING})).wait()",
    "os.posix_spawn": f"def job(): os.waitpid(os.posix_spawn(sys.executable, {PROBING}, os.environ), 0)",
    "os.system": "def job(): os.system(f\"{sys.executable} -c 'import probe; probe.probe()'\")",
    "fork and exec": f"def job():\n    if os.fork() == 0: os.execv(sys.executable, {PROBING})\n    os.wait()",
}
#: Ways to a copy of the daemon, or to one of Python's own helpers.
COPIED = {
    "os.fork": "def job():\n    if os.fork() == 0:\n        probe.probe()\n        os._exit(0)\n    os.wait()",
    **{
        f"multiprocessing {method}": f"import multiprocessing\ncontext = multiprocessing.get_context({method!r})\n"
        "def job():\n    child = context.Process(target=probe.probe, args=(probe.open_files(),))\n"
        "    child.start(); child.join()"
        for method in ("fork", "spawn", "forkserver")
    },
}
OURS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT, signal.SIGCHLD]


def probed(launch: Launcher, text: str) -> dict[str, Any]:
    """What a child that was started in this way has inherited."""
    (launch.directory / "probe.py").write_text(PROBE)
    daemon = launch(
        "import probe\n"
        + text.replace("def job", "@every('1h')\ndef job").replace("async @every('1h')\n", "@every('1h')\nasync "),
        NOTIFY_SOCKET="@jobd-test-nobody",
        WATCHDOG_USEC="60000000",
    )
    daemon.wait_for("run.finished", outcome="succeeded")
    assert daemon.stop() == 0
    found: dict[str, Any] = json.loads((daemon.directory / "probed").read_text())
    return found


@pytest.mark.parametrize("text", EXECUTED.values(), ids=EXECUTED)
def test_new_program_inherits_nothing_of_the_daemon(launch: Launcher, text: str) -> None:
    """No blocked, ignored or caught signal of ours, no descriptor beside the three, no variable of systemd's."""
    found = probed(launch, text)
    assert found["blocked"] == 0
    assert not [signum for signum in OURS if found["ignored"] >> (signum - 1) & 1]
    assert set(found["fds"]) <= {"0", "1", "2"}
    assert not found["names"]


@pytest.mark.parametrize("text", COPIED.values(), ids=COPIED)
def test_copy_of_the_daemon_has_signals_of_its_own(launch: Launcher, text: str) -> None:
    """A forked child, or a worker of multiprocessing, dies of SIGTERM and does not pass it on."""
    found = probed(launch, text)
    assert found["blocked"] == 0
    for state in ("ignored", "caught"):
        reached = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
        assert not [signum for signum in reached if found[state] >> (signum - 1) & 1], state
    assert not found["names"]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_worker_that_is_no_copy_has_no_descriptor_of_the_daemon(launch: Launcher, method: str) -> None:
    """Beside the three, only what `multiprocessing` gives it."""
    found = probed(launch, COPIED[f"multiprocessing {method}"])
    inherited, ours = (
        {link for fd, link in files.items() if int(fd) > 2 and link.startswith(("pipe:", "socket:"))}
        for files in (found["fds"], found["ours"])
    )
    assert ours
    assert not inherited & ours


def test_a_forked_child_runs_nothing_of_other_jobs(launch: Launcher) -> None:
    """What else was due in that turn of the loop, to begin or to go on, is the daemon's to run."""
    daemon = launch(
        """
        OURS = os.getpid()
        def note(name):
            with open(name, "a") as file: file.write("daemon " if os.getpid() == OURS else "child ")
        @every("1h")
        async def goes_on():
            for _ in range(5): await asyncio.sleep(0)
            note("continued")
        @every("1h")
        async def forks():
            for _ in range(4):
                if os.fork() == 0: await asyncio.sleep(0)
                await asyncio.sleep(0)
        @every("1h")
        async def begins(): note("begun")
        """,
    )
    for job in ("goes_on", "forks", "begins"):
        daemon.wait_for("run.finished", job=job)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert [(daemon.directory / name).read_text() for name in ("continued", "begun")] == ["daemon ", "daemon "]


def test_exit_codes_of_multiprocessing_are_right(launch: Launcher) -> None:
    """In functions, whose threads `threading` has not started, as in coroutines."""
    daemon = launch(
        """
        import multiprocessing
        def codes():
            context, found = multiprocessing.get_context("fork"), []
            for code in (0, 7):
                process = context.Process(target=sys.exit, args=(code,))
                process.start(); process.join()
                found.append(process.exitcode)
            child = os.fork()
            if child == 0: sys.exit(5)
            return [*found, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
        @every("1h")
        def function(): log.info("codes", codes=codes())
        @every("1h")
        async def coroutine(): log.info("codes", codes=codes())
        """,
    )
    for job in ("function", "coroutine"):
        assert daemon.wait_for("codes", job=job)["codes"] == [0, 7, 5]
        daemon.wait_for("run.finished", job=job)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_children_that_print_tear_no_line_of_the_daemons(launch: Launcher) -> None:
    """Not even one that is longer than a pipe takes at once, with a reader that is slow."""
    daemon = launch(
        """
        @every("0.01s")
        async def fails(): raise ValueError("z" * 8000)
        @every("0.05s")
        def forks():
            child = os.fork()
            if child == 0:
                print("from a child")
                os._exit(0)
            os.waitpid(child, 0)
        """,
        read=False,
    )
    assert daemon.process.stdout is not None
    data = b""
    while data.count(b"from a child") < 20:
        data += os.read(daemon.process.stdout.fileno(), 10_000)
        time.sleep(0.01)  # a slow reader
    daemon.signal(signal.SIGTERM)
    while more := os.read(daemon.process.stdout.fileno(), 1 << 20):
        data += more
    assert daemon.exit_code() == 0
    lines = [parsed(line) for line in data.splitlines(keepends=True)]
    assert {line["job"] for line in lines if line.get("line") == "from a child"} == {"forks"}
