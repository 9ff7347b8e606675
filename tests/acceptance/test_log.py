"""The log's content: one JSON object a line, whatever jobs put into it."""

import json
import re
import sys
from typing import Any

import pytest

from .conftest import Launcher
from .harness import Daemon
from .hostile import HEARTS, assert_unharmed, jobs_of

TICKING = """
@every("0.1")
async def beat(): pass
"""


def logged(launch: Launcher, code: str, level: str = "info") -> Daemon:
    """A daemon that has run the code in a job, and then has stopped in order."""
    body = "\n".join(f"    {line}" for line in code.splitlines())
    kind = "async def" if "await " in code else "def"
    daemon = launch(f"@every('1h')\n{kind} job():\n{body}", beside=TICKING, JOBD_LOG_LEVEL=level)
    finished = daemon.wait_for("run.finished", job="job")
    assert finished["outcome"] == "succeeded", finished
    assert daemon.stop() == 0
    assert not daemon.log.garbage, daemon.log.garbage[:3]
    return daemon


def test_lines_of_a_job_name_it(launch: Launcher) -> None:
    """structlog and stdlib logging in a job carry `job` and `run_id`; outside of one they do not."""
    daemon = launch(
        """
        log.info("outside")
        @every("1h")
        def function():
            log.info("structlog", answer=42)
            logging.getLogger("library").warning("stdlib %s", "formatted", extra={"more": [1]})
        @every("1h")
        async def coroutine():
            log.bind(bound=1).error("bound")
            await asyncio.to_thread(log.info, "thread")
            await asyncio.create_task(child())
        async def child(): logging.info("task")
        """
    )
    expected = {"structlog": "function", "stdlib formatted": "function", "bound": "coroutine", "thread": "coroutine"}
    for event, job in {**expected, "task": "coroutine"}.items():
        line = daemon.wait_for(event)
        assert (line["job"], line["run_id"]) == (job, daemon.events("run.started", job=job)[0]["run_id"])
    assert "run_id" not in daemon.events("outside")[0]
    assert daemon.events("structlog", answer=42, level="info")
    assert daemon.events("stdlib formatted", more=[1], level="warning")
    assert daemon.events("bound", bound=1, level="error")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def test_exceptions_are_fields(launch: Launcher) -> None:
    """`log.exception` and `exc_info` become `error` and `traceback` on the same line."""
    code = """
try: 1 / 0
except ZeroDivisionError:
    log.exception("one")
    logging.exception("two")
    log.info("three", exc_info=True)
log.info("four", exc_info=ValueError("given"))
"""
    daemon = logged(launch, code)
    for event in ("one", "two", "three"):
        line = daemon.events(event)[0]
        assert line["error"]["type"] == "ZeroDivisionError"
        assert "Traceback" in line["traceback"]
    assert daemon.events("four")[0]["error"] == {"type": "ValueError", "message": "given"}


#: Values that JSON, UTF-8 or a careless serialiser has no answer to.
VALUES = {
    "none": "None",
    "object": "object()",
    "bytes": "b'\\xff\\x00\\n'",
    "bytearray": "bytearray(b'x')",
    "nan": "float('nan')",
    "infinities": "[float('inf'), -float('inf')]",
    "set": "{1, 2}",
    "tuple keys": "{(1, 2): 3, None: 4, 5: 6, 1.5: 7, b'b': 8}",
    "circular list": "circular()",
    "wide circular list": "circular(9)",
    "circular dict": "circular_dict()",
    "lone surrogate": "'\\ud800'",
    "lone surrogate as key": "{'\\udfff': '\\ud800'}",
    "huge integer": "2**70",
    "negative huge integer": "-2**70",
    "thousands of digits": "10**5000",
    "deep list": "deep()",
    "deep dict": "deep_dict()",
    "raising repr": "Rude()",
    "exiting repr": "Exits()",
    "exception": "ValueError('\\ud800')",
    "class": "Rude",
    "function": "deep",
    "module": "os",
    "generator": "(n for n in [1])",
    "datetime": "__import__('datetime').datetime.now()",
    "decimal": "__import__('decimal').Decimal('1.10')",
    "uuid": "__import__('uuid').uuid4()",
    "path": "__import__('pathlib').Path('/')",
    "enum": "signal.SIGTERM",
    "text subclass": "Text('x')",
    "float subclass": "Float(1.5)",
    "float subclass beside tuple keys": "{(1, 2): Float(1.5)}",
    "integer subclass": "Int(5)",
    "raising dict": "Dict(a=1)",
    "lock": "threading.Lock()",
    "memoryview": "memoryview(b'\\xff')",
    "complex": "1j",
    "control characters": "''.join(map(chr, range(0x300)))",
    "emoji": "'\\U0001f600'",
    "line separators": "'\\u2028\\u2029\\x85\\x0b\\x0c\\x1c\\x1d\\x1e\\r\\n'",
    "escape sequences": "'\\x1b[2J\\x9b31m'",
    "dataclass with itself": "recursive_dataclass()",
    "changing set": "frozenset([frozenset()])",
}
HELPERS = """
import dataclasses
def circular(width=1):
    value = []
    value.extend([value] * width)
    return value
def circular_dict():
    value = {}
    value["itself"] = value
    return value
def deep():
    value = []
    for _ in range(5000): value = [value]
    return value
def deep_dict():
    value = {}
    for _ in range(5000): value = {"a": value}
    return value
class Rude:
    def __repr__(self): raise ValueError("no text")
class Exits:
    def __repr__(self): sys.exit(5)
class Text(str): pass
class Float(float): pass
class Int(int): pass
class Dict(dict):
    def items(self): raise ValueError("no items")
    keys = values = __iter__ = items
def recursive_dataclass():
    value = dataclasses.make_dataclass("Node", ["next"])(None)
    value.next = value
    return value
"""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
#: How a value gets into a line.
WAYS = {
    "field": "log.info('line', value={value})",
    "beside a key that is no text": "log.info('line', value={value}, other={{1: 2}})",
    "argument": "logging.info('line %s', {value})",
    "extra": "logging.info('line', extra={{'value': {value}}})",
    "event": "log.info({value})",
    "context": "structlog.contextvars.bind_contextvars(value={value}); log.info('line')",
    "exception": "log.info('line', exc_info=ValueError({value}))",
}


