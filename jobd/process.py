"""One run that is executed by a process: from its start to the moment at which nothing of it is left.

May import: children, clock, ending, job, kin, launch, output, run, signals, starvation, states, wires.

Its life is a row of phases. It runs; when its first process has ended, those that it has left behind are asked to end;
who does not is killed; then what is left in the pipes is read, and the run has come to its end. Nothing in here waits:
each step does what can be done now, and says when it wants the next one. All of it is called on one thread, except
`done` and `place`.

Tricky:

- The status of the first process is looked at as soon as it has ended, but it is waited for at the very end: until then
  nobody else gets its number, which is that of the group, too. A job that waits for all children (`os.wait`) may
  have taken the status before. A debugger that holds the dead process keeps its status from everybody.
- A pipe may never come to its end, because somebody who has escaped holds it open. So it is read until nothing is
  there, and of what comes and comes, no more than fits into the largest of pipes.
"""

import math
import os
from collections.abc import Callable
from enum import Enum
from typing import Any

from jobd import children, ending, launch, signals, starvation, wires
from jobd.clock import Real
from jobd.ending import Ending
from jobd.job import Kind
from jobd.kin import Kin, Look
from jobd.output import Cutter, Take
from jobd.run import Run
from jobd.states import Outcome
from jobd.wires import Line, Pipe

#: As much as a pipe holds at most, unless root has made it larger.
LAST_BYTES = 1_048_576
#: How long that of a run that was cancelled is read: others wait for their ends, and there may be no time.
LAST_S = 0.05
#: The same where the daemon is about to leave.
LEAST_LAST_BYTES = 4_096
#: How long processes may take to end when they are asked, that a run which has ended by itself has left behind.
LEFTOVERS_S = 1.0
#: How often to look whether they have, at first; those that take long are looked for after each further part of that
#: time, because everybody on the machine has to be looked at.
LOOK_EVERY_S = 0.02
LOOK_EVERY_PART = 0.1
#: How often to take a step in killing, for how long to look for new ones before that, and how long to go on if they
#: do not die: who does not then belongs to another user, or waits in the kernel for a disk.
KILL_EVERY_S = 0.005
FREEZE_S = 0.1
KILL_S = 1.0
#: How often to look whether a process has ended, where the kernel does not tell.
BLIND_LOOK_S = 0.05


class Phase(Enum):
    """Where the run is in its life."""

    #: Its first process runs.
    RUNNING = "running"
    #: That has ended, and who is left is asked to.
    LEAVING = "leaving"
    #: Everybody is killed.
    KILLING = "killing"
    #: Nobody is left; what they have printed is read.
    EMPTYING = "emptying"
    #: Nothing is left.
    ENDED = "ended"


