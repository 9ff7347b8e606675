"""Jobs that attack what they share with the daemon: the interpreter, the standard library, signals, descriptors."""

from collections.abc import Mapping

import pytest

from .conftest import Launcher
from .hostile import ALL_HEARTS, HEARTS, SHORT, UNAUDITED_HEARTS, assert_unharmed, jobs_of

#: Attacks that can be made one beside the other in one process; each job comes to its end.
TOGETHER: dict[str, dict[str, str]] = {
    "switches": {
        "garbage": "import gc; gc.freeze(); gc.disable(); gc.set_threshold(1); gc.enable()",
        "callback of the collector": "import gc; gc.callbacks.append(lambda *args: sys.exit(1)); gc.collect()",
        "recursion": "sys.setrecursionlimit(50)",
        "recursion without limit": "sys.setrecursionlimit(10**9)",
        "switch interval": "sys.setswitchinterval(1000)",
        "trace": "sys.settrace(lambda *args: None)",
        "profile": "sys.setprofile(lambda *args: None)",
        "trace of threads": "threading.settrace(lambda *args: None)",
        "stack size": "threading.stack_size(65536)",
        "warnings": "import warnings; warnings.simplefilter('error')",
        "path": "sys.path.clear(); sys.path_hooks.clear(); sys.meta_path.clear(); sys.path_importer_cache.clear()",
        "locale": "import locale; locale.setlocale(locale.LC_ALL, 'C')",
        "decimal": "import decimal; decimal.getcontext().traps[decimal.Inexact] = True; decimal.getcontext().prec = 1",
        "zone": "os.environ['TZ'] = 'Pacific/Kiritimati'; time.tzset()",
        "digits": "sys.set_int_max_str_digits(640)",
        "directory": "os.chdir('/'); os.umask(0o777); os.environ.clear()",
        "faulthandler": "import faulthandler; faulthandler.disable(); faulthandler.dump_traceback_later(3600)",
        "faulthandler's timer": "import faulthandler; faulthandler.cancel_dump_traceback_later()",
        "exit handler": "import atexit; atexit.register(time.sleep, 60)",
        "finaliser at exit": "import weakref; sys.kept = Kept(); weakref.finalize(sys.kept, time.sleep, 60)",
        "randomness": "import random; random.seed(0); random.random = None",
    },
    "logging": {
        "off": "logging.disable(); logging.raiseExceptions = False; logging.shutdown()",
        "no handler": "logging.getLogger().handlers.clear(); logging.getLogger().disabled = True",
        "dictConfig": "import logging.config; logging.config.dictConfig({'version': 1})",
        "basicConfig": "logging.basicConfig(level=60, force=True, handlers=[])",
        "records": "logging.setLogRecordFactory(lambda *args, **kwargs: 1 / 0)",
        "filter": "logging.getLogger().addFilter(lambda record: sys.exit(1))",
        "class": "logging.setLoggerClass(type('Mute', (logging.Logger,), {'_log': lambda *a, **k: 1 / 0}))",
        "methods": "logging.Logger._log = logging.Logger.info = logging.Logger.handle = None",
        "functions": "logging.getLogger = logging.info = logging.LogRecord = None",
        "structlog": "structlog.configure(processors=[lambda *args: 1 / 0], cache_logger_on_first_use=True)",
        "structlog's functions": "structlog.wrap_logger = structlog.make_filtering_bound_logger = None",
        "structlog's defaults": "structlog.reset_defaults()",
        "context": "structlog.contextvars.bind_contextvars(run_id='x'); structlog.contextvars.clear_contextvars()",
        "text": "import traceback, linecache; traceback.format_exception = linecache.getline = linecache.cache = None",
        "json": "import json; json.dumps = json.JSONEncoder = None",
        "orjson": "import orjson; orjson.dumps = None",
    },
    "streams": {
        "print": "import builtins; builtins.print = builtins.open = builtins.input = None",
        "None": "sys.stdout = sys.stderr = sys.stdin = sys.__stdout__ = sys.__stderr__ = None",
        "closed": "os.close(0); os.close(1); os.close(2)",
        "used by others": "for _ in range(3): os.open('/dev/null', os.O_RDWR)",
        "taken over": "null = os.open('/dev/null', os.O_RDWR)\nfor fd in range(3): os.dup2(null, fd)",
        "a pipe whose reader is gone": "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)",
    },
    "modules": {
        "hooks": "sys.excepthook = threading.excepthook = sys.unraisablehook = sys.displayhook = None",
        "time": "time.monotonic = time.time = time.time_ns = lambda: 0; time.sleep = None",
        "datetime": "import datetime; datetime.datetime = datetime.timezone = datetime.UTC = None",
        "reading": "os.readv = os.waitid = None",
        "signals": "signal.signal = signal.getsignal = signal.pthread_sigmask = signal.set_wakeup_fd = None",
        "switches": "sys.gettrace = sys.getprofile = sys.getrecursionlimit = sys.getswitchinterval = None",
        "process": "os.getpid = lambda: 1; os._exit = os.kill = os.waitpid = os.fork = None",
        "threads": "threading.Thread.start = threading.Thread.run = lambda thread: None; threading.Thread = None",
        "locks": "threading.Lock = threading.RLock = threading.Event = threading.Condition = None",
        "dictionaries of threads": "threading._active.clear(); threading._limbo.clear()",
        "tasks": "asyncio.Task = asyncio.Future = asyncio.current_task = asyncio.CancelledError = None",
        "selectors": "import select; select.poll = select.select = select.epoll = None",
        "questions": "import inspect; inspect.isawaitable = inspect.iscoroutine = None",
        "frames": "sys._current_frames = sys._getframe = None",
        "faulthandler": "import faulthandler; faulthandler.dump_traceback_later = None",
        "importing": "import builtins; builtins.__import__ = None",
    },
    "signals": {
        "alarm": "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01); time.sleep(0.2)",
        "profiler": "signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)",
        "processor time": "signal.setitimer(signal.ITIMER_VIRTUAL, 0.01, 0.01)",
        "users'": "os.kill(os.getpid(), signal.SIGUSR2)",
        "pipe": "os.kill(os.getpid(), signal.SIGPIPE)",
        "real time": "for signum in range(signal.SIGRTMIN, signal.SIGRTMAX + 1): os.kill(os.getpid(), signum)",
        "to the main thread": "signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR2)",
        "mask": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "interrupted calls": "for signum in (signal.SIGTERM, signal.SIGINT): signal.siginterrupt(signum, False)",
        "by C": "import ctypes\nfor signum in (1, 2, 10, 15): ctypes.CDLL(None).signal(signum, 1)",
        "of children": "import ctypes; ctypes.CDLL(None).signal(17, 1)",
    },
}


