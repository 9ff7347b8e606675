"""One round: a daemon as its plan wants it, what is done to it, and what was seen.

Judges nothing. A round needs a process of its own, because it adopts whatever the daemon leaves behind (`prctl(2)`,
PR_SET_CHILD_SUBREAPER): so leftovers are found however they have detached themselves, and are ended, by pid.
"""

import ctypes
import functools
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from acceptance.harness import JOBD, PRELUDE, catches, children_of

from .jobs import CATALOGUE, Effect
from .plan import Anchor, Pause, Plan, Reader, Send, Start

TESTS = Path(__file__).resolve().parents[1]
#: How long to wait for a moment of the daemon's life that may never come.
MOMENT_S = 10.0
#: How long a signal may be without a handler, because a job has taken it away, until we say that it is deaf.
DEAF_S = 5.0
#: How long after the time bound, or after the signals where none was heard, a process is taken for one that hangs.
HANGS_S = 6.0
#: How long whatever the daemon leaves behind may take to notice that it has gone.
LEFT_S = 5.0
POLL_S = 0.005
#: The daemon does not wait for the reader of its stacks, so there is room for those of every SIGQUIT of a round.
STDERR_BYTES = 1 << 20
NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass
class Seen:
    """What was seen of a round."""

    #: As `subprocess` shows it; None if the process was still there when patience had an end.
    exit_code: int | None = None
    #: When the first stop signal was delivered and when the process had ended, in monotonic seconds.
    stop_at: float | None = None
    ended_at: float = 0.0
    #: For how long the process was suspended after the stop signal, in seconds.
    suspended_s: float = 0.0
    #: What came on stdout, as far as its reader has cared to read, and on stderr.
    log: bytes = b""
    stderr: bytes = b""
    #: Stop signals that the process had no handler for.
    deaf_to: list[str] = field(default_factory=list)
    #: Processes of the daemon's session that were still there, and others that it has left.
    left: list[str] = field(default_factory=list)
    detached: list[str] = field(default_factory=list)


def play(plan: Plan, directory: Path) -> Seen:
    """Carry the plan out in `directory`; what was seen."""
    _adopt_orphans()
    (directory / "jobs.py").write_text(module_text(plan))
    (directory / "commands.toml").write_text(commands_text(plan))
    seen = Seen()
    output = _Output(plan.reader, plan.reader_after_s, directory)
    process = subprocess.Popen(
        [*_program(plan.start), "run", *_targets(plan)],
        cwd=directory,
        env=_environment(plan),
        stdin=subprocess.DEVNULL,
        stdout=output.theirs,
        stderr=subprocess.PIPE,
        pipesize=STDERR_BYTES,
        start_new_session=True,
        preexec_fn=functools.partial(_prepare, plan.start),
    )
    assert process.stderr is not None
    output.start()
    errors = _Collector(process.stderr.fileno())
    try:
        victim = _Victim(process, _first_process(process) if _in_namespace(plan.start) else process.pid, plan, seen)
        _do_it(plan, victim, directory)
        _await_end(plan, process, seen)
    finally:
        process.kill()
        process.wait()
        seen.left, seen.detached = _leftovers(process.pid)
        seen.log = output.end()
        seen.stderr = errors.end()
    return seen


def module_text(plan: Plan) -> str:
    """The module of the jobs of this round."""
    functions = [(name, interval) for name, interval in plan.jobs if not CATALOGUE[name].command]
    names = ", ".join(["log", *(name for name, _ in functions)])
    return "\n".join(
        [
            PRELUDE,
            "def mark(name): os.close(os.open(name, os.O_CREAT | os.O_WRONLY))",
            "mark('importing')",
            f"from chaos.jobs import {names}",
            plan.module.code,
            "@every('1h')\ndef first(): mark('running')",
            *(
                f"every({interval!r}, **{dict(CATALOGUE[name].declares)})({name})"
                for name, interval in functions
                if interval
            ),
            "",
        ]
    )


