"""Rounds of a service's life, driven from inside the box, because entering it for each command would take too long.

Run as a script in the box: ``rounds.py stop|kill SEED ROUNDS UNIT...``. The units share the rounds and go through
them side by side. For each round it prints a JSON object that tells what was done and what systemd says; whether that
is right, and what the journal says, is for the test to judge. Imports nothing but the standard library.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

#: What is told of a unit.
PROPERTIES = ("ActiveState", "Result", "ExecMainCode", "ExecMainStatus", "NRestarts", "InvocationID", "ExecMainPID")
GROUPS = Path("/sys/fs/cgroup")
POLL_S = 0.02
#: No state that is waited for takes as long, on any machine.
PATIENCE_S = 30.0

Round = dict[str, Any]


def main(kind: str, seed: str, rounds: str, *units: str) -> None:
    """Drive the rounds and print what became of them."""
    drive: Callable[[str, random.Random, int], Iterator[Round]] = {"stop": stops, "kill": kills}[kind]

    def told(unit: str) -> list[Round]:
        # Of each unit its own sequence, or the seed would mean nothing where two of them race for the next number.
        return list(drive(unit, random.Random(f"{seed} {unit}"), int(rounds) // len(units)))

    with ThreadPoolExecutor(len(units)) as pool:
        for of_one_unit in pool.map(told, units):
            for line in of_one_unit:
                print(json.dumps(line))


def stops(unit: str, chance: random.Random, rounds: int) -> Iterator[Round]:
    """Start, and stop at any instant: counted from the start, so that many come amid the import, or from readiness."""
    for number in range(rounds):
        grace = chance.choice(("0", "100ms", "500ms"))
        configure(unit, JOBD_JOBS="jobs", JOBD_GRACE_PERIOD=grace)
        counted_from_start = chance.random() < 0.4
        delay_s = chance.uniform(0.02, 0.5) if counted_from_start else chance.uniform(0.0, 0.8)
        systemctl("start", unit, *(["--no-block"] if counted_from_start else []))
        time.sleep(delay_s)
        before = time.monotonic()
        systemctl("stop", unit)
        took_s = round(time.monotonic() - before, 3)
        since = "start" if counted_from_start else "ready"
        yield {
            "unit": unit,
            "round": number,
            "grace": grace,
            "since": since,
            "delay_s": delay_s,
            "took_s": took_s,
        } | show(unit)


def kills(unit: str, chance: random.Random, rounds: int) -> Iterator[Round]:
    """Kill the main process at any instant, and see what of it is still there when systemd has started the next one."""
    configure(unit, JOBD_JOBS="jobs", JOBD_GRACE_PERIOD="0")
    systemctl("start", unit)
    for number in range(rounds):
        time.sleep(chance.uniform(0.0, 0.6))
        killed = show(unit)
        there = processes(unit)
        os.kill(int(killed["ExecMainPID"]), signal.SIGKILL)
        wait_for_the_next(unit, killed["InvocationID"])
        left = [name for process, name in there.items() if exists(process)]
        yield {"unit": unit, "round": number, "killed": sorted(there.values()), "left": left} | killed
    systemctl("stop", unit)
    yield {"unit": unit, "round": rounds, "killed": [], "left": []} | show(unit)


def configure(unit: str, **settings: str) -> None:
    """Write the environment file of an instance."""
    text = "".join(f"{name}={value}\n" for name, value in settings.items())
    Path("/etc/jobd", unit.rpartition("@")[2]).with_suffix(".env").write_text(text)


def systemctl(verb: str, unit: str, *options: str) -> None:
    """Give an order, which must be obeyed."""
    subprocess.run(["systemctl", verb, *options, unit], check=True, timeout=PATIENCE_S)


def show(unit: str) -> dict[str, str]:
    """What systemd says about the unit."""
    asked = ["systemctl", "show", f"--property={','.join(PROPERTIES)}", unit]
    answer = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout
    return dict(line.split("=", 1) for line in answer.splitlines())


def wait_for_the_next(unit: str, invocation: str) -> None:
    """Wait until another invocation of the unit than this one is active."""
    deadline = time.monotonic() + PATIENCE_S
    while (now := show(unit))["InvocationID"] == invocation or now["ActiveState"] != "active":
        if time.monotonic() > deadline:
            raise TimeoutError(f"{unit} has not come back: {now}")
        time.sleep(POLL_S)


def processes(unit: str) -> dict[tuple[int, str], str]:
    """The processes in the unit's control group, told apart by id and time of start, and their names."""
    group = GROUPS / subprocess.run(
        ["systemctl", "show", "--value", "--property=ControlGroup", unit],
        check=True, capture_output=True, text=True, timeout=PATIENCE_S,
    ).stdout.strip().lstrip("/")  # fmt: skip
    pids = [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    found = ((pid, *stat(pid)) for pid in pids)
    return {(pid, began): name for pid, began, name in found if began}


def exists(process: tuple[int, str]) -> bool:
    """Whether this very process is still there."""
    pid, began = process
    return stat(pid)[0] == began


def stat(pid: int) -> tuple[str, str]:
    """When the process was started, and its name; two empty texts if it is gone."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(") ")
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    fields = rest.split()
    return ("", "") if fields[0] in "ZX" else (fields[19], name)


if __name__ == "__main__":
    main(*sys.argv[1:])
