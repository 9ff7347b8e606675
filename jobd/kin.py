"""The processes of a run that is a process itself: finding all of them, wherever they have gone, and ending them.

May import: children, clock, starvation.

A run's process has a group of its own and a mark in its environment. Whoever it starts inherits both; who leaves the
group (`setsid`) and loses its parents (a double fork, as daemons make it) still has the mark; who clears its
environment still is in the group, or has a parent. Only who does all three is not found. Where the daemon has crashed,
the mark and the parents are left to go by.

To find them, everybody has to be looked at. So one look serves all the runs that want one at the moment, and what is
done to a run's kin goes in steps, one at each look, between which other runs are served.

Tricky: the numbers of groups are given anew, too. That of a process which has ended and has not been waited for is its
own still, so a group may be asked for until then and no longer.
"""

import os
import signal
from collections import defaultdict
from collections.abc import Iterable

from jobd import children, starvation
from jobd.children import Process
from jobd.clock import Real

_READ_BYTES = 65_536
#: How often to look where the machine has nothing to give, and how long to leave it alone in between.
_TRIES = 20
_STARVED_S = 0.02


def new_name() -> str:
    """Eight characters that tell a daemon from every other; the ids of all its runs begin with them."""
    return os.urandom(4).hex()


class Look:
    """Who was there at one moment: by group, by mark, by parent."""

    def __init__(self, pids: Iterable[int], since: int) -> None:
        """Look at these; marks are read only of those that have started at `since` or later, in the kernel's ticks."""
        began = Real.monotonic()
        self.living: set[Process] = set()
        self._by_group: dict[int, list[Process]] = defaultdict(list)
        self._by_mark: dict[str, list[Process]] = defaultdict(list)
        self._by_parent: dict[int, list[Process]] = defaultdict(list)
        for pid in pids:
            self._look_at(pid, since)
        #: How long that took.
        self.took_s = Real.monotonic() - began

    def _look_at(self, pid: int, since: int) -> None:
        stat = children.parsed(_read(f"/proc/{pid}/stat"))
        if stat is None or not stat.lives:
            return
        process = Process(pid, stat.started)
        self.living.add(process)
        self._by_group[stat.group].append(process)
        self._by_parent[stat.parent].append(process)
        if stat.started >= since and (mark := children.marked(_read(f"/proc/{pid}/environ"))):
            self._by_mark[mark].append(process)

    def group(self, number: int) -> set[Process]:
        """Who is in the group."""
        return set(self._by_group.get(number, ()))

    def marked(self, mark: str) -> set[Process]:
        """Who has the mark."""
        return set(self._by_mark.get(mark, ()))

    def of_daemon(self, name: str) -> set[Process]:
        """Who has the mark of any run of the daemon of that name."""
        return {process for mark, marked in self._by_mark.items() if mark.startswith(f"{name}-") for process in marked}

    def with_descendants(self, roots: Iterable[Process]) -> set[Process]:
        """The roots, and who descends from them."""
        found: set[Process] = set()
        waiting = list(roots)
        while waiting:
            process = waiting.pop()
            if process not in found:
                found.add(process)
                waiting += self._by_parent.get(process.pid, ())
        return found


#: What is seen without descriptors.
DARK = Look((), 0)


def look(since: int) -> Look:
    """Look at everybody. Raises what tells that descriptors or memory are lacking: nobody can be found then."""
    return Look(_everybody(), since)


class Kin(children.Members):
    """Everybody who belongs to one run, its first process included."""

    def __init__(self, run_id: str) -> None:
        """Those that carry the mark of this run."""
        super().__init__()
        self._run_id = run_id
        self._frozen: set[Process] = set()
        #: The group that is theirs, too, while its number is; 0 for none.
        self.group = 0
        #: None of them has started before this, in the kernel's ticks.
        self.since = 0

    def lead(self, pid: int) -> None:
        """Let the process be the first of them, and the leader of their group."""
        self.group = pid
        stat = children.stat_of(pid)
        self.since = stat.started if stat else 0

    def see(self, look: Look) -> bool:
        """Remember who is there at this look; whether anybody is."""
        roots = look.marked(self._run_id) | (self._members & look.living)
        if self.group:
            roots |= look.group(self.group)
        found = look.with_descendants(roots)
        self._members = {each for each in found if each in self._members or not children.is_tracker(each.pid)}
        return bool(self._members)

    def ask_group(self, look: Look) -> None:
        """Ask those that are in the group to end; who has been stopped goes on, so as to hear it."""
        self.see(look)
        self._asked |= self._members & look.group(self.group)
        self._signal_group(signal.SIGTERM)
        self._signal_group(signal.SIGCONT)

    def kill_on(self, look: Look, until: float) -> bool:
        """Take a step towards killing them all; whether anybody is left.

        Who is new is stopped, so that it starts nobody else. When nobody is new, or `until` is over, all are killed.
        """
        self.see(look)
        new = self._members - self._frozen
        for member in new:
            children.send(member, signal.SIGSTOP)
        self._frozen |= new
        if not new or Real.monotonic() >= until:
            self._signal_group(signal.SIGKILL)  # whoever has not been found, because there is no /proc, say
            for member in self._members:
                children.send(member, signal.SIGKILL)
        return bool(self._members)

    def _signal_group(self, signum: signal.Signals) -> None:
        if self.group:
            try:
                os.killpg(self.group, signum)
            except OSError:  # all have gone, or have become somebody else's
                pass

    def _found(self) -> set[Process]:
        self.see(look(self.since))
        return self._members


class Orphans(children.Members):
    """Everybody who belongs to a run of a daemon that has gone without ending them."""

    def __init__(self, daemon: str) -> None:
        """Those that carry the mark of any run of the daemon of that name."""
        super().__init__()
        self._daemon = daemon

    def _found(self) -> set[Process]:
        seen = self._look()
        found = seen.with_descendants(seen.of_daemon(self._daemon) | (self._members & seen.living))
        return {each for each in found if not children.is_tracker(each.pid)}

    def _look(self) -> Look:
        for _ in range(_TRIES):
            try:
                return look(0)
            except Exception:  # no descriptor, no memory; the crash may come from that
                Real.sleep(_STARVED_S)
        return DARK


def _everybody() -> list[int]:
    """The numbers of all processes; none, where /proc does not show them as we number them."""
    try:
        if not children.proc_is_ours():
            return []
        return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    except OSError as error:
        if starvation.lacking(error):
            raise
        return []


def _read(path: str) -> bytes:
    """What the file says; nothing, where it is gone or another user's."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            said = b""
            while more := os.read(fd, _READ_BYTES):
                said += more
            return said
        finally:
            os.close(fd)
    except OSError as error:
        if starvation.lacking(error):
            raise
        return b""
