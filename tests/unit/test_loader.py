"""From targets to jobs: every fault of every target is reported, and none ends the process."""

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobd import loader
from jobd.errors import Fault, InvalidConfig
from jobd.job import Job, Kind

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
def load(tmp_path: Path) -> Callable[..., list[Job]]:
    """Loads targets with the temporary directory as the current one, and 7 s as the default interval."""
    return lambda *targets: loader.load(targets, 7.0, "environment", str(tmp_path))


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


def test_a_module_gives_the_jobs_that_are_declared_in_it(module: Module, load: Load) -> None:
    """In the order of the code; what is not declared is none."""
    name = module(JOBS)
    jobs = load(name)
    assert [(job.name, job.schedule.interval_s, job.kind, job.target) for job in jobs] == [
        ("later", 60, Kind.COROUTINE, f"{name}:later"),
        ("named", 2, Kind.FUNCTION, f"{name}:first"),
    ]


def test_a_function_is_a_job_by_its_own_schedule_or_the_default(module: Module, load: Load) -> None:
    """Named with a colon, it need not be declared."""
    name = module(JOBS)
    jobs = load(f"{name}:bare", f"{name}:first", f"{name}:helper")
    assert [(job.name, job.schedule.interval_s, job.kind) for job in jobs] == [
        ("bare", 7, Kind.COROUTINE),
        ("named", 2, Kind.FUNCTION),
        ("helper", 7, Kind.FUNCTION),
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


def test_a_file_of_jobs_is_refused_by_this_version(faults: Faults) -> None:
    """And not taken for a module named toml."""
    assert "cannot read" in faults("jobs.toml")[0].reason


def test_a_module_that_is_missing_is_told_from_one_that_it_misses(module: Module, faults: Faults) -> None:
    """What is not there is named in both cases."""
    assert "there is no module no_such_module " in faults("no_such_module")[0].reason
    assert "there is no module no_such_module " in faults("no_such_module.deeper:f")[0].reason
    name = module("import not_installed_here")
    assert "it needs the module not_installed_here" in faults(name)[0].reason


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("raise ValueError('at import')", ValueError),
        ("import sys; sys.exit(3)", SystemExit),
        ("raise KeyboardInterrupt", KeyboardInterrupt),
        ("class Own(BaseException): ...\nraise Own", BaseException),
        ("def broken(:", SyntaxError),
        ("raise ImportError('half')", ImportError),
        ("def f(): f()\nf()", RecursionError),
        ("\0", (ValueError, SyntaxError)),
        ("from jobd import every\n@every('soon')\ndef f(): ...", ValueError),
        ("from jobd import evry", ImportError),
    ],
)
def test_a_module_that_raises_is_a_fault_with_its_exception(
    module: Module, faults: Faults, source: str, kind: type[BaseException]
) -> None:
    """Whatever it raises, `sys.exit` included, becomes one fault that still has the traceback."""
    (fault,) = faults(module(source))
    assert "importing" in fault.reason
    assert isinstance(fault.exception, kind)


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
    assert isinstance(fault.exception, TypeError)
    assert "name" in str(fault.exception)
