"""Files of jobs: whatever one holds, its jobs are found, or what is wrong with it is told with its line."""

import re
import sys
import tomllib
from pathlib import Path
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from jobd import jobsfile, keys, loader, policy, textfile, tomllines
from jobd.crontab import Cron
from jobd.errors import Fault, InvalidConfig
from jobd.job import NO_FUNCTION, Job, Kind
from jobd.schedule import Aligned, Every

from .grammar import CHANGES, RIGHT, WRONG, bounded, examples

#: What a key may be given, rightly or wrongly, as TOML has it.
RIGHT_FOR = {
    "every": ['"10s"', "0.5", "5", '"1h30m"'],
    "cron": ['"0 3 * * *"', '"@daily"', '"*/5 * * * * *"', '"30 3 L * mon-fri"'],
    "timezone": ['"Europe/Berlin"', '"UTC"'],
    "anchor": ['"start"', '"clock"'],
    "call": ['"jobd.demo:run_job"', '"gc:collect"', '"gc:enable"', '"jobd.demo:run_jobs"'],
    "command": ['["date"]', '["/bin/sh", "-c", "exit 3"]'],
    "shell": ['"date"', "'''\nevery = 1\n[jobs.hidden]\n'''"],
    "isolation": ['"thread"', '"process"'],
    "cwd": ['"/"', "'.'"],
    "env": ['{ A = "1" }', "{}", '{ A = "2", "B c" = "" }', "{ A.B = 1 }"],
    "user": ['"root"', '"root"', '"root"', '"no such user"'],
    **{name: ['"1s"', "0.25", '"500ms"', "1"] for name in policy.DECLARED},
    "overlap": ['"allow"', '"skip"', '"replace"'],
    "missed": ['"once"', '"all"', '"skip"'],
    "max_running": ["1", "99", "0x10"],
    "retries": ["0", "5", "1_000"],
}
VALUES = [
    *(
        "true",
        "false",
        "nan",
        "-inf",
        "1e400",
        "0",
        "-1",
        "0x" + "f" * 5000,
        "9" * 4400,
        "0b1",
        "1979-05-27",
        "07:32:00",
    ),
    *("1979-05-27T07:32:00-07:00", "[]", "[[]]", "[1, [2, {}]]", "{}", "{ a = { b = 1 } }", '""', "''", '"\\u0000"'),
    *(
        '"""\n[jobs.x]\n"""',
        "'''x = 1'''",
        '"\\U0001F600"',
        '"\\ud800"',
        '"',
        "'",
        '"""',
        "[",
        "{",
        "[,]",
        "{,}",
        "x",
        "",
    ),
    *('["a",\n# ]\n"b",]', '{ a = "}", b = "#" } # {', '"[jobs.x]"', "." * 70, ".".join("a" * 70), "1.2.3", "[" * 3000),
]
_right = st.sampled_from(RIGHT + WRONG[:20]).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
_changed = st.tuples(_right, st.sampled_from(CHANGES)).map(lambda drawn: drawn[1](drawn[0]))
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def _is_toml(value: str) -> bool:
    try:
        tomllib.loads(f"key = {value}\n")
    except (ValueError, RecursionError):
        return False
    return True


def _value(name: str) -> st.SearchStrategy[str]:
    fitting = st.sampled_from(RIGHT_FOR.get(name, VALUES))
    return st.one_of(fitting, fitting, fitting, fitting, st.sampled_from(VALUES), _changed)


