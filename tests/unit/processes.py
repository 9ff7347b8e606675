"""Runs that are processes, as their tests start them, and what is told of them."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from jobd import children, kin
from jobd.ending import Ending
from jobd.job import NO_FUNCTION, Command, Job, Kind
from jobd.policy import Policies
from jobd.processes import Processes
from jobd.run import Run
from jobd.schedule import Every
from jobd.states import Outcome

from .helpers import LIMIT_S

_numbers = count()


class Control:
    """Processes, and what they tell."""

    def __init__(self, here: str = "") -> None:
        """All are started `here`."""
        self.runs: list[Run] = []
        self.begun: list[Run] = []
        self.ends: list[tuple[Run, Ending]] = []
        self.said: list[tuple[str, bytes]] = []
        self.logged: list[dict[str, Any]] = []
        self.strays: list[BaseException] = []
        #: Whether runs may begin.
        self.opens = True
        self.cancel_timeout_s = LIMIT_S
        self.processes = Processes(
            begin=lambda run: self.begin(run),
            end=lambda run, ending: self.tell_end(run, ending),
            says=lambda run, stream, line: self.say(stream, line),
            forward=lambda line: self.logged.append(json.loads(line)),
            cancel_timeout_s=lambda: self.cancel_timeout_s,
            stray=lambda where, error: self.strays.append(error),
            here=here,
        )

    def begin(self, run: Run) -> bool:
        """Whether the run may begin."""
        if self.opens:
            self.begun.append(run)
        return self.opens

    def tell_end(self, run: Run, ending: Ending) -> None:
        """It has ended."""
        self.ends.append((run, ending))

    def say(self, stream: str, line: bytes) -> None:
        """Something has been printed."""
        self.said.append((stream, line))

    def _start(self, job: Job) -> Run:
        made = Run(job, f"{os.getpid()}-{next(_numbers)}", 7, 7)
        made.scheduled_ns = 1_700_000_000_000_000_000
        self.runs.append(made)
        self.processes.start(made)
        return made

    def start(self, *arguments: str, timeout_s: float | None = None, **command: Any) -> Run:
        """Start a run of this command."""
        of = Command(arguments, **command)
        policies = Policies(timeout=timeout_s)
        return self._start(Job("job", Every(10), NO_FUNCTION, Kind.COMMAND, "tests:job", policies, of))

    def shell(self, script: str, **command: Any) -> Run:
        """Start a run of this script."""
        return self.start("sh", "-c", script, **command)

    def call(self, function: Callable[[], Any]) -> Run:
        """Start a run of this function."""
        return self._start(Job("job", Every(10), function, Kind.PROCESS, "tests:job"))

    def cancel(self, run: Run, outcome: Outcome = Outcome.CANCELLED) -> None:
        """Cancel the run, as the daemon does."""
        run.cancel_as = outcome
        run.ask_to_stop()
        self.processes.cancel(run)

    def end(self, run: Run) -> Ending:
        """How the run ends."""
        until(lambda: run in [ended for ended, _ in self.ends])
        until(lambda: run.body is None)
        (ending,) = [ending for ended, ending in self.ends if ended is run]
        return ending

    def lines(self, stream: str = "stdout") -> list[str]:
        """What has been printed so far."""
        return [line.decode() for of, line in self.said if of == stream]

    def left(self, run: Run) -> set[children.Process]:
        """The processes that carry the mark of the run."""
        return kin.look(0).marked(run.run_id)

    def line(self, number: int = 0) -> str:
        """A line that is printed."""
        until(lambda: len(self.lines()) > number)
        return self.lines()[number]


@contextmanager
def controlled() -> Iterator[Control]:
    """Processes of which none is left in the end."""
    made = Control()
    yield made
    made.processes.kill_all(LIMIT_S)
    assert len(made.ends) == len(made.begun)
    assert made.strays == []
    assert not any(made.left(run) for run in made.runs)


def until(condition: Callable[[], object]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def error(ending: Ending) -> tuple[str, str]:
    """The kind of the error that the run has ended with, and its message."""
    assert ending.outcome is Outcome.FAILED
    assert ending.fields
    return ending.fields["error"]["type"], ending.fields["error"]["message"]


def lives(pid: int | str) -> bool:
    """Whether there is such a process."""
    return children.named(int(pid)) is not None