@pytest.mark.parametrize("attacks", TOGETHER.values(), ids=TOGETHER)
def test_attacks_on_what_is_shared_harm_nobody(launch: Launcher, attacks: Mapping[str, str]) -> None:
    """Many jobs that each spoil something that everybody uses: honest jobs go on, and the stop is orderly."""
    prepared = "import signal\nclass Kept: pass\n"
    daemon = launch(prepared + jobs_of("def", attacks), beside=HEARTS)
    for name in attacks:
        daemon.wait_for("run.finished", job=name)
    assert_unharmed(daemon)


#: Attacks that need a process for themselves.
ALONE = {
    "every module is forgotten": "sys.modules.clear()",
    "tracing raises in every new thread": "threading.settrace(lambda *args: 1 / 0)",
    "profiling raises in every new thread": "threading.setprofile(lambda *args: 1 / 0)",
    "an audit hook forbids everything": "def forbid(*args): raise RuntimeError('no')\nsys.addaudithook(forbid)",
    "children are all killed": "for child in children(): os.kill(child, signal.SIGKILL)",
}


@pytest.mark.parametrize("attack", ALONE.values(), ids=ALONE)
def test_an_attack_on_the_interpreter_harms_nobody(launch: Launcher, attack: str) -> None:
    """A job that spoils the interpreter as a whole: honest jobs go on, and the stop is orderly."""
    children = """
def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file: return [int(pid) for pid in file.read().split()]
"""
    daemon = launch(children + jobs_of("def", {"job": attack}), beside=HEARTS)
    daemon.wait_for("run.finished", job="job")
    assert_unharmed(daemon, hearts=UNAUDITED_HEARTS if "audit" in attack else ALL_HEARTS)


def test_an_audit_hook_does_not_keep_a_stubborn_run_from_its_end(launch: Launcher) -> None:
    """Looking where a run stands is audited, too: without an answer, its stack is empty and the stop goes on."""
    daemon = launch(
        """
        def forbid(*args): raise RuntimeError("no")
        @every("1h")
        def job():
            sys.addaudithook(forbid)
            log.info("forbidden")
            threading.Event().wait()
        """,
        beside=HEARTS,
        env=SHORT,
    )
    daemon.wait_for("forbidden")
    assert_unharmed(daemon, code=3, hearts=UNAUDITED_HEARTS)
    assert daemon.outcomes("job") == ["abandoned"]


