"""The processes that jobs have left behind: finding them, and ending them.

May import: clock. Whatever the system refuses (no descriptor is to be had, a process belongs to another user, /proc is
not there), nothing here raises: who cannot be found or reached is left alone.

A process is known by its number and the instant of its start, so that a later one with the same number is never hit.
A family remembers its members, because a shell that ends leaves its children to init, and nobody could tell then whose
they were. Who was there before us (what a start script left running before it became jobd, such as the `tee` that
reads our log) is no member.

Python's own helper that removes shared memory when the last user has gone is no member either: it ignores SIGTERM, ends
by itself with the daemon, and has its work to do then.

A run that is a process of its own (`processes`) is asked to end by whoever executes it, so here it and its descendants
are only killed. It is known by a mark in its environment, which they inherit.

Tricky: what is ended one by one can start others meanwhile (a shell in a loop whose command has ended starts the next
one). So all are stopped first, until a look finds nobody new.
"""

import os
import signal
import sys
import threading
from _thread import get_ident
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jobd.clock import Real

#: How long to wait for processes that have been killed: dying takes a moment, more of it the more memory they have.
KILL_S = 0.1
#: How often to look whether they have gone.
LOOK_EVERY_S = 0.005
#: In the command line of `multiprocessing`'s helper.
_TRACKER = b"from multiprocessing.resource_tracker import main"
#: The variable that tells the processes of a run whose they are.
MARK = "JOBD_RUN_ID"
#: How much of a file of /proc is read at once, and how much at all. No program is given more than 6 MiB by `execve`,
#: but any process may point the kernel to gigabytes of its memory instead (PR_SET_MM_MAP).
_READ_BYTES = 65_536
_MOST_BYTES = 8_388_608
#: What the kernel says of a process that is about to end, or is its own (`PF_EXITING`, `PF_KTHREAD`).
_NO_PROGRAM = 0x0020_0004
#: Audit events that stand before a new process.
_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"})


class Process(NamedTuple):
    """A process that is mistaken for no other."""

    pid: int
    #: When it started, in the kernel's ticks since the machine did (`proc(5)`).
    started: int


class Killed(NamedTuple):
    """A process that had to be killed."""

    pid: int
    #: The kernel's name for what it runs, at most 15 characters.
    command: str


#: The address of a program for whom the kernel does not let see it: nobody knows whether it is another one.
HIDDEN = 1


class Stat(NamedTuple):
    """What `/proc/PID/stat` says."""

    state: str
    parent: int
    group: int
    flags: int
    threads: int
    started: int
    #: Where in its memory its program begins, and where its environment does and ends; `HIDDEN` and nought, perhaps.
    program: int
    environment: int
    environment_end: int

    def has_been(self, before: "Stat") -> bool:
        """Whether it is the program that it was before, or none at all."""
        if self.flags & _NO_PROGRAM:
            return True
        # Each program has its own addresses, and only when its environment is there, the kernel notes where it begins.
        places = (self.program, self.environment, self.environment_end)
        return bool(self.program) and places == (before.program, before.environment, before.environment_end)

    @property
    def lives(self) -> bool:
        """Whether the process has not ended yet."""
        # Where only the first thread has ended, the process shows as a zombie and lives.
        return self.state not in "ZX" or self.threads > 1


