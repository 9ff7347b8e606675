"""From targets to jobs: every fault of every target is reported, and none ends the process."""

import importlib
import itertools
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from jobd import loader, modules
from jobd.errors import Fault, InvalidConfig
from jobd.job import Job, Kind
from jobd.loader import Lifespan, Loaded
from jobd.policy import Overlap, Policies
from jobd.schedule import Every

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _imports() -> Iterator[None]:
    """What a test imports and puts on the path is gone after it."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str], str]:
    """Makes a module with this source; its name."""

    def make(source: str) -> str:
        name = f"jobs_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return make


@pytest.fixture
def load_all(tmp_path: Path) -> Callable[..., Loaded]:
    """Loads targets with the temporary directory as the current one, and 7 s as the default interval."""
    return lambda *targets, fresh=False: loader.load(targets, 7.0, "environment", str(tmp_path), fresh=fresh)


@pytest.fixture
def load(load_all: Callable[..., Loaded]) -> Callable[..., list[Job]]:
    """The jobs of targets."""
    return lambda *targets, **how: load_all(*targets, **how).jobs


@pytest.fixture
def faults(load: Callable[..., list[Job]]) -> Callable[..., list[Fault]]:
    """The faults of targets that have some."""

    def found(*targets: str) -> list[Fault]:
        with pytest.raises(InvalidConfig) as refused:
            load(*targets)
        return refused.value.faults

    return found


Module = Callable[[str], str]
Load = Callable[..., list[Job]]
LoadAll = Callable[..., Loaded]
Faults = Callable[..., list[Fault]]

JOBS = """
from jobd import every
@every("1m")
async def later(): ...
@every("2s", name="named")
def first(): ...
def helper(): ...
async def bare(): ...
"""


#: What was written so long before it is imported was surely written before.
LONG_AGO_S = 0.05


def _write(file: Path, source: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(source)


def test_a_module_gives_the_jobs_that_are_declared_in_it(module: Module, load: Load) -> None:
    """In the order of the code; what is not declared is none."""
    name = module(JOBS)
    jobs = load(name)
    assert [(job.name, job.schedule, job.kind, job.target) for job in jobs] == [
        ("later", Every(60), Kind.COROUTINE, f"{name}:later"),
        ("named", Every(2), Kind.FUNCTION, f"{name}:first"),
    ]


def test_a_function_is_a_job_by_its_own_schedule_or_the_default(module: Module, load: Load) -> None:
    """Named with a colon, it need not be declared."""
    name = module(JOBS)
    jobs = load(f"{name}:bare", f"{name}:first", f"{name}:helper")
    assert [(job.name, job.schedule, job.kind) for job in jobs] == [
        ("bare", Every(7), Kind.COROUTINE),
        ("named", Every(2), Kind.FUNCTION),
        ("helper", Every(7), Kind.FUNCTION),
    ]


def test_jobs_of_another_module_that_are_imported_are_not_taken_twice(module: Module, load: Load) -> None:
    """A module has the jobs that are declared in it, each once, however many names it has."""
    first = module(JOBS)
    second = module(f"from {first} import *\nfrom jobd import every\n@every('1s')\ndef own(): ...\nalias = own\n")
    assert [job.name for job in load(second)] == ["own"]


def test_callables_of_every_kind_are_jobs(module: Module, load: Load) -> None:
    """Methods, partials and instances, each with the name that it has or was named by."""
    name = module(
        "import functools\n"
        "class Thing:\n"
        "    async def __call__(self): ...\n"
        "    def method(self): ...\n"
        "def add(a, b=2): ...\n"
        "thing = Thing()\n"
        "part = functools.partial(add, 1)\n"
        "optional = lambda *args, key=None, **kwargs: None\n"
    )
    jobs = load(f"{name}:thing", f"{name}:thing.method", f"{name}:part", f"{name}:optional")
    assert [(job.name, job.kind) for job in jobs] == [
        ("thing", Kind.COROUTINE),
        ("method", Kind.FUNCTION),
        ("part", Kind.FUNCTION),
        ("<lambda>", Kind.FUNCTION),
    ]


def test_the_current_directory_is_importable_and_comes_first(tmp_path: Path, module: Module, load: Load) -> None:
    """Once, however often something is loaded."""
    load(module(JOBS))
    load(module(JOBS))
    assert sys.path[0] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


def test_a_package_is_a_target_like_any_module(tmp_path: Path, load: Load) -> None:
    """With dots, as in an import."""
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "__init__.py").touch()
    (tmp_path / "packed" / "tasks.py").write_text(JOBS)
    assert len(load("packed.tasks")) == 2


@pytest.mark.parametrize(
    "target",
    ["", ":", ":f", "a b", "a:", "a..b", ".a", "a.", "1a", "a-b", "a/b.py", "../a", "a\0b", "ａ b"],  # noqa: RUF001
)
def test_what_cannot_be_a_target_is_refused(faults: Faults, target: str) -> None:
    """Before anything is imported."""
    (fault,) = faults(target)
    assert (fault.setting, fault.value, fault.source) == ("JOBD_JOBS", target, "environment")
    assert re.search("write (package.module|the module's name)", fault.reason)


def test_a_file_of_jobs_is_a_target_like_any_module(tmp_path: Path, module: Module, load: Load) -> None:
    """Beside others, in their order; the functions that it calls are found like those that a target names."""
    name = module(JOBS)
    (tmp_path / "jobs.toml").write_text(f"[jobs.filed]\ncall = '{name}:bare'\n[jobs.date]\nshell = 'date'\n")
    jobs = load(f"{name}:helper", "jobs.toml", name)
    assert [job.name for job in jobs] == ["helper", "filed", "date", "later", "named"]
    assert [job.target for job in jobs[1:4]] == ["jobs.toml:filed", "jobs.toml:date", f"{name}:later"]


def test_a_file_of_jobs_that_is_missing_is_refused(faults: Faults) -> None:
    """And not taken for a module named toml."""
    assert "there is no such file" in faults("jobs.toml")[0].reason


def test_a_module_that_is_missing_is_told_from_one_that_it_misses(module: Module, faults: Faults) -> None:
    """What is not there is named in both cases."""
    assert "there is no module no_such_module " in faults("no_such_module")[0].reason
    assert "there is no module no_such_module " in faults("no_such_module.deeper:f")[0].reason
    name = module("import not_installed_here")
    assert "it needs the module not_installed_here" in faults(name)[0].reason


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("raise ValueError('at import')", "ValueError"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class Own(BaseException): ...\nraise Own", "Own"),
        ("def broken(:", "SyntaxError"),
        ("raise ImportError('half')", "ImportError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("\0", "SyntaxError"),
        ("from jobd import every\n@every('soon')\ndef f(): ...", "ValueError"),
        ("from jobd import evry", "ImportError"),
    ],
)
def test_a_module_that_raises_is_a_fault_with_its_exception(
    module: Module, faults: Faults, source: str, kind: str
) -> None:
    """Whatever it raises, `sys.exit` included, becomes one fault that still has the traceback."""
    (fault,) = faults(module(source))
    assert "importing" in fault.reason
    assert fault.failure
    assert fault.failure["error"]["type"].rpartition(".")[2] == kind
    assert "Traceback" in fault.failure["traceback"]


def test_a_module_without_jobs_is_a_fault(module: Module, faults: Faults) -> None:
    """A daemon that would sit idle for ever is not started; the reason says how to declare one."""
    name = module("def f(): ...")
    assert f"{name}:function" in faults(name)[0].reason


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "has no missing"),
        ("thing.missing", "has no thing.missing"),
        ("raising.x", "has no raising.x"),
        ("number", "is no job but an int"),
        ("text", "is no job but a str"),
        ("Thing", "is no job but a class"),
        ("needs", r"takes arguments \(a, b\)"),
        ("needs_key", r"takes arguments \(key\)"),
        ("Thing.method", r"takes arguments \(self\)"),
        ("exiting", "has no exiting"),
        ("generating", "is a generator function"),
        ("generating_too", "is a generator function"),
    ],
)
def test_what_is_no_job_is_refused_and_called_what_it_is(
    module: Module, faults: Faults, path: str, reason: str
) -> None:
    """Not when its first tick is due, but at the start."""
    name = module(
        "import sys\n"
        "class Thing:\n    def method(self): ...\n"
        "class Raising:\n    def __getattr__(self, name): raise RuntimeError(name)\n"
        "thing, raising, number, text = Thing(), Raising(), 5, 'text'\n"
        "def needs(a, b, c=3): ...\n"
        "def needs_key(*, key): ...\n"
        "def generating(): yield\n"
        "async def generating_too(): yield\n"
        "def __getattr__(name):\n    if name == 'exiting': sys.exit(3)\n    raise AttributeError(name)\n"
    )
    (fault,) = faults(f"{name}:{path}")
    assert re.search(reason, fault.reason)


def test_things_in_a_module_that_raise_when_they_are_looked_at_do_no_harm(module: Module, load: Load) -> None:
    """Proxies that answer every question with an exception are no jobs, and do not hide those beside them."""
    name = module(
        JOBS + "class Proxy:\n"
        "    def __getattribute__(self, name): raise RuntimeError(name)\n"
        "class Odd:\n"
        "    __dict__ = None\n"
        "proxy, odd = Proxy(), Odd()\n"
    )
    assert [job.name for job in load(name)] == ["later", "named"]


def test_two_jobs_may_not_have_one_name(module: Module, faults: Faults) -> None:
    """The fault names the second target and where the first is from, however often they meet."""
    one, two = module(JOBS), module(JOBS)
    found = faults(one, two)
    assert [fault.value for fault in found] == [two, two]
    assert [name in fault.reason for fault, name in zip(found, ("later", "named"), strict=True)] == [True, True]
    assert all(f"after {one}:" in fault.reason for fault in found)
    assert "named" in faults(one, f"{one}:first")[0].reason


def test_all_faults_of_all_targets_are_reported_at_once(module: Module, faults: Faults) -> None:
    """A good target beside them does not help, and a bad one hides no other."""
    good = module(JOBS)
    found = faults("no_such_module", good, f"{good}:missing", "a b", good)
    assert [fault.value for fault in found] == ["no_such_module", f"{good}:missing", "a b", good, good]


def test_each_function_of_a_module_that_is_no_job_is_a_fault_by_its_name(module: Module, faults: Faults) -> None:
    """A module with two bad functions and a good one has two faults."""
    name = module(
        "from jobd import every\n"
        "@every(1)\ndef yields(): yield\n"
        "@every(1)\ndef good(): pass\n"
        "@every(1)\ndef takes(x): pass\n"
    )
    found = faults(name)
    assert [fault.value for fault in found] == [name, name]
    assert found[0].reason.startswith(f"{name}:yields is a generator function")
    assert found[1].reason.startswith(f"{name}:takes takes arguments (x)")


def test_functions_made_in_a_loop_are_a_job_each(module: Module, load: Load) -> None:
    """They share the name of their `def`, and have one of their own as jobs."""
    name = module(
        "from jobd import every\n"
        "for n in range(3):\n"
        "    @every(1, name=f'job{n}')\n"
        "    def job(): pass\n"
        "    globals()[f'j{n}'] = job\n"
    )
    assert {job.name for job in load(name)} == {"job0", "job1", "job2"}


@pytest.mark.parametrize(
    "nonsense",
    [
        "class Odd:\n    def __getattr__(self, name): raise KeyError(name)\nsys.modules[__name__] = Odd()",
        "class Odd:\n    @property\n    def __dict__(self): raise KeyError\nsys.modules[__name__] = Odd()",
        "class Odd:\n    def __call__(self): ...\n    @property\n    def __name__(self): raise OSError\njob = Odd()",
        "class Odd:\n    def __call__(self): ...\n    def __getattribute__(self, name): raise SystemExit\njob = Odd()",
        "class Odd:\n    def __call__(self): ...\n    __name__ = 5\njob = Odd()",
    ],
    ids=["module", "module without a dict", "name", "everything", "name that is no text"],
)
def test_what_raises_when_it_is_looked_at_is_a_fault(module: Module, faults: Faults, nonsense: str) -> None:
    """And keeps no other fault from being told."""
    name = module(f"import sys\n{nonsense}")
    target = f"{name}:job" if "job = " in nonsense else name
    first, second = faults(target, "no.such.module")
    assert (first.value, second.value) == (target, "no.such.module")


@pytest.mark.parametrize("name", ["", 3, ["a"], b"x"], ids=repr)
def test_a_name_that_is_none_is_refused_where_it_is_given(module: Module, faults: Faults, name: object) -> None:
    """With the line of the decorator."""
    source = module(f"from jobd import every\n@every('1s', name={name!r})\ndef job(): ...")
    (fault,) = faults(source)
    assert fault.failure
    assert fault.failure["error"]["type"] == "TypeError"
    assert "name" in fault.failure["error"]["message"]


def test_a_name_that_no_process_can_be_told_is_refused_where_there_is_one(module: Module, faults: Faults) -> None:
    """Each of its runs would fail; a thread can have any name."""
    source = "from jobd import every\n@every('1s', name='a\\0b', isolation={!r})\ndef job(): ..."
    (fault,) = faults(module(source.format("process")))
    assert "holds a NUL byte" in fault.reason


def test_a_function_has_the_policies_that_it_declares(module: Module, load: Load) -> None:
    """One that declares none has none."""
    name = module(
        "from jobd import cron, every\n"
        "@every(60, timeout='5s', overlap='skip')\nasync def first(): ...\n"
        "@cron('@daily', retries=2)\ndef second(): ...\n"
        "def third(): ...\n"
    )
    assert [job.policies for job in load(name, f"{name}:third")] == [
        Policies(timeout=5.0, overlap=Overlap.SKIP),
        Policies(retries=2),
        Policies(),
    ]


def test_two_modules_may_have_calendars(module: Module, load: Load) -> None:
    """What the first one makes jobd import does not take the decorator's name."""
    source = "from jobd import cron\n@cron('@daily', name=__name__)\ndef job(): ...\n"
    assert len(load(module(source), module(source))) == 2


