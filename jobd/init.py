"""What a container's first process owes the others, done by a process that does nothing else.

Imports signals, exits and title only.

For PID 1 the kernel has no default actions of signals, and every orphan of its namespace becomes its child
(`pid_namespaces(7)`). A daemon that is PID 1 itself would collect zombies, or take the exit codes away from its own
children. So PID 1 forks once: the child is the daemon, and PID 1 hands every signal on to it, reaps what ends, and
leaves as the daemon did. With it the kernel ends whatever is left in the namespace.

Tricky: every signal is blocked before the fork and stays so in PID 1, which waits for them with `sigwaitinfo(2)`:
no handler, no thread, no wake-up without a signal. The child inherits that mask, so what is handed on to it before it
has caught its signals waits, like what came before the fork.
"""

import os
import signal

from jobd import signals, title
from jobd.exits import ExitCode

_EVERY = signal.valid_signals()
#: What a terminal sends when a key is typed, to its whole foreground process group.
_TYPED = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP})
#: The `si_code` of what the kernel itself sends (`sigaction(2)`).
_SI_KERNEL = 0x80


def split() -> None:
    """Fork; the child comes back from here and becomes the daemon, while this process looks after it to its end.

    To be called with every signal blocked and no other thread. Where no further process is to be had, PID 1 comes
    back and becomes the daemon itself; orphans stay zombies then.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if ignored, the kernel throws the daemon's exit code away
    try:
        daemon = os.fork()
    except OSError:
        return
    if daemon == 0:
        _take_over()
        return
    code: int = ExitCode.INTERNAL
    try:
        code = _look_after(daemon)
    finally:
        os._exit(code)


def _take_over() -> None:
    """In the child: what was meant for PID 1 by its number is meant for the daemon."""
    if os.environ.get("WATCHDOG_PID") == "1":
        os.environ["WATCHDOG_PID"] = str(os.getpid())


def _look_after(daemon: int) -> int:
    """Hand signals on and reap until the daemon has ended; the exit code that says how."""
    not_copied = signal.sigpending()  # from before the fork
    title.tell("jobd-init")
    os.closerange(0, 3)  # the daemon's end is the end of the log
    while True:
        came = signal.sigwaitinfo(_EVERY)
        signum = came.si_signo
        if signum == signal.SIGCHLD:
            ended = _reap(daemon)
            if ended is not None:
                return ended
        elif signum in not_copied or not _has_its_own(came, daemon):
            _hand_on(signum, daemon)
        not_copied.discard(signum)


def _has_its_own(came: signal.struct_siginfo, daemon: int) -> bool:
    """Whether the terminal has sent the signal to the daemon too; handed on late, it would count as a second one."""
    return came.si_code == _SI_KERNEL and came.si_signo in _TYPED and os.getpgid(daemon) == os.getpgrp()


def _hand_on(signum: int, daemon: int) -> None:
    try:
        os.kill(daemon, signum)
        if signum in signals.STOP:
            os.kill(daemon, signal.SIGCONT)  # a daemon that somebody has suspended cannot stop
    except OSError:  # it has become another user's
        pass


def _reap(daemon: int) -> int | None:
    """Take in every child that has ended; the exit code if the daemon is among them.

    128 and the signal's number if one has killed it, as shells say it: PID 1 cannot be killed by its own signal.
    """
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == daemon:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None