class Members:
    """Processes that belong together, those included that could not be found any more since they were noted."""

    def __init__(self) -> None:
        self._members: set[Process] = set()
        self._asked: set[Process] = set()
        #: Who has been killed and has not died, or cannot be: nobody waits for them at another end.
        self._given_up: set[Process] = set()
        #: Who does not belong to them, whoever finds them.
        self._others: frozenset[Process] = frozenset()

    def note(self) -> None:
        """Remember who is there now."""
        self._members = {member for member in self._members if lives(member)}
        self._members.update(self._found())

    def terminate(self) -> None:
        """Ask those that have been noted to end, each once; who has been stopped goes on, so as to hear it."""
        self._asked |= self._asked_by_others()
        self._stop_unasked(Real.monotonic() + KILL_S)
        for signum in (signal.SIGTERM, signal.SIGCONT):
            for member in self._members - self._asked:
                send(member, signum)
        self._asked |= self._members

    def _stop_unasked(self, until: float) -> None:
        """Stop those that are to be asked, and whom they have started meanwhile; nobody that others have started."""
        stopped: set[Process] = set()
        while (new := self._members - self._asked - stopped) and Real.monotonic() < until:
            for member in new:
                send(member, signal.SIGSTOP)
            stopped |= new
            self._members.update(descendants([member for member in stopped if lives(member)], self._others))

    def end(self, within_s: float) -> list[Killed]:
        """Ask whoever is there and has not been asked, give all of them `within_s`, and kill who is left then.

        May be called again: those that have outlived the first time are not waited for once more.
        """
        until = Real.monotonic() + within_s
        self.note()
        if self._members and self._members <= self._given_up:
            return []
        self.terminate()
        while any(map(lives, self._members)) and Real.monotonic() < until:
            Real.sleep(LOOK_EVERY_S)
        killed = self.kill()
        self._given_up = set(filter(lives, self._members))
        return killed

    def kill(self, within_s: float = KILL_S) -> list[Killed]:
        """Kill whoever is there, and who comes meanwhile, until nobody is left; it may take `within_s`."""
        killed: dict[Process, Killed] = {}
        until = Real.monotonic() + within_s
        while self._freeze(until):
            for member in self._members:
                command = command_of(member)
                if send(member, signal.SIGKILL):
                    killed.setdefault(member, Killed(member.pid, command))
            if Real.monotonic() >= until:
                break
            Real.sleep(LOOK_EVERY_S)
        return list(killed.values())

    def _freeze(self, until: float) -> bool:
        """Stop every member, until there is no new one; whether there is any."""
        frozen: set[Process] = set()
        self.note()
        while (new := self._members - frozen) and Real.monotonic() < until:
            for member in new:
                send(member, signal.SIGSTOP)
            frozen |= new
            self.note()
        return bool(self._members)

    def _found(self) -> Iterable[Process]:
        """Who is there now and belongs to them."""
        raise NotImplementedError

    def _asked_by_others(self) -> set[Process]:
        """Members whom somebody else asks to end."""
        return set()


class Family(Members):
    """The descendants of a process, those included that have lost their parents since they were noted."""

    def __init__(self, root: int) -> None:
        """The family of the process `root`; whom it has at this moment does not belong to it."""
        super().__init__()
        self._root = named(root)
        self._mark = mark_of(root)
        self._others = frozenset(self._found())

    def _found(self) -> list[Process]:
        if not proc_is_ours():
            return []
        roots = [self._root, *self._members] if self._root else []
        return descendants([root for root in roots if lives(root)], self._others)

    def _asked_by_others(self) -> set[Process]:
        # A daemon that is itself the run of another one has a mark, and its children inherit it.
        driven = [member for member in self._members if mark_of(member.pid) not in ("", self._mark)]
        return {*driven, *descendants(driven, self._others)}


def named(pid: int) -> Process | None:
    """The living process of that number."""
    stat = stat_of(pid)
    return Process(pid, stat.started) if stat and stat.lives else None


def lives(process: Process) -> bool:
    """Whether it has not ended yet."""
    return named(process.pid) == process


def is_stopped(pid: int) -> bool:
    """Whether somebody has stopped the process (SIGSTOP, a debugger)."""
    stat = stat_of(pid)
    return stat is not None and stat.state in "Tt"


#: Never set. Made before a job can spoil what makes it.
_NEVER = threading.Event()
_waitid = os.waitid


def any_left() -> bool:
    """Whether this process has any child at all; this costs next to nothing."""
    try:
        _waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except OSError:
        pass
    return True


def start_no_more() -> None:
    """Let nobody start a process through Python from here on: who tries waits, for the end of this process."""
    leaving = get_ident()

    def refuse(event: str, _: tuple[Any, ...]) -> None:
        if event in _STARTS:
            if get_ident() == leaving:  # a job's finaliser, on the thread that must not wait
                raise RuntimeError("jobd is leaving; no process can be started any more")
            _NEVER.wait()

    try:
        sys.addaudithook(refuse)
    except Exception:  # a hook of a job's own does not allow it
        pass


