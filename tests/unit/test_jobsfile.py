"""Files of jobs: each says what Python can say, and whatever is wrong with one is told with its line."""

import os
import re
import socket
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobd import jobsfile, keys, loader, policy, textfile
from jobd.crontab import Cron
from jobd.errors import Fault, InvalidConfig
from jobd.job import NO_FUNCTION, Command, Job, Kind
from jobd.policy import Missed, Overlap, Policies
from jobd.schedule import Aligned, Every

from .helpers import python

EXAMPLE = Path(__file__).parents[2] / "jobs.example.toml"
#: Reading the worst file that is allowed, on a slow machine, in time of its processor.
BOUND_S = 8.0
MODULE = """
from jobd import every, cron, lifespan
async def coroutine(): ...
def plain(): ...
async def generating(): yield
@every("1m", name="other", timeout="5s", overlap="skip", isolation="process")
def declared(): ...
@cron("@daily", retries=2)
async def nightly(): ...
@every("1m", retries=0, overlap="allow", isolation="thread", backoff="10m")
def explicit(): ...
@lifespan
async def shared(): yield
number = 5
anonymous = lambda: None
def outer():
    def inner(): ...
    return inner
inner = outer()
"""


@pytest.fixture(autouse=True)
def _imports(tmp_path: Path) -> Iterator[None]:
    """A module that jobs can call, which is gone after the test."""
    (tmp_path / "app_jobs.py").write_text(MODULE)
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str | bytes], dict[str, Job]]:
    """Loads a file with this content; 7 s is the default interval."""

    def loaded(content: str | bytes) -> dict[str, Job]:
        data = content if isinstance(content, bytes) else textwrap.dedent(content).encode()
        (tmp_path / "jobs.toml").write_bytes(data)
        return {job.name: job for job in loader.load(["jobs.toml"], 7.0, "environment", str(tmp_path)).jobs}

    return loaded


@pytest.fixture
def faults(load: Callable[[str | bytes], dict[str, Job]]) -> Callable[[str | bytes], list[Fault]]:
    """The faults of a file that has some."""

    def found(content: str | bytes) -> list[Fault]:
        with pytest.raises(InvalidConfig) as refused:
            load(content)
        return refused.value.faults

    return found


Load = Callable[[str | bytes], dict[str, Job]]
Faults = Callable[[str | bytes], list[Fault]]


def test_a_job_says_what_it_runs_and_when(load: Load) -> None:
    """In the order of the file, each named by its table."""
    jobs = load(
        """
        [jobs.backup]
        cron = "0 3 * * *"
        timezone = "Europe/Berlin"
        command = ["/usr/local/bin/backup", "--full", ""]

        [jobs."a b"]
        every = "10s"
        call = "app_jobs:coroutine"

        [jobs.aligned]
        every = 0.5
        anchor = "clock"
        shell = "date | wc"
        cwd = "/srv"
        env = { A = "1", B = "" }

        [jobs.plain]
        call = "app_jobs:plain"
        """
    )
    assert [(name, job.schedule, job.kind, job.target) for name, job in jobs.items()] == [
        ("backup", Cron("0 3 * * *", "Europe/Berlin"), Kind.COMMAND, "jobs.toml:backup"),
        ("a b", Every(10), Kind.COROUTINE, "jobs.toml:a b"),
        ("aligned", Aligned(0.5), Kind.COMMAND, "jobs.toml:aligned"),
        ("plain", Every(7), Kind.FUNCTION, "jobs.toml:plain"),
    ]
    assert jobs["backup"].command == Command(("/usr/local/bin/backup", "--full", ""))
    assert jobs["aligned"].command == Command(("/bin/sh", "-c", "date | wc"), "/srv", (("A", "1"), ("B", "")))
    assert jobs["a b"].command is None
    assert jobs["a b"].function is sys.modules["app_jobs"].coroutine
    assert jobs["backup"].function is NO_FUNCTION
    assert {job.policies for job in jobs.values()} == {policy.PLAIN}


def test_every_policy_is_taken(load: Load) -> None:
    """By the same names as in Python, and as people write them."""
    (job,) = load(
        """
        [jobs.a]
        every = "1m"
        shell = "true"
        jitter = "1s"
        timeout = 2
        overlap = "replace"
        max_running = 3
        missed = "all"
        retries = 4
        backoff = 0.5
        backoff_max = "1h"
        grace_period = "0"
        """
    ).values()
    expected = Policies(1.0, 2.0, Overlap.REPLACE, 3, Missed.ALL, 4, 0.5, 3600.0, 0.0)
    assert job.policies == expected
    assert all(getattr(expected, name) != getattr(policy.PLAIN, name) for name in policy.DECLARED)