_names = st.one_of(
    st.sampled_from(sorted(keys.KEYS)),
    st.sampled_from(sorted(keys.KEYS)),
    st.sampled_from(
        ["name", "timeot", "every.x", '"every"', "'cron'", "env.A", "a . b", "", "=", "#", ".".join("a" * 70)]
    ),
)
_assignment = _names.flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from([" = ", "=", " ", " = # "]), _value(name)).map("".join)
)
_jobs_names = st.sampled_from(
    ["a", "b", '"a b"', "'a.b'", "a.env", '""', '"\\n"', '"\\u0061"', "'\u20ac'", "\u20ac", "a.b.c"]
)
_headers = st.one_of(
    _jobs_names.map("[jobs.{}]".format),
    _jobs_names.map("[jobs.{}]".format),
    _jobs_names.map("[ jobs . {} ] # [".format),
    st.sampled_from(
        ["[defaults]", "[jobs]", "[[jobs]]", "[[jobs.a]]", "[default]", "[defaults.env]", "[", "[]", "[jobs"]
    ),
)
_runs = st.sampled_from(['shell = "date"', 'command = ["date"]', 'call = "gc:collect"', ""])
_table = st.tuples(_headers, _runs, st.lists(_assignment, max_size=4), _runs).map(
    lambda drawn: "\n".join([drawn[0], drawn[1], *drawn[2], drawn[3]])
)
_dotted = st.tuples(_jobs_names, _assignment).map("jobs.{0[0]}.{0[1]}".format)
_inline = st.tuples(_jobs_names, st.lists(_assignment, max_size=3)).map(
    lambda drawn: f"jobs.{drawn[0]} = {{ {', '.join(drawn[1])} }}"
)
_pieces = st.one_of(_table, _table, _table, _dotted, _inline, _text.map("# {}".format), _text)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file of jobs, or what somebody took for one."""
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    text = "\n".join(draw(st.lists(_pieces, max_size=5))).replace("\n", end)
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"]))
    data = text.encode(encoding, "surrogatepass")
    where, what = draw(st.integers(0, 300)), draw(st.sampled_from([b"", b"", b"", b"", b"\0", b"\xff", b"\r", b"\x85"]))
    return data[:where] + what + data[where:]


def loaded(data: bytes) -> tuple[list[Job], list[Fault]]:
    """The jobs of a file with this content in the current directory, or its faults."""
    Path("jobs.toml").write_bytes(data)
    with mock.patch.object(sys, "path", [*sys.path]), bounded():
        try:
            return loader.load(["jobs.toml"], 7.0, "environment", str(Path.cwd())).jobs, []
        except InvalidConfig as invalid:
            return [], invalid.faults


def refused(data: bytes) -> list[Fault]:
    """The faults of a file that has some."""
    jobs, faults = loaded(data)
    assert not jobs
    assert faults
    return faults


def lines_of(data: bytes) -> int:
    """How many lines an editor shows."""
    return len(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))


def check(data: bytes) -> list[Job]:
    """The jobs of a file with this content, if it has no fault; whatever else comes of it fails the test."""
    jobs, faults = loaded(data)
    assert bool(jobs) != bool(faults)
    for job in jobs:
        assert job.name
        assert isinstance(job.schedule, Every | Aligned | Cron)
        assert (job.kind is Kind.COMMAND) == (job.function is NO_FUNCTION) == (job.command is not None)
        if job.command:
            assert job.command.arguments[0]
            assert all("\0" not in text for text in (*job.command.arguments, *dict(job.command.env).values()))
            assert all(name and "=" not in name for name, _ in job.command.env)
    assert len(faults) <= jobsfile.MAX_FAULTS
    for fault in faults:
        assert fault.reason.isprintable()
        assert max(len(fault.setting), len(fault.value)) <= keys.MAX_SHOWN
        line = re.fullmatch(r"jobs\.toml line (\d+)", fault.source)
        if line is None:  # it cannot be read at all
            assert (fault.setting, fault.source) == ("JOBD_JOBS", "environment")
            line = re.search(r"line (\d+) (holds a NUL byte|is not UTF-8)", fault.reason)
        assert line is not None
        assert 1 <= int(line[1]) <= lines_of(data)
    return jobs


@examples(600)
@given(st.one_of(files(), files(), files(), st.binary(max_size=200)))
@example(b"")
@example(b"\n")
@example(b"\xef\xbb\xbf")
@example(b"a = [" * 600 + b"\n")
@example(b"jobs.a = {}\r\n")
@example(b'[jobs.a]\nshell = """\\\n   """\n')
@example(b"[jobs.a]\nevery = 1979-99-99\nshell = 'a'\n")
def test_any_file_is_jobs_or_faults_with_lines(data: bytes) -> None:
    """Never another exception, never a job that cannot be, never a value beyond what is shown, and never slow."""
    check(data)


#: Values that TOML takes.
_well_formed = st.sampled_from([value for value in VALUES if _is_toml(value)])
_extras = sorted(keys.KEYS.keys() - {*keys.RUNS, *keys.SCHEDULES})


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A file that is TOML, and nearly right: each key once, most with a value that is right for one job or another."""
    text = ""
    for name in ["defaults", *draw(st.lists(st.sampled_from(["a", "b", "c", '"a b"']), unique=True, max_size=3))]:
        runs = draw(
            st.sampled_from([["shell"], ["command"], ["call"], ["shell"], ["command"], ["call"], ["shell", "call"], []])
        )
        when = draw(st.sampled_from([["every"], ["cron"], [], ["every"], ["cron"], [], ["cron", "every"]]))
        fitting = [key for key in _extras if name == "defaults" or jobsfile._fits(key, dict.fromkeys(runs + when))]
        others = draw(
            st.lists(st.sampled_from(draw(st.sampled_from([*[fitting] * 9, _extras]))), unique=True, max_size=4)
        )
        text += f"[{name}]\n" if name == "defaults" else f"[jobs.{name}]\n"
        for key in others if name == "defaults" else draw(st.permutations([*runs, *when, *others])):
            right = st.sampled_from(RIGHT_FOR[key])
            text += f"{key} = {draw(draw(st.sampled_from([*[right] * 30, _well_formed])))}\n"
    return text


