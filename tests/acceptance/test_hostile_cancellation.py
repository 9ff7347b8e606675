"""Runs that do not want to end, in every form that asyncio and threads allow."""

import sys

import pytest

from .conftest import Launcher
from .hostile import FUNCTION_HEART, HEARTS, SHORT, assert_hearts_beat, assert_unharmed, jobs_of

HELPERS = """
import contextlib
class Deaf(asyncio.Future):
    def cancel(self, msg=None): return False
class Raises(asyncio.Future):
    def cancel(self, msg=None): raise RuntimeError("no")
class Exits(asyncio.Future):
    def cancel(self, msg=None): sys.exit(1)
async def stubborn():
    while True:
        try: await asyncio.sleep(60)
        except asyncio.CancelledError: pass
async def numbers():
    try:
        while True: yield await asyncio.sleep(0.05)
    finally: await stubborn()
class Iterates:
    def __aiter__(self): return self
    async def __anext__(self): await stubborn()
class Leaves:
    async def __aenter__(self): pass
    async def __aexit__(self, *exception): await stubborn()
class Yields:
    def __await__(self):
        while True:
            try: yield
            except BaseException: pass
held = asyncio.Lock()
condition = asyncio.Condition()
"""
#: Coroutines that refuse to be cancelled: each is abandoned, and named with the line where it stands.
REFUSING = {
    "swallows in a loop": "await stubborn()",
    "swallows between turns of the loop": """
while True:
    try: await asyncio.sleep(0.01)
    except asyncio.CancelledError: pass
""",
    "yields bare": "await Yields()",
    "suppresses": """
while True:
    with contextlib.suppress(asyncio.CancelledError): await asyncio.sleep(60)
""",
    "uncancels": """
while True:
    try: await asyncio.sleep(60)
    except asyncio.CancelledError: asyncio.current_task().uncancel()
""",
    "shields again and again": """
inner = asyncio.ensure_future(asyncio.sleep(60))
while True:
    with contextlib.suppress(asyncio.CancelledError): await asyncio.shield(inner)
""",
    "hangs when an async generator is left": """
async for _ in numbers(): pass
""",
    "hangs in an async iterator": "async for _ in Iterates(): pass",
    "hangs when a context is left": """
async with Leaves(): await asyncio.sleep(60)
""",
    "hangs when an exit stack is left": """
async with contextlib.AsyncExitStack() as stack:
    stack.push_async_callback(stubborn)
    await asyncio.sleep(60)
""",
    "group of tasks, one of which swallows": """
async with asyncio.TaskGroup() as group:
    group.create_task(stubborn())
    group.create_task(asyncio.sleep(60))
""",
    "gathers what swallows": "await asyncio.gather(stubborn(), asyncio.sleep(60), return_exceptions=True)",
    "limits what swallows": """
async with asyncio.timeout(0.1): await stubborn()
""",
    "waits for a lock that it holds": """
async with held:
    while True:
        with contextlib.suppress(asyncio.CancelledError): await held.acquire()
""",
    "waits for a condition, which waits for its lock": """
async with condition:
    asyncio.create_task(condition.acquire())
    await condition.wait()
""",
    "awaits what cannot be cancelled": "await Deaf()",
    "awaits what raises when cancelled": "await Raises()",
    "awaits what exits when cancelled": "await Exits()",
    "waits for a thread in its clean-up": """
inner = asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
try: await asyncio.shield(inner)
finally:
    while True:
        with contextlib.suppress(asyncio.CancelledError): await asyncio.shield(inner)
""",
    "catches everything": """
while True:
    try: await asyncio.sleep(60)
    except BaseException: pass
""",
    "comes back in a task of its own": """
async def again():
    try: await asyncio.sleep(60)
    finally: await asyncio.shield(asyncio.ensure_future(stubborn()))
while True:
    with contextlib.suppress(asyncio.CancelledError): await again()
""",
}
#: What looks like a refusal and is none: each of these ends, with the outcome that is told.
ENDING = {
    "returns when cancelled": ("try: await asyncio.sleep(60)\nexcept asyncio.CancelledError: return", "cancelled"),
    "raises something else": ("try: await asyncio.sleep(60)\nexcept asyncio.CancelledError: sys.exit(0)", "failed"),
    "leaves two thousand tasks": (
        "try: await asyncio.sleep(60)\nfinally:\n    for _ in range(2000): asyncio.create_task(stubborn())",
        "cancelled",
    ),
    "leaves a generator that is not at its end": ("await numbers().__anext__()\nawait asyncio.sleep(60)", "cancelled"),
    "waits for ever for nothing": ("await asyncio.Future()", "cancelled"),
    "waits at a barrier": ("await asyncio.Barrier(2).wait()", "cancelled"),
    "waits for itself": ("await asyncio.wait([asyncio.current_task()])", "cancelled"),
    "sleeps for no number of seconds": ("await asyncio.sleep(float('inf'))", "cancelled"),
    "spins": ("while True: await asyncio.sleep(0)", "cancelled"),
}
#: Functions that nobody can interrupt.
HANGING = {
    "runs a loop of its own that swallows": "asyncio.run(stubborn())",
    "leaves a loop of its own that swallows": "asyncio.run(asyncio.wait_for(stubborn(), 0.1))",
    "runs a loop of its own for ever": "asyncio.new_event_loop().run_forever()",
    "waits for signals": "while True: signal.sigwait({signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})",
    "waits for children that are not there": """
while True:
    try: os.wait()
    except ChildProcessError: time.sleep(0.1)
""",
    "waits for a pool": """
import concurrent.futures
waits = concurrent.futures.ThreadPoolExecutor(1).submit(threading.Event().wait)
pooled.set()
waits.result()
""",
    "holds a lock that another waits for": "shared.acquire()\nthreading.Event().wait()",
    "waits for a lock that another holds": "time.sleep(0.1)\nshared.acquire()\nshared.acquire()",
    "holds the lock of logging": "logging._lock.acquire()\nthreading.Event().wait()",
    "holds the lock of imports": "import _imp\n_imp.acquire_lock()\nthreading.Event().wait()",
    "leaves threads that are no daemons": """
for _ in range(20): threading.Thread(target=time.sleep, args=(60,), daemon=False).start()
threading.Event().wait()
""",
}
#: From Python 3.13 on, these come to their end at once.
if sys.version_info < (3, 13):
    HANGING["waits for the main thread"] = "threading.main_thread().join()"
    HANGING["ends the interpreter"] = "pooled.wait()\nthreading._shutdown()"  # no pool takes work after that