def test_defaults_hold_for_all_jobs_and_a_table_of_its_own_wins(load: Load) -> None:
    """Also where they come last in the file; variables are merged."""
    jobs = load(
        """
        [jobs.one]
        shell = "true"
        [jobs.two]
        shell = "true"
        timeout = "1s"
        cwd = "/two"
        env = { B = "own", C = "own" }
        [defaults]
        timeout = "9s"
        retries = 2
        cwd = "/all"
        env = { A = "all", B = "all" }
        """
    )
    one, two = jobs["one"], jobs["two"]
    assert one.policies == Policies(timeout=9.0, retries=2)
    assert two.policies == Policies(timeout=1.0, retries=2)
    assert one.command
    assert two.command
    assert (one.command.cwd, one.command.env) == ("/all", (("A", "all"), ("B", "all")))
    assert (two.command.cwd, two.command.env) == ("/two", (("A", "all"), ("B", "own"), ("C", "own")))


def test_defaults_that_do_not_go_with_a_job_are_passed_over(load: Load) -> None:
    """A clock's time zone for an interval, say, or a directory for a function."""
    jobs = load(
        f"""
        [defaults]
        timezone = "Europe/Berlin"
        anchor = "clock"
        isolation = "process"
        cwd = "/"
        env = {{ A = "1" }}
        user = "{_me()}"
        [jobs.interval]
        every = "1s"
        shell = "true"
        [jobs.calendar]
        cron = "@daily"
        call = "app_jobs:coroutine"
        [jobs.neither]
        call = "app_jobs:plain"
        """
    )
    assert [(job.schedule, job.kind) for job in jobs.values()] == [
        (Aligned(1), Kind.COMMAND),
        (Cron("@daily", "Europe/Berlin"), Kind.COROUTINE),
        (Every(7), Kind.PROCESS),
    ]
    assert jobs["interval"].command == Command(("/bin/sh", "-c", "true"), "/", (("A", "1"),), _me())


def test_what_a_function_declares_holds_where_its_table_says_nothing(load: Load) -> None:
    """Its schedule, its policies and its isolation; its name is that of the table, and `[defaults]` come after it."""
    jobs = load(
        """
        [defaults]
        overlap = "replace"
        retries = 5
        isolation = "thread"
        [jobs.as-declared]
        call = "app_jobs:declared"
        [jobs.otherwise]
        call = "app_jobs:declared"
        cron = "@hourly"
        timeout = "1h"
        isolation = "thread"
        [jobs.nightly]
        call = "app_jobs:nightly"
        """
    )
    assert [(name, job.schedule, job.kind) for name, job in jobs.items()] == [
        ("as-declared", Every(60), Kind.PROCESS),
        ("otherwise", Cron("@hourly"), Kind.FUNCTION),
        ("nightly", Cron("@daily"), Kind.COROUTINE),
    ]
    assert jobs["as-declared"].policies == Policies(timeout=5.0, overlap=Overlap.SKIP, retries=5)
    assert jobs["otherwise"].policies == Policies(timeout=3600.0, overlap=Overlap.SKIP, retries=5)
    assert jobs["nightly"].policies == Policies(overlap=Overlap.REPLACE, retries=2)


def test_what_a_function_declares_wins_also_where_it_is_what_jobd_does_anyway(load: Load) -> None:
    """Said is said. But what only follows from what is said is not: that of the whole counts."""
    jobs = load(
        """
        [defaults]
        retries = 5
        overlap = "skip"
        isolation = "process"
        [jobs.explicit]
        call = "app_jobs:explicit"
        [jobs.longer]
        call = "app_jobs:explicit"
        backoff = "20m"
        """
    )
    assert jobs["explicit"].kind is Kind.FUNCTION
    assert jobs["explicit"].policies == Policies(backoff=600.0, backoff_max=600.0)
    assert jobs["longer"].policies == Policies(backoff=1200.0, backoff_max=1200.0)


def test_a_secret_is_not_shown_though_its_name_is_that_of_a_key(faults: Faults) -> None:
    """Where the line stands in a table of variables."""
    (fault,) = faults('[jobs.a]\nshell = "true"\n[jobs.a.env]\nuser = "hunter2\n')
    assert fault.value == "***"
    assert "hunter2" not in fault.reason