def commands_text(plan: Plan) -> str:
    """The file of the commands of this round."""
    lines: list[str] = []
    for name, interval in plan.jobs:
        if CATALOGUE[name].command:
            declared = {"every": interval, "command": list(CATALOGUE[name].command), **CATALOGUE[name].declares}
            lines += [f"[jobs.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in declared.items())]
    return "\n".join([*lines, ""])


def _targets(plan: Plan) -> list[str]:
    commands = [name for name, _ in plan.jobs if CATALOGUE[name].command]
    functions = [f"jobs:{name}" for name, _ in plan.jobs if name not in commands]
    return ["jobs:first", *functions, *(["commands.toml"] if commands else [])]


class _Victim:
    """The process that gets the signals."""

    def __init__(self, process: subprocess.Popen[bytes], pid: int, plan: Plan, seen: Seen) -> None:
        self._process = process
        self._pid = pid
        self._seen = seen
        self._ignored = set(plan.start.ignored) - {signal.SIGTERM}
        self._deafened = Effect.DEAFENS in plan.effects
        self._handle = os.pidfd_open(pid)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def catches(self, signum: signal.Signals) -> bool:
        """Whether the process has a handler for the signal, or waits for it."""
        # While it waits, the kernel shows none of its signals as blocked.
        return catches(self._pid, signum) or _name(self._pid) == "jobd-init"

    def send(self, signum: signal.Signals) -> None:
        """Send the signal."""
        with self._hearing(signum):
            if self._asks_to_stop(signum):
                self._seen.stop_at = time.monotonic()
            self._send(signum)

    def suspend(self, pause: Pause) -> None:
        """Suspend the process for a while; what is sent meanwhile is delivered when it goes on."""
        begin = time.monotonic()
        stops = [signum for signum in pause.meanwhile if self._asks_to_stop(signum)]
        with self._hearing(*pause.meanwhile, suspended=True):
            for signum in pause.meanwhile:
                self._send(signum)
            time.sleep(pause.seconds)
        if stops:
            self._seen.stop_at = time.monotonic()
        elif self._seen.stop_at is not None:
            self._seen.suspended_s += time.monotonic() - begin

    def _asks_to_stop(self, signum: signal.Signals) -> bool:
        """Whether this is the first signal that asks for the stop."""
        heard = signum in (signal.SIGTERM, signal.SIGINT) and signum not in self._ignored
        return heard and self._seen.stop_at is None

    @contextmanager
    def _hearing(self, *signums: signal.Signals, suspended: bool = False) -> Iterator[None]:
        """Wait until the process has handlers for the signals, which a job may have taken away.

        Where one may do so at any moment, or `suspended`, the process is suspended until what is to be done is done.
        """
        suspended |= self._deafened
        heard = [s for s in signums if s not in self._ignored and s != signal.SIGCONT]
        deadline = time.monotonic() + DEAF_S
        while True:
            if suspended:
                self._send(signal.SIGSTOP)
                _wait_until(lambda: not self.alive or _state(self._pid) == "T", MOMENT_S)
            deaf = [s.name for s in heard if self.alive and not self.catches(s)]
            if not deaf or time.monotonic() > deadline:
                break
            if suspended:
                self._send(signal.SIGCONT)
            time.sleep(POLL_S)
        self._seen.deaf_to += deaf
        try:
            yield
        finally:
            if suspended:
                self._send(signal.SIGCONT)

    def _send(self, signum: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self._handle, signum)
        except ProcessLookupError:
            pass


def _do_it(plan: Plan, victim: _Victim, directory: Path) -> None:
    _wait_until(lambda: not victim.alive or _reached(plan.anchor, victim, directory), MOMENT_S)
    for step in plan.steps:
        _wait_until(lambda: not victim.alive, step.after_s)
        if isinstance(step.action, Send):
            for signum in step.action.signals:
                victim.send(signum)
        else:
            victim.suspend(step.action)


def _reached(anchor: Anchor, victim: _Victim, directory: Path) -> bool:
    if anchor is Anchor.CAUGHT:
        return victim.catches(signal.SIGTERM)
    return (directory / anchor.name.lower()).exists()


def _await_end(plan: Plan, process: subprocess.Popen[bytes], seen: Seen) -> None:
    asked = time.monotonic() if seen.stop_at is None else seen.stop_at
    patience = asked + plan.bound_s + seen.suspended_s + HANGS_S - time.monotonic()
    try:
        seen.exit_code = _as_subprocess_shows_it(plan.start, process.wait(max(patience, 0.01)))
    except subprocess.TimeoutExpired:
        pass
    seen.ended_at = time.monotonic()


# --- how it is started


def may_unshare() -> bool:
    """Whether this machine lets us make a PID namespace."""
    if os.geteuid() != 0 or shutil.which(NAMESPACE[0]) is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


_in_namespaces = functools.cache(may_unshare)


def _in_namespace(start: Start) -> bool:
    return start.first_process and _in_namespaces()


def _as_subprocess_shows_it(start: Start, code: int) -> int:
    """PID 1 leaves with 128 and the number of the signal that has killed the daemon."""
    return 128 - code if _in_namespace(start) and code > 128 else code


def _program(start: Start) -> list[str]:
    return [*(NAMESPACE if _in_namespace(start) else ()), JOBD]


def _environment(plan: Plan) -> dict[str, str]:
    own = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(TESTS)}
    return own | dict(plan.settings) | dict(plan.start.environment)


