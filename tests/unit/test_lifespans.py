"""Lifespans whose ends and beginnings the control plane sees to again where memory was lacking for it."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from jobd import events
from jobd.lifespans import Lifespans
from jobd.plane import JobPlane

from .virtual import Log, VirtualLoop


class Declared(NamedTuple):
    """A lifespan as the loader finds it."""

    module: str
    function: object


class Shared:
    """Lifespans on one virtual loop, and what has become of them."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.to = Log(loop)
        self.plane = JobPlane(loop)
        self.lifespans = Lifespans(self.plane, loop, self.to)
        self.lifespans.on_change = self._changed
        self.happened: list[object] = []
        self.lacks = 0

    async def resource(self) -> AsyncIterator[None]:
        """Say when it is opened, and when closed."""
        self.happened.append("opened")
        yield
        self.happened.append("closed")

    async def broken(self) -> AsyncIterator[None]:
        """Fail when it is closed."""
        yield
        raise ValueError("no")

    def told(self, fault: object) -> None:
        """As who has had them opened."""
        if self.lacks:
            self.lacks -= 1
            raise MemoryError
        self.happened.append(("told", fault))

    def _changed(self) -> None:
        if self.lacks:
            self.lacks -= 1
            raise MemoryError
        self.happened.append("changed")

    def open(self, function: object, **others: object) -> None:
        """Have it opened, as that of the module `jobs`, and others after it by the names of their modules."""
        declared = [Declared(module, each) for module, each in {"jobs": function, **others}.items()]
        self.lifespans.open(declared, self.told)  # type: ignore[arg-type]


@pytest.fixture
def shared(loop: VirtualLoop) -> Shared:
    """On a loop that goes on after a lack of memory, as the control loop does."""
    loop.set_exception_handler(lambda *_: None)
    return Shared(loop)


def test_it_is_told_once_that_they_are_open_and_once_that_they_have_closed(shared: Shared) -> None:
    """However often somebody looks, and though the first attempts to tell have failed."""
    shared.lacks = 1
    shared.open(shared.resource)
    shared.loop.pass_time(1)
    assert shared.happened == ["opened"]
    for _ in range(3):
        shared.lifespans.resume()
    assert shared.happened == ["opened", ("told", None)]
    shared.lacks = 1
    shared.lifespans.close()
    shared.loop.pass_time(1)
    for _ in range(3):
        shared.lifespans.resume()
    assert shared.happened[2:] == ["closed", "changed"]
    assert shared.lifespans.closed


@pytest.mark.parametrize("queued", [True, False])
def test_what_could_not_be_begun_is_not_there(shared: Shared, monkeypatch: pytest.MonkeyPatch, queued: bool) -> None:
    """Whether or not the plane has got it before memory ran out; so who tries again opens it once."""
    call = shared.plane.call

    def lacking(*arguments: object) -> None:
        if queued:
            call(*arguments)  # type: ignore[arg-type]
        raise MemoryError

    with monkeypatch.context() as starved:
        starved.setattr(shared.plane, "call", lacking)
        with pytest.raises(MemoryError):
            shared.open(shared.resource)
    assert shared.lifespans.closed
    shared.open(shared.resource)
    shared.loop.pass_time(1)
    assert shared.happened == ["opened", ("told", None)]
    shared.lifespans.close()
    shared.loop.pass_time(1)
    assert shared.lifespans.closed


@pytest.mark.parametrize("call", ["call_soon_threadsafe", "call_soon"])
def test_it_is_opened_and_told_though_memory_is_lacking_on_the_plane(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Where its task begins, and where the control plane is told: nobody else would look again."""
    works = getattr(shared.loop, call)
    shared.open(shared.resource)
    lacks = [MemoryError()] * 2

    def fails_twice(*arguments: object, **options: object) -> object:
        if lacks:
            raise lacks.pop()
        return works(*arguments, **options)

    monkeypatch.setattr(shared.loop, call, fails_twice)
    shared.loop.pass_time(1)
    assert lacks == []
    assert shared.happened == ["opened", ("told", None)]
    shared.lifespans.close()
    shared.loop.pass_time(1)
    assert shared.lifespans.closed


def test_one_that_cannot_be_begun_at_all_is_told(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job has spoilt asyncio; nobody waits for it for ever."""
    with monkeypatch.context() as spoilt:
        spoilt.setattr(asyncio, "Task", None)
        shared.open(shared.resource)
        shared.loop.pass_time(1)
    (told,) = [each for each in shared.happened if isinstance(each, tuple)]
    assert told[1].failure["error"]["type"] == "TypeError"
    assert shared.lifespans.closed


def test_a_failure_on_closing_is_told_once(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the line could not be made at first."""
    shared.open(shared.broken)
    shared.loop.pass_time(1)
    emit, fails = shared.to.emit, iter([True])

    def fails_once(*arguments: object, **fields: object) -> None:
        if next(fails, False):
            raise MemoryError
        emit(*arguments, **fields)  # type: ignore[arg-type]

    monkeypatch.setattr(shared.to, "emit", fails_once)
    shared.lifespans.close()
    shared.loop.pass_time(1)
    for _ in range(3):
        shared.lifespans.resume()
    assert [line.event for line in shared.to.lines] == ["lifespan.failed"]
    assert shared.lifespans.closed


def test_one_that_has_ended_is_never_abandoned(shared: Shared) -> None:
    """Though the stop comes to its end before anybody has looked: then it is told once how it has closed."""
    shared.open(shared.broken)
    shared.loop.pass_time(1)
    resume, shared.lifespans.resume = shared.lifespans.resume, lambda: None  # type: ignore[method-assign]
    shared.lifespans.close()
    shared.loop.pass_time(1)
    assert shared.lifespans.closed
    shared.lifespans.abandon()
    shared.lifespans.abandon()
    resume()
    assert shared.to.names == ["lifespan.failed"]


async def well() -> AsyncIterator[None]:
    """Nothing goes wrong in it."""
    yield


async def fails_to_open() -> AsyncIterator[None]:
    """Fail when it is opened."""
    raise OSError("no")
    yield


def test_a_failure_on_closing_is_told_of_its_own_module(shared: Shared) -> None:
    """However many have been opened after it."""
    shared.open(shared.broken, second=well)
    shared.loop.pass_time(1)
    shared.lifespans.close()
    shared.loop.pass_time(1)
    assert [fields["module"] for fields in shared.to.of(events.LIFESPAN_FAILED)] == ["jobs"]


@pytest.mark.parametrize(
    ("first", "module", "error"), [("well", "second", "OSError"), ("broken", "jobs", "ValueError")]
)
def test_a_failure_on_opening_is_told_of_its_own_module(shared: Shared, first: str, module: str, error: str) -> None:
    """Unless what has been opened before it fails to close, too: then that is told."""
    before = {"well": well, "broken": shared.broken}[first]
    shared.open(before, second=fails_to_open)
    shared.loop.pass_time(1)
    (told,) = [each[1] for each in shared.happened if isinstance(each, tuple)]
    assert f"the lifespan of {module} raised {error}" in str(told)