@pytest.mark.parametrize("key", ["environment", "ENV", "env_file", "envFrom"])
@pytest.mark.parametrize("table", ["jobs.a", "defaults", "jobs", "other"])
def test_a_secret_is_not_shown_where_another_program_has_it(faults: Faults, table: str, key: str) -> None:
    """Variables as Compose or Kubernetes have them, also in a wrong table; in that of a job, `env` is said to be it."""
    wrong = faults(f'[jobs.b]\nshell = "true"\n[{table}]\n{key} = ["TOKEN=hunter2"]\n')
    assert "hunter2" not in repr(wrong)
    meant = [fault for fault in wrong if fault.setting == f"{table}.{key}" and "did you mean env?" in fault.reason]
    assert bool(meant) == (table in ("jobs.a", "defaults"))
    (fault,) = faults(f'[jobs.a]\nshell = "true"\n[jobs.a.{key}]\nuser = "hunter2\n')
    assert "hunter2" not in repr(fault)


def test_toml_can_say_it_in_other_ways(load: Load) -> None:
    """Dotted, inline, or in a table of tables."""
    jobs = load(
        """
        jobs.dotted.every = "1s"
        jobs.dotted.shell = "true"
        jobs.dotted.env.A = "1"
        jobs.inline = { every = "2s", shell = 'true', env = { A = "1" } }
        """
    )
    assert [(job.schedule, job.command) for job in jobs.values()] == [
        (Every(1), Command(("/bin/sh", "-c", "true"), env=(("A", "1"),))),
        (Every(2), Command(("/bin/sh", "-c", "true"), env=(("A", "1"),))),
    ]


def test_a_byte_order_mark_and_other_line_ends_are_taken(load: Load) -> None:
    """As some editors leave them."""
    assert list(load("\ufeff[jobs.a]\r\nshell = 'true'\r\n".encode())) == ["a"]


def _me() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


#: The value of a key of a job that runs a command on an interval, and the reason for which it is refused.
WRONG = [
    *(("every", value, "is no interval; write it like") for value in ("true", "[]", "{}", "1979-05-27", "07:32:00")),
    *(("every", value, "is no interval; it must be from") for value in ("nan", "inf", "-1", "0", "1e400", "9" * 400)),
    *(("every", value, "is not a duration; write it like") for value in ('""', '"soon"', '"1\\u0000s"', '"-1s"')),
    ("every", f'"{"1" * 100}"', "is 100 characters long; write it like"),
    ("every", f"0x{'f' * 9000}", "is no interval; it must be from"),
    *(("shell", value, "is no text; write one, in quotes") for value in ("1", "true", '["date"]', "{}")),
    ("shell", '""', "is empty; write"),
    ("shell", '"a\\u0000b"', "holds a NUL byte"),
    *(("cwd", value, "is no text; write one, in quotes") for value in ("1", "[]")),
    ("cwd", '""', "is empty; write"),
    ("cwd", '"/\\u0000"', "holds a NUL byte"),
    *(("env", value, "is no table; write one") for value in ('"A=1"', '["A=1"]', "5")),
    ("user", '"no such user"', "is no user of this machine; write"),
    ("user", '"a\\u0000"', "holds a NUL byte"),
    ("user", "0", "is no text; write one, in quotes"),
    *(("anchor", value, "is not one of start, clock; write one") for value in ('"noon"', "1", "[]", "{}", '""')),
    *(("timeout", value, "is not a duration; write it like") for value in ("true", "nan", "-1", '"10 parsecs"', "[]")),
    ("timeout", '"0"', "would end every run at once; write"),
    ("timeout", "1e300", "is too long; it must be at most"),
    ("jitter", '"8s"', "is longer than the interval, 5s; it must be at most that"),
    *(("overlap", value, "is not one of allow, skip, replace") for value in ('"never"', "1", "[]", "true")),
    *(("max_running", value, "must be a whole number") for value in ("0", "1.0", "true", '"1"', f"0x{'f' * 9000}")),
    *(("retries", value, "must be a whole number") for value in ("-1", "1001", "1979-05-27T07:32:00Z")),
    ("isolation", '"process"', "goes with call only; leave it out"),
    ("isolation", '"container"', "is not one of thread, process; write one"),
    ("timezone", '"UTC"', "goes with cron only; leave it out"),
    *(("timezone", value, "is no time zone that this machine knows; ") for value in ('"Mars"', '"../x"', '"/"')),
    ("timezone", '"Europe/Berln"', "did you mean Europe/Berlin?"),
    ("cron", '"* * * * *"', "is one too many beside every; write one of them"),
    ("command", '["date"]', "is one too many beside shell; write one of them"),
    ("call", '"app_jobs:plain"', "is one too many beside shell; write one of them"),
    ("timeot", '"5s"', "is no key of a job; did you mean timeout?"),
    ("max-running", "5", "is no key of a job; did you mean max_running?"),
    ("zzz", "5", "is no key of a job; the keys are every, cron,"),
    ('"\\n"', "5", "is no key of a job; the keys are every, cron,"),
    ("name", '"b"', "is no key of a job; its name is that of its table, [jobs.NAME]"),
]


