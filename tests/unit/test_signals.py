"""Signals, in processes of their own: none is lost, none is obeyed twice, and children do not pass theirs on."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.signals import ONE_REQUEST_S, Requests

from .helpers import python

_HELD = "import os, signal, sys, threading, time\nfrom jobd import signals\nsignals.hold()\nme = os.getpid()\n"


def held(code: str, before: str = "") -> str:
    """What a process that holds its signals prints."""
    return python(before + _HELD + code)


def test_signals_wait_in_order_until_they_are_taken() -> None:
    """Each once; what is read is gone."""
    code = (
        "for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT): os.kill(me, number)\n"
        "print(*map(signals.name, signals.take())); print(signals.take())"
    )
    assert held(code).splitlines() == ["SIGTERM SIGHUP SIGUSR1 SIGINT", "[]"]


def test_a_signal_is_noted_while_the_main_thread_waits_for_good() -> None:
    """Another thread reads it from the pipe, whatever the main thread is doing."""
    code = (
        "import select\n"
        "def listen():\n"
        "    select.select([signals.fileno()], [], [], 10)\n"
        "    print(signals.name(signals.take()[0]), flush=True); os._exit(0)\n"
        "threading.Thread(target=listen, daemon=True).start()\n"
        "threading.Timer(0.1, os.kill, (me, signal.SIGTERM)).start()\n"
        "lock = threading.Lock(); lock.acquire(); lock.acquire()\n"
    )
    assert held(code) == "SIGTERM\n"


def test_signals_wait_before_anything_is_imported() -> None:
    """The first thing that the front door does; each import before it is time in which a signal kills."""
    code = (
        "import sys, _signal\n"
        "before = set(sys.modules)\n"
        "def block(how, signals):\n"
        "    print(how == _signal.SIG_BLOCK, signals == _signal.valid_signals(), *sorted(set(sys.modules) - before))\n"
        "    raise SystemExit\n"
        "_signal.pthread_sigmask = block\n"
        "from jobd.__main__ import main; main()"
    )
    assert python(code) == "True True jobd jobd.__main__\n"


def test_a_mask_that_was_inherited_is_taken_off() -> None:
    """A signal that whoever started us has blocked arrives nevertheless."""
    before = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])\n"
    code = "os.kill(me, signal.SIGTERM); os.kill(me, signal.SIGINT); print(*map(signals.name, signals.take()))"
    assert held(code, before) == "SIGTERM SIGINT\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(name: str) -> None:
    """As nohup and a shell's `&` ask for, also after the signals have been taken back."""
    before = f"import signal; signal.signal(signal.{name}, signal.SIG_IGN)\n"
    code = (
        f"signals.reassert(); os.kill(me, signal.{name}); os.kill(me, signal.SIGTERM)\n"
        f"print(signal.getsignal(signal.{name}).name, *map(signals.name, signals.take()))"
    )
    assert held(code, before) == "SIG_IGN SIGTERM\n"


def test_an_ignored_sigterm_is_caught_nevertheless() -> None:
    """A daemon that cannot be stopped is nobody's wish."""
    before = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    assert held("os.kill(me, signal.SIGTERM); print(signals.name(signals.take()[0]))", before) == "SIGTERM\n"


@pytest.mark.parametrize(
    "attack",
    [
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)",
        "signal.signal(signal.SIGTERM, lambda *args: 1 / 0)",
        "signal.set_wakeup_fd(-1)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    ],
)
def test_signals_are_taken_back_from_whoever_took_them(attack: str) -> None:
    """After `reassert` they arrive as before."""
    code = f"{attack}\nsignals.reassert()\nos.kill(me, signal.SIGTERM)\nprint(signals.name(signals.take()[0]))"
    assert held(code) == "SIGTERM\n"


@pytest.mark.parametrize("name", ["SIGQUIT", "SIGUSR2", "SIGALRM", "SIGRTMAX"])
@pytest.mark.parametrize("action", [0, 1])
def test_signals_without_a_meaning_are_taken_back_from_c_code(name: str, action: int) -> None:
    """It has set the default or ignored them, which Python does not know of."""
    code = (
        f"import ctypes; ctypes.CDLL(None).signal(int(signal.{name}), {action})\n"
        f"signals.reassert(); os.kill(me, signal.{name}); print(signals.take() == [signal.{name}])"
    )
    assert held(code) == "True\n"


def test_a_handler_that_c_code_has_installed_stays() -> None:
    """For a signal without a meaning to the daemon: a library may need it."""
    code = (
        "import ctypes\n"
        "handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: print(number, flush=True))\n"
        "ctypes.CDLL(None).signal(int(signal.SIGUSR2), handler)\n"
        "signals.reassert(); os.kill(me, signal.SIGUSR2); print(signals.take())"
    )
    assert held(code) == f"{int(signal.SIGUSR2)}\n[]\n"


