"""Lifespans whose ends and beginnings the control plane sees to again where memory was lacking for it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NamedTuple, NoReturn

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
def test_what_could_not_be_begun_is_begun_again(shared: Shared, monkeypatch: pytest.MonkeyPatch, queued: bool) -> None:
    """And opened once, whether or not the plane has got it before memory ran out."""
    call = shared.plane.call

    def lacking(*arguments: object) -> None:
        if queued:
            call(*arguments)  # type: ignore[arg-type]
        raise MemoryError

    with monkeypatch.context() as starved:
        starved.setattr(shared.plane, "call", lacking)
        shared.open(shared.resource)
        shared.loop.pass_time(1)
    assert shared.lifespans.closed
    shared.lifespans.resume()
    shared.loop.pass_time(1)
    assert shared.happened == ["opened", ("told", None)]
    shared.lifespans.close()
    shared.loop.pass_time(1)
    assert shared.lifespans.closed


def test_what_nobody_could_be_told_of_is_not_opened(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wants it open has not got it, and asks again; it is opened once."""

    def lacking(*_: object, **__: object) -> NoReturn:
        raise MemoryError

    with monkeypatch.context() as starved:
        starved.setattr(shared.loop, "call_soon_threadsafe", lacking)
        with pytest.raises(MemoryError):
            shared.open(shared.resource)
    shared.open(shared.resource)
    shared.loop.pass_time(1)
    assert shared.happened == ["opened", ("told", None)]


