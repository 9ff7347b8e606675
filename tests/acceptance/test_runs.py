"""Runs: what a job may do and what becomes of it, while the daemon goes on."""

import signal

import pytest

from .conftest import Launcher
from .harness import Daemon, has_ended, instant, poll

#: Beside every job that misbehaves: the daemon goes on as long as these do.
BYSTANDERS = """
@every("0.1")
async def coroutine_bystander(): pass
@every("0.1")
def function_bystander(): pass
"""
CLASSES = """
class Rude(Exception):
    def __str__(self): raise ValueError("no text")
    __repr__ = __str__
class Base(BaseException): pass
class Exits(Exception):
    def __str__(self): sys.exit(5)
class Untouchable(Exception):
    def __getattribute__(self, name): raise RuntimeError(name)
def nameless():
    class Meta(type):
        def __getattribute__(cls, name): raise RuntimeError(name)
    class Nameless(Exception, metaclass=Meta): pass
    return Nameless()
def endless(): endless()
"""
#: What a job raises, and the type that its end tells; None where the type itself cannot be told.
RAISED = {
    "raise ValueError('bad')": "ValueError",
    "raise SystemExit(0)": "SystemExit",
    "sys.exit('text')": "SystemExit",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise GeneratorExit": "GeneratorExit",
    "raise asyncio.CancelledError": "asyncio.exceptions.CancelledError",
    "raise Base('base')": "jobs.Base",
    "raise Rude": "jobs.Rude",
    "raise Exits": "jobs.Exits",
    "raise Untouchable": None,
    "raise nameless()": None,
    "raise ExceptionGroup('many', [ValueError('first member'), OSError('second member')])": "ExceptionGroup",
    "raise StopIteration('stop')": "StopIteration",
    "raise StopAsyncIteration": "StopAsyncIteration",
    "raise MemoryError": "MemoryError",
    "endless()": "RecursionError",
    'raise ValueError(\'\\ud800 \\u2028 \\x00 \\n{"event": "daemon.stopped"}\')': "ValueError",
    "raise ValueError('x' * 300_000)": "ValueError",
    "raise ValueError from ValueError('cause')": "ValueError",
    "error = ValueError('itself'); error.__context__ = error; raise error": "ValueError",
    "raise TimeoutError": "TimeoutError",
}
#: Where a coroutine cannot raise it as it is, because Python has a use of its own for that.
RAISED_BY_COROUTINES = RAISED | {"raise StopIteration('stop')": "RuntimeError"}
KINDS = pytest.mark.parametrize("kind", ["async def", "def"], ids=["coroutine", "function"])


def assert_goes_on(daemon: Daemon) -> None:
    """The bystanders go on being started and ending from now on, and the stop is orderly."""
    for job in ("coroutine_bystander", "function_bystander"):
        so_far = len(daemon.events("run.finished", job=job))
        daemon.wait_for("run.finished", job=job, outcome="succeeded", count=so_far + 2)
    code = daemon.stop(within=3)
    daemon.assert_log_is_consistent()
    assert code == 0


def failed(daemon: Daemon, job: str = "job") -> dict[str, str]:
    """The error of the job's first run, which must have failed."""
    finished = daemon.wait_for("run.finished", job=job)
    assert finished["outcome"] == "failed", finished
    error: dict[str, str] = finished["error"]
    return error


@KINDS
def test_a_run_that_returns_has_succeeded(launch: Launcher, kind: str) -> None:
    """The end of the job's code is a `succeeded` run with a duration and without an error."""
    pause = "await asyncio.sleep(0.2)" if kind == "async def" else "time.sleep(0.2)"
    daemon = launch(f"@every('1h')\n{kind} job(): {pause}", beside=BYSTANDERS)
    finished = daemon.wait_for("run.finished", job="job")
    assert finished["outcome"] == "succeeded"
    assert 0.19 <= finished["duration_s"] < 2
    assert "error" not in finished
    assert_goes_on(daemon)


@KINDS
def test_whatever_a_job_raises_fails_that_run_and_nothing_else(launch: Launcher, kind: str) -> None:
    """Each exception, wicked ones too, is the end of its own run: `failed`, with type, message and traceback."""
    jobs = "".join(f"@every('1h')\n{kind} job{n}():\n    {code}\n" for n, code in enumerate(RAISED))
    daemon = launch(CLASSES + jobs, beside=BYSTANDERS)
    types = RAISED_BY_COROUTINES if kind == "async def" else RAISED
    for number, (code, expected) in enumerate(types.items()):
        error = failed(daemon, f"job{number}")
        assert expected in (None, error["type"]), code
    assert_goes_on(daemon)


