"""Signals in, numbers out: from the first moment of the process on, whatever its threads are doing.

Imports nothing of ours and nothing heavy, because it runs first.

CPython's C-level handler writes the number of each signal into a pipe (`signal.set_wakeup_fd`), in any thread and
without the GIL. Whoever stands at the other end reads it: a thread while the jobs are being imported, the control
loop afterwards. So no signal falls between two handlers, and no handler of ours runs Python code that could log,
lock or raise in the middle of something. The Python-level handler below is there because only signals with one reach
the pipe.

Signals that mean nothing to the daemon are caught as well where they would end it without a word: a stray `kill`, or
a job's `signal.alarm`. A jobs module may install a handler of its own for any signal that is not ours. Python would
call it in the main thread, amid the control plane; so it is kept in `handlers`, and called where user code belongs.

Tricky: only the main thread may change dispositions (`signal(2)`, `signal.signal`). A forked child shares the pipe
until it lets go of it, and a SIGTERM for the child must never be taken for one for the daemon; so the thread that
forks blocks the signals for that moment, and the child gets what came meanwhile once it has let go.
"""

import _signal as core  # type: ignore[import-not-found]  # its functions make no `signal.Signals` of every number
import os
import signal
import time
from _thread import get_ident
from collections.abc import Callable
from types import FrameType

#: The signals that ask the daemon to stop, as the contract says; on a terminal, SIGHUP does so, too.
STOP = frozenset({signal.SIGTERM, signal.SIGINT})
CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
#: Whoever started us may have chosen to ignore these (nohup, a shell's `&`): that choice is kept.
IGNORABLE = (signal.SIGINT, signal.SIGHUP)
#: What would end the daemon and has no other business here. (SIGQUIT asks for the stacks.) Not those that tell of a
#: fault in the code that runs: `faulthandler` knows what to do with these.
STRAY = (
    signal.SIGQUIT,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGSTKFLT,
    signal.SIGXCPU,  # the soft limit; at the hard one the kernel sends SIGKILL
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
#: Has faulthandler print all stacks at once, without the GIL: the threads go on meanwhile, and now and then it follows
#: a frame that is gone, and crashes the process. So this is only for one that is killed in the next moment, and a
#: signal that would end the process anyway.
LAST_STACKS = signal.SIGTRAP
#: Python ignores these, or the reader of the log and a full disk could end the process; it stays so.
DEADLY_ERRORS = (signal.SIGPIPE, signal.SIGXFSZ)
#: Stop signals closer together than this count as one: a supervisor and a terminal often both send theirs.
ONE_REQUEST_S = 0.25

#: When the signals were caught, on the monotonic clock: as near to the start of the process as we can see.
held_since = time.monotonic()

#: What jobs modules have installed; whoever takes such a signal has to see to it that its handler is called.
handlers: dict[int, Callable[[int, FrameType | None], object]] = {}

#: Python's own, whatever a job puts into the modules.
_readv, _read, _write = os.readv, os.read, os.write
_open, _close = os.open, os.close
_signal, _getsignal = core.signal, core.getsignal
_DEFAULT, _IGNORE = int(signal.SIG_DFL), int(signal.SIG_IGN)
_sigmask, _set_wakeup = signal.pthread_sigmask, signal.set_wakeup_fd
_EVERY = signal.valid_signals()
#: How much is read at once.
MOST = 4096
#: More than `/proc/self/status` says, unless one belongs to hundreds of groups.
STATUS_BYTES = 8192
_NOTHING = bytes(MOST)
#: What has been read from the pipe and not been handed out yet: so many bytes of the buffer.
_held = 0
#: What was read last is left there: whoever shares it sees what has been read, though the GIL is lost with that.
_buffers = [memoryview(bytearray(MOST))]

_read_end = -1
_write_end = -1
_caught: tuple[signal.Signals, ...] = ()
_ignored: tuple[signal.Signals, ...] = ()
_stray: tuple[int, ...] = ()
#: Which signals ask this very process to stop: not one that it ignores, or that a jobs module has a handler for.
_stop: frozenset[int] = STOP
#: What each thread that is forking had blocked before.
_masks: dict[int, set[int | signal.Signals]] = {}


def _noted(signum: int, frame: FrameType | None) -> None:
    """The number is in the pipe already, unless somebody has taken the wake-up descriptor: then take it back."""
    if _take_wakeup() != _write_end:
        try:
            _write(_write_end, bytes((signum,)))
        except BlockingIOError:  # it is full, so its reader is awake
            pass


def _take_wakeup() -> int:
    return _set_wakeup(_write_end, warn_on_full_buffer=False)


def hold() -> None:
    """Catch the signals; from now on each waits in the pipe until `take` reads it. What was blocked comes now."""
    global _read_end, _write_end, _caught, _ignored, _stray, _stop
    _read_end, _write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    _caught = tuple(s for s in CAUGHT if s not in IGNORABLE or _getsignal(s) != _IGNORE)
    _ignored = tuple(s for s in (*IGNORABLE, *DEADLY_ERRORS) if s not in _caught)
    _stray = tuple(s for s in STRAY if _getsignal(s) == _DEFAULT)
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_let_go)
    reassert()
    _stop = frozenset({*STOP, signal.SIGHUP} if on_terminal() else STOP).intersection(_caught)


