"""The processes of a run that is a process itself: finding all of them, wherever they have gone, and ending them.

May import: children, clock, starvation.

A run's process has a group of its own and a mark in its environment. Whoever it starts inherits both; who leaves the
group (`setsid`) and loses its parents (a double fork, as daemons make it) still has the mark; who clears its
environment still is in the group, or has a parent. Only who does all three is not found. Where the daemon has crashed,
the mark and the parents are left to go by.

To find them, everybody has to be looked at. So one look serves all the runs that want one at the moment, and what is
done to a run's kin goes in steps, one at each look, between which other runs are served.

Tricky:

- The numbers of groups are given anew, too. That of a process which has ended and has not been waited for is its own
  still, so a group may be asked for until then and no longer.
- A daemon in the making is easily overlooked. The one that starts it may be gone before anybody has looked at it, so
  there is another list after each, until it brings nobody new. And while it becomes another program it has no
  environment, so it is looked at again.
"""

import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable

from jobd import children, starvation
from jobd.children import Process, Stat
from jobd.clock import Real

#: How many lists of everybody a look works off at most, and how long to wait before the next one for who is becoming
#: another program.
_LISTS = 8
_BECOMING_S = 0.001
#: How often to look where the machine has nothing to give, and how long to leave it alone in between.
_TRIES = 20
_STARVED_S = 0.02


def new_name() -> str:
    """Eight characters that tell a daemon from every other; the ids of all its runs begin with them."""
    return os.urandom(4).hex()


class Look:
    """Who was there at one moment: by group, by mark, by parent."""

    def __init__(self, everybody: Callable[[], Iterable[int]], since: int) -> None:
        """Look at everybody, and at who comes meanwhile.

        Marks are read only of those that have started at `since` or later, in the kernel's ticks.
        """
        began = Real.monotonic()
        self.living: set[Process] = set()
        #: Whether everybody has shown what there is to see; who is not seen here may be there otherwise.
        self.settled = False
        self._since = since
        self._by_group: dict[int, list[Process]] = defaultdict(list)
        self._by_mark: dict[str, list[Process]] = defaultdict(list)
        self._by_parent: dict[int, list[Process]] = defaultdict(list)
        self._look_at_all(everybody)
        #: How long that took.
        self.took_s = Real.monotonic() - began

    def _look_at_all(self, everybody: Callable[[], Iterable[int]]) -> None:
        seen: set[int] = set()
        becoming: list[int] = []
        for _ in range(_LISTS):
            new = [pid for pid in everybody() if pid not in seen]
            if not new and not becoming:
                break
            seen.update(new)
            becoming = [pid for pid in (*new, *becoming) if not self._look_at(pid)]
            if becoming:
                Real.sleep(_BECOMING_S)
        self.settled = not becoming

    def _look_at(self, pid: int) -> bool:
        """Look at one; whether it has shown what there is to see."""
        stat = _stat(pid)
        if stat is None or not stat.lives:
            return True
        process = Process(pid, stat.started)
        self.living.add(process)
        self._by_group[stat.group].append(process)
        self._by_parent[stat.parent].append(process)
        return stat.started < self._since or self._look_for_mark(process, stat)

    def _look_for_mark(self, process: Process, before: Stat) -> bool:
        environment = _read(f"/proc/{process.pid}/environ")
        if environment is None:  # gone, or another user's
            return True
        if mark := children.marked(environment):
            self._by_mark[mark].append(process)
        return bool(environment) or _shows_none(process.pid, before)

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
DARK = Look(tuple, 0)


def look(since: int) -> Look:
    """Look at everybody. Raises what tells that descriptors or memory are lacking: nobody can be found then."""
    return Look(_everybody, since)


class Kin(children.Members):
    """Everybody who belongs to one run, its first process included."""

    def __init__(self, run_id: str) -> None:
        """Those that carry the mark of this run."""
        super().__init__()
        self._run_id = run_id
        self._frozen: set[Process] = set()
        self._group_frozen = False
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
        """Remember who is there at this look; whether anybody may be."""
        roots = look.marked(self._run_id) | (self._members & look.living)
        if self.group:
            roots |= look.group(self.group)
        found = look.with_descendants(roots)
        self._members = {each for each in found if each in self._members or not children.is_tracker(each.pid)}
        return bool(self._members) or not look.settled

    def ask_group(self, look: Look) -> None:
        """Ask those that are in the group to end; who has been stopped goes on, so as to hear it."""
        self.see(look)
        self._asked |= self._members & look.group(self.group)
        self._signal_group(signal.SIGTERM)
        self._signal_group(signal.SIGCONT)

    def spare_group(self, look: Look) -> None:
        """Take all in the group for asked: who was there has been, and who has come since cleans up for them."""
        self._asked |= self._members & look.group(self.group)

    def freeze_group(self) -> None:
        """Stop all in the group at once, before a look, which then finds fewer that are to be stopped one by one."""
        self._signal_group(signal.SIGSTOP)
        self._group_frozen = True

    def kill_on(self, look: Look, until: float) -> bool:
        """Take a step towards killing them all; whether anybody may be left.

        Who is new is stopped, so that it starts nobody else. When nobody is new, or `until` is over, all are killed.
        """
        left = self.see(look)
        new = self._members - self._frozen - (look.group(self.group) if self._group_frozen else set())
        for member in new:
            children.send(member, signal.SIGSTOP)
        self._frozen |= new
        if not new or Real.monotonic() >= until:
            self._signal_group(signal.SIGKILL)  # whoever has not been found, because there is no /proc, say
            for member in self._members:
                children.send(member, signal.SIGKILL)
        return left

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
        seen = DARK
        for _ in range(_TRIES):
            try:
                seen = look(0)
            except Exception:  # no descriptor, no memory; the crash may come from that
                Real.sleep(_STARVED_S)
            else:
                if seen.settled:
                    break
        return seen


def _everybody() -> list[int]:
    """The numbers of all processes; none, where /proc does not show them as we number them."""
    try:
        if not children.proc_names_us():
            return []
        return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    except OSError as error:
        if starvation.lacking(error):
            raise
        return []


def _stat(pid: int) -> Stat | None:
    return children.parsed(_read(f"/proc/{pid}/stat") or b"")


def _shows_none(pid: int, before: Stat) -> bool:
    """Whether its environment is empty for good, and not only while it becomes another program."""
    now = _stat(pid)
    return now is None or not now.lives or now.has_been(before)


def _read(path: str) -> bytes | None:
    """What the file says; None, where it is gone or another user's."""
    try:
        return children.content(path)
    except OSError as error:
        if starvation.lacking(error):
            raise
        return None