@pytest.mark.parametrize(("key", "value", "reason"), WRONG)
def test_a_value_that_cannot_be_is_told_with_its_line(faults: Faults, key: str, value: str, reason: str) -> None:
    """And with its name and what would be right; nothing else is wrong with the file."""
    own = {"every": '"5s"', "shell": '"true"'}
    others = "".join(f"{name} = {text}\n" for name, text in own.items() if name != key)
    found = faults(f"# first\n[jobs.a]\n{others}{key} = {value}\n")
    fault = next(fault for fault in found if reason in fault.reason)
    name = key if key.replace("-", "").isidentifier() else '"\\n"'
    assert (fault.setting, fault.source) == (f"jobs.a.{name}", f"jobs.toml line {3 + others.count(chr(10))}")
    assert len(fault.value) <= 200
    assert len(found) == 1
    assert fault.reason.isprintable()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[]", "is no command; write a list"),
        ('"date"', "is no command; write a list"),
        ("5", "is no command; write a list"),
        ('["", "a"]', "is no command; write a list"),
        ('["date", 5]', "has an argument, number 1, that is no text; write one"),
        ('["date", ["a"]]', "has an argument, number 1, that is no text; write one"),
        ('["date", "\\u0000"]', "has an argument, number 1, that holds a NUL byte"),
        ("[true]", "has an argument, number 0, that is no text; write one"),
    ],
)
def test_a_command_that_cannot_be_is_told(faults: Faults, value: str, reason: str) -> None:
    """It is a list of texts, of which the first is the program."""
    (fault,) = faults(f"[jobs.a]\ncommand = {value}\n")
    assert (fault.setting, fault.source) == ("jobs.a.command", "jobs.toml line 2")
    assert reason in fault.reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ('""', "is empty; write"),
        ("5", "is no text; write one"),
        ('"app_jobs"', "is no function; write package.module:function"),
        ('"jobs.toml"', "is no function; write package.module:function"),
        ('"app_jobs:"', "is no function; write package.module:function"),
        ('":plain"', "is no function; write package.module:function"),
        ('"app_jobs:a:b"', "is no function; write package.module:function"),
        ('"app_jobs:a\\nb"', "is no function; write package.module:function"),
        ('"no_such_module:job"', "there is no module no_such_module "),
        ('"app_jobs:missing"', "has no missing"),
        ('"app_jobs:number"', "is no job but an int"),
        ('"app_jobs:generating"', "is a generator function"),
        ('"app_jobs:shared"', "is a lifespan and no job"),
    ],
)
def test_a_function_that_cannot_be_called_is_told(faults: Faults, value: str, reason: str) -> None:
    """As for a target, but with the line of the file."""
    (fault,) = faults(f"[jobs.a]\n\ncall = {value}\n")
    assert (fault.setting, fault.source) == ("jobs.a.call", "jobs.toml line 3")
    assert reason in fault.reason


def test_what_a_module_raises_is_told_with_its_exception(faults: Faults, tmp_path: Path) -> None:
    """For each job that calls it, though it is imported once."""
    (tmp_path / "raising_jobs.py").write_text("open('count', 'a').write('1')\nraise OSError('at import')\n")
    (tmp_path / "count").touch()
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        found = faults("[jobs.a]\ncall = 'raising_jobs:a'\n[jobs.b]\ncall = 'raising_jobs:b'\n")
    finally:
        os.chdir(before)
    assert [fault.source for fault in found] == ["jobs.toml line 2", "jobs.toml line 4"]
    assert [fault.failure and fault.failure["error"]["type"] for fault in found] == ["OSError"] * 2
    assert (tmp_path / "count").read_text() == "1"


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("coroutine", "is a coroutine function, and isolation is for plain functions"),
        ("anonymous", "is <lambda>, which no other interpreter can import"),
        ("inner", "is outer.<locals>.inner, which no other interpreter can import"),
    ],
)
def test_isolation_is_refused_where_it_cannot_be(faults: Faults, call: str, reason: str) -> None:
    """At its own line, if the table says so."""
    (fault,) = faults(f"[jobs.a]\ncall = 'app_jobs:{call}'\nisolation = 'process'\n")
    assert (fault.setting, fault.value, fault.source) == ("jobs.a.isolation", '"process"', "jobs.toml line 3")
    assert f"app_jobs:{call} {reason}" in fault.reason


