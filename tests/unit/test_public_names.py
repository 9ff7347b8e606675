"""The public face: what `import jobd` gives, and what it must not cost."""

import pathlib
import re

import pytest

import jobd

from .helpers import python


def test_the_public_names_are_these() -> None:
    """A name more or less is a decision."""
    assert sorted(jobd.__all__) == ["Run", "__version__", "cron", "current_run", "every", "lifespan"]


@pytest.mark.parametrize("name", jobd.__all__)
def test_each_public_name_is_there(name: str) -> None:
    """Each can be got, and `dir` shows it."""
    assert getattr(jobd, name) is not None
    assert name in dir(jobd)


def test_the_names_are_the_things_themselves() -> None:
    """There is one object for each, wherever it is imported from."""
    from jobd import current_run, every, job, run

    assert (every, current_run, jobd.Run) == (job.every, run.current_run, run.Run)


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    """As with any module, so that `hasattr` and typing errors work as everywhere."""
    with pytest.raises(AttributeError, match="no attribute 'evry'"):
        _ = jobd.evry


def test_importing_the_package_imports_nothing_heavy() -> None:
    """Until the signals are caught, every millisecond is one in which a SIGTERM kills the daemon silently."""
    code = "import sys, jobd, jobd.__main__, jobd.signals; print(*sys.modules)"
    loaded = set(python(code).split())
    assert "jobd.signals" in loaded
    assert not loaded & {"asyncio", "structlog", "orjson", "dotenv", "logging", "typing", "argparse", "threading"}


def test_declaring_a_job_imports_neither_log_nor_daemon() -> None:
    """A module of jobs can be imported and tested without the machinery of the daemon."""
    loaded = set(python("import sys; from jobd import every, current_run; print(*sys.modules)").split())
    assert not loaded & {"structlog", "orjson", "dotenv", "jobd.log", "jobd.daemon", "jobd.runner"}


def test_no_module_imports_from_the_package_root_but_the_version() -> None:
    """Inside the package, modules are imported, not the lazy names of the root."""
    for path in pathlib.Path(jobd.__file__).parent.glob("*.py"):
        for names in re.findall(r"^ *from jobd import (\([^)]*\)|.*)", path.read_text(), re.MULTILINE):
            assert not set(re.findall(r"\w+", names)) & {"every", "current_run", "Run"}, path.name
