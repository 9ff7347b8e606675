"""Limits for a service that runs already: what MemoryMax= and TasksMax= make the kernel do.

systemd sets them where the machine has the unified hierarchy of control groups to itself. Where the controllers are in
hierarchies of their own (cgroups v1, as in many a CI machine), systemd in the box cannot, so a group is made there by
hand; the kernel does the same to those in it. Only the service's present processes and their children are in it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .box import until
from .service import Service

#: The files that hold a limit in cgroups v1, by systemd's name for it.
V1 = {"MemoryMax": ("memory", "memory.limit_in_bytes"), "TasksMax": ("pids", "pids.max")}


class CannotLimit(Exception):
    """This machine has no such controller; the text says which."""


@contextmanager
def limit(service: Service, name: str, value: int) -> Iterator[None]:
    """Set `name`, MemoryMax or TasksMax, to `value` for the service as it runs. Raises `CannotLimit`."""
    controller, file = V1[name]
    if controller in service.box.out("cat", "/sys/fs/cgroup/cgroup.controllers").split():
        service.box.run("systemctl", "set-property", "--runtime", service.unit, f"{name}={value}")
        yield
        return
    hierarchy = Path("/sys/fs/cgroup", controller)
    if not (hierarchy / "cgroup.procs").exists():
        raise CannotLimit(f"no cgroup controller {controller}")
    group = hierarchy / f"jobd-box-{service.box.init}"
    group.mkdir()
    try:
        (group / file).write_text(str(value))
        for process in processes(service):
            (group / "cgroup.procs").write_text(str(process))
        yield
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), "the limited processes to end")
        group.rmdir()


def processes(service: Service) -> list[int]:
    """The processes of the service, as this machine counts."""
    group = service.box.path(f"/sys/fs/cgroup{service.show('ControlGroup')}/cgroup.procs")
    return [int(process) for process in group.read_text().split()]