@examples(400)
@given(documents())
def test_any_document_is_jobs_or_faults_with_lines(text: str) -> None:
    """And where it is jobs, they are those of its tables, each with the policies that it is given."""
    document = tomllib.loads(text)
    for job in check(text.encode()):
        table = document["defaults"] | document["jobs"][job.name]
        policies, wrong = policy.read({key: value for key, value in table.items() if key in policy.DECLARED})
        assert (job.policies, wrong) == (policies, {})
        assert (job.kind is Kind.COMMAND) == ("call" not in table)


EXAMPLE = (Path(__file__).parents[2] / "jobs.example.toml").read_text()


@st.composite
def edited(draw: st.DrawFn) -> str:
    """The example, with a few slips of the keyboard."""
    text = EXAMPLE
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from([0, 0, 1, 1, 2, 10, 100]))
        piece = draw(st.one_of(st.sampled_from([*VALUES[:-1], "\n", "=", ".", "#", "]", "}", ",", " ", "\\"]), _text))
        text = text[:start] + draw(st.sampled_from(["", piece])) + text[start + length :]
    return text


@examples(300)
@given(edited())
def test_slips_in_the_example_are_jobs_or_faults_with_lines(text: str) -> None:
    """What somebody gets who starts from it."""
    check(text.encode("utf-8", "surrogatepass"))


@examples(200)
@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.integers(0, 9), max_size=6),
    st.lists(
        st.sampled_from(["", "# jobs.x = 1", "filler = '''\n[jobs.x]\n'''", 'other = ["x = 1", # ]\n"]"]']), max_size=3
    ),
)
def test_a_fault_has_the_line_of_its_key(unknown: dict[str, int], before: list[str]) -> None:
    """Whatever the key is called, and whatever stands before it."""
    written = {name: keys.written(name).replace("\x7f", "\\u007f") for name in unknown if name not in keys.KEYS}
    top = "".join(f"{line}\n" for line in dict.fromkeys(before))
    text = f"{top}[jobs.a]\nshell = 'a'\n" + "".join(f"{quoted} = 1\n" for quoted in written.values())
    tomllib.loads(text)
    places = tomllines.find(text)
    first = top.count("\n") + 3
    assert [places["jobs", "a", name] for name in written] == list(range(first, first + len(written)))


def _everything(document: object, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The path of each key that is not within an array."""
    if not isinstance(document, dict):
        return set()
    return {p for name, value in document.items() for p in ({(*path, name)} | _everything(value, (*path, name)))}


@examples(400)
@given(files())
def test_every_key_of_a_document_has_a_line(data: bytes) -> None:
    """And none has one that is not there, apart from those within arrays."""
    try:
        text = data.decode("utf-8-sig")
        document = tomllib.loads(text)
    except (ValueError, RecursionError):
        return
    with bounded():
        places = tomllines.find(text)
    wanted = {path for path in _everything(document) if len(path) <= tomllines.DEPTH}
    assert wanted <= places.keys()
    assert all(1 <= line <= lines_of(data) for line in places.values())


_repeated = st.sampled_from(
    [
        *(
            "[",
            "]",
            "{",
            "}",
            '"',
            "'",
            '"""',
            "'''",
            "\\",
            "#",
            "=",
            ".",
            "a",
            "a.",
            "'a'.",
            "\n",
            " ",
            ",",
            "1",
            "0x1",
        ),
        *("a = 1\n", "[a]\n", "[[a]]\n", "a = {", "a = [", "[jobs.", "jobs.a.", "a . ", '"\\"'),
    ]
)


@examples(15)
@given(st.lists(st.tuples(_repeated, st.sampled_from([1, 2, 49, 65_536])), min_size=1, max_size=4))
def test_no_repetition_costs_more_than_a_moment(pieces: list[tuple[str, int]]) -> None:
    """A file as large as it may be, of a pattern that repeats itself."""
    pattern = "".join(piece * count for piece, count in pieces).encode()
    most = textfile.MAX_BYTES
    refused((pattern * (most // len(pattern) + 1))[:most])