ISOLATED = """
import functools
from jobd import every
class Thing:
    def method(self): ...
isolated = every(1, isolation="process")
@isolated
def plain(): ...
@isolated
async def coroutine(): ...
def outer():
    def inner(): ...
    return inner
inner = isolated(outer())
part = isolated(functools.partial(plain))
anonymous = isolated(lambda: None)
@isolated
def twice(): ...
@every(1, isolation="process", name="again")
def twice_(): ...
twice, twice_.__qualname__ = twice_, "twice"
first = twice_
@isolated
def hidden(): ...
other, hidden = hidden, None
"""


def test_an_isolated_function_is_run_in_a_process(module: Module, load: Load) -> None:
    """By its declaration, also if it is named."""
    name = module(ISOLATED)
    assert [(job.name, job.kind) for job in load(f"{name}:plain")] == [("plain", Kind.PROCESS)]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("coroutine", "is a coroutine function, and isolation is for plain functions; "),
        ("inner", "is outer.<locals>.inner, which no other interpreter can import; "),
        ("anonymous", "is <lambda>, which no other interpreter can import; "),
        ("part", "is a partial, which no other interpreter can import; "),
        ("other", "is not what another interpreter imports as jobs_[0-9]+:hidden; "),
    ],
)
def test_what_cannot_be_isolated_is_refused(module: Module, faults: Faults, path: str, reason: str) -> None:
    """Before its first run fails, and with what is in the way."""
    (fault,) = faults(f"{module(ISOLATED)}:{path}")
    assert re.match(reason, fault.reason)