def test_failure_tells_the_message_and_where(launch: Launcher) -> None:
    """A `failed` run has the exception's message, and a traceback that names the job's line."""
    daemon = launch("@every('1h')\nasync def job():\n    raise ValueError('the very reason')", beside=BYSTANDERS)
    finished = daemon.wait_for("run.finished", job="job")
    assert finished["level"] == "error"
    assert finished["error"] == {"type": "ValueError", "message": "the very reason"}
    assert f'jobs.py", line {daemon.line_of("very reason").partition(":")[2]}, in job' in finished["traceback"]
    assert_goes_on(daemon)


def test_group_of_exceptions_names_its_members(launch: Launcher) -> None:
    """An ExceptionGroup is one line that names every member."""
    daemon = launch(
        "@every('1h')\ndef job(): raise ExceptionGroup('many', [ValueError('first one'), KeyError('second one')])",
        beside=BYSTANDERS,
    )
    finished = daemon.wait_for("run.finished", job="job")
    assert "first one" in finished["traceback"]
    assert "second one" in finished["traceback"]
    assert_goes_on(daemon)


def test_huge_message_is_clipped_and_its_length_told(launch: Launcher) -> None:
    """300 kB of message make a line of reasonable length that says how long it was."""
    daemon = launch("@every('1h')\ndef job(): raise ValueError('x' * 300_000)", beside=BYSTANDERS)
    message = failed(daemon)["message"]
    assert len(message) < 66_000
    assert "300000" in message
    assert_goes_on(daemon)


@pytest.mark.parametrize(
    "returned",
    ["asyncio.sleep(0)", "coroutine_bystander()", "asyncio.Future(loop=asyncio.new_event_loop())"],
    ids=["sleep", "coroutine", "future"],
)
@pytest.mark.parametrize("kind", ["async def", "def"])
def test_job_that_returns_an_awaitable_fails(launch: Launcher, kind: str, returned: str) -> None:
    """Whoever returns something to be awaited has not done it: the run fails, and is told why."""
    daemon = launch(f"@every('1h')\n{kind} job(): return {returned}", beside=BYSTANDERS)
    assert "await" in failed(daemon)["message"]
    assert_goes_on(daemon)


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_generator_function_is_no_job(launch: Launcher, kind: str) -> None:
    """A function with `yield` would run none of its code when called: it is refused, or its run fails."""
    daemon = launch(f"@every('1h')\n{kind} job():\n    yield", beside=BYSTANDERS)
    found = daemon.log.wait_until(
        lambda lines: [line for line in lines if line["event"] in ("run.finished", "config.invalid")], 10
    )
    if found[0]["event"] == "config.invalid":
        assert daemon.exit_code() == 78
        return
    failed(daemon)
    assert_goes_on(daemon)


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_large_result_is_dropped(launch: Launcher, kind: str) -> None:
    """What a job returns is of no interest to anybody, and gone before the run has ended."""
    daemon = launch(
        f"""
        class Result(bytearray):
            def __del__(self): log.info("gone")
        @every("1h")
        {kind} job(): return Result(100_000_000)
        """,
        beside=BYSTANDERS,
    )
    daemon.wait_for("gone")
    assert daemon.wait_for("run.finished", job="job")["outcome"] == "succeeded"
    names = [line["event"] for line in daemon.lines if line.get("job") == "job"]
    assert names.index("gone") < names.index("run.finished")
    assert_goes_on(daemon)


def test_callables_of_every_kind_are_jobs(launch: Launcher) -> None:
    """Partials, bound methods, callable objects and lambdas run as their kind asks."""
    daemon = launch(
        """
        import functools
        async def with_default(seen, argument=1): log.info("partial", running=asyncio.current_task() is not None)
        partial = functools.partial(with_default, "x")
        class Object:
            async def __call__(self): log.info("object", running=asyncio.current_task() is not None)
            def method(self): log.info("method", thread=threading.current_thread() is not threading.main_thread())
        instance = Object()
        anonymous = lambda: log.info("anonymous")
        """,
        *("run", "jobs:partial", "jobs:instance", "jobs:instance.method", "jobs:anonymous", "jobs"),
        beside=BYSTANDERS,
        JOBD_INTERVAL="1h",
    )
    assert daemon.wait_for("partial")["running"] is True
    assert daemon.wait_for("object")["running"] is True
    assert daemon.wait_for("method")["thread"] is True
    daemon.wait_for("anonymous")
    assert_goes_on(daemon)


