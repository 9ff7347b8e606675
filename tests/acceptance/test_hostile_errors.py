"""Errors of every shape, inside runs and outside of them: each is told in lines of JSON, and none harms anybody."""

import pytest

from .conftest import Launcher
from .harness import Daemon, poll
from .hostile import HEARTS, assert_unharmed, jobs_of

HELPERS = """
import ctypes, gc, warnings, weakref
class Rude:
    def __str__(self): raise SystemExit("no text")
    __repr__ = __str__
class RudeError(Exception):
    def __str__(self): raise SystemExit("no text")
    __repr__ = __str__
class Properties(Exception):
    __traceback__ = property(lambda self: 1 / 0)
    __cause__ = property(lambda self: 1 / 0)
    __notes__ = property(lambda self: 1 / 0)
class Liar(Exception):
    __class__ = int
class Falsy(Exception):
    def __bool__(self): raise ValueError
    def __eq__(self, other): raise ValueError
    def __hash__(self): raise ValueError
class Final:
    def __init__(self, do): self.do = do
    def __del__(self): self.do()
class Kept: pass
def noted(error, notes):
    error.__notes__ = notes
    return error
def chain(length):
    error = None
    for number in range(length):
        cause, error = error, ValueError(number)
        error.__cause__ = cause
    return error
def cycle():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__context__ = two, one
    return one
def nested(depth):
    error = ValueError("innermost")
    for _ in range(depth): error = ExceptionGroup("group", [error])
    return error
def syntax():
    error = SyntaxError("broken")
    error.lineno, error.offset, error.text, error.filename = "a", object(), 5, Rude()
    return error
def unicode():
    error = UnicodeDecodeError("utf-8", b"x", 0, 1, "reason")
    error.start, error.end, error.reason = 10**9, -10**9, chr(0xd800)
    return error
"""
#: Each fails its run, whatever it takes to tell of it.
RAISED = {
    "notes that are no notes": "raise noted(ValueError('x'), 5)",
    "notes without a text": "raise noted(ValueError('x'), [Rude(), None])",
    "a hundred thousand notes": "raise noted(ValueError('x'), ['note'] * 100_000)",
    "a chain of ten thousand": "raise chain(10_000)",
    "a chain that is a circle": "raise cycle()",
    "a group of five thousand": "raise ExceptionGroup('many', [ValueError(number) for number in range(5000)])",
    "a group three thousand deep": "raise nested(3000)",
    "a group that exits": "raise BaseExceptionGroup('exits', [SystemExit(0), KeyboardInterrupt()])",
    "a syntax error of nonsense": "raise syntax()",
    "an encoding error of nonsense": "raise unicode()",
    "a system error of nonsense": "raise OSError(Rude(), Rude(), Rude())",
    "properties that raise": "raise Properties",
    "another class": "raise Liar('x')",
    "neither true nor equal": "raise Falsy",
    "no text, in a chain": "raise RudeError from RudeError()",
    "ten megabytes": "raise ValueError('x' * 10_000_000)",
    "arguments that are huge": "raise ValueError([0] * 1_000_000)",
    "code without a file": "exec(compile('raise ValueError', 'no \\u2028 \\ud800 file', 'exec'))",
    "code of a million lines": "exec(compile('\\n' * 1_000_000 + 'raise ValueError', 'long', 'exec'))",
    "a type without a name": "raise type('', (Exception,), {'__module__': None})()",
    "a type with a forged name": 'raise type(\'x\\n{"event":"daemon.stopped"}\', (Exception,), {})()',
    "frames that hold what is rude": "rude = Rude(); secret = 'hidden'; 1 / 0",
    "recursion": "def deeper(): deeper()\ndeeper()",
    "recursion in a text": "raise type('E', (Exception,), {'__str__': lambda self: str(self)})()",
    "no memory": "bytearray(2**62)",
    "an iteration that ends": "next(iter([]))",
    "a generator that is closed": "raise GeneratorExit",
    "an assertion": "assert not 'true', Rude()",
}
#: What only coroutines can do wrong.
AWAITED = {
    "awaits what yields nonsense": "class Odd:\n    def __await__(self): yield 42\nawait Odd()",
    "awaits itself": "await asyncio.current_task()",
    "awaits what belongs to another loop": "await asyncio.new_event_loop().create_future()",
    "runs a loop in the loop": "asyncio.run(asyncio.sleep(0))",
    "runs its own loop": "asyncio.get_running_loop().run_until_complete(asyncio.sleep(0))",
    "runs another loop": "asyncio.new_event_loop().run_until_complete(asyncio.sleep(0))",
    "cancels itself": "asyncio.current_task().cancel(); await asyncio.sleep(0)",
    "is cancelled by a task of its own": "asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)\n"
    "await asyncio.sleep(9)",
    "a group whose task exits": "async def leave(): sys.exit(3)\n"
    "async with asyncio.TaskGroup() as group: group.create_task(leave())",
    "a limit of its own": "async with asyncio.timeout(0.01): await asyncio.sleep(9)",
}


