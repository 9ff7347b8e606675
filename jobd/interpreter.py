"""Settings of the interpreter that hold for every thread, kept as the daemon needs them. Imports nothing of ours.

A job may change them, by accident or for tests of its own: the recursion limit, the switch interval, tracing, hooks.
`keep` puts them back, in the thread of the control plane; `keep_untraced` in whichever thread calls it.

Tricky: with a switch interval of hours, a thread that computes keeps the GIL for hours, and nobody else comes to put
it back. So `sys.setswitchinterval` is a function of ours, which does not take more than `SWITCH_INTERVAL_S`.
"""

import resource
import sys
import threading
from _thread import stack_size as _stack_size
from types import ModuleType

#: How long a job that computes in Python may keep the GIL while the control plane wants it; Python's own 5 ms, times
#: the number of such threads, would be too long a wait for a tick or a signal.
SWITCH_INTERVAL_S = 0.001
#: The same from the stop on: with many threads that compute, the control plane waits for all.
STOP_SWITCH_INTERVAL_S = 0.0005

#: The stack of a thread. What the environment gives (`ulimit -s`) may be too little for Python's own recursion limit,
#: and then a job that runs into that crashes the process.
STACK_BYTES = 8 * 1024 * 1024

_RECURSION_LIMIT = sys.getrecursionlimit()
_STACK_LIMIT = resource.getrlimit(resource.RLIMIT_STACK)[0]
#: 0: what the environment gives is enough. Without a limit there, threads get 2 MiB.
_WANTED_STACK_BYTES = 0 if STACK_BYTES <= _STACK_LIMIT != resource.RLIM_INFINITY else STACK_BYTES
#: Whoever traces the daemon as a whole, a debugger say, has been there first.
_TRACED = bool(sys.gettrace() or sys.getprofile() or threading.gettrace() or threading.getprofile())
#: Python's own, whatever a job puts into the modules.
_set_switch_interval, _switch_interval = sys.setswitchinterval, sys.getswitchinterval
_set_recursion_limit, _recursion_limit = sys.setrecursionlimit, sys.getrecursionlimit
_trace, _profile, _set_trace, _set_profile = sys.gettrace, sys.getprofile, sys.settrace, sys.setprofile
_trace_of_threads, _profile_of_threads = threading.gettrace, threading.getprofile
_trace_threads, _profile_threads = threading.settrace, threading.setprofile
#: Called for errors that nobody catches. Where that of `threading` is None, no `threading.Thread` can be made.
_HOOKS = ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook"))
#: What they were when we began.
_hooks: list[tuple[ModuleType, str, object]] = []


def take() -> None:
    """Set everything as the daemon needs it; from here on nobody makes the switch interval longer."""
    sys.setswitchinterval = _no_longer_than_ours
    _set_switch_interval(SWITCH_INTERVAL_S)
    _hooks[:] = [(module, name, getattr(module, name)) for module, name in _HOOKS]
    _keep_stack_size()


def hurry() -> None:
    """The stop has begun: threads that compute give way more often."""
    _set_switch_interval(STOP_SWITCH_INTERVAL_S)


def keep() -> None:
    """Put back what a job has changed since the last time."""
    if _recursion_limit() < _RECURSION_LIMIT:
        _set_recursion_limit(_RECURSION_LIMIT)
    if _switch_interval() > 2 * SWITCH_INTERVAL_S:
        _set_switch_interval(SWITCH_INTERVAL_S)
    if not _TRACED and (_trace_of_threads() or _profile_of_threads()):
        _trace_threads(None)
        _profile_threads(None)
    _keep_hooks()
    _keep_stack_size()
    keep_untraced()


def _keep_hooks() -> None:
    for module, name, hook in _hooks:
        if getattr(module, name, None) is None:  # a hook of a job's own stays
            setattr(module, name, hook)


def _keep_stack_size() -> None:
    size = _stack_size()
    if size < _WANTED_STACK_BYTES or 0 < size < STACK_BYTES:
        _stack_size(_WANTED_STACK_BYTES)


def keep_untraced() -> None:
    """Take what traces this thread away again."""
    if not _TRACED and (_trace() or _profile()):
        _set_trace(None)
        _set_profile(None)


def _no_longer_than_ours(interval: float, /) -> None:
    """Set the thread switch interval, in seconds; more than jobd's own is not taken."""
    _set_switch_interval(min(interval, SWITCH_INTERVAL_S))
