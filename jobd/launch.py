"""How the process of a run is started, and what there is to say where it cannot be.

May import: children, ending, job, render, run. A run of a command executes that; a run of a function executes `child`
in an interpreter of its own.

Tricky:

- The directory of the process is everybody's: a job may go elsewhere, or remove it. What is started is given the one
  that jobd was started in, `here`, while that is there.
- What a fork copies while a process is being started here, it keeps open: the writing ends of our pipes, and the pipe
  by which Python's own `subprocess` waits for the new program. A job that forks in that moment would hold us for as
  long as its child lives. So a fork waits until we have finished, and we wait for one that goes on; neither without a
  limit.
"""

import errno
import os
import pwd
import subprocess
import sys
from _thread import allocate_lock, get_ident
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobd import children, ending, render
from jobd.ending import Ending
from jobd.job import Command, Kind
from jobd.run import Run
from jobd.states import Outcome

#: How long a fork waits for a process to be started, and the other way round. Both take milliseconds.
FORK_S = 1.0
#: How often to copy the environment anew, if somebody changes it meanwhile.
_TRIES = 10
#: Our own, whatever a job puts into the module.
_Popen, _DEVNULL = subprocess.Popen, subprocess.DEVNULL

_guarded = False
_starting = allocate_lock()
#: The threads that hold the lock because they fork.
_forking: set[int] = set()


class _Refused(Exception):
    """What keeps the process from being started: the kind of error, and what is wrong and would be right."""


def guard_forks() -> None:
    """Let forks wait for processes that are being started, from here on."""
    global _guarded
    if _guarded:
        return
    _guarded = True
    os.register_at_fork(before=_fork_begins, after_in_parent=_fork_ended, after_in_child=_fork_ended)


def _fork_begins() -> None:
    _forking.add(get_ident())  # or there is no memory for it, and nothing has been taken
    if not _starting.acquire(timeout=FORK_S):
        _forking.discard(get_ident())


def _fork_ended() -> None:
    if get_ident() in _forking:
        _forking.discard(get_ident())
        _starting.release()


@contextmanager
def no_forks() -> Iterator[None]:
    """Nobody forks in here through Python."""
    held = _starting.acquire(timeout=FORK_S)
    try:
        yield
    finally:
        if held:
            _starting.release()


def launch(run: Run, here: str, stdout: int, stderr: int, line: int = -1) -> int:
    """Start the process of the run; its number. `line` is what a function's process hears and tells the rest through.

    Raises whatever has kept it from starting; `refusal` makes an end of that.
    """
    command = run.of.command or Command(_interpreter(here, line))
    account = _account(command.user) if command.user is not None else None
    owner = {} if account is None or account.pw_uid == os.geteuid() else _owner(account, command.groups)
    process: subprocess.Popen[bytes] = _Popen(
        command.arguments,
        cwd=_cwd(command, here),
        env=_environment(run, command, account),
        stdin=_DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=(line,) if run.of.kind is Kind.PROCESS else (),
        process_group=0,
        **owner,
    )
    process.returncode = 0  # its end is not for `subprocess` to see
    return process.pid


def _interpreter(here: str, line: int) -> tuple[str, ...]:
    # The current directory is no place to take Python's own modules from, unless we come from there ourselves.
    safe = () if Path(__file__).parent.parent == Path(here) else ("-P",)
    return (sys.executable, "-u", *safe, "-m", "jobd.child", str(line))


def _cwd(command: Command, here: str) -> str | None:
    """Where it is executed; None: where this process is."""
    if command.cwd is not None:
        return str(Path(here, command.cwd))
    return here if here and os.access(here, os.X_OK, effective_ids=True) else None


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise _Refused("LookupError", f"there is no user {user}; make one, or change the job's user") from None


def _owner(account: pwd.struct_passwd, groups: tuple[int, ...]) -> dict[str, Any]:
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}


def _environment(run: Run, command: Command, account: pwd.struct_passwd | None) -> dict[str, str]:
    env = _inherited()
    if account is not None:
        env |= {"HOME": account.pw_dir, "SHELL": account.pw_shell}
        env |= {"USER": account.pw_name, "LOGNAME": account.pw_name}
    env |= command.env
    env |= {"JOBD_JOB": run.job, children.MARK: run.run_id}
    return env | {"JOBD_TICK": str(run.tick), "JOBD_SCHEDULED_AT": run.scheduled}


def _inherited() -> dict[str, str]:
    for _ in range(_TRIES):
        try:
            return dict(os.environ)
        except (KeyError, RuntimeError):  # a job is changing it at this moment
            pass
    raise _Refused("RuntimeError", "the environment of jobd would not keep still; a job is changing it all the time")


def refusal(run: Run, here: str, error: BaseException) -> Ending:
    """The end of a run whose process could not be started."""
    if isinstance(error, _Refused):
        kind, message = error.args
    else:
        kind = type(error).__name__
        told = _told(run.of.command, here, error) if isinstance(error, OSError) and run.of.command else None
        message = told or render.text(error, render.TEXT_CHARS)
    return Ending(Outcome.FAILED, ending.told(kind, message), 1)


def _told(command: Command, here: str, error: OSError) -> str | None:
    """What is wrong, and what would be right, where that can be said better than the system does."""
    if error.errno == errno.EPERM and command.user is not None:
        return f"only root may run a command as another user ({command.user}); run jobd as root, or leave user out"
    cwd = _cwd(command, here)
    if cwd is not None and error.filename == cwd:
        return _told_of_cwd(cwd, error)
    if error.filename == command.arguments[0]:
        return _told_of_program(command.arguments[0], cwd or ".", error)
    return None


def _told_of_cwd(cwd: str, error: OSError) -> str | None:
    match error:
        case FileNotFoundError():
            return f"there is no directory {cwd}; make it, or change the job's cwd"
        case NotADirectoryError():
            return f"{cwd} is no directory; change the job's cwd"
        case PermissionError():
            return f"the directory {cwd} may not be entered; change its mode, or the job's cwd"
    return None


def _told_of_program(program: str, cwd: str, error: OSError) -> str | None:
    place = Path(cwd, program)  # only for `access`: its own methods raise where nobody may look
    if "/" in program and os.access(f"{place}/", os.F_OK):  # with the slash, there is only a directory
        return f"{program} is a directory and no program; name the program in it"
    if isinstance(error, PermissionError):
        return (
            f"the program {program} may not be executed; make it and the directories that lead to it executable "
            "(chmod +x), or name another one"
        )
    if error.errno == errno.ENOEXEC:
        return f"the program {program} is not one for this machine, or a script without a #! line"
    if not isinstance(error, FileNotFoundError):
        return None
    if "/" not in program:
        return f"there is no program {program} in any directory of PATH; install it, or write the whole path"
    if os.access(place, os.F_OK):
        return f"the program {program} is there, but not the interpreter that its first line or its head names"
    return f"there is no program {program}; install it, or change the job's command"
