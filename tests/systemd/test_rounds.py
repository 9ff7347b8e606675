"""Many lives of the service, ended at any instant: by a stop that leaves nothing open, or by a SIGKILL."""

import json
import os
import random
from collections.abc import Iterator

import pytest
from acceptance.consistency import assert_consistent, assert_well_formed

from .box import INSIDE, Box
from .rounds import Round
from .service import Line, Service

pytestmark = pytest.mark.systemd

STOPS = 100
KILLS = 20
#: How long all rounds together may take at most; they need a fraction of it on an idle machine.
ROUNDS_S = 110.0
#: systemd gives up a unit that is started more than five times in ten seconds, and journald what says too much.
AGAIN_AND_AGAIN = """
[Unit]
StartLimitIntervalSec=0
[Service]
RestartSec=50ms
LogRateLimitBurst=1000000
"""
#: Of every kind of job that ends in time if it is asked to; the import takes long enough to be met.
HONEST = """
import asyncio, subprocess, time, structlog, jobd
time.sleep(0.1)

@jobd.every("50ms")
async def says_much(): structlog.get_logger().info("much", text="x" * 300)

@jobd.every("70ms")
def in_a_thread(): time.sleep(0.03)

@jobd.every("90ms")
async def holds_the_loop(): time.sleep(0.04)

@jobd.every("110ms")
def fails(): raise LookupError("nothing there")

@jobd.every("150ms")
async def cleans_up():
    try: await asyncio.sleep(60)
    finally: await asyncio.sleep(0.02)

@jobd.every("170ms")
def listens(): jobd.current_run().stopping.wait(60)

@jobd.every("190ms")
async def waits_for_a_child(): await (await asyncio.create_subprocess_exec("sleep", "0.1")).wait()
"""
#: Says as much as it can, and leaves children of every kind behind.
LEAVING = """
import random, subprocess, structlog, jobd

log = structlog.get_logger()

@jobd.every("1h")
def says_much():
    while not jobd.current_run().stopping.wait(0.001): log.info("much", text="x" * random.randrange(3500))

@jobd.every("1h")
def leaves_a_child_in_a_session_of_its_own(): subprocess.Popen(["sleep", "600"], start_new_session=True)

@jobd.every("1h")
def leaves_a_grandchild_that_is_deaf():
    subprocess.run(["sh", "-c", "trap '' TERM HUP INT; sleep 601 &"], check=True)
"""


@pytest.fixture
def seed() -> str:
    """Decides all instants; `ROUNDS_SEED` repeats those of an earlier session."""
    seed = os.environ.get("ROUNDS_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"ROUNDS_SEED={seed}")  # pytest shows what is printed here where a test has failed
    return seed


@pytest.fixture
def four(box: Box) -> Iterator[list[Service]]:
    """Four instances, not started, that may be started as often as one likes; two cores, so they hinder each other."""
    services = [Service(box, f"jobd@r{number}") for number in range(4)]
    for service in services:
        service.drop_in(AGAIN_AND_AGAIN)
        # Something must refer to an instance, or systemd forgets how it ended as soon as it has.
        box.run("systemctl", "--quiet", "add-wants", "basic.target", service.unit)
    yield services
    box.run("rm", "-r", "/etc/systemd/system/basic.target.wants")
    for service in services:
        service.forget()


def rounds(services: list[Service], kind: str, seed: str, count: int) -> list[Round]:
    """Go through the rounds; what became of them."""
    units = [service.unit for service in services]
    script = f"{INSIDE}/tests/systemd/rounds.py"
    told = services[0].box.run("python3", script, kind, seed, str(count), *units, timeout_s=ROUNDS_S).stdout
    print(told)
    return [json.loads(line) for line in told.splitlines()]


def lives(services: list[Service]) -> dict[int, list[Line]]:
    """The log of each daemon that has lived, by its process id; each line must be whole, and nothing but JSON."""
    logs: dict[int, list[Line]] = {}
    for service in services:
        for line in service.log():
            assert_well_formed(line)
            if line["event"] == "daemon.starting":
                current = logs[line["pid"]] = []
            current.append(line)
    return logs


def test_a_hundred_stops_at_any_instant_leave_a_hundred_clean_journals(four: list[Service], seed: str) -> None:
    """From the first moments of the import to far into the runs: success for systemd, and a log that proves itself."""
    four[0].jobs(HONEST)
    told = rounds(four, "stop", seed, STOPS)
    logs = lives(four)
    assert len(told) == STOPS
    met_importing = silent = 0
    for life in told:
        assert (life["ActiveState"], life["Result"], life["NRestarts"]) == ("inactive", "success", "0"), life
        lines = logs.pop(int(life["ExecMainPID"]), [])
        if not lines:  # stopped before Python could catch a signal, if it was started at all
            assert life["since"] == "start", life
            silent += 1
            continue
        assert_consistent(lines)
        assert lines[-1]["exit_code"] == 0, life
        met_importing += all(line["event"] != "daemon.ready" for line in lines)
    assert not logs, "a life that no round has started"
    assert met_importing, "no stop has met an import"
    assert met_importing + silent < STOPS * 3 / 4, "few have run"


def test_twenty_kills_are_survived_and_nothing_of_the_killed_stays(four: list[Service], seed: str) -> None:
    """SIGKILL tears no line and leaves no process behind, the guard included; systemd starts the next, which copes."""
    two = four[:2]
    two[0].jobs(LEAVING)
    told = rounds(two, "kill", seed, KILLS)
    logs = lives(two)
    killed = [life for life in told if life["killed"]]
    assert len(killed) == KILLS
    for life in killed:
        assert life["left"] == [], life
        events = [line["event"] for line in logs[int(life["ExecMainPID"])]]
        assert events[:2] == ["daemon.starting", "daemon.ready"], life
        assert "daemon.stopped" not in events, life
    names = {name for life in killed for name in life["killed"]}
    assert {"jobd-guard", "sleep"} <= names
    for last in (life for life in told if not life["killed"]):
        assert (last["Result"], last["NRestarts"]) == ("success", str(KILLS // 2)), last
        assert_consistent(logs[int(last["ExecMainPID"])])