def test_coroutines_that_refuse_to_end_are_abandoned_and_named(launch: Launcher) -> None:
    """Every form of refusal at once: honest jobs go on, and the stop knows each by its line; the others just end."""
    bodies = REFUSING | {name: body for name, (body, _) in ENDING.items()}
    daemon = launch(HELPERS + jobs_of("async def", bodies), beside=HEARTS, env=SHORT)
    for name in bodies:
        daemon.wait_for("run.started", job=name)
    assert_unharmed(daemon, code=3)
    expected = {key: ["abandoned"] for key in REFUSING} | {name: [outcome] for name, (_, outcome) in ENDING.items()}
    assert {name: daemon.outcomes(name) for name in expected} == expected
    for name in REFUSING:
        (told,) = daemon.events("shutdown.abandoned", job=name)
        assert any("jobs.py:" in place for place in told["stack"]), told


def test_functions_that_refuse_to_end_are_abandoned_and_named(launch: Launcher) -> None:
    """Deadlocks, loops of their own, locks of the interpreter that are never released: nobody else waits for them."""
    text = HELPERS + "shared = threading.Lock()\npooled = threading.Event()\n" + jobs_of("def", HANGING)
    daemon = launch(text, beside=HEARTS, env=SHORT)
    for name in HANGING:
        daemon.wait_for("run.started", job=name)
    assert_unharmed(daemon, code=3)
    assert {name: daemon.outcomes(name) for name in HANGING} == {key: ["abandoned"] for key in HANGING}
    for name in HANGING:
        (told,) = daemon.events("shutdown.abandoned", job=name)
        assert any("jobs.py:" in place for place in told["stack"]), told