def test_a_forked_child_does_not_pass_its_signals_on() -> None:
    """A SIGTERM that stops a child, forked from whichever thread, is not the daemon's."""
    code = (
        "def fork():\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        time.sleep(20); os._exit(0)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)\n"
        "fork()\n"
        "thread = threading.Thread(target=fork); thread.start(); thread.join()\n"
        "print(signals.take())"
    )
    assert held(code).splitlines() == ["-15", "-15", "[]"]


def test_a_forked_child_answers_ctrl_c_like_any_python() -> None:
    """Its SIGINT is a KeyboardInterrupt again."""
    code = (
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try: os.kill(os.getpid(), signal.SIGINT); time.sleep(20)\n"
        "    except KeyboardInterrupt: os._exit(5)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signals.take())"
    )
    assert held(code) == "5 []\n"


def test_a_child_that_is_executed_has_clean_signals_and_no_pipe() -> None:
    """No mask, nothing ignored that was not, no descriptor of ours."""
    code = (
        "import subprocess\n"
        "look = '''import os, signal; print(len(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "
        "*[signal.getsignal(s) is signal.SIG_DFL for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)], "
        "len(os.listdir('/proc/self/fd')))'''\n"
        "print(subprocess.run([sys.executable, '-c', look], capture_output=True, text=True).stdout.strip())"
    )
    assert held(code) == "0 True True True 4\n"


def test_a_nudge_wakes_the_listener_and_is_no_signal() -> None:
    """The descriptor is readable, and nothing is taken from it."""
    code = (
        "import select\nsignals.nudge()\n"
        "print(bool(select.select([signals.fileno()], [], [], 0)[0]), signals.take(), "
        "bool(select.select([signals.fileno()], [], [], 0)[0]))"
    )
    assert held(code) == "True [] False\n"


def test_a_flood_of_signals_is_no_fault() -> None:
    """More than the pipe holds: nothing is raised or printed, and the stop among them is found."""
    code = (
        "for _ in range(100_000): os.kill(me, signal.SIGUSR1)\n"
        "taken = []\n"
        "while more := signals.take(): taken += more\n"
        "os.kill(me, signal.SIGTERM)\n"
        "print(len(taken) > 10_000, signals.name(signals.take()[-1]))"
    )
    assert held(code) == "True SIGTERM\n"


def test_a_process_without_a_terminal_has_none() -> None:
    """In a session of its own there is no /dev/tty."""
    code = (
        "import os\nif os.getpid() != os.getsid(0): os.setsid()\nfrom jobd import signals\nprint(signals.on_terminal())"
    )
    assert python(code) == "False\n"


def test_the_first_signal_is_a_request_even_at_the_dawn_of_time() -> None:
    """The monotonic clock may begin at nought."""
    assert Requests().is_new(0.0, 0.0)


@given(st.lists(st.sampled_from([0.0, 0.01, 0.24, 0.25, 0.26, 1.0]), min_size=1, max_size=20))
def test_signals_close_together_are_one_request(gaps: list[float]) -> None:
    """Each is new exactly if the one before it, counted or not, is at least a quarter of a second away."""
    requests = Requests()
    now = 1_000.0
    assert requests.is_new(now, now)
    for gap in gaps:
        before, now = now, now + gap
        assert requests.is_new(now, now) is (now - before >= ONE_REQUEST_S)


def test_a_signal_that_waited_behind_one_that_could_not_be_obeyed_is_not_new() -> None:
    """Both may have come at once; it was heard only when the other one had been obeyed at last."""
    requests = Requests()
    assert requests.is_new(10.0, 10.0)
    assert not requests.is_new(10.0, 11.0)
    assert not requests.is_new(11.1, 11.1)
    assert requests.is_new(11.4, 11.4)


def test_a_signal_that_wakes_nobody_sets_the_wakeup_descriptor_again() -> None:
    """Whoever has cleared it costs no signal."""
    code = (
        "signal.set_wakeup_fd(-1); os.kill(me, signal.SIGTERM); os.kill(me, signal.SIGUSR1)\n"
        "print(*map(signals.name, signals.take()))"
    )
    assert held(code) == "SIGTERM SIGUSR1\n"


