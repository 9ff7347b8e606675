"""Instances: several jobd on one machine, none in the way of another."""

from pathlib import Path

import pytest

from .service import Service

pytestmark = pytest.mark.systemd

UNITS = Path(__file__).resolve().parents[2] / "systemd"
JOBS = """
import os
from pathlib import Path

def leaves_its_name():
    Path(os.environ["STATE_DIRECTORY"], os.environ["NAME"]).touch()
"""
#: What an instance has for itself.
OWN = {"Description", "SyslogIdentifier", "EnvironmentFile", "StateDirectory", "Environment"}


def test_instances_run_side_by_side_with_their_own_settings_and_state(instances: tuple[Service, Service]) -> None:
    """Each reads its own environment file and writes to its own directory."""
    for service in instances:
        service.jobs(JOBS)
    for service, name in zip(instances, ("ada", "bob"), strict=True):
        service.settings(JOBD_JOBS="jobs:leaves_its_name", NAME=name)
    for service in instances:
        service.systemctl("start")
        service.wait_for_line("run.finished", outcome="succeeded")
    assert [service.show("ActiveState") for service in instances] == ["active", "active"]
    listed = [instances[0].box.out("ls", f"/var/lib/jobd-{letter}") for letter in "ab"]
    assert listed == ["ada", "bob"]


def test_an_instance_runs_beside_the_service_without_a_name(jobd: Service, instances: tuple[Service, Service]) -> None:
    """Whoever has one jobd and needs a second one need not move the first, in whichever order they start."""
    before, after = instances
    for service in (before, jobd, after):
        service.systemctl("start")
    assert [service.show("ActiveState") for service in (before, jobd, after)] == ["active"] * 3


def directives(unit: str) -> list[tuple[str, str]]:
    """The assignments of a unit file, in order."""
    lines = (UNITS / unit).read_text().splitlines()
    return [(name, value) for name, sign, value in (line.partition("=") for line in lines) if sign and name[0] != "#"]


def test_the_two_unit_files_differ_only_where_instances_must() -> None:
    """What is changed in one of them is changed in the other."""
    single, instance = directives("jobd.service"), directives("jobd@.service")
    assert [name for name, _ in single] == [name for name, _ in instance]
    differing = {name for (name, one), (_, other) in zip(single, instance, strict=True) if one != other}
    assert differing == OWN
    assert all("%i" in value for name, value in instance if name in OWN)