def test_a_switch_interval_of_minutes_is_lowered_before_somebody_computes(launch: Launcher) -> None:
    """With it a thread that computes would not give way to anybody; the daemon takes it back within a moment."""
    daemon = launch(
        """
        @every("1h")
        def job():
            sys.setswitchinterval(1000)
            while sys.getswitchinterval() > 1: time.sleep(0.01)
            log.info("lowered")
            while True: pass
        """,
        beside=HEARTS,
        env=SHORT,
    )
    daemon.wait_for("lowered")
    assert_unharmed(daemon, code=3)


def test_threads_that_compute_do_not_stop_the_ticks(launch: Launcher) -> None:
    """Ten threads that want nothing but the GIL: honest jobs still have their ticks."""
    daemon = launch(
        """
        def compute():
            while True: pass
        @every("1h")
        def job():
            for _ in range(10): threading.Thread(target=compute).start()
        """,
        beside=HEARTS,
    )
    daemon.wait_for("run.finished", job="job", outcome="succeeded")
    assert_unharmed(daemon)


def test_the_gil_held_for_a_while_delays_and_loses_nothing(launch: Launcher) -> None:
    """C code that holds the GIL for a second: afterwards all goes on, and the ticks are accounted for."""
    daemon = launch(
        """
        import ctypes
        @every("1h")
        def job(): ctypes.PyDLL(None).usleep(1_000_000)
        """,
        beside=HEARTS,
    )
    daemon.wait_for("run.finished", job="job", outcome="succeeded")
    assert daemon.wait_for("tick.skipped", job="function_heart")["reason"] == "missed"
    assert_unharmed(daemon)


#: Descriptors that the daemon cannot do without.
CLOSING = {
    "closed": "os.closerange(3, 256)",
    "made something else": "null = os.open('/dev/null', os.O_RDWR)\nfor fd in range(3, 30): os.dup2(null, fd)",
}


@pytest.mark.parametrize("attack", CLOSING.values(), ids=CLOSING)
def test_without_its_descriptors_the_daemon_does_not_idle(launch: Launcher, attack: str) -> None:
    """A job that closes every descriptor cannot be survived: the process ends by itself, for a new one to start."""
    daemon = launch(jobs_of("def", {"job": attack}), beside=HEARTS)
    assert daemon.exit_code(within=10) == 70


#: Ways to spoil the loop object of the job plane for good.
DEAFENING = {
    "its pipe is closed": "loop._ssock.close(); loop._csock.close()",
    "its queue is gone": "loop._ready = None",
    "its selector is closed": "loop._selector.close()",
}


@pytest.mark.parametrize("attack", DEAFENING.values(), ids=DEAFENING)
def test_with_a_loop_that_is_spoilt_for_good_the_daemon_does_not_idle(launch: Launcher, attack: str) -> None:
    """Better no daemon than one that never starts a coroutine again: it stops in order, with 70, and says why."""
    daemon = launch(
        jobs_of("async def", {"job": f"loop = asyncio.get_running_loop()\n{attack}"}), beside=HEARTS, env=SHORT
    )
    assert daemon.exit_code(within=15) == 70
    daemon.assert_log_is_consistent()
    assert daemon.events("daemon.failed")


def test_memory_does_not_grow_with_the_threads_of_functions(launch: Launcher) -> None:
    """Hundreds of runs one after the other leave no trace of their threads."""
    daemon = launch(
        """
        @every("2ms")
        def quick(): pass
        @every("0.2")
        def count(): log.info("counted", threads=len(threading.enumerate()))
        """
    )
    daemon.wait_for("run.finished", job="quick", count=500)
    daemon.wait_for("counted", count=4)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    assert max(line["threads"] for line in daemon.events("counted")) < 60


def test_a_recursion_limit_too_low_for_the_loop_of_the_jobs_harms_nobody(launch: Launcher) -> None:
    """A coroutine that leaves no more stack than it takes itself, and raises what leaves the loop."""
    attack = """
for limit in range(1, 60):
    try: sys.setrecursionlimit(limit)
    except RecursionError: continue
    break
raise SystemExit
"""
    daemon = launch(jobs_of("async def", {"job": attack.strip()}), beside=HEARTS)
    daemon.wait_for("run.finished", job="job", outcome="failed")
    assert_unharmed(daemon)


def test_what_prints_whatever_is_called_captures_nobody(launch: Launcher) -> None:
    """Each line that is written makes more lines to be written; the function comes to its end, and its lines come."""
    daemon = launch(
        """
        @every("1h")
        def traced():
            sys.setprofile(lambda frame, event, argument: print(event))
            log.info("a line")
            sys.setprofile(None)
        """,
        beside=HEARTS,
    )
    daemon.wait_for("run.finished", job="traced", outcome="succeeded")
    assert_unharmed(daemon)
    assert daemon.events("a line", job="traced")
    assert daemon.events("job.output", job="traced", line="c_call")
