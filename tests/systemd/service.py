"""A systemd service in a box: its configuration, what systemd says about it, and its log."""

import json
import shlex
from pathlib import Path
from typing import Any

from .box import Box, until

CONFIGURATION = "/etc/jobd"
UNITS = "/etc/systemd/system"
Line = dict[str, Any]


class Service:
    """One service, from the moment of its making on: what the journal held before is not shown."""

    def __init__(self, box: Box, unit: str) -> None:
        """Look after `unit` in `box`; nothing is started."""
        self.box = box
        self.unit = unit
        self._since = box.out("journalctl", "--lines=0", "--show-cursor", "--quiet").removeprefix("-- cursor: ")

    def settings(self, **variables: str) -> None:
        """Write the environment file."""
        text = "".join(f"{name}={value}\n" for name, value in variables.items())
        file = f"{CONFIGURATION}/{self.unit.rpartition('@')[2]}.env"
        self.box.write(file, text)
        self.box.run("chmod", "600", file)  # as the unit file says that it may be

    def jobs(self, code: str, module: str = "jobs") -> None:
        """Write a module of jobs where the unit file says that such modules belong."""
        self.box.write(f"{CONFIGURATION}/{module}.py", code)

    def drop_in(self, text: str, name: str = "test") -> None:
        """Add a drop-in."""
        self.box.write(f"{UNITS}/{self.unit}.service.d/{name}.conf", text)
        self.box.run("systemctl", "daemon-reload")

    def systemctl(self, verb: str, *options: str, check: bool = True) -> int:
        """Give systemd an order about this service; the exit code of systemctl."""
        return self.box.run("systemctl", verb, *options, self.unit, check=check).returncode

    def kill(self, signal: str) -> None:
        """Send a signal to the main process, as anybody may, past systemd."""
        self.box.run("kill", f"-{signal}", self.show("MainPID"))

    def show(self, what: str) -> str:
        """One property of the service."""
        return self.box.out("systemctl", "show", "--value", f"--property={what}", self.unit)

    def wait_for(self, what: str, value: str, within_s: float = 20.0) -> None:
        """Wait until a property has a value."""
        until(lambda: self.show(what) == value, f"{what} of {self.unit} to be {value}", within_s)

    def journal(self, **fields: str) -> str:
        """The text of the service's journal: of the entries that have these fields."""
        self.box.run("journalctl", "--sync")
        # Not --after-cursor: it takes the first entry that it finds for the one of the cursor and leaves it out.
        entries = self.box.out(
            "journalctl", "--output=json", "--all", "--output-fields=MESSAGE,_TRANSPORT",
            f"--unit={self.unit}", f"--cursor={self._since}", "--quiet",
        )  # fmt: skip
        found = (json.loads(entry) for entry in entries.splitlines())
        mine = (entry for entry in found if entry["__CURSOR"] != self._since and fields.items() <= entry.items())
        return "\n".join(_text(entry["MESSAGE"]) for entry in mine)

    def log(self) -> list[Line]:
        """What jobd has logged; every line that it has written must be JSON."""
        return [json.loads(line) for line in self.journal(_TRANSPORT="stdout").splitlines()]

    def logged(self, event: str, **fields: Any) -> list[Line]:
        """The lines of one event that hold these fields; text around them that is no JSON does not matter."""
        lines = (json.loads(line) for line in self.journal(_TRANSPORT="stdout").splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == event and fields.items() <= line.items()]

    def wait_for_line(self, event: str, within_s: float = 20.0, **fields: Any) -> Line:
        """Wait until such a line is in the log; the first one."""
        until(lambda: bool(self.logged(event, **fields)), f"{event} {fields} in the log", within_s)
        return self.logged(event, **fields)[0]

    def wait_for_run(self, tick: int, job: str) -> None:
        """Wait until a run of this tick or a later one has succeeded; a busy machine may have missed some."""
        until(
            lambda: any(line["tick"] >= tick for line in self.logged("run.finished", job=job, outcome="succeeded")),
            f"a run of {job} at tick {tick} or later in the log",
        )

    def wait_for_lines(self, event: str, count: int, within_s: float = 20.0) -> None:
        """Wait until there are so many lines of an event."""
        until(lambda: len(self.logged(event)) >= count, f"{count} times {event} in the log", within_s)

    def forget(self) -> None:
        """Undo everything: the service is stopped, its state, its configuration and its drop-ins are removed."""
        print(self.box.out("systemctl", "status", "--no-pager", "--lines=0", self.unit, check=False))
        print(self.journal())  # pytest shows what is printed here where a test has failed
        self.systemctl("kill", "--signal=SIGKILL", check=False)
        self.systemctl("stop", check=False)
        self.systemctl("reset-failed", check=False)
        self.box.run("systemctl", "clean", "--what=state", self.unit, check=False)
        drop_ins = Path(UNITS, f"{self.unit}.service.d")
        self.box.run("sh", "-c", f"rm -rf {CONFIGURATION}/* {shlex.quote(str(drop_ins))} && systemctl daemon-reload")


def _text(message: str | list[int]) -> str:
    """What an entry says; journalctl writes texts with unprintable characters as lists of bytes."""
    return message if isinstance(message, str) else bytes(message).decode("utf-8", "backslashreplace")