def descendants(roots: Iterable[Process], besides: frozenset[Process]) -> list[Process]:
    """Who descends from the roots, without those in `besides` and who descends from them, and without ourselves."""
    children = _children if os.access("/proc/thread-self/children", os.R_OK) else _children_by_table()
    found: dict[Process, None] = {}
    waiting = list(roots)
    while waiting:
        parent = waiting.pop()
        for pid in children(parent.pid):
            stat = stat_of(pid)
            # The parent is asked for, because the number may belong to somebody else by now.
            if stat is None or not stat.lives or stat.parent != parent.pid or pid == os.getpid():
                continue
            child = Process(pid, stat.started)
            if child not in besides and child not in found and not is_tracker(pid):
                found[child] = None
                waiting.append(child)
    return list(found)


def is_tracker(pid: int) -> bool:
    """Whether the process is Python's helper for shared memory."""
    return _TRACKER in _read(f"/proc/{pid}/cmdline")


def mark_of(pid: int) -> str:
    """The run that the process belongs to, by its environment; nothing, if it does not say."""
    return marked(_read(f"/proc/{pid}/environ"))


def marked(environment: bytes) -> str:
    """The same, for what `/proc/PID/environ` says."""
    _, found, rest = (b"\0" + environment).partition(f"\0{MARK}=".encode())
    return rest.partition(b"\0")[0].decode("utf-8", "replace") if found else ""


def _children(pid: int) -> list[int]:
    threads = _entries(f"/proc/{pid}/task")
    return [int(child) for thread in threads for child in _read(f"/proc/{pid}/task/{thread}/children").split()]


def _children_by_table() -> Callable[[int], list[int]]:
    """The same where the kernel does not list children (CONFIG_PROC_CHILDREN): by asking everybody for the parent."""
    table: dict[int, list[int]] = {}
    for entry in _entries("/proc"):
        if entry.isdigit() and (stat := stat_of(int(entry))):
            table.setdefault(stat.parent, []).append(int(entry))
    return lambda pid: table.get(pid, [])


def stat_of(pid: int) -> Stat | None:
    """What there is to know of the process; None if there is none of that number."""
    return parsed(_read(f"/proc/{pid}/stat"))


def parsed(line: bytes) -> Stat | None:
    """The same, for what `/proc/PID/stat` says."""
    fields = line.rpartition(b")")[2].split()  # whatever the command is called
    try:
        return Stat(fields[0].decode(), *(int(fields[number]) for number in (1, 2, 6, 17, 19, 23, 47, 48)))
    except (IndexError, ValueError):
        return None


def send(process: Process, *signums: signal.Signals) -> bool:
    """Send the signals; whether the process was there and ours to signal."""
    handle = handle_of(process.pid)
    try:
        return lives(process) and _send_all(process.pid, handle, signums)
    except OSError:
        return False
    finally:
        if handle is not None:
            os.close(handle)


def _send_all(pid: int, handle: int | None, signums: Iterable[signal.Signals]) -> bool:
    for signum in signums:
        if handle is None:
            os.kill(pid, signum)
        else:
            signal.pidfd_send_signal(handle, signum)
    return True


def handle_of(pid: int) -> int | None:
    """A descriptor of the process, by which no other one is hit; None where there is none: it has gone, say."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):  # no descriptor is to be had, or an old kernel
        return None


def command_of(process: Process) -> str:
    """The kernel's name for what it runs, at most 15 characters."""
    return _read(f"/proc/{process.pid}/comm").decode("utf-8", "backslashreplace").rstrip("\n")


def proc_is_ours() -> bool:
    """Whether /proc shows the processes as we number them; a namespace may have kept another's."""
    try:
        return proc_names_us()
    except (OSError, MemoryError):
        return False


def proc_names_us() -> bool:
    """The same. Raises `OSError` and `MemoryError` where that cannot be found out."""
    return Path("/proc/self").readlink().name == str(os.getpid())


def _entries(directory: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(directory)]
    except (OSError, MemoryError):
        return []


def content(path: str) -> bytes:
    """What a file of /proc says, or the start of that. Raises `OSError` and `MemoryError`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces: list[bytes] = []
        room = _MOST_BYTES
        while room > 0 and (piece := os.read(fd, min(_READ_BYTES, room))):
            pieces.append(piece)
            room -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def _read(path: str) -> bytes:
    try:
        return content(path)
    except (OSError, MemoryError):
        return b""