SHARED = JOBS + "from jobd import lifespan\n@lifespan\nasync def shared(): yield\nalias = shared\n"


def test_lifespans_are_those_of_the_modules_that_are_named(tmp_path: Path, module: Module, load_all: LoadAll) -> None:
    """In the order of the targets, each once; not those that a module has imported, and none is a job."""
    one, two, three, four = module(SHARED), module(SHARED), module(SHARED), module(JOBS)
    importing = module(f"from {four} import *\nfrom {three} import shared\ndef job(): ...\n")
    (tmp_path / "jobs.toml").write_text(f"[jobs.a]\ncall = '{three}:helper'\n[jobs.b]\ncall = '{one}:bare'\n")
    loaded = load_all(f"{two}:bare", "jobs.toml", f"{importing}:job", two)
    assert loaded.lifespans == [Lifespan(name, sys.modules[name].shared) for name in (two, three, one)]
    assert [job.name for job in loaded.jobs] == ["bare", "a", "b", "job", "later", "named"]


def test_a_module_has_one_lifespan_at_most(tmp_path: Path, module: Module, faults: Faults) -> None:
    """More are a fault wherever the module is named."""
    name = module(SHARED + "@lifespan\nasync def more(): yield\n")
    (tmp_path / "jobs.toml").write_text(f"[jobs.a]\ncall = '{name}:helper'\n")
    first, second = faults(name, "jobs.toml")
    assert "has 2 lifespans (shared, more); a module has one" in first.reason
    assert (second.reason, second.source) == (first.reason, "jobs.toml line 2")