def reassert() -> None:
    """Take the signals back, whoever changed their disposition, their mask or the wake-up descriptor meanwhile."""
    _take_wakeup()
    for signum in _caught:
        _signal(signum, _noted)
    without_handler = _without_handler()
    for number in _EVERY.difference(_caught):
        action = _getsignal(number)
        if callable(action) and action is not _noted:
            handlers[number] = action
            _signal(number, _noted)
        elif _is_lost(number, action, without_handler):
            _signal(number, _noted)
    for signum in _ignored:
        if signum not in handlers:
            _signal(signum, _IGNORE)
    if _getsignal(signal.SIGCHLD) == _IGNORE:  # the exit codes of all children would be lost
        _signal(signal.SIGCHLD, _DEFAULT)
    _sigmask(signal.SIG_SETMASK, ())  # threads and children get the same


def _is_lost(number: int, action: object, without_handler: int) -> bool:
    """Whether somebody has taken the handler away; C code may have, which Python does not see."""
    if action is _noted:
        return bool(without_handler >> number & 1)  # else C code may have a handler of its own, which stays
    return action == _DEFAULT and number in _stray


def _without_handler() -> int:
    """The signals that have no handler, as the kernel sees it: a bit for each number; 0 where it cannot be asked."""
    try:
        file = _open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = _read(file, STATUS_BYTES)
        finally:
            _close(file)
        return ~(int(status.partition(b"SigCgt:")[2].split()[0], 16) << 1)
    except Exception:  # no /proc, no descriptor, or a hook of a job's that forbids it
        return 0


def release() -> None:
    """Give the signals the actions that they would have without us: those of a forked child are its own."""
    _set_wakeup(-1)
    for signum in _caught:
        if _getsignal(signum) is _noted:  # a module that forks in its import may have taken it for its child
            _signal(signum, signal.default_int_handler if signum == signal.SIGINT else _DEFAULT)
    for number in _EVERY.difference(_caught):
        if _getsignal(number) is _noted:
            _signal(number, handlers.get(number, _DEFAULT))
    _signal(LAST_STACKS, _DEFAULT)


def _block() -> None:
    _masks[get_ident()] = _sigmask(signal.SIG_BLOCK, _EVERY)


def _unblock() -> None:
    _sigmask(signal.SIG_SETMASK, _masks.pop(get_ident()))


def _let_go() -> None:
    release()
    _unblock()


def fileno() -> int:
    """The descriptor that is readable when signals wait; 0 is written to it by `nudge`."""
    return _read_end


def take() -> list[int]:
    """The signals that have come since the last call, in order. None is lost if memory runs out in here."""
    global _held
    if not _held:
        _buffers[0][:] = _NOTHING
        try:
            _held = _readv(_read_end, _buffers)
        except BlockingIOError:
            return []
    numbers = _buffers[0][:_held]
    taken = [n for n in numbers if n in _caught or (n in _EVERY and _getsignal(n) is _noted)]
    _held = 0
    return taken


def name(signum: int) -> str:
    """What the signal is called: ``SIGUSR2``, ``SIGRTMIN+3``."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"SIGRTMIN+{signum - signal.SIGRTMIN}"


def asks_for_stop(signum: int) -> bool:
    """Whether the signal asks this process to stop."""
    return signum in _stop


def read_into(buffer: memoryview) -> None:
    """From here on signals are read into this, of `MOST` bytes, which is shared with another process."""
    _buffers[0] = buffer


def stop_is_read() -> bool:
    """Whether a stop signal is among what was read last; for the process that shares the buffer."""
    return not _stop.isdisjoint(_buffers[0])


def stop_waits() -> bool:
    """Whether a stop signal waits to be taken; for another process that shares the pipe. Takes nothing."""
    try:
        numbers = _read(_read_end, MOST)
    except BlockingIOError:
        return False
    _write(_write_end, bytes(dict.fromkeys(numbers)))  # each once: a full pipe has no room for the next stop signal
    return not _stop.isdisjoint(numbers)


def pipe() -> tuple[int, int]:
    """The descriptors of the pipe: its end for reading, and its end for writing."""
    return _read_end, _write_end


def nudge() -> None:
    """Make `fileno` readable without a signal, to wake up whoever waits for it."""
    _write(_write_end, b"\0")


def on_terminal() -> bool:
    """Whether this process has a controlling terminal, so that SIGHUP means that it has closed (`tty(4)`)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Requests:
    """Counts stop signals as their sender meant them: those less than `ONE_REQUEST_S` apart are one request."""

    def __init__(self) -> None:
        self._last = -ONE_REQUEST_S
        self._heard_at = -ONE_REQUEST_S

    def is_new(self, heard_at: float, now: float) -> bool:
        """Whether a stop signal that was heard at this monotonic instant is a request of its own.

        It is not if it has been told before, and what is heard only after that waited meanwhile, so it is not new then.
        """
        new = heard_at != self._heard_at and heard_at - self._last >= ONE_REQUEST_S
        self._heard_at, self._last = heard_at, now
        return new