FACTS = """log.info("facts", id=current_run().run_id, name=current_run().job, number=current_run().tick,
        at=current_run().scheduled_at, asked=current_run().stopping.is_set())"""


@KINDS
def test_a_run_knows_itself(launch: Launcher, kind: str) -> None:
    """`current_run()` tells job, run_id, tick, scheduled_at and stopping, as the log does."""
    daemon = launch(f"@every('0.2')\n{kind} job():\n    {FACTS}", beside=BYSTANDERS)
    facts = daemon.wait_for("facts", count=2)
    started = daemon.wait_for("run.started", run_id=facts["id"])
    assert (facts["name"], facts["number"], facts["asked"]) == ("job", started["tick"], False)
    assert instant(facts, "at") == instant(started, "scheduled_at")
    assert (facts["job"], facts["run_id"]) == ("job", started["run_id"])
    assert_goes_on(daemon)


def test_runs_at_once_do_not_mix_up_who_they_are(launch: Launcher) -> None:
    """Overlapping runs, their subtasks and their `to_thread` calls each see their own run."""
    daemon = launch(
        """
        def deep(): return current_run().run_id
        async def child(): return current_run().run_id
        @every("0.1")
        async def job():
            mine = current_run().run_id
            await asyncio.sleep(0.3)
            others = {await asyncio.create_task(child()), await asyncio.to_thread(deep), current_run().run_id}
            log.info("seen", same=others == {mine})
        """,
        beside=BYSTANDERS,
    )
    daemon.wait_for("seen", count=5)
    assert all(line["same"] for line in daemon.events("seen"))
    assert_goes_on(daemon)


def test_there_is_no_current_run_outside_of_one(launch: Launcher) -> None:
    """`current_run()` at import raises RuntimeError."""
    daemon = launch(
        "try: current_run()\nexcept RuntimeError as error: log.info('none', text=str(error))", beside=BYSTANDERS
    )
    daemon.wait_for("none")
    assert_goes_on(daemon)


#: Ways to wait for the stop request: the kind of the job, and its only statement.
HEEDING = {
    "await": ("async def", "await stopping().wait()"),
    "await with timeout": ("async def", "while not await stopping().wait(0.05): pass"),
    "ask now and then": ("async def", "while not stopping().is_set(): await asyncio.sleep(0.05)"),
    "await in a thread": ("async def", "await asyncio.to_thread(stopping().wait, 60)"),
    "wait": ("def", "assert stopping().wait(60)"),
    "wait for ever": ("def", "stopping().wait()"),
    "wait with timeout": ("def", "while not stopping().wait(0.05): pass"),
    "await in a loop of its own": ("def", "asyncio.run(heeding())"),
}
STOPPING = """
def stopping(): return current_run().stopping
async def heeding(): await stopping().wait()
"""


@pytest.mark.parametrize(("kind", "code"), HEEDING.values(), ids=HEEDING)
def test_a_job_that_heeds_stopping_ends_at_once(launch: Launcher, kind: str, code: str) -> None:
    """The stop request wakes up whoever waits for `stopping`; the run succeeds and the stop takes no grace."""
    job = f"@every('1h')\n{kind} job():\n    log.info('waits')\n    {code}\n    log.info('seen')"
    daemon = launch(STOPPING + job, JOBD_GRACE_PERIOD="20")
    daemon.wait_for("waits")
    assert daemon.stop(within=2) == 0
    daemon.assert_log_is_consistent()
    assert daemon.events("seen")
    assert daemon.outcomes() == ["succeeded"]


def test_loop_stop_is_ignored_and_told(launch: Launcher) -> None:
    """A job that stops the event loop stops nothing, and the log says that it tried."""
    daemon = launch("@every('0.1')\nasync def job(): asyncio.get_running_loop().stop()", beside=BYSTANDERS)
    daemon.wait_for("run.finished", job="job", outcome="succeeded", count=3)
    assert "stop" in daemon.wait_for("stray.error")["error"]["message"]
    assert_goes_on(daemon)