class Process:
    """What executes a run."""

    def __init__(self, run: Run, here: str, says: Take, forward: Callable[[bytes], None], log: dict[str, str]) -> None:
        """Nothing is started yet. `here` is where; `log` is the level and the layout of what is to be forwarded."""
        self.run = run
        self.phase = Phase.RUNNING
        #: When it wants to be stepped next.
        self.step_at = math.inf
        #: How the run has ended, once it has.
        self.ending: Ending | None = None
        self._here = here
        self._says = says
        self._forward = forward
        self._log = log
        self._kin = Kin(run.run_id)
        self._pid = 0
        self._handle: int | None = None  # of the first process; none where no descriptor is to be had
        self._held = False  # whether the first process is dead, but somebody keeps its status from us
        self._sources: list[Pipe | Line] = []
        self._line: Line | None = None
        #: Whether somebody is to be asked to end, and when those are killed who have not.
        self._ask = False
        self._kill_at = math.inf
        self._left_at = 0.0  # when the first process had ended
        self._unread = LAST_BYTES
        self._reading_s = LAST_S
        #: Why it could not be started.
        self._refusal: Ending | None = None
        #: How the first process has ended, once it has; `exit_status` is None where that is not known.
        self._exited: dict[str, Any] = {}
        #: As what it has been cancelled before that, if it has.
        self._cancelled: Outcome | None = None

    def done(self) -> bool:
        """Whether the run has ended, and that has been told."""
        return self.run.body is not self

    def place(self) -> list[str]:
        """Which process it is."""
        first = children.named(self._pid) if self._pid else None
        return [f"process {first.pid} ({children.command_of(first)})"] if first else []

    @property
    def since(self) -> int:
        """Nobody of the run has started before this, in the kernel's ticks."""
        return self._kin.since

    def start(self, now: float) -> None:
        """Start it. What keeps it from starting is its end."""
        try:
            self._start()
        except Exception as error:
            self._refusal = ending.STARVED
            if self._pid or starvation.lacking(error):
                self._leave(now)  # what has been started all the same
            else:
                self._begin_to_empty()
            self._refusal = launch.refusal(self.run, self._here, error)

    def _start(self) -> None:
        theirs: list[int] = []
        try:
            with launch.no_forks():
                self._open(theirs)
                self._pid = launch.launch(self.run, self._here, *theirs)
        finally:
            for fd in theirs:
                os.close(fd)
        self._kin.lead(self._pid)
        self._handle = children.handle_of(self._pid)

    def _open(self, theirs: list[int]) -> None:
        """Open what leads to the process; the ends that it gets are added to `theirs`."""
        for stream in ("stdout", "stderr"):
            self._sources.append(Pipe(Cutter(self.run, stream, self._says), theirs))
        if self.run.of.kind is Kind.PROCESS:
            self._line = Line(self._forward, theirs)
            self._sources.append(self._line)
            self._line.send(wires.task(self.run, self._log))

    def descriptors(self) -> list[int]:
        """What is readable when something has happened."""
        handles = [self._handle] if self._handle is not None and not self._exited and not self._held else []
        if self.phase is Phase.KILLING:  # first it dies; what it has written until then is read after that
            return handles
        return handles + [source.fd for source in self._sources]

    def next_at(self, now: float, look_at: float) -> float:
        """When it wants to be served again, whether something happens or not; nobody looks before `look_at`."""
        if self.phase in (Phase.EMPTYING, Phase.ENDED):
            return now
        return min(max(self.step_at, look_at), now + BLIND_LOOK_S if self._is_blind() else math.inf)

    def _is_blind(self) -> bool:
        """Whether the kernel does not tell when there is a status to be had."""
        return bool(self._pid) and not self._exited and (self._handle is None or self._held)

    def look(self, ready: set[int], now: float) -> None:
        """See whether the process has ended. What it has printed before that is there then."""
        if self._is_blind() or (not self._exited and self._handle in ready):
            self._look_for_exit(now)

    def read(self, ready: set[int]) -> None:
        """Read what is there, a piece of it."""
        if self.phase is Phase.EMPTYING:
            self._empty()
        elif self.phase is not Phase.KILLING:
            self._read([source for source in self._sources if source.fd in ready])

    def _read(self, sources: list[Pipe | Line]) -> int:
        read = 0
        for source in sources:
            got = source.read()
            if got is None:
                self._sources.remove(source)
                source.close()
            else:
                read += got
        return read

    def _begin_to_empty(self) -> None:
        self.phase, self.step_at = Phase.EMPTYING, math.inf

    def _empty(self) -> None:
        before = Real.monotonic()
        read = self._read(list(self._sources))
        self._unread -= read
        if self._kill_at < math.inf and self.run.cancel_as is not None:
            self._reading_s -= Real.monotonic() - before
        if read and self._unread > 0 and self._reading_s > 0:
            return
        for source in list(self._sources):
            self._sources.remove(source)
            source.close()
        self.ending = self._ending()
        self._close()  # at last: where memory is lacking above, all of it is done again
        self.phase = Phase.ENDED

    def _close(self) -> None:
        """Let the first process go, for which nobody has waited yet."""
        self._kin.group = 0
        try:
            self._reap()
        except OSError:  # somebody has; or a kernel that knows handles, but not for this
            pass
        handle, self._handle, self._pid = self._handle, None, 0  # the number may be somebody else's now
        if handle is not None:
            os.close(handle)

    def _reap(self) -> None:
        if self._handle is not None:
            os.waitid(os.P_PIDFD, self._handle, os.WEXITED | os.WNOHANG)
        elif self._pid and self._known_exit():
            pid, self._pid = self._pid, 0  # first: whatever comes, nobody waits for that number twice
            os.waitpid(pid, os.WNOHANG)

    def stop(self) -> None:
        """Let the function know that its run is to end."""
        if self._line is not None:
            self._line.tell(wires.STOP)

    def cancel(self, now: float, timeout_s: float) -> None:
        """Ask it to end, once, and kill it if it has not in `timeout_s`."""
        if self.phase is Phase.RUNNING and self._kill_at == math.inf:
            self._ask, self._kill_at, self.step_at = True, now + timeout_s, now

    def kill(self, now: float, *, at_once: bool = False) -> None:
        """Kill it and whomever it has started.

        `at_once` and between two looks: nobody has time for many looks, or to read what it has written last.
        """
        if at_once:
            self._unread = min(self._unread, LEAST_LAST_BYTES)
        if self.phase in (Phase.RUNNING, Phase.LEAVING):
            if at_once:
                self._kin.freeze_group()
            self.phase, self._kill_at, self.step_at = Phase.KILLING, now, now

    def _leave(self, now: float) -> None:
        """The first process has ended; see whether anybody is left."""
        if self.phase is Phase.RUNNING:
            if self.run.cancelled is None:  # else they have as long as it would have had
                self._kill_at = min(self._kill_at, now + LEFTOVERS_S)
            self.phase, self._left_at, self._ask = Phase.LEAVING, now, True
        self.step_at = now

    def _look_for_exit(self, now: float) -> None:
        if exited := self._exit():
            self._cancelled = self.run.cancelled  # and not what has been asked for, and came too late
            self._leave(now)
            self._exited = exited  # at last: where memory is lacking above, all of it is done again
        else:
            self._held = self._handle is not None

    def _exit(self) -> dict[str, Any] | None:
        try:
            status = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self._kin.group = 0  # the number may be somebody else's now
            return {"exit_status": None}
        if status is None:
            return None
        number = status.si_status
        return {"exit_status": number} if status.si_code == os.CLD_EXITED else {"signal": signals.name(number)}

    def step(self, look: Look, now: float) -> None:
        """Take the step that was wanted by now, knowing who is there."""
        if self.phase is Phase.RUNNING:
            self._step_running(look, now)
        if self.phase is Phase.LEAVING:
            self._step_leaving(look, now)
        if self.phase is Phase.KILLING:
            self._step_killing(look, now)

    def _step_running(self, look: Look, now: float) -> None:
        if self._ask:
            self.run.cancelled = self.run.cancel_as
            self._kin.ask_group(look)
            self._ask = False
            if self._line is not None:
                self._line.tell(wires.TERMINATED)
        self.step_at = self._kill_at
        if now >= self._kill_at:
            self.kill(now)

    def _step_leaving(self, look: Look, now: float) -> None:
        left = self._kin.see(look)
        if not look.living:  # not even we ourselves are seen; their group can be killed all the same
            self.kill(now)
        elif not left:
            self._begin_to_empty()
        elif now >= self._kill_at:
            self.kill(now)
        else:
            if self._ask:
                if self.run.cancelled:
                    self._kin.spare_group(look)
                self._kin.terminate()
                self._ask = not look.settled  # somebody may be there who has not been seen yet
            pause_s = max(LOOK_EVERY_S, (now - self._left_at) * LOOK_EVERY_PART)
            self.step_at = min(now + pause_s, self._kill_at)

    def _step_killing(self, look: Look, now: float) -> None:
        self.run.cancelled = self.run.cancelled or self.run.cancel_as
        left = self._kin.kill_on(look, self._kill_at + FREEZE_S)
        given_up = now >= self._kill_at + KILL_S
        self.step_at = now + (LEFTOVERS_S if given_up else KILL_EVERY_S)
        if self._held and given_up and not self._exited:
            self._cancelled = self.run.cancelled
            self._exited = {"exit_status": None}
        if (self._exited or not self._pid) and (given_up or not left):
            self._begin_to_empty()

    def _ending(self) -> Ending:
        if self._refusal is not None:
            return self._refusal
        result = self._line.result if self._line is not None else None
        if self._cancelled is Outcome.CANCELLED and result == {}:
            return ending.SUCCEEDED  # it has come to its end all the same
        if self._cancelled is not None:
            return self._cancelled_ending(self._cancelled, result or {})
        if result is not None:
            return Ending(Outcome.FAILED, result, 1) if result else ending.SUCCEEDED
        if self._line is not None:
            return self._failed("ProcessDied", f"its process {self._how()} before the function had come to its end")
        if self._exited == {"exit_status": 0}:
            return Ending(Outcome.SUCCEEDED, self._exited)
        return self._failed("CommandFailed", self._how())

    def _cancelled_ending(self, outcome: Outcome, result: dict[str, Any]) -> Ending:
        made = ending.cancelled(outcome, self.run.of.policies.timeout)
        fields = {**(made.fields or {}), **self._known_exit()}
        if "traceback" in fields:
            fields["traceback"] = result.get("traceback", "")  # where the function stood
        return Ending(made.outcome, fields, made.exit_code)

    def _failed(self, kind: str, message: str) -> Ending:
        return Ending(Outcome.FAILED, {**ending.told(kind, message), **self._known_exit()}, 1)

    def _known_exit(self) -> dict[str, Any]:
        return {key: value for key, value in self._exited.items() if value is not None}

    def _how(self) -> str:
        if signal := self._exited.get("signal"):
            return f"was killed by {signal}"
        if (status := self._exited.get("exit_status")) is not None:
            return f"exited with status {status}"
        if self._held:
            return "ended with a status that is not known, because a debugger holds what is left of its process"
        return (
            "ended with a status that is not known, because something else in jobd has taken it: "
            "a job that waits for every child (os.wait) or ignores SIGCHLD"
        )
