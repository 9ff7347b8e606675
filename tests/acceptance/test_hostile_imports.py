"""Modules of jobs that attack the process while they are imported, in the main thread."""

import signal

import pytest

from .conftest import Launcher
from .harness import poll
from .hostile import HEARTS, assert_unharmed

#: What a module may do when it is imported, all of it at once; its jobs run all the same.
ATTACKS = {
    "threads": "def compute():\n    while True: pass\nthreading.Thread(target=compute, daemon=True).start()",
    "switches": "import gc; gc.disable(); gc.freeze(); sys.setrecursionlimit(60); threading.stack_size(65536)",
    "streams": "sys.stdout = sys.stderr = None; os.close(0); os.close(1); os.close(2)",
    "signals": "for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1): signal.signal(signum, signal.SIG_IGN)\n"
    "signal.set_wakeup_fd(-1); signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "timers": "signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05); signal.setitimer(signal.ITIMER_PROF, 0.05, 0.05)",
    "event loop": "asyncio.set_event_loop_policy(None); asyncio.set_event_loop(asyncio.new_event_loop())\n"
    "asyncio.get_event_loop().call_soon(sys.exit); asyncio.Task = None",
    "logging": "structlog.reset_defaults(); logging.disable(); logging.getLogger().handlers.clear()",
    "modules": "os.getpid = lambda: 1; os._exit = None; time.monotonic = lambda: 0; threading.Thread = None",
    "exit handlers": "import atexit; atexit.register(time.sleep, 60)",
    "hooks": "sys.excepthook = threading.excepthook = sys.unraisablehook = None",
}


def test_what_a_module_does_when_imported_harms_nobody(launch: Launcher) -> None:
    """What is shared may be spoilt before anything runs: the jobs run, and the stop is orderly."""
    daemon = launch("\n".join(["import signal", *ATTACKS.values()]), beside=HEARTS)
    assert_unharmed(daemon)


@pytest.mark.parametrize("setter", ["settrace", "setprofile"])
def test_what_a_module_traces_is_not_the_daemon(launch: Launcher, setter: str) -> None:
    """A function that a module has Python call for every line is not called on the control plane."""
    daemon = launch(
        f"sys.{setter}(lambda frame, *args: os._exit(9) if frame.f_code.co_name == '_run_once' else None)",
        beside=HEARTS,
    )
    assert_unharmed(daemon)


@pytest.mark.parametrize(
    "code", ["os.fork()", "if os.fork() == 0: raise SystemExit(5)"], ids=["as if nothing had happened", "with an error"]
)
def test_a_module_that_forks_makes_no_second_daemon(launch: Launcher, code: str) -> None:
    """A child that comes back from the import ends, and says nothing in the daemon's log."""
    daemon = launch(code, beside=HEARTS)
    assert_unharmed(daemon)
    assert len(daemon.events("daemon.ready")) == 1


#: What leaves nothing to run: the configuration is refused, in lines of JSON.
REFUSED = {
    "tracing that raises": "sys.settrace(lambda *args: 1 / 0)\nx = (lambda: 1)()",
    "an exit": "sys.exit(0)",
    "an interrupt": "raise KeyboardInterrupt",
    "an end of a generator": "raise GeneratorExit",
    "an exception without a text": "class Rude(BaseException):\n    def __str__(self): raise SystemExit\nraise Rude",
    "no memory": "raise MemoryError",
    "recursion": "def deeper(): deeper()\ndeeper()",
    "a group": "raise BaseExceptionGroup('many', [SystemExit(1), KeyboardInterrupt()])",
    "no module of that name": "del sys.modules[__name__]",
    "a module that is none": "sys.modules[__name__] = 5",
    "a loop that is interrupted": "loop = asyncio.new_event_loop(); loop.call_soon(sys.exit, 3); loop.run_forever()",
}


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_a_module_that_cannot_be_imported_is_refused(launch: Launcher, code: str) -> None:
    """Whatever it raises: `config.invalid`, exit code 78, and never a daemon that idles."""
    daemon = launch(code)
    assert daemon.exit_code() == 78
    daemon.assert_log_is_consistent()
    assert daemon.events("config.invalid")


def test_the_gil_held_by_an_import_ends_at_the_guard(launch: Launcher) -> None:
    """C code that never gives the GIL back, before anything runs: SIGTERM ends the process within the bound."""
    daemon = launch(
        "log.info('importing')\n-1 in itertools.count()", JOBD_GRACE_PERIOD="0.3", JOBD_CANCEL_TIMEOUT="0.3"
    )
    daemon.wait_for("importing")
    assert daemon.stop() in (1, -signal.SIGKILL)  # RACE: 1 if the signal was read before the GIL was taken for good
    assert not daemon.log.garbage


def test_a_module_that_ends_the_process_ends_it(launch: Launcher) -> None:
    """`os._exit` cannot be survived; the guard goes with the daemon."""
    daemon = launch("log.info('last words')\nos._exit(7)")
    assert daemon.exit_code() == 7
    assert daemon.lines[-1]["event"] == "last words"
    poll(lambda: not daemon.end(), "the guard has gone")