@pytest.mark.parametrize(
    "code",
    [
        "asyncio.get_running_loop().call_soon(sys.exit)",
        "asyncio.get_running_loop().call_soon(lambda: 1 / 0)",
        "asyncio.create_task(interrupt())",
        "asyncio.create_task(asyncio.sleep(60))",
        "asyncio.get_running_loop().set_task_factory(lambda *args, **kwargs: None)",
        "asyncio.get_running_loop().set_exception_handler(lambda *args: 1 / 0)",
        "asyncio.get_running_loop().set_debug(True)",
        "asyncio.current_task().cancel()",
        "asyncio.set_event_loop(None)",
        "asyncio.set_event_loop_policy(None)",
        "[task.cancel() for task in asyncio.all_tasks()]; await asyncio.sleep(1)",
        "threading.Thread(target=lambda: 1 / 0).start()",
        "threading.Thread(target=time.sleep, args=(60,)).start()",
        "import atexit; atexit.register(time.sleep, 60)",
        "asyncio.sleep(0)",
        "sys.stdout.close()",
        "sys.stdout = None",
        "sys.stdout = sys.stderr = object()",
        "sys.stderr.close()",
        "os.close(1)",
        "os.chdir('/'); os.umask(0o777); os.environ.clear()",
        "logging.shutdown(); logging.disable(); logging.getLogger().handlers.clear()",
        "structlog.reset_defaults()",
        "import gc; gc.disable()",
        "sys.setswitchinterval(10)",
        "import faulthandler; faulthandler.disable(); faulthandler.cancel_dump_traceback_later()",
        "sys.excepthook = threading.excepthook = sys.unraisablehook = None",
        "import random; random.seed(0); import warnings; warnings.simplefilter('error')",
        "asyncio.get_running_loop().close()",
        "sys.setrecursionlimit(60)",
        "sys.settrace(lambda *args: None)",
        "threading.settrace(lambda *args: None)",
        "sys.modules.pop('jobd.log', None); sys.modules.pop('asyncio', None)",
    ],
)
def test_what_a_job_does_to_its_process_does_not_stop_the_others(launch: Launcher, code: str) -> None:
    """Jobs that attack the loop, the streams or the interpreter's settings do not disturb their neighbours."""
    daemon = launch(
        f"async def interrupt(): raise KeyboardInterrupt\n@every('0.2')\nasync def job(): {code}\n{BYSTANDERS}"
    )
    daemon.wait_for("run.finished", job="job", count=2)
    assert_goes_on(daemon)


def test_function_without_a_thread_to_run_it_fails(launch: Launcher) -> None:
    """When no thread is to be had, runs of functions fail and say so; coroutines and the stop go on."""
    daemon = launch("@every('1h')\nasync def greedy(): threading.stack_size(2**40)", beside=BYSTANDERS)
    daemon.wait_for("run.finished", job="function_bystander", outcome="failed", count=2)
    daemon.wait_for("run.finished", job="coroutine_bystander", outcome="succeeded", count=5)
    assert daemon.stop(within=2) == 0
    daemon.assert_log_is_consistent()


def test_a_finaliser_that_raises_is_a_line_in_the_log(launch: Launcher) -> None:
    """Errors and warnings outside of any run, a finaliser's or a forgotten coroutine's, are lines, not stderr."""
    daemon = launch(
        """
        class Final:
            def __del__(self): raise ValueError("in the finaliser")
        @every("1h")
        def job():
            Final()
            coroutine_bystander()
            threading.Thread(target=lambda: 1 / 0).start()
        """,
        beside=BYSTANDERS,
    )
    daemon.wait_for("run.finished", job="job", outcome="succeeded")
    daemon.log.wait_until(lambda lines: b"in the finaliser" in b"".join(daemon.log.raw), 5)
    daemon.log.wait_until(lambda lines: b"ZeroDivisionError" in b"".join(daemon.log.raw), 5)
    daemon.log.wait_until(lambda lines: b"never awaited" in b"".join(daemon.log.raw), 5)
    assert_goes_on(daemon)
    told = b"".join(daemon.log.raw)
    assert b"in the finaliser" in told
    assert b"ZeroDivisionError" in told
    assert b"never awaited" in told


def test_a_coroutine_that_blocks_is_named_within_a_second(launch: Launcher) -> None:
    """`time.sleep` in a coroutine: `job.blocking` names job, run and line; functions go on, and no burst follows."""
    daemon = launch(
        """
        @every("1h")
        async def blocker():
            time.sleep(2)  # blocks
        """,
        beside=BYSTANDERS,
    )
    started = daemon.wait_for("run.started", job="blocker")
    blocking = daemon.wait_for("job.blocking")
    daemon.wait_for("run.finished", job="blocker", outcome="succeeded")
    assert (instant(blocking) - instant(started)).total_seconds() < 1.9  # a second, and more on a busy machine
    assert (blocking["job"], blocking["run_id"]) == ("blocker", started["run_id"])
    assert daemon.line_of("# blocks") in blocking["stack"][-1]
    assert_goes_on(daemon)
    assert_functions_went_on_and_coroutines_did_not(daemon)