def test_isolation_by_default_is_refused_for_what_it_would_be_meant_for(faults: Faults) -> None:
    """A plain function that no other interpreter can import; a coroutine function is not meant."""
    (fault,) = faults("[defaults]\nisolation = 'process'\n[jobs.a]\ncall = 'app_jobs:inner'\n")
    assert (fault.setting, fault.source) == ("jobs.a.call", "jobs.toml line 4")


def test_variables_are_told_by_name_and_never_shown(faults: Faults) -> None:
    """Neither a wrong one, nor where `env` is misspelt, no table, or no TOML."""
    found = faults(
        """
        [defaults.env]
        "" = "secret"
        [jobs.a]
        shell = "true"
        env = { "A=B" = "secret", C = 5, D = ["secret"], F = "secret\\u0000", "G\\u0000" = "secret" }
        [jobs.b]
        shell = "true"
        env = "TOKEN=secret"
        [jobs.c]
        shell = "true"
        evn = "TOKEN=secret"
        [jobs.d]
        shell = "true"
        other.TOKEN = "secret"
        """
    )
    assert [(fault.setting, fault.value, fault.source.rpartition(" ")[2]) for fault in found] == [
        ('defaults.env.""', "***", "3"),
        ('jobs.a.env."A=B"', "***", "6"),
        ("jobs.a.env.C", "***", "6"),
        ("jobs.a.env.D", "***", "6"),
        ("jobs.a.env.F", "***", "6"),
        ('jobs.a.env."G\\u0000"', "***", "6"),
        ("jobs.b.env", "***", "9"),
        ("jobs.c.evn", "***", "12"),
        ("jobs.d.other", "{TOKEN = ***}", "15"),
    ]
    (fault,) = faults('[jobs.a]\nenv = { TOKEN = "secret }\n')
    assert fault.value == "***"


@pytest.mark.parametrize(
    ("content", "setting", "line", "reason"),
    [
        ("", "jobs", 1, "has no job; write [jobs.NAME]"),
        ("# nothing\n", "jobs", 1, "has no job; write [jobs.NAME]"),
        ("[jobs]\n", "jobs", 1, "has no job; write [jobs.NAME]"),
        ("jobs = 5\n", "jobs", 1, "has no job; write [jobs.NAME]"),
        ("\n[[jobs]]\nshell = 'a'\n", "jobs", 2, "has no job; write [jobs.NAME]"),
        ("[jobs]\nevery = '1s'\n", "jobs.every", 2, "is no table of a job; write [jobs.NAME] above its keys"),
        ("[[jobs.a]]\nshell = 'a'\n", "jobs.a", 1, "is no table of a job; write [jobs.NAME]"),
        ("[jobs.a]\nevery = '1s'\n", "jobs.a", 1, "has nothing to run; write call, command or shell"),
        ("[jobs.a.env]\nA = '1'\n\n[jobs.a]\n", "jobs.a", 4, "has nothing to run; write call, command or shell"),
        ("[jobs.'']\nshell = 'a'\n", 'jobs.""', 1, "is no name of a job; write a text"),
        ('[jobs."a\\nb"]\nshell = "a"\n', 'jobs."a\\nb"', 1, "is no name of a job; write a text"),
        ("[jobs.a]\nshell = 'a'\n[default]\nretries = 1\n", "default", 3, "did you mean defaults?"),
        ("[jobs.a]\nshell = 'a'\n[zzz]\nretries = 1\n", "zzz", 3, "write [jobs.NAME] or [defaults]"),
        ("[jobs.a]\nshell = 'a'\n[defaults]\nevery = '1s'\n", "defaults.every", 4, "write it below [jobs.NAME]"),
        ("[jobs.a]\nshell = 'a'\n[defaults]\nretry = 1\n", "defaults.retry", 4, "did you mean retries?"),
        ("[jobs.a]\nshell = 'a'\n[[defaults]]\nretries = 1\n", "defaults", 3, "is no table; write [defaults]"),
        ("[jobs.a]\nshell = 'a'\n[defaults]\ntimeout = 'x'\n", "defaults.timeout", 4, "is not a duration"),
        ("[jobs.a]\ncron = 'x'\nshell = 'a'\n", "jobs.a.cron", 2, "is no cron expression"),
        ("[jobs.a]\ncron = '0 0 31 2 *'\nshell = 'a'\n", "jobs.a.cron", 2, "is no cron expression"),
        ("[jobs.a]\ncron = 5\nshell = 'a'\n", "jobs.a.cron", 2, "is no text; write one"),
        ("[jobs.a]\ncron = '@daily'\nanchor = 'clock'\nshell = 'a'\n", "jobs.a.anchor", 3, "goes with every only"),
        ("[jobs.a]\nanchor = 'clock'\nshell = 'a'\n", "jobs.a.anchor", 2, "goes with every only"),
        ("[jobs.a]\ncall = 'app_jobs:plain'\ncwd = '/'\n", "jobs.a.cwd", 3, "goes with command or shell only"),
        ("jobs.a = { shell = 'a',  cwd = 5 }\n", "jobs.a.cwd", 1, "is no text"),
        ("jobs.a.shell = 'a'\njobs.a.cwd = 5\n", "jobs.a.cwd", 2, "is no text"),
        ("[jobs]\na.shell = 'a'\na.cwd = 5\n", "jobs.a.cwd", 3, "is no text"),
        ("[jobs.a]\nshell = '''\ncwd = 1\n'''\ncwd = 5\n", "jobs.a.cwd", 5, "is no text"),
        ("[jobs.a]\ncommand = [\n 'cwd = 1',\n]\ncwd = 5\n", "jobs.a.cwd", 5, "is no text"),
    ],
)
def test_a_file_that_is_none_of_jobs_is_told_with_its_line(
    faults: Faults, content: str, setting: str, line: int, reason: str
) -> None:
    """Wherever the fault is, and however TOML lets it be written."""
    (fault,) = faults(content)
    assert (fault.setting, fault.source) == (setting, f"jobs.toml line {line}")
    assert reason in fault.reason