def _prepare(start: Start) -> None:
    """In the child, before it becomes the daemon."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for signum in (
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
    ):  # whoever has started us in the background ignores them
        signal.signal(signum, signal.SIG_DFL)
    for signum in start.ignored:
        signal.signal(signum, signal.SIG_IGN)
    if start.blocked:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for name, limit in start.limits:
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    for fd in start.closed:
        os.close(fd)


def _first_process(process: subprocess.Popen[bytes]) -> int:
    """The pid, as we count, of the first process of the namespace."""
    _wait_until(lambda: process.poll() is not None or children_of(process.pid), MOMENT_S)
    return (children_of(process.pid) or [process.pid])[0]


# --- what it writes


class _Collector:
    """Reads a descriptor in a thread until its other side is closed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._chunks: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while chunk := os.read(self._fd, 65536):
            self._chunks.append(chunk)

    def end(self) -> bytes:
        self._thread.join(LEFT_S)
        return b"".join(self._chunks)


class _Output:
    """The daemon's stdout, and whoever reads it."""

    def __init__(self, reader: Reader, after_s: float, directory: Path) -> None:
        self._reader = reader
        self._after_s = after_s
        self._file = directory / "log"
        self._chunks: list[bytes] = []
        self._process_ended = threading.Event()
        self._ours, self.theirs = self._open()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        """The daemon has its end; let go of it, and read."""
        os.close(self.theirs)
        if self._ours >= 0:
            self._thread.start()

    def end(self) -> bytes:
        """The daemon has ended: all that it has written and that its reader has cared to read."""
        if self._reader is Reader.FILE:
            return self._file.read_bytes()
        self._process_ended.set()
        if self._ours >= 0:
            self._thread.join(MOMENT_S)
        return b"".join(self._chunks)

    def _open(self) -> tuple[int, int]:
        match self._reader:
            case Reader.FILE:
                return -1, os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            case Reader.FULL:
                return -1, os.open("/dev/full", os.O_WRONLY)
            case Reader.SOCKET:
                ours, theirs = socket.socketpair()
                return ours.detach(), theirs.detach()
            case _:
                return os.pipe()

    def _read(self) -> None:
        """Read until nobody can write any more, or as the plan wants it."""
        begin = time.monotonic()
        while chunk := os.read(self._ours, 4096 if self._reader is Reader.SLOW else 65536):
            self._chunks.append(chunk)
            if self._reader is Reader.SLOW:
                self._process_ended.wait(0.02)
            if time.monotonic() - begin < self._after_s or self._process_ended.is_set():
                continue
            if self._reader is Reader.STALLS:
                self._process_ended.wait()
            elif self._reader is Reader.LEAVES:
                break
        os.close(self._ours)


# --- what it leaves behind


def _adopt_orphans() -> None:
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _leftovers(session: int) -> tuple[list[str], list[str]]:
    """Wait for the end of what the daemon has left, then end it: that of its session, and the rest."""
    _wait_until(lambda: not _living(_adopted()), LEFT_S)
    left = _living(_adopted())
    shown = {pid: _shown(pid) for pid in left}
    sessions = {pid: _session(pid) for pid in left}
    _wait_until(_ended_all, LEFT_S)
    return (
        [shown[pid] for pid in left if sessions[pid] == session],
        [shown[pid] for pid in left if sessions[pid] not in (session, None)],
    )


def _ended_all() -> bool:
    """End whatever is there; the end of one may hand us others."""
    pids = _living(_adopted())
    for pid in pids:
        _end(pid)
    return not pids


def _adopted() -> list[int]:
    """Every descendant of ours; those that have ended are seen off on the way."""
    found: list[int] = []
    for pid in children_of(os.getpid()):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
        found += [pid, *_descendants(pid)]
    return found


def _descendants(pid: int) -> list[int]:
    try:
        children = children_of(pid)
    except OSError:  # it has ended meanwhile
        return []
    return children + [below for child in children for below in _descendants(child)]


def _living(pids: Iterable[int]) -> list[int]:
    return [pid for pid in pids if _session(pid) is not None]


def _session(pid: int) -> int | None:
    """The session of a process; None if it has ended."""
    state, *_, session = _stat(pid)
    return int(session) if state not in "ZX" else None


def _state(pid: int) -> str:
    """In which state the process is, as one letter: ``T`` where it is suspended."""
    return _stat(pid)[0]


def _stat(pid: int) -> list[str]:
    """State, parent, group and session of a process (`proc(5)`)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:4]
    except OSError:
        return ["X", "0", "0", "0"]


def _shown(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "?"
    return f"{_name(pid)} ({command[-100:]})"


def _name(pid: int) -> str:
    """What the kernel calls the process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _wait_until(condition: Callable[[], object], at_most_s: float) -> None:
    deadline = time.monotonic() + at_most_s
    while not condition() and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(POLL_S, left))


if sys.platform != "linux":
    raise ImportError("the rounds need Linux")