@pytest.mark.parametrize(
    "how",
    [
        "await asyncio.create_task(block())",
        "asyncio.get_running_loop().call_later(0.01, hold); await asyncio.sleep(3)",
        "await asyncio.gather(asyncio.sleep(3), asyncio.to_thread(time.sleep, 0), block())",
    ],
    ids=["task", "timer", "gather"],
)
def test_whoever_blocks_on_behalf_of_a_run_is_named_with_it(launch: Launcher, how: str) -> None:
    """A task that the run has created, or a timer of its making, is told as the run's."""
    daemon = launch(
        f"""
        def hold(): time.sleep(2)  # blocks
        async def block(): hold()
        @every("1h")
        async def blocker():
            {how}
        """
    )
    started = daemon.wait_for("run.started", job="blocker")
    blocking = daemon.wait_for("job.blocking")
    assert (blocking["job"], blocking["run_id"]) == ("blocker", started["run_id"])
    assert daemon.line_of("# blocks") in blocking["stack"][-1]
    daemon.stop()


def assert_functions_went_on_and_coroutines_did_not(daemon: Daemon) -> None:
    """While the blocker held the loop, function runs started; for the coroutine's ticks there was one late run."""
    lines = daemon.lines
    first = next(n for n, line in enumerate(lines) if line["event"] == "run.started" and line["job"] == "blocker")
    last = next(n for n, line in enumerate(lines) if line["event"] == "run.finished" and line["job"] == "blocker")
    during = [line["job"] for line in lines[first:last] if line["event"] == "run.started"]
    assert during.count("function_bystander") >= 5
    assert during.count("coroutine_bystander") <= 2
    skipped = daemon.events("tick.skipped", job="coroutine_bystander", reason="missed")
    assert sum(line["count"] for line in skipped) >= 10


def test_a_blocked_loop_is_told_again_with_back_off_not_each_time(launch: Launcher) -> None:
    """A loop that stays blocked does not flood the log."""
    daemon = launch("@every('1h')\nasync def blocker(): time.sleep(3)", beside=BYSTANDERS)
    daemon.wait_for("run.finished", job="blocker")
    assert 1 <= len(daemon.events("job.blocking")) <= 4
    assert daemon.stop(signal.SIGINT, within=3) == 0


def test_a_forked_child_that_comes_back_from_a_job_is_no_second_daemon(launch: Launcher) -> None:
    """A coroutine that forks and returns in both processes: the child ends, and no run is executed twice."""
    daemon = launch(
        """
        @every("0.2")
        async def forks(): os.fork()
        @every("0.2")
        async def awaits_in_the_child():
            if os.fork() == 0: await asyncio.sleep(0)
        """
    )
    for job in ("forks", "awaits_in_the_child"):
        daemon.wait_for("run.finished", job=job, count=4)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


#: Thread pools that jobs share: that of the loop, and one of their module's.
POOLS = {"the loop's": "None", "a module's": "ThreadPoolExecutor(1)"}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_a_forked_child_that_comes_back_in_a_pool_does_nothing_else_for_it(launch: Launcher, pool: str) -> None:
    """A call in another thread that forks: its child does not go on with the calls of others, and ends."""
    daemon = launch(
        f"""
        from concurrent.futures import ThreadPoolExecutor
        POOL = {pool}
        OURS, waits = os.getpid(), threading.Event()
        """
        """
        def forks():
            waits.wait()
            if child := os.fork(): log.info("forked", child=child)
        def called():
            with open("calls", "a") as file: file.write("daemon " if os.getpid() == OURS else "child ")
        @every("1h")
        async def first():
            loop = asyncio.get_running_loop()
            if not POOL: loop.set_default_executor(ThreadPoolExecutor(1))
            await loop.run_in_executor(POOL, forks)
        @every("1h")
        async def second():
            await asyncio.sleep(0.1)  # until the first has got the worker
            call = asyncio.get_running_loop().run_in_executor(POOL, called)
            waits.set()
            await call
        """
    )
    child = daemon.wait_for("forked")["child"]
    daemon.wait_for("run.finished", job="second", outcome="succeeded")
    poll(lambda: has_ended(child), "the child has ended")
    assert (daemon.directory / "calls").read_text() == "daemon "
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