def test_a_lifespan_is_no_job(module: Module, faults: Faults) -> None:
    """Named, or declared both."""
    name = module(SHARED)
    assert "is a lifespan and no job" in faults(f"{name}:shared")[0].reason
    both = module("from jobd import every, lifespan\n@every(1)\n@lifespan\nasync def shared(): yield\n")
    assert f"{both}:shared is a lifespan and no job" in faults(both)[0].reason


def test_what_has_been_edited_is_imported_afresh_if_asked_for(tmp_path: Path, load: Load) -> None:
    """With all that it imports from the directory, at once, and only then."""
    source = "from jobd import every\nimport fresh_part\n@every(fresh_part.SECONDS)\ndef fresh_job(): ...\n"
    (tmp_path / "fresh_jobs.py").write_text(source)
    part = tmp_path / "fresh_part.py"
    for seconds in range(1, 10):
        part.write_text(f"SECONDS = {seconds}\n")
        (job,) = load("fresh_jobs", fresh=True)
        assert job.schedule == Every(seconds)
    part.write_text("SECONDS = 0\n")
    assert load("fresh_jobs")[0].schedule == Every(9)


def test_after_a_fault_the_earlier_modules_are_back(tmp_path: Path, load: Load, faults: Faults) -> None:
    """All of them, in their packages too; and the next load may be a good one again."""
    (tmp_path / "packed_jobs").mkdir()
    (tmp_path / "packed_jobs" / "__init__.py").touch()
    tasks = tmp_path / "packed_jobs" / "tasks.py"
    tasks.write_text(JOBS)
    (job, _) = load("packed_jobs.tasks")
    package, module = sys.modules["packed_jobs"], sys.modules["packed_jobs.tasks"]
    for broken in ("raise OSError", "from jobd import every\n@every(1)\ndef yields(): yield\n"):
        tasks.write_text(broken)
        with pytest.raises(InvalidConfig):
            load("packed_jobs.tasks", fresh=True)
        assert sys.modules["packed_jobs"] is package
        assert sys.modules["packed_jobs.tasks"] is module is package.tasks
        assert module.later is job.function
    tasks.write_text(JOBS.replace("1m", "2m"))
    assert load("packed_jobs.tasks", fresh=True)[0].schedule == Every(120)
    assert sys.modules["packed_jobs.tasks"] is not module