@pytest.mark.parametrize("layout", ["json", "console"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_no_value_costs_a_line_or_the_job(launch: Launcher, way: str, layout: str) -> None:
    """Each value, whatever JSON thinks of it, is one line of the log, and never an exception in the job."""
    calls = "".join(
        f"@every('1h', name={name!r})\ndef job_{number}():\n    {way.format(value=value)}\n"
        for number, (name, value) in enumerate(VALUES.items())
    )
    daemon = launch(HELPERS + calls, JOBD_LOG_FORMAT=layout, read=layout == "json")
    if layout == "console":
        assert_console_survives(daemon)
        return
    found = {name: daemon.wait_for("run.finished", job=name) for name in VALUES}
    assert {name: line["error"] for name, line in found.items() if line["outcome"] != "succeeded"} == {}
    own = [line for line in daemon.lines if line.get("run_id") and line["event"] not in ("run.started", "run.finished")]
    assert sorted(line["job"] for line in own) == sorted(VALUES)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()


def assert_console_survives(daemon: Daemon) -> None:
    """For people the same: every run succeeds."""
    assert daemon.process.stdout is not None
    ends: list[str] = []
    for raw in daemon.process.stdout:
        text = COLOUR.sub("", raw.decode())
        ends += [text] if "run.finished" in text else []
        if len(ends) == len(VALUES):
            break
    assert [end for end in ends if "outcome=succeeded" not in end] == []
    daemon.read()
    assert daemon.stop() == 0


def test_no_text_is_more_than_one_line(launch: Launcher) -> None:
    """Newlines, separators and forged JSON in an event, a field, a key or a job's name stay in their line."""
    forged = '\\n{\\"event\\":\\"run.finished\\",\\"run_id\\":\\"x\\"}\\n\\u2028\\u2029\\x85\\r'
    code = f"""
evil = "{forged}"
log.info(evil)
log.info("field", value=evil)
log.info("key", **{{evil: 1}})
logging.info(evil)
logging.getLogger(evil).warning("name")
raised = type(evil.replace(chr(0), ""), (Exception,), {{}})(evil)
log.info("error", exc_info=raised)
"""
    daemon = logged(launch, code)
    for event in ("field", "key", "name", "error"):
        assert len(daemon.events(event)) == 1
    daemon.assert_log_is_consistent()


def test_huge_fields_are_clipped(launch: Launcher) -> None:
    """10 MB of text, of list, of keys or of event are one line of reasonable length each."""
    code = """
log.info("text", value="x" * 10_000_000)
log.info("list", value=list(range(1_000_000)))
log.info("keys", **{"k" * 1_000_000 + str(n): n for n in range(10)})
log.info("many", **{f"key{n}": n for n in range(50_000)})
log.info("e" * 10_000_000)
logging.info("stdlib %s", "y" * 10_000_000)
log.info("escapes", value="\\u2028\\x00" * 3_000_000)
"""
    daemon = logged(launch, code)
    daemon.assert_log_is_consistent()
    assert len([line for line in daemon.lines if line.get("job") == "job"]) == 2 + 7
    assert max(map(len, daemon.log.raw)) < 500_000
    assert "10000000" in daemon.events("text")[0]["value"]


def test_the_daemons_fields_win(launch: Launcher) -> None:
    """A job's own `level`, `timestamp`, `job` and `run_id` do not replace the daemon's, nor raise."""
    own = "timestamp='never', job='another', run_id='none'"
    extra = "{'level': 'fatal', 'timestamp': 'never', 'job': 'x', 'run_id': 'y', 'event': 'z', 'logger': 'w'}"
    code = f"""
log.info("one", level="fatal", {own})
logging.info("two", extra={extra})
structlog.contextvars.bind_contextvars(level="fatal", event="z", {own})
log.info("three")
log.bind({own}).info("four")
logging.info("five", extra={{"exc_info_": 1, "self": 2, "args_": 3, "method_name": 4, "logger": 5}})
"""
    daemon = logged(launch, code)
    run_id = daemon.events("run.started", job="job")[0]["run_id"]
    for event in ("one", "two", "three", "four", "five"):
        assert daemon.events(event, level="info", job="job", run_id=run_id), event
    daemon.assert_log_is_consistent()


def test_reserved_fields_of_a_job_are_not_lost(launch: Launcher) -> None:
    """What a job put under a reserved name is still somewhere in its line."""
    daemon = logged(launch, "log.info('one', job='my own job', job_='my second')")
    values = daemon.events("one")[0].values()
    assert "my own job" in values
    assert "my second" in values


def test_levels_filter(launch: Launcher) -> None:
    """JOBD_LOG_LEVEL=warning hides info lines, the daemon's and the jobs', and nothing above."""
    daemon = launch(
        """
        @every("1h")
        async def job():
            log.info("hidden"); logging.info("hidden"); log.debug("hidden")
            log.warning("shown"); logging.error("shown too")
            raise ValueError
        """,
        JOBD_LOG_LEVEL="warning",
    )
    daemon.wait_for("run.finished", outcome="failed")
    assert daemon.stop() == 0
    assert [line["event"] for line in daemon.lines] == ["shown", "shown too", "run.finished"]


def test_debug_lines_are_shown_when_asked_for(launch: Launcher) -> None:
    """JOBD_LOG_LEVEL=debug shows debug lines of jobs."""
    daemon = logged(launch, "log.debug('fine'); logging.debug('finer')", "debug")
    assert daemon.events("fine", level="debug", job="job")
    assert daemon.events("finer", level="debug", job="job")


def test_job_may_configure_logging_for_itself(launch: Launcher) -> None:
    """A job's own structlog or logging configuration does not change the daemon's lines."""
    code = """
structlog.configure(processors=[structlog.processors.KeyValueRenderer()], logger_factory=lambda *a: None)
logging.basicConfig(level=logging.CRITICAL, force=True, handlers=[])
logging.getLogger().disabled = True
"""
    logged(launch, code).assert_log_is_consistent()


def test_logging_format_that_does_not_fit_raises_nothing(launch: Launcher) -> None:
    """stdlib logging with arguments that do not fit the text is one line, as Python promises."""
    daemon = logged(launch, "logging.info('a %d %s', 'x')\nlogging.info('%(a)s', 1)\nlogging.info(None)")
    assert len([line for line in daemon.lines if line.get("job") == "job"]) == 2 + 3
    daemon.assert_log_is_consistent()


#: What a job may say through structlog, and the text and fields that come of it.
SAID = {
    "arguments that do not fit": ("log.info('%d', 'x')", "%d ('x',)", {}),
    "a percent sign": ("log.info('100% done %s', 1)", "100% done %s (1,)", {}),
    "arguments that fit": ("log.info('%s of %s', 1, 2)", "1 of 2", {}),
    "named arguments": ("log.info('%(a)s', {'a': 1})", "1", {}),
    "an argument that raises": ("log.info('%s', type('Exits', (), {'__str__': lambda self: sys.exit()})())", None, {}),
    "an event of its own": ("log.info('x', event='y')", "x", {"event_": "y"}),
    "an event that is bound": ("log.bind(event='y').info('x')", "x", {"event_": "y"}),
    "an event by name": ("log.info(event='x')", "x", {}),
    "no event": ("log.info(n=1)", "", {"n": 1}),
    "structlog's own names": (
        "log.info('x', self=1, method_name=2, event_kw=3, logger=4, said=5, fields=6, args=7, level=8)",
        "x",
        {"self": 1, "method_name": 2, "event_kw": 3, "logger": 4, "said": 5, "fields": 6, "args": 7, "level_": 8},
    ),
    "a level between two": ("log.log(25, 'x', level=1)", "x", {"level": "info", "level_": 1}),
    "a level above all": ("log.log(60, 'x')", "x", {"level": "critical"}),
    "a level by name": ("log.log(level=20, event='x', n=1)", "x", {"level": "info", "n": 1}),
    "nothing that is shown": (
        "log.debug(); log.debug('y', self=1, event=2); await log.adebug('y', event=2); log.info('x')",
        "x",
        {"level": "info"},
    ),
    "critical": ("log.critical('x', self=1)", "x", {"level": "critical"}),
    "stdlib's critical": ("logging.critical('x')", "x", {"level": "critical"}),
    "a level below all": ("log.log(5, 'hidden'); log.debug('hidden'); log.info('x')", "x", {"level": "info"}),
    "a synonym": ("log.warn('x', self=1)", "x", {"level": "warning", "self": 1}),
    "a coroutine": ("await log.ainfo('x', event='y')", "x", {"level": "info", "event_": "y"}),
    "an exception": ("try: 1 / 0\nexcept Exception: log.exception('x', self=1)", "x", {"level": "error", "self": 1}),
    "an exception awaited": ("try: 1 / 0\nexcept Exception: await log.aexception('x')", "x", {"level": "error"}),
}


@pytest.mark.parametrize(("code", "text", "fields"), SAID.values(), ids=SAID)
def test_logging_raises_nothing(launch: Launcher, code: str, text: str | None, fields: dict[str, Any]) -> None:
    """Whatever a job says, and whatever it calls its fields, is one line, and the run goes on."""
    daemon = logged(launch, code)
    daemon.assert_log_is_consistent()
    (line,) = (line for line in daemon.lines if line.get("job") == "job" and "tick" not in line)
    assert text is None or line["event"] == text
    assert fields.items() <= line.items()
    assert ("error" in line) == ("exception" in code)


def test_many_threads_that_log_at_once_lose_nothing(launch: Launcher) -> None:
    """Twenty threads with five hundred lines each: every line is there, whole, and each thread's are in order."""
    daemon = launch(
        """
        def write(thread):
            for number in range(500): log.info("line", thread=thread, number=number, pad="x" * (number % 7 * 300))
        for thread in range(20):
            globals()[f"job{thread}"] = every("1h", name=f"job{thread}")(lambda thread=thread: write(thread))
        """
    )
    daemon.wait_for("run.finished", count=20)
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
    for thread in range(20):
        assert [line["number"] for line in daemon.events("line", thread=thread)] == list(range(500))


#: What a job may be called, or says that it is.
NAMES = [
    '\n{"event": "daemon.stopped"}',
    "\x1b]0;owned\x07",
    "\u2028 \x85 \r\n",
    "'\"\\",
    "a\0b",
    "\ud800",
    "\u202e",
    "%s {0} {job}",
    " ",
    "None",
]


@pytest.mark.parametrize("kind", ["async def", "def"], ids=["coroutine", "function"])
def test_no_name_of_a_job_is_more_than_a_name(launch: Launcher, kind: str) -> None:
    """Its runs, what they log and what they print carry it as it is; one that is very long, its beginning."""
    does = "log.info('seen'); print('printed')"
    daemon = launch(jobs_of(kind, dict.fromkeys([*NAMES, "x" * 100_000], does)), beside=HEARTS)
    for name in NAMES:
        shown = name.encode("utf-8", "backslashreplace").decode()
        for event in ("run.started", "seen", "job.output"):
            daemon.wait_for(event, job=shown)
        daemon.wait_for("run.finished", job=shown, outcome="succeeded")
    assert_unharmed(daemon)
    long = [line["event"] for line in daemon.lines if str(line.get("job")).startswith("x" * 1000)]
    assert sorted(long) == ["job.output", "run.finished", "run.started", "seen"]
    assert max(map(len, daemon.log.raw)) < 43_000


@pytest.mark.parametrize(
    "name", ["'\"\\ $(id) `id`", "\u202e%s {0} \u00e9", "x" * 100_000], ids=["quotes", "text", "long"]
)
def test_a_command_is_told_the_name_of_its_job_as_it_is(launch: Launcher, name: str) -> None:
    """In its environment, whole."""
    code = "import os; name = os.environ['JOBD_JOB']; print(ascii(name[:1000]), len(name))"
    text = f"[jobs.{json.dumps(name)}]\ncommand = {json.dumps([sys.executable, '-c', code])}\n"
    (launch.directory / "jobs.toml").write_text(text)
    daemon = launch("", "run", "jobs.toml")
    assert daemon.wait_for("job.output")["line"] == f"{name[:1000]!a} {len(name)}"
    daemon.wait_for("run.finished", outcome="succeeded")
    assert daemon.stop() == 0
    daemon.assert_log_is_consistent()
