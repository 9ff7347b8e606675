"""Declaring jobs: what `every` takes, what it refuses, and what kind of job a callable is."""

import asyncio
import functools
import math
from typing import Any

import pytest

from jobd import every
from jobd.job import Kind, declared, kind_of
from jobd.schedule import Every


def plain() -> None:
    """A plain function."""


async def coroutine() -> None:
    """A coroutine function."""


class Calling:
    """Instances are plain callables."""

    def __call__(self) -> None:
        """Do nothing."""

    def method(self) -> None:
        """Do nothing."""


class Awaiting:
    """Instances are called like coroutine functions."""

    async def __call__(self) -> None:
        """Do nothing."""

    async def method(self) -> None:
        """Do nothing."""

    @classmethod
    async def of_class(cls) -> None:
        """Do nothing."""

    @staticmethod
    async def static() -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("interval", "seconds"), [("10s", 10), ("1h30m", 5400), ("0.5", 0.5), (10, 10), (0.25, 0.25), ("1ms", 0.001)]
)
def test_a_function_is_declared_a_job(interval: str | float, seconds: float) -> None:
    """With a text as people write durations, or a number of seconds."""

    @every(interval)
    def body() -> None: ...

    found = declared(body)
    assert found
    assert found.schedule == Every(seconds)
    assert found.name is None


def test_a_declared_function_stays_what_it_is() -> None:
    """It can be called and tested like any other."""

    @every("1s", name="adding")
    def body() -> int:
        """Add."""
        return 1 + 1

    assert body() == 2
    assert body.__doc__ == "Add."
    found = declared(body)
    assert found
    assert found.name == "adding"


@pytest.mark.parametrize(
    "interval",
    ["", "soon", "nan", "0", "-1", "1e3", "367d", "0.5ms", 0, -1, 1e-9, 1e308, math.nan, math.inf, 10**400],
    ids=lambda interval: str(interval)[:9],
)
def test_an_interval_that_is_none_is_refused(interval: str | float) -> None:
    """At once, where it is written, with what was written and what would be right."""
    with pytest.raises(ValueError, match=r"every\(.*\): is"):
        every(interval)


def test_a_function_cannot_be_declared_twice() -> None:
    """Two schedules of one function are two jobs, and so two functions."""
    with pytest.raises(ValueError, match="declared a job twice"):
        every("2s")(every("1s")(lambda: None))


@pytest.mark.parametrize("thing", [None, 5, "text", plain, Calling(), Calling, functools.partial(plain), len])
def test_what_is_not_declared_is_not(thing: object) -> None:
    """Whatever a module may hold is looked at without harm."""
    assert declared(thing) is None


def test_a_mark_of_somebody_elses_is_no_declaration() -> None:
    """An attribute of that name is not taken for ours."""

    def body() -> None: ...

    body.__jobd__ = "10s"  # type: ignore[attr-defined]
    assert declared(body) is None


def test_a_wrapper_that_keeps_the_attributes_keeps_the_declaration() -> None:
    """A decorator above `every` that uses `functools.wraps` is a job as well."""

    @every("1s")
    def body() -> None: ...

    @functools.wraps(body)
    def wrapper() -> None:
        body()

    assert declared(wrapper) == declared(body)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (plain, Kind.FUNCTION),
        (coroutine, Kind.COROUTINE),
        (lambda: None, Kind.FUNCTION),
        (functools.partial(plain), Kind.FUNCTION),
        (functools.partial(coroutine), Kind.COROUTINE),
        (functools.partial(functools.partial(coroutine)), Kind.COROUTINE),
        (Calling(), Kind.FUNCTION),
        (Awaiting(), Kind.COROUTINE),
        (functools.partial(Awaiting()), Kind.COROUTINE),
        (Calling().method, Kind.FUNCTION),
        (Awaiting().method, Kind.COROUTINE),
        (Awaiting.of_class, Kind.COROUTINE),
        (Awaiting.static, Kind.COROUTINE),
        (functools.partial(asyncio.sleep, 1), Kind.COROUTINE),
        (print, Kind.FUNCTION),
        (every("1s")(functools.partial(coroutine)), Kind.COROUTINE),
    ],
)
def test_the_kind_of_a_job_is_that_of_its_callable(function: Any, kind: Kind) -> None:
    """What returns a coroutine when it is called runs on the job plane, anything else in a thread."""
    assert kind_of(function) is kind


@pytest.mark.parametrize("interval", [lambda: None, None, ["10s"], object()])
def test_every_without_an_interval_says_how_it_is_written(interval: Any) -> None:
    """`@every` without parentheses is the mistake that everybody makes once."""
    with pytest.raises(TypeError, match=r'@every\("10s"\)'):
        every(interval)