def test_nothing_of_what_was_refused_is_left(tmp_path: Path, load: Load) -> None:
    """Modules that came with it are imported again with the next load, and no package that stays hands them out."""
    _write(tmp_path / "staying_package" / "__init__.py", JOBS)
    load("staying_package")
    package = sys.modules["staying_package"]
    _write(tmp_path / "coming_package" / "part.py", "")
    _write(
        tmp_path / "coming_package" / "__init__.py", "import coming_package.part, staying_package.part\nraise OSError"
    )
    _write(tmp_path / "staying_package" / "part.py", "")
    with pytest.raises(InvalidConfig):
        load("staying_package", "coming_package", fresh=True)
    assert not {"coming_package", "coming_package.part", "staying_package.part"} & sys.modules.keys()
    assert sys.modules["staying_package"] is package
    assert not hasattr(package, "part")
    source = f"import coming_package.part, staying_package\ncoming_package.part\n{JOBS.replace('named', 'other')}"
    _write(tmp_path / "coming_package" / "__init__.py", source.replace("later", "sooner"))
    assert len(load("staying_package", "coming_package", fresh=True)) == 4


@pytest.mark.parametrize("lacking", ["_users", "_drop_cache"])
def test_what_could_not_be_forgotten_is_all_there(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """Memory was lacking for that, or in the middle of it: the modules of the jobs that run are what they were."""

    def fails(*_: object) -> NoReturn:
        raise MemoryError

    _write(tmp_path / "first_kept.py", JOBS)
    _write(tmp_path / "second_kept.py", JOBS.replace("named", "other").replace("later", "sooner"))
    load("first_kept", "second_kept")
    kept = {name: sys.modules[name] for name in ("first_kept", "second_kept")}
    _write(tmp_path / "first_kept.py", JOBS.replace("1m", "2m"))
    with monkeypatch.context() as starved:
        starved.setattr(modules, lacking, fails)
        with pytest.raises(MemoryError):
            load("first_kept", "second_kept", fresh=True)
    assert {name: sys.modules.get(name) for name in kept} == kept
    load("first_kept", "second_kept", fresh=True)
    assert sys.modules["first_kept"] is not kept["first_kept"]


def test_a_package_without_a_file_is_imported_afresh_like_any_other(tmp_path: Path, load: Load, faults: Faults) -> None:
    """The old one keeps what old code finds in it, and is back after a fault."""
    _write(tmp_path / "bare_package" / "part.py", "SECONDS = 1")
    _write(
        tmp_path / "bare_package" / "tasks.py",
        "from jobd import every\nfrom bare_package import part\n@every(part.SECONDS)\ndef task(): ...\n",
    )
    load("bare_package.tasks")
    package, part = sys.modules["bare_package"], sys.modules["bare_package.part"]
    _write(tmp_path / "bare_package" / "part.py", "SECONDS = None")
    with pytest.raises(InvalidConfig):
        load("bare_package.tasks", fresh=True)
    assert sys.modules["bare_package"] is package
    assert sys.modules["bare_package.part"] is part is package.part
    _write(tmp_path / "bare_package" / "part.py", "SECONDS = 22")
    assert load("bare_package.tasks", fresh=True)[0].schedule == Every(22)
    assert package.part is part
    assert sys.modules["bare_package"].part is not part


def test_a_package_that_is_installed_in_part_gives_the_new_modules(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, load: Load
) -> None:
    """It stays, and so does what is installed; after a fault it has the old ones again."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    sys.path.append(str(elsewhere))
    _write(elsewhere / "shared_package" / "installed.py", "")
    _write(tmp_path / "shared_package" / "part.py", "SECONDS = 1")
    _write(
        tmp_path / "shared_tasks.py",
        "from jobd import every\nfrom shared_package import installed, part\n@every(part.SECONDS)\ndef task(): ...\n",
    )
    load("shared_tasks")
    package, part = sys.modules["shared_package"], sys.modules["shared_package.part"]
    _write(tmp_path / "shared_package" / "part.py", "SECONDS = None")
    with pytest.raises(InvalidConfig):
        load("shared_tasks", fresh=True)
    assert package.part is part
    _write(tmp_path / "shared_package" / "part.py", "SECONDS = 22")
    installed = package.installed
    assert load("shared_tasks", fresh=True)[0].schedule == Every(22)
    assert sys.modules["shared_package"] is package
    assert sys.modules["shared_package.installed"] is installed is package.installed


def test_only_what_lies_in_the_directory_and_was_loaded_is_forgotten(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what somebody else has imported before the first load, what is installed, or what is jobd's own."""
    monkeypatch.setattr(modules._Last, "names", ())
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    installed = tmp_path / "lib" / "site-packages"
    installed.mkdir(parents=True)
    for directory, name in ((elsewhere, "elsewhere_part"), (installed, "installed_part"), (tmp_path, "before_part")):
        (directory / f"{name}.py").touch()
        sys.path.append(str(directory))
    importlib.import_module("before_part")
    (tmp_path / "kept_jobs.py").write_text(
        f"import elsewhere_part, installed_part, before_part, this, jobd.demo\n{JOBS}"
    )
    time.sleep(LONG_AGO_S)
    load("kept_jobs")
    names = ("elsewhere_part", "installed_part", "before_part", "this", "jobd.demo", "jobd.crontab", "kept_jobs")
    before = {name: sys.modules.get(name) for name in names}
    load("kept_jobs", fresh=True)
    assert [name for name in names if sys.modules.get(name) is not before[name]] == []  # nothing has changed
    (tmp_path / "kept_jobs.py").write_text((tmp_path / "kept_jobs.py").read_text() + "\n")
    load("kept_jobs", fresh=True)
    assert [name for name in names if sys.modules.get(name) is not before[name]] == ["kept_jobs"]


def test_what_a_run_has_imported_is_imported_afresh_too(tmp_path: Path, load: Load) -> None:
    """If it has changed, whatever its file says of when; and if it has not, nothing is."""
    late = tmp_path / "late_part.py"
    for file in (late, tmp_path / "early_jobs.py"):
        file.write_text(JOBS)
    time.sleep(LONG_AGO_S)
    load("early_jobs")
    for said in (None, (1, 1)):
        part = importlib.import_module("late_part")
        load("early_jobs", fresh=True)
        load("early_jobs", fresh=True)
        assert sys.modules["late_part"] is part
        late.write_text(f"{JOBS}\n")
        if said:
            os.utime(late, said)
        jobs = sys.modules["early_jobs"]
        load("early_jobs", fresh=True)
        assert "late_part" not in sys.modules
        assert sys.modules["early_jobs"] is not jobs
        time.sleep(LONG_AGO_S)
        load("early_jobs", fresh=True)


def test_what_was_refused_is_imported_again_though_its_file_is_the_same(tmp_path: Path, load: Load) -> None:
    """Those that were put back are as they were imported, and not as their files are now."""
    _write(tmp_path / "cause_part.py", "")
    _write(tmp_path / "same_jobs.py", JOBS)
    load("same_jobs")
    _write(tmp_path / "same_jobs.py", f"import cause_part\ncause_part.cause\n{JOBS.replace('1m', '2m')}")
    time.sleep(LONG_AGO_S)
    with pytest.raises(InvalidConfig):
        load("same_jobs", fresh=True)
    time.sleep(LONG_AGO_S)
    _write(tmp_path / "cause_part.py", "cause = 1")
    assert load("same_jobs", fresh=True)[0].schedule == Every(120)


def test_a_run_that_imports_a_module_at_that_moment_gets_it(tmp_path: Path, load: Load) -> None:
    """It is left where the thread will look for it, though others are imported afresh."""
    gate: Any = ModuleType("gate_part")
    gate.begun, gate.go_on = threading.Event(), threading.Event()
    sys.modules["gate_part"] = gate
    _write(tmp_path / "first_jobs.py", JOBS)
    _write(tmp_path / "slow_part.py", "import gate_part\ngate_part.begun.set()\nassert gate_part.go_on.wait(20)\n")
    load("first_jobs")
    with ThreadPoolExecutor(1) as runs:
        imported = runs.submit(importlib.import_module, "slow_part")
        assert gate.begun.wait(20)
        for seconds, refused in ((120, False), (180, True)):
            _write(tmp_path / "first_jobs.py", JOBS.replace("1m", f"{seconds}s"))
            with pytest.raises(InvalidConfig) if refused else nullcontext():
                load("first_jobs", *["nowhere"] * refused, fresh=True)
        gate.go_on.set()
        assert imported.result() is sys.modules["slow_part"]


def test_modules_of_python_itself_are_nobodys_to_forget() -> None:
    """Also where jobd runs in the root of all directories, as in many a container."""
    assert modules._users(["asyncio.events", __name__], "/") == [__name__]


@pytest.mark.parametrize("prefix", [".", ".."])
def test_a_directory_in_an_environment_is_read_again_like_any_other(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """As is `/usr/src/app` where Python is in `/usr`, and any directory that an environment was made in itself."""
    monkeypatch.setattr(sys, "prefix", str((tmp_path / prefix).resolve()))
    _write(tmp_path / "site-packages" / "installed_there.py", "")
    sys.path.append(str(tmp_path / "site-packages"))
    _write(tmp_path / "jobs_there.py", f"import installed_there, asyncio.events\n{JOBS}")
    load("jobs_there")
    before = {name: sys.modules[name] for name in ("installed_there", "asyncio.events", "jobs_there")}
    _write(tmp_path / "jobs_there.py", f"import installed_there, asyncio.events\n{JOBS.replace('1m', '2m')}")
    assert load("jobs_there", fresh=True)[0].schedule == Every(120)
    assert [name for name in before if sys.modules[name] is not before[name]] == ["jobs_there"]