@pytest.mark.parametrize("kind", ["async def", "def"], ids=["coroutine", "function"])
def test_whatever_is_raised_fails_its_run(launch: Launcher, kind: str) -> None:
    """Exceptions that resist being told: the run has failed, with a type and a text, on a line of sane length."""
    bodies = RAISED | (AWAITED if kind == "async def" else {})
    daemon = launch(HELPERS + jobs_of(kind, bodies), beside=HEARTS)
    for name in bodies:
        finished = daemon.wait_for("run.finished", job=name)
        assert finished["outcome"] == "failed", finished
        assert "hidden" not in finished["traceback"].replace("secret = 'hidden'", "")
    assert_unharmed(daemon)
    assert max(map(len, daemon.log.raw)) < 200_000


#: Errors that belong to no run, and a word by which their line is known.
OUTSIDE = {
    "thread": ("threading.Thread(target=lambda: 1 / 0).start()", "ZeroDivisionError"),
    "thread without a text": ("def fail(): raise RudeError\nthreading.Thread(target=fail).start()", "RudeError"),
    "thread with an odd name": (
        "def fail(): raise KeyError('odd')\nthreading.Thread(target=fail, name='\\ud800 \\u2028').start()",
        "odd",
    ),
    "finaliser": ("def fail(): raise ValueError('of the finaliser')\nFinal(fail)", "of the finaliser"),
    "finaliser that logs": ("Final(lambda: log.info('logged by a finaliser'))", "logged by a finaliser"),
    "finaliser in a circle": (
        "def fail():\n    gone.append(True)\n    raise ValueError('of the circle')\n"
        "gone = []; final = Final(fail); final.me = final\ndel final\n"
        "while not gone: gc.collect(); time.sleep(0.01)",  # which does nothing while another thread collects
        "of the circle",
    ),
    "callback of a reference": (
        "kept = Kept()\ndef gone(reference): raise ValueError('of the reference')\n"
        "sys.reference = weakref.ref(kept, gone)\ndel kept",
        "of the reference",
    ),
    "callback of C": (
        "def fail(): raise ValueError('of the callback')\nctypes.CFUNCTYPE(None)(fail)()",
        "of the callback",
    ),
    "callback of the collector": (
        "def fail(*args):\n    gc.callbacks.remove(fail)\n    raise ValueError('of the collector')\n"
        "gc.callbacks.append(fail)\nwhile fail in gc.callbacks: gc.collect(); time.sleep(0.01)",
        "of the collector",
    ),
    "warning": ("warnings.warn('a warning of a job')", "a warning of a job"),
    "generator": (
        "def generator():\n    try: yield\n    finally: raise ValueError('of the generator')\nnext(generator())",
        "of the generator",
    ),
    "exception group in a thread": (
        "def fail(): raise ExceptionGroup('of the thread', [KeyError('a member')])\n"
        "threading.Thread(target=fail).start()",
        "a member",
    ),
}
#: The same on the event loop.
OUTSIDE_ON_THE_LOOP = {
    "callback that exits": (
        "asyncio.get_running_loop().call_soon(sys.exit, 'exit of a callback')",
        "exit of a callback",
    ),
    "callback": ("asyncio.get_running_loop().call_soon(int, 'no number')", "no number"),
    "callback without a text": ("def fail(): raise RudeError\nasyncio.get_running_loop().call_soon(fail)", "RudeError"),
    "task that nobody awaits": ("async def fail(): raise KeyError('lost')\nasyncio.create_task(fail())", "lost"),
    "task that exits": (
        "async def leave(): sys.exit('exit of a task')\nasyncio.create_task(leave())",
        "exit of a task",
    ),
    "coroutine that nobody awaits": ("async def forgotten(): pass\nforgotten()", "forgotten"),
    "own report": (
        "asyncio.get_running_loop().call_exception_handler({'message': 'reported', 'exception': RudeError()})",
        "reported",
    ),
    "asynchronous generator": (
        "async def generator():\n    try: yield\n    finally: raise ValueError('of the async one')\n"
        "await generator().__anext__()",
        "of the async one",
    ),
    "descriptor that is closed": (
        "reader, writer = os.pipe(); loop = asyncio.get_running_loop()\n"
        "loop.add_reader(reader, int, 'no digit'); os.write(writer, b'x'); await asyncio.sleep(0.01)\n"
        "loop.remove_reader(reader); os.close(reader); os.close(writer)",
        "no digit",
    ),
    "handler of the loop": (
        "loop = asyncio.get_running_loop()\n"
        "def fail(loop, context):\n    loop.set_exception_handler(None)\n    raise KeyError('of the handler')\n"
        "await asyncio.sleep(0.2); loop.set_exception_handler(fail); loop.call_soon(lambda: 1 / 0)",
        "of the handler",
    ),
}