@pytest.mark.parametrize("call", ["call_soon_threadsafe", "call_soon"])
def test_it_is_opened_and_told_though_memory_is_lacking_on_the_plane(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Where its task begins, and where the control plane is told: nobody else would look again."""
    works = getattr(shared.loop, call)
    shared.open(shared.resource)
    lacks = [MemoryError()] * 2

    def fails_twice(act: object, *arguments: object, **options: object) -> object:
        if lacks and act != shared.plane._take:  # that is the control plane's, which does not insist
            raise lacks.pop()
        return works(act, *arguments, **options)

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


@pytest.mark.parametrize("first", ["well", "broken"])
def test_a_failure_on_opening_is_told_of_its_own_module(shared: Shared, first: str) -> None:
    """Whatever has been opened before it closes; where that fails, too, so is that."""
    before = {"well": well, "broken": shared.broken}[first]
    shared.open(before, second=fails_to_open)
    shared.loop.pass_time(1)
    (told,) = [each[1] for each in shared.happened if isinstance(each, tuple)]
    assert "the lifespan of second raised OSError" in str(told)
    failed = [fields["module"] for fields in shared.to.of(events.LIFESPAN_FAILED)]
    assert failed == (["jobs"] if first == "broken" else [])
    assert shared.lifespans.closed


class Noted:
    """Lifespans that are known by their names, and in which order they open and close."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.lifespans = shared.lifespans
        self.happened = shared.happened
        self.takes_s = 0.0
        self._declared: dict[str, Declared] = {}

    def of(self, *names: str) -> list[Declared]:
        """Those of these modules, the same ones each time."""
        return [self._declared.setdefault(name, Declared(name, self._life(name))) for name in names]

    def _life(self, name: str) -> object:
        async def life() -> AsyncIterator[None]:
            if name == "fails":
                raise OSError(name)
            await asyncio.sleep(3 if name == "slow" else 0)
            self.happened.append(f"{name} opens")
            yield
            await asyncio.sleep(self.takes_s)
            self.happened.append(f"{name} closes")

        return life

    def open(self, *names: str) -> list[object]:
        """What happens when they are to be open, in the next second."""
        return self.after(lambda: self.lifespans.open(self.of(*names), self.shared.told))  # type: ignore[arg-type]

    def retire(self, *needed_by: str, but: tuple[str, ...] = ()) -> list[object]:
        """What happens when only those are of use, but to these runs, and none is in flight."""
        self.lifespans.retire(needed_by, but=self.of(*but))  # type: ignore[arg-type]
        return self.after(lambda: self.lifespans.runs_ended(()) if not needed_by else None)

    def after(self, act: Callable[[], object]) -> list[object]:
        """What happens in the second after this."""
        del self.happened[:]
        act()
        return self.later(1)

    def later(self, after_s: float) -> list[object]:
        """What has happened by then; the module of each fault."""
        self.shared.loop.pass_time(after_s)
        happened = [each for each in self.happened if each != "changed"]
        return [each if isinstance(each, str) else getattr(each[1], "value", "all open") for each in happened]  # type: ignore[index]


@pytest.fixture
def noted(shared: Shared) -> Iterator[Noted]:
    """None is open yet, and none is when the loop closes."""
    yield Noted(shared)
    shared.lifespans.close()
    shared.loop.pass_time(4000)


def test_what_is_open_is_not_opened_again(noted: Noted) -> None:
    """Whether the others open, or one fails: those that have been opened for it are closed, and no more."""
    assert noted.open("a", "b") == ["a opens", "b opens", "all open"]
    assert noted.open("a", "c", "b", "fails") == ["c opens", "c closes", "fails"]
    assert noted.open("c", "b") == ["c opens", "all open"]
    assert noted.lifespans.are_in_use(noted.of("a", "b", "c"))  # type: ignore[arg-type]


def test_only_what_is_of_no_use_any_more_closes(noted: Noted) -> None:
    """The last one first, one after the other; the others stay as they are, until a stop."""
    noted.takes_s = 0.1
    noted.open("a", "b", "c", "d")
    assert noted.retire(but=("c", "a")) == ["d closes", "b closes"]
    assert noted.after(noted.lifespans.close) == ["c closes", "a closes"]
    assert noted.lifespans.closed


def test_one_that_does_not_close_keeps_none_of_another_reload_open(noted: Noted) -> None:
    """Those before it may still be used by it; those that have been in use without it are not."""
    noted.takes_s = 3600
    noted.open("a", "hangs")
    assert noted.retire(but=("a",)) == []
    noted.takes_s = 0
    assert "a closes" in noted.after(noted.lifespans.close)
    assert not noted.lifespans.closed
    noted.lifespans.abandon()
    assert [fields["module"] for fields in noted.shared.to.of(events.LIFESPAN_ABANDONED)] == ["hangs"]


def test_one_that_waits_for_runs_is_in_use_again(noted: Noted) -> None:
    """If it is wanted before they have ended: it is as open as ever."""
    noted.open("a", "b")
    assert noted.retire("run", but=("a",)) == []
    assert not noted.lifespans.are_in_use(noted.of("b"))  # type: ignore[arg-type]
    assert noted.open("a", "b") == ["all open"]
    assert noted.retire(but=("a", "b")) == []
    assert not noted.lifespans.retiring


def test_one_that_is_closing_is_opened_when_that_is_done(noted: Noted) -> None:
    """Its two halves change the same globals; and whoever waits is told where that stands."""
    noted.takes_s = 3
    noted.open("a")
    assert noted.retire() == []
    assert noted.open("a") == []
    assert any(place.endswith("_life.<locals>.life") for place in noted.lifespans.opening_stack())
    assert noted.later(2) == ["a closes", "a opens", "all open"]


def test_one_that_has_not_been_asked_to_close_is_in_use_again(noted: Noted) -> None:
    """Though one behind it takes for ever over that: it is as open as ever."""
    noted.open("a", "hangs")
    noted.takes_s = 3600
    assert noted.retire() == []
    noted.takes_s = 0
    assert noted.open("a") == ["all open"]
    assert noted.lifespans.are_in_use(noted.of("a"))  # type: ignore[arg-type]
    assert noted.after(noted.lifespans.close) == ["a closes"]


def test_what_is_shown_of_an_opening_is_where_a_clean_up_hangs(noted: Noted) -> None:
    """And not the first one, which waits for it to close."""
    noted.open("a")
    noted.takes_s = 3
    noted.open("b", "hangs", "fails")
    stack = noted.lifespans.opening_stack()
    assert any(place.endswith("_life.<locals>.life") for place in stack), stack
    assert noted.later(7) == ["b opens", "hangs opens", "hangs closes", "b closes", "fails"]


def test_one_that_could_not_be_asked_to_close_is_asked_again(noted: Noted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory was lacking before the plane had it."""

    def lacking(*_: object) -> NoReturn:
        raise MemoryError

    noted.open("a")
    with monkeypatch.context() as starved:
        starved.setattr(noted.shared.plane, "call", lacking)
        with pytest.raises(MemoryError):
            noted.lifespans.close()
    assert noted.after(noted.lifespans.close) == ["a closes"]


def test_a_stop_opens_nothing_more(noted: Noted) -> None:
    """Neither what is next, nor what was to be opened when it has closed."""
    noted.takes_s = 3
    noted.open("a")
    noted.retire()
    noted.open("a", "b")
    noted.lifespans.close()
    assert noted.later(10) == ["a closes", "b"]
    assert noted.lifespans.closed


def test_what_has_failed_is_opened_again(noted: Noted) -> None:
    """When it is wanted the next time: it is not open any more."""
    noted.open("a", "b")
    noted.lifespans._lives[0]._task.cancel()  # type: ignore[union-attr]
    noted.shared.loop.pass_time(1)
    assert noted.shared.to.names == ["lifespan.failed"]
    assert not noted.lifespans.are_in_use(noted.of("a"))  # type: ignore[arg-type]
    assert noted.open("a", "b") == ["a opens", "all open"]


def test_one_that_ends_while_the_next_one_opens_is_told(noted: Noted) -> None:
    """They are not all open then; the others that have been opened for it are closed, and those in use are not."""
    noted.open("used")
    assert noted.open("a", "b", "slow") == ["a opens", "b opens"]
    noted.lifespans._lives[2]._task.cancel()  # type: ignore[union-attr]
    assert noted.later(10) == ["a opens", "b opens", "b closes", "a closes", "b"]
    assert noted.lifespans.are_in_use(noted.of("used"))  # type: ignore[arg-type]
    assert noted.retire() == ["used closes"]
    assert noted.lifespans.closed