@pytest.mark.parametrize(
    ("content", "line", "value"),
    [
        ("[jobs.a]\nevery = 10s\n", 2, "every = 10s"),
        ("[jobs.a]\n\n  timeout 5\n", 3, "***"),
        ("[jobs.a\n", 1, "***"),
        ("[jobs.a]\nshell = 'a'\nshell = 'b'\n\n", 3, "shell = 'b'"),
        ("[jobs.a]\n[jobs.a]\n", 2, "***"),
        ("[jobs.a]\nshell = '''\na\n", 3, "***"),
        ("password = secret\n", 1, "***"),
        (f"[jobs.a]\nevery = {'9' * 5000}\n", 2, f"every = {'9' * 192}"),
        (f"[jobs.a]\n\nevery = {'[' * 5000}\n", 3, f"every = {'[' * 192}"),
        (f"[jobs]\n\n{'a.' * 100_000}b = 1\n", 3, "***"),
        (f"[jobs]\n\n{'a . ' * 1000}b = 1\n", 3, "***"),
        (f"[jobs]\n[{'a.' * 1000}b]\n", 2, "***"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(faults: Faults, content: str, line: int, value: str) -> None:
    """And of the line, what can be no secret."""
    (fault,) = faults(content)
    assert (fault.setting, fault.source, fault.value) == ("jobs.toml", f"jobs.toml line {line}", value)
    assert fault.reason.startswith("is no TOML: ")
    assert "write values as in" in fault.reason
    assert fault.reason.isprintable()


def test_all_faults_of_a_file_are_told_at_once_up_to_fifty(faults: Faults) -> None:
    """Those of several jobs and of all kinds; of thousands, as many as anybody reads."""
    found = faults("[jobs.a]\nevery = 1\ntimeout = 'x'\n[jobs.b]\ncall = 'no_such_module:x'\nretries = -1\n[other]\n")
    assert [fault.setting for fault in found] == ["other", "jobs.a.timeout", "jobs.a", "jobs.b.retries", "jobs.b.call"]
    many = faults("[jobs.a]\n" + "".join(f"key{n} = 1\n" for n in range(20_000)))
    assert len(many) == jobsfile.MAX_FAULTS == 50


def test_a_fault_of_the_defaults_is_told_once(faults: Faults) -> None:
    """However many jobs it would hold for."""
    found = faults("[defaults]\nretries = -1\n" + "".join(f"[jobs.j{n}]\nshell = 'true'\n" for n in range(9)))
    assert [fault.setting for fault in found] == ["defaults.retries"]


def test_jitter_by_default_is_told_where_it_is_too_long(faults: Faults) -> None:
    """With the job whose interval is shorter, and its value."""
    (fault,) = faults("[defaults]\njitter = '1m'\n[jobs.a]\nevery = '2m'\nshell = 'a'\n[jobs.b]\nshell = 'a'\n")
    assert (fault.setting, fault.value, fault.source) == ("jobs.b.jitter", '"1m"', "jobs.toml line 6")


def test_another_user_is_refused_unless_we_are_root(
    load: Load, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own may always be named."""
    content = f"[jobs.a]\nshell = 'a'\nuser = '{_me()}'\n"
    assert load(content)["a"].command == Command(("/bin/sh", "-c", "a"), user=_me())
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    (fault,) = faults(content)
    assert (fault.setting, fault.source) == ("jobs.a.user", "jobs.toml line 3")
    assert "is another user than ours" in fault.reason


def test_two_jobs_of_one_name_in_two_targets_are_told(tmp_path: Path) -> None:
    """With the line of the second one, or the target."""
    (tmp_path / "one.toml").write_text("[jobs.other]\nshell = 'a'\n")
    (tmp_path / "two.toml").write_text("\n[jobs.other]\nshell = 'a'\n")
    with pytest.raises(InvalidConfig) as refused:
        loader.load(["one.toml", "two.toml", "app_jobs"], 7.0, "environment", str(tmp_path))
    assert [(fault.setting, fault.value, fault.source) for fault in refused.value.faults] == [
        ("jobs.other", "other", "two.toml line 2"),
        ("JOBD_JOBS", "app_jobs", "environment"),
    ]
    assert all("second job named other, after one.toml:other" in fault.reason for fault in refused.value.faults)


def _directory(path: Path) -> None:
    path.mkdir()


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 10 * 1024**3)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "there is no such file; write"),
        (_directory, "irectory"),
        (os.mkfifo, "it is no regular file"),
        (_device, "it is no regular file"),
        (_link_to_itself, "symbolic links"),
        (_socket, "cannot be used"),
        (_huge, "it is larger than 262144 bytes"),
        (lambda path: path.write_bytes(b"#" * (textfile.MAX_BYTES + 1)), "it is larger than 262144 bytes"),
        (lambda path: path.write_bytes(b"a\nb\0"), "line 2 holds a NUL byte"),
        (lambda path: path.write_bytes(b"a\n\nb\xff"), "line 3 is not UTF-8"),
        (lambda path: path.write_bytes("[jobs.a]".encode("utf-16-le")), "line 1 holds a NUL byte"),
    ],
)
def test_what_is_no_file_of_text_is_told_at_once(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    """As a fault of the target that names it."""
    make(tmp_path / "jobs.toml")
    began = time.monotonic()
    with pytest.raises(InvalidConfig) as refused:
        loader.load(["jobs.toml"], 7.0, "environment", str(tmp_path))
    assert time.monotonic() - began < BOUND_S
    (fault,) = refused.value.faults
    assert (fault.setting, fault.value, fault.source) == ("JOBD_JOBS", "jobs.toml", "environment")
    assert reason in fault.reason


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the system's own words."""

    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InvalidConfig) as refused:
        loader.load(["jobs.toml"], 7.0, "environment", str(tmp_path))
    assert refused.value.faults[0].reason == "cannot be used: Permission denied"


def test_a_file_anywhere_is_named_as_it_was(tmp_path: Path) -> None:
    """By an absolute path or from the current directory on."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "my.toml").write_text("[jobs.a]\nshell = 5\n")
    for target in ("deep/my.toml", str(tmp_path / "deep" / "my.toml")):
        with pytest.raises(InvalidConfig) as refused:
            loader.load([target], 7.0, "environment", str(tmp_path))
        assert refused.value.faults[0].source == f"{target} line 2"


@pytest.mark.parametrize(
    "text", ["shell = '\u20ac'", "cwd = '\u20ac'", "command = ['\u20ac']", "env = {'\u20ac' = ''}"]
)
def test_what_the_locale_cannot_express_is_refused(tmp_path: Path, text: str) -> None:
    """Where no process could be given it."""
    runs = "" if text.startswith(("shell", "command")) else "shell = 'true'\n"
    (tmp_path / "jobs.toml").write_text(f"[jobs.a]\n{runs}{text}\n", encoding="utf-8")
    code = f"""
        from jobd import errors, loader
        try:
            loader.load(["jobs.toml"], 7.0, "environment", {str(tmp_path)!r})
        except errors.InvalidConfig as invalid:
            print(invalid.faults[0].source, invalid.faults[0].reason)
    """
    said = python(textwrap.dedent(code), LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert said.startswith(f"jobs.toml line {2 + runs.count(chr(10))} ")
    assert "UTF-8" in said


@pytest.mark.parametrize(
    ("content", "setting", "given"),
    [
        ("[jobs.a]\nshell = '{}'\n", "jobs.a.shell", ""),
        ("[jobs.a]\ncommand = ['a', '{}']\n", "jobs.a.command", ""),
        ("[jobs.a]\nshell = 'a'\nenv.B = '{}'\n", "jobs.a.env.B", "B="),
        ("[defaults.env]\nB = '{}'\n[jobs.a]\nshell = 'a'\n", "defaults.env.B", "B="),
        ("[jobs.{}]\nshell = 'a'\n", 'jobs."xxx', "JOBD_JOB="),
    ],
    ids=["shell", "argument", "variable", "variable of all", "name"],
)
def test_what_is_too_long_for_any_process_is_refused(
    load: Load, faults: Faults, content: str, setting: str, given: str
) -> None:
    """Each run would fail; what is as long as may be can be given to one."""
    longest = "x" * (textfile.MAX_STRING_BYTES - len(f"{given}\0"))
    assert load(content.format(longest))
    assert subprocess.run(["true", f"{given}{longest}"], check=True)
    (fault,) = faults(content.format(f"{longest}x"))
    assert fault.setting.startswith(setting)
    assert "too long" in fault.reason


@pytest.mark.parametrize(
    "content",
    [
        "".join(f"[jobs.j{n}]\nshell = 'a'\n" for n in range(9000)),
        "".join(f"[jobs.j{n}]\nshell = 'a'\ncron = '5 4 * * *'\n" for n in range(5500)),
        "".join(f"[jobs.j{n}]\nzzz = 'a'\n" for n in range(9000)),
        "[jobs.a]\n" + "".join(f"a{n} = 1\n" for n in range(24_000)),
        f"[{'a.' * 49}a]\n" + "".join(f"b{n}=1\n" for n in range(28_000)),
        "[jobs]\n" + "".join(f"a{n}.{'a.' * 48}a = 1\n" for n in range(2400)),
        "a" * 262_144,
        '"' * 262_144,
        "'a" * 131_072,
        '"a' * 131_072,
        "a." * 131_072,
        "a .\t" * 65_536,
        "[" * 262_144,
        "a={" * 80_000,
        "[[a]]\n" * 40_000,
        "a = [" + "[]," * 80_000 + "]",
        "a = [" + "{a = 1}," * 30_000 + "]",
        'a = "' + "\\n" * 130_000 + '"',
        'a = """' + '""\\"' * 65_000 + '"""',
        "a = " + "9" * 262_000,
        "a = 0x" + "9" * 262_000,
        f"jobs.a.{'b' * 262_000} = 1",
        f"jobs.{'b' * 262_000}.shell = 1",
        f"jobs.a.timezone = '{'E' * 262_000}'",
        f"jobs.a.cron = '{'1,' * 131_000}'",
        f"jobs.a.cron = '{'*/1,' * 65_000}* * * * *'",
        "#" * 262_144,
        "\n" * 262_144,
    ],
    ids=lambda content: re.sub(r"\s", " ", content[:24]),
)
def test_the_worst_files_are_read_in_bounded_time(load: Load, content: str) -> None:
    """No content keeps the daemon from starting, or from refusing to, for long."""
    assert len(content) <= textfile.MAX_BYTES
    began = time.process_time()
    found: list[Fault] = []
    try:
        load(content)
    except InvalidConfig as invalid:
        found = invalid.faults
    assert len(found) <= jobsfile.MAX_FAULTS
    assert all(len(fault.value) <= 200 and len(fault.reason) < 1000 for fault in found)
    assert time.process_time() - began < BOUND_S


def test_the_example_is_loaded(tmp_path: Path) -> None:
    """As it is, from where it is."""
    loaded = loader.load([EXAMPLE.name], 7.0, "environment", str(EXAMPLE.parent))
    assert {job.name: job.kind for job in loaded.jobs} == {
        "backup": Kind.COMMAND,
        "clean up": Kind.COMMAND,
        "poll": Kind.COROUTINE,
        "collect": Kind.PROCESS,
        "demo": Kind.COROUTINE,
    }


def test_the_example_uses_every_key() -> None:
    """A key that is added is shown to people; those that need a user of the machine are commented out."""
    text = EXAMPLE.read_text()
    document = tomllib.loads(re.sub(r"(?m)^#(?=\w+ = )", "", text))
    used = set(document["defaults"]).union(*document["jobs"].values())
    assert used == keys.KEYS.keys()
    assert len(set(document["defaults"]) & keys.DEFAULTS.keys()) == len(document["defaults"]) > 0


def test_the_example_explains_itself() -> None:
    """Each key has a comment beside it or above its table, and what it may be is named in full."""
    text = EXAMPLE.read_text()
    for words in ("skip", "replace", "allow", "once", "all", "start", "clock", "thread", "process"):
        assert words in text
    assert text.count("#") > 30