def test_errors_outside_of_runs_are_told_and_harm_nobody(launch: Launcher) -> None:
    """In threads, finalisers, callbacks and forgotten tasks: each has its line, and stderr stays empty."""
    functions = jobs_of("def", {name: body for name, (body, _) in OUTSIDE.items()})
    coroutines = jobs_of("async def", {name: body for name, (body, _) in OUTSIDE_ON_THE_LOOP.items()})
    daemon = launch(HELPERS + functions + "\n" + coroutines.replace("job_", "coroutine_"), beside=HEARTS)
    for name in OUTSIDE | OUTSIDE_ON_THE_LOOP:
        daemon.wait_for("run.finished", job=name, outcome="succeeded")
    for _, word in (OUTSIDE | OUTSIDE_ON_THE_LOOP).values():
        assert_told(daemon, word)
    assert_unharmed(daemon)


def assert_told(daemon: Daemon, word: str) -> None:
    """A line with this word is there, or comes."""
    poll(lambda: any(word.encode() in raw for raw in list(daemon.log.raw)), f"a line with {word!r}")


@pytest.mark.parametrize(
    ("instant", "told"),
    [
        ("'never'", ["event loop of the jobs"]),
        ("float('nan')", []),
        ("10**400", ["event loop of the jobs"]),
        ("Rude()", ["event loop of the jobs"]),
    ],
)
def test_a_timer_that_is_due_at_no_number_is_lost_alone(launch: Launcher, instant: str, told: list[str]) -> None:
    """The loop cannot put it in order with the others: it goes, with a line, and they stay. NaN, it takes for now."""
    body = f"asyncio.get_running_loop().call_at({instant}, int)\nlog.info('called')"
    sleeper = "@every('0.1')\nasync def sleeper(): await asyncio.sleep(0.05)\n"
    daemon = launch(HELPERS + sleeper + jobs_of("async def", {"job": body}), beside=HEARTS)
    daemon.wait_for("run.finished", job="job")
    daemon.wait_for("run.finished", job="sleeper", outcome="succeeded", count=4)
    assert_unharmed(daemon)
    assert [line["where"] for line in daemon.events("stray.error")] == told