def test_a_handler_is_kept_for_whoever_may_call_it() -> None:
    """It is no longer Python that calls it; a forked child has it back."""
    code = (
        "def handler(signum, frame): print('called', signum == signal.SIGUSR2, flush=True)\n"
        "signal.signal(signal.SIGUSR2, handler); signals.reassert()\n"
        "os.kill(me, signal.SIGUSR2)\n"
        "print(*map(signals.name, signals.take()), signals.handlers[signal.SIGUSR2] is handler, flush=True)\n"
        "child = os.fork()\n"
        "if child == 0: os.kill(os.getpid(), signal.SIGUSR2); os._exit(0)\n"
        "os.waitpid(child, 0)"
    )
    assert held(code).splitlines() == ["SIGUSR2 True", "called True"]


@pytest.mark.parametrize("name", ["SIGPIPE", "SIGXFSZ"])
def test_what_python_ignores_stays_ignored(name: str) -> None:
    """A module that restores the default does not let the log's reader, or a full disk, kill the process."""
    code = (
        f"signal.signal(signal.{name}, signal.SIG_DFL); signals.reassert(); os.kill(me, signal.{name}); print('lives')"
    )
    assert held(code) == "lives\n"


def test_ignored_children_are_waited_for_again() -> None:
    """Their exit codes are not thrown away, whether that was inherited or a module's doing."""
    ignore = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    code = (
        "def code():\n"
        "    child = os.fork()\n"
        "    if child == 0: os._exit(7)\n"
        "    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        f"print(code())\n{ignore}signals.reassert()\nprint(code())"
    )
    assert held(code, ignore).splitlines() == ["7", "7"]


def test_a_stray_that_was_ignored_at_the_start_stays_ignored() -> None:
    """It could not have ended the process."""
    before = "import signal; signal.signal(signal.SIGUSR2, signal.SIG_IGN)\n"
    assert held("os.kill(me, signal.SIGUSR2); print(signals.take())", before) == "[]\n"


@pytest.mark.parametrize(("offset", "name"), [(0, "SIGRTMIN"), (3, "SIGRTMIN+3")])
def test_names_of_real_time_signals(offset: int, name: str) -> None:
    """As `kill -l` shows them."""
    from jobd import signals

    assert signals.name(signal.SIGRTMIN + offset) == name


def test_a_look_at_a_full_pipe_makes_room() -> None:
    """What waits is put back once each, so that a stop signal that comes now is not lost."""
    code = (
        "for _ in range(100_000): os.kill(me, signal.SIGUSR1)\n"
        "print(signals.stop_waits()); os.kill(me, signal.SIGTERM)\n"
        "while not signals.stop_waits(): pass\n"
        "print('found')"
    )
    assert held(code).splitlines() == ["False", "found"]


@pytest.mark.parametrize("installed", ["signal.SIG_IGN", "lambda *_: None"], ids=["ignored", "handled"])
def test_an_interrupt_that_is_not_ours_is_no_stop_that_waits(installed: str) -> None:
    """Whoever started us ignores it; a jobs module may have a handler for it."""
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code = (
        f"signal.signal(signal.SIGINT, {installed}); signals.reassert(); os.kill(me, signal.SIGINT)\n"
        "print(signals.stop_waits(), signals.asks_for_stop(signal.SIGINT))\n"
        "os.kill(me, signal.SIGTERM); print(signals.stop_waits())"
    )
    assert held(code, ignored).splitlines() == ["False False", "True"]


#: Makes a new terminal the controlling one of the process.
_ON_TERMINAL = (
    "import os, pty\n"
    "if os.getpid() != os.getsid(0): os.setsid()\n"
    "ours, theirs = pty.openpty()\n"
    "os.close(os.open(os.ttyname(theirs), os.O_RDWR))\n"
)
_IGNORING = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        ("import os\nif os.getpid() != os.getsid(0): os.setsid()\n", "False False"),
        (_ON_TERMINAL, "True True"),
        (_ON_TERMINAL + _IGNORING, "False False"),
    ],
    ids=["no terminal", "terminal", "nohup"],
)
def test_a_hangup_is_a_stop_that_waits_where_there_is_a_terminal(before: str, shown: str) -> None:
    """Unless it is ignored, as nohup does."""
    code = "os.kill(me, signal.SIGHUP); print(signals.stop_waits(), signals.asks_for_stop(signal.SIGHUP))"
    assert held(code, before) == f"{shown}\n"


def test_pid_1_is_the_daemon_itself_where_it_may_not_fork() -> None:
    """No further process is to be had: better a daemon that reaps nobody than none."""
    code = (
        "import os\nfrom jobd import init\n"
        "def fork(): raise BlockingIOError\n"
        "os.fork = fork\ninit.split()\nprint('goes on')"
    )
    assert python(code) == "goes on\n"


def test_the_stop_signals_are_those_of_the_contract() -> None:
    """SIGHUP is another matter."""
    from jobd import signals

    assert set(signals.STOP) == {signal.SIGTERM, signal.SIGINT}
    assert set(signals.CAUGHT) == {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