#: Ways to hold the job plane in the very moment of the cancellation, and how the run has ended by then.
HOLDING_WHEN_CANCELLED = {
    "cancel": (
        "class Holds(asyncio.Future):\n    def cancel(self, msg=None): time.sleep(60)\nawait Holds()",
        "abandoned",
    ),
    "callback": (
        "asyncio.current_task().add_done_callback(lambda task: time.sleep(60))\nawait asyncio.sleep(60)",
        "cancelled",
    ),
    "text of the exception": (
        "class Slow(Exception):\n    def __str__(self): time.sleep(60)\n"
        "try: await asyncio.sleep(60)\nexcept asyncio.CancelledError: raise Slow from None",
        "abandoned",
    ),
    "finaliser": (
        "class Final:\n    def __del__(self): time.sleep(60)\nfinal = Final()\nawait asyncio.sleep(60)",
        "cancelled",
    ),
}


@pytest.mark.parametrize(("body", "outcome"), HOLDING_WHEN_CANCELLED.values(), ids=HOLDING_WHEN_CANCELLED)
def test_who_holds_the_plane_when_cancelled_delays_nothing(launch: Launcher, body: str, outcome: str) -> None:
    """The cancellation itself runs a job's code; if that never comes back, the stop is on time all the same."""
    daemon = launch(jobs_of("async def", {"job": f"log.info('waits')\n{body}"}), beside=HEARTS, env=SHORT)
    daemon.wait_for("waits")
    assert_unharmed(daemon, code=3 if outcome == "abandoned" else 0)
    assert daemon.outcomes("job") == [outcome]


def test_a_lock_of_all_threads_that_is_never_released_holds_no_plane(launch: Launcher) -> None:
    """Starting a function's thread makes the control plane wait for nothing that a job can hold."""
    daemon = launch(
        """
        @every("0.2")
        def holder():
            threading._active_limbo_lock.acquire()
            threading.Event().wait()
        """,
        beside=HEARTS,
        env=SHORT,
    )
    daemon.wait_for("run.started", job="holder", count=3)
    assert_unharmed(daemon, code=3, hearts=("coroutine_heart",))


def test_locks_taken_by_a_thread_and_waited_for_on_the_loop(launch: Launcher) -> None:
    """A deadlock between a function and a coroutine holds the plane: it is named, and functions go on."""
    daemon = launch(
        """
        shared = threading.Lock()
        @every("1h")
        def holder():
            with shared: time.sleep(60)
        @every("1h")
        async def waiter():
            await asyncio.sleep(0.2)
            shared.acquire()  # waits
        """,
        beside=HEARTS,
        env=SHORT,
    )
    blocking = daemon.wait_for("job.blocking")
    assert blocking["job"] == "waiter"
    assert daemon.line_of("# waits") in blocking["stack"][-1]
    assert_hearts_beat(daemon, (FUNCTION_HEART,))
    assert_unharmed(daemon, code=3, hearts=(FUNCTION_HEART,))


@pytest.mark.alone
def test_thousands_of_stubborn_runs_each_have_their_end(launch: Launcher) -> None:
    """2,500 runs in flight that all refuse: every one has its end in the log, within the time bound."""
    daemon = launch(
        HELPERS
        + """
def stubborn_one():
    async def job(): await stubborn()
    return job
for number in range(2500): globals()[f"job{number}"] = every("1h", name=f"job{number}")(stubborn_one())
""",
        JOBD_GRACE_PERIOD="1",
        JOBD_CANCEL_TIMEOUT="2",
    )
    daemon.wait_for("run.started", count=2500)
    assert daemon.stop() == 3
    daemon.assert_log_is_consistent()
    assert daemon.outcomes() == ["abandoned"] * 2500
