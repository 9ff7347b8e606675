"""Reading everything again, where the machine gives no thread, no memory, or a thread that dies before it has begun."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

import pytest

from jobd import faults, reload
from jobd.errors import Fault, InvalidConfig
from jobd.job import Job, Kind
from jobd.lifespans import Opened
from jobd.loader import Lifespan, Loaded
from jobd.plane import JobPlane
from jobd.schedule import Every
from jobd.settings import Settings

from .helpers import job_of
from .virtual import Log, VirtualLoop, virtual_loop

LIFESPAN = cast(Lifespan, object())


class Starved:
    """A reload whose threads and whose daemon are as the test wants them."""

    def __init__(self, loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = loop
        self.to = Log(loop)
        self.used: list[Loaded] = []
        self.works: list[Callable[[], Any]] = []
        #: So often the daemon has no memory for what is new.
        self.lacks = 0
        self.in_use = Loaded([], [])
        self.read: Loaded | BaseException = Loaded([job_of()], [])
        self.runs = True
        #: Who is to be told that lifespans have opened, and how often there is no memory to open them.
        self.opened: Opened = lambda fault: None
        self.lacks_opening = 0
        monkeypatch.setattr(reload, "start_new_thread", lambda work, given: self.works.append(lambda: work(*given)))
        self.reload = reload.Reload(
            loop=loop,
            to=self.to,
            notifier=self,  # type: ignore[arg-type]
            plane=JobPlane(loop),
            lifespans=self,  # type: ignore[arg-type]
            read=self._read,
            may_use=lambda: self.runs,
            in_use=lambda: self.in_use,
            use=self._use,
        )

    def _read(self) -> reload.Read:
        if isinstance(self.read, BaseException):
            raise self.read
        return cast(Settings, None), self.read

    def _use(self, _: Settings, loaded: Loaded) -> None:
        if self.lacks:
            self.lacks -= 1
            raise MemoryError
        self.used.append(loaded)
        self.in_use = loaded

    def open(self, lifespans: Sequence[object], opened: Opened) -> None:
        """As `Lifespans.open`."""
        assert lifespans
        if self.lacks_opening:
            self.lacks_opening -= 1
            raise MemoryError
        self.opened = opened

    def are_in_use(self, lifespans: Sequence[Lifespan]) -> bool:
        """As `Lifespans.are_in_use`."""
        return all(each in self.in_use.lifespans for each in lifespans)

    def opening_stack(self) -> list[str]:
        """As `Lifespans.opening_stack`."""
        return ["where it opens"]

    def read_up(self) -> None:
        """Ask for a reload, and let its thread do its work."""
        self.reload.ask()
        self.begin_thread()

    def starve(self, times: int) -> None:
        """Go on as the daemon does after a lack of memory, which comes again so many times."""
        for _ in range(times):
            with pytest.raises(MemoryError):
                self.reload.resume()
        self.reload.resume()

    def reloading(self) -> None:
        """Nobody listens."""

    def ready(self) -> None:
        """Nobody listens."""

    def begin_thread(self) -> None:
        """Let the thread that was started last do its work, as one that it is waited for."""
        thread = threading.Thread(target=self.works.pop())
        thread.start()
        thread.join()

    @property
    def told(self) -> list[str]:
        """The events that the log was told."""
        return [line.event for line in self.to.lines]


@pytest.fixture
def starved(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One on a loop of its own."""
    with virtual_loop() as loop:
        yield Starved(loop, monkeypatch)


def test_what_is_read_is_used(starved: Starved) -> None:
    """Where nothing is lacking: once, and told."""
    starved.reload.ask()
    starved.begin_thread()
    starved.loop.pass_time(100)
    assert [job.name for job in starved.used[0].jobs] == ["job"]
    assert starved.told == ["daemon.reloaded"]
    assert starved.to.lines[0].fields["added"] == ["job"]


def test_a_thread_that_dies_before_it_has_begun_is_not_waited_for(starved: Starved) -> None:
    """The reload is refused; the next one has another thread, and the first does not disturb it, should that wake."""
    starved.reload.ask()
    late = starved.works.pop()
    starved.loop.pass_time(reload.TELL_AFTER_S + 1)
    assert starved.told == ["config.invalid", "reload.refused"]
    assert starved.to.lines[0].fields["error"]["type"] == "MemoryError"
    starved.reload.ask()
    late()
    starved.loop.pass_time(1)
    assert starved.told == ["config.invalid", "reload.refused"]
    starved.begin_thread()
    starved.loop.pass_time(1)
    assert starved.told[2:] == ["daemon.reloaded"]


def test_without_a_thread_it_is_refused_at_once(starved: Starved, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what has been asked for meanwhile is no less."""

    def none_left(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as no_threads:
        no_threads.setattr(reload, "start_new_thread", none_left)
        starved.reload.ask()
    assert starved.told == ["config.invalid", "reload.refused"]
    starved.reload.ask()
    starved.begin_thread()
    starved.loop.pass_time(1)
    assert starved.told[2:] == ["daemon.reloaded"]


def test_without_any_memory_it_is_refused_all_the_same(starved: Starved, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to begin, nor to say why; and the next one is not kept waiting for it."""

    def lacking(*_: object) -> NoReturn:
        raise MemoryError

    with monkeypatch.context() as starving:
        starving.setattr(reload, "allocate_lock", lacking)
        starving.setattr(faults, "of_reload", lacking)
        starved.reload.ask()
    assert starved.told == ["config.invalid", "reload.refused"]
    starved.read_up()
    starved.loop.pass_time(1)
    assert starved.told[2:] == ["daemon.reloaded"]


def test_what_has_been_read_is_not_lost_for_want_of_memory(starved: Starved) -> None:
    """Whoever takes up what is left undone takes this up, too; once."""
    starved.lacks = 2
    starved.read_up()
    starved.starve(2)
    starved.reload.resume()
    assert len(starved.used) == 1
    assert starved.told == ["daemon.reloaded"]


@pytest.mark.parametrize("lacking", [1, 2, 3])
def test_no_line_of_a_reload_is_lost_or_told_twice(
    starved: Starved, monkeypatch: pytest.MonkeyPatch, lacking: int
) -> None:
    """Each fault once, then that it is refused; each change once."""
    emit, calls = starved.to.emit, iter(range(1, 100))

    def fails_once(*arguments: Any, **fields: Any) -> None:
        if next(calls) == lacking:
            raise MemoryError
        emit(*arguments, **fields)

    monkeypatch.setattr(starved.to, "emit", fails_once)
    starved.read = InvalidConfig([Fault("JOBD_JOBS", each, "here", "is wrong") for each in ("one", "two")])
    starved.read_up()
    starved.starve(1)
    assert starved.told == ["config.invalid", "config.invalid", "reload.refused"]
    assert [line.fields["value"] for line in starved.to.lines[:2]] == ["one", "two"]


def test_a_change_is_told_as_it_was_even_if_telling_it_fails(starved: Starved, monkeypatch: pytest.MonkeyPatch) -> None:
    """By then the new jobs are in use, and nothing would be new any more."""
    emit, fails = starved.to.emit, iter([True])

    def fails_once(*arguments: Any, **fields: Any) -> None:
        if next(fails, False):
            raise MemoryError
        emit(*arguments, **fields)

    monkeypatch.setattr(starved.to, "emit", fails_once)
    starved.read_up()
    starved.starve(1)
    assert [(line.event, line.fields["added"]) for line in starved.to.lines] == [("daemon.reloaded", ["job"])]


def test_lifespans_are_opened_once_and_then_the_jobs_are_used(starved: Starved) -> None:
    """Wherever memory is lacking in between; and the next reload goes its own way."""
    starved.read = Loaded([job_of()], [LIFESPAN])
    starved.lacks_opening, starved.lacks = 1, 1
    starved.read_up()
    starved.starve(1)
    assert starved.used == []
    starved.opened(None)
    starved.starve(1)
    assert len(starved.used) == 1
    assert starved.told == ["daemon.reloaded"]
    starved.read_up()
    starved.loop.pass_time(1)
    assert starved.told == ["daemon.reloaded"] * 2


def test_who_tells_twice_that_lifespans_are_open_does_no_harm(
    starved: Starved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because memory was lacking the first time, after it had been heard."""
    starved.read = Loaded([job_of()], [LIFESPAN])
    starved.read_up()
    starved.loop.pass_time(1)

    def lacking(*_: object, **__: object) -> NoReturn:
        raise MemoryError

    with monkeypatch.context() as starving:
        starving.setattr(starved.loop, "call_soon", lacking)
        with pytest.raises(MemoryError):
            starved.opened(None)
    starved.reload.resume()
    starved.opened(None)
    starved.loop.pass_time(1)
    assert starved.told == ["daemon.reloaded"]
    assert len(starved.used) == 1


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_lifespan_that_fails_to_open_refuses_the_reload(
    starved: Starved, monkeypatch: pytest.MonkeyPatch, lacking: int
) -> None:
    """And what was in use is still; whatever the new modules have brought is taken back, once."""
    taken_back: list[None] = []
    starved.read = Loaded([job_of()], [LIFESPAN], lambda: taken_back.append(None))
    call, fails = starved.reload._plane.call, [MemoryError] * lacking

    def fails_after_all(*arguments: Any) -> None:
        call(*arguments)
        if fails:
            raise fails.pop()

    monkeypatch.setattr(starved.reload._plane, "call", fails_after_all)
    starved.read_up()
    starved.loop.pass_time(1)
    starved.opened(Fault("JOBD_JOBS", "jobs", "lifespan", "no"))
    starved.loop.set_exception_handler(lambda *_: None)
    starved.loop.pass_time(1)
    starved.reload.resume()
    starved.loop.pass_time(1)
    assert starved.told == ["config.invalid", "reload.refused"]
    assert (starved.used, len(taken_back)) == ([], 1)


def test_a_lifespan_that_takes_long_to_open_is_told_in_longer_and_longer_intervals(starved: Starved) -> None:
    """With the place where it stands; until it is open, or cannot be."""
    starved.read = Loaded([job_of()], [LIFESPAN])
    starved.read_up()
    starved.loop.pass_time(36)
    starved.opened(None)
    starved.loop.pass_time(100)
    assert [line.fields.get("waited_s") for line in starved.to.lines] == [5, 10, 20, None]
    assert starved.to.lines[0].fields["stack"] == ["where it opens"]
    assert starved.told[-1] == "daemon.reloaded"


def test_a_stop_ends_a_reload_without_a_word(starved: Starved) -> None:
    """What has been read meanwhile is not used, and nothing is said to wait for it."""
    starved.reload.ask()
    starved.runs = False
    starved.begin_thread()
    starved.loop.pass_time(100)
    assert starved.used == []
    assert starved.told == []


def test_a_reload_that_takes_long_is_told_in_longer_and_longer_intervals(starved: Starved) -> None:
    """Of a thread that has begun."""
    begun, go_on = threading.Event(), threading.Event()

    def read() -> reload.Read:
        begun.set()
        assert go_on.wait(20)
        return cast(Settings, None), Loaded([], [])

    starved.reload._read = read
    starved.reload.ask()
    thread = threading.Thread(target=starved.works.pop())
    thread.start()
    assert begun.wait(20)
    starved.loop.pass_time(36)
    go_on.set()
    thread.join()
    starved.loop.pass_time(100)
    assert [line.fields.get("waited_s") for line in starved.to.lines] == [5, 10, 20, None]
    assert starved.told[-1] == "daemon.reloaded"
    assert any(each.endswith(".read") for each in starved.to.lines[0].fields["stack"])


def test_handing_over_is_tried_until_there_is_memory(starved: Starved, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would know otherwise that it has been read."""
    hand_over, failed = starved.loop.call_soon_threadsafe, iter([True, True, False])

    def lacking(*arguments: Any, **options: Any) -> Any:
        if next(failed):
            raise MemoryError
        return hand_over(*arguments, **options)

    monkeypatch.setattr(starved.loop, "call_soon_threadsafe", lacking)
    starved.reload.ask()
    starved.begin_thread()
    starved.loop.pass_time(1)
    assert starved.told == ["daemon.reloaded"]
    assert next(failed, None) is None


class Rude:
    """A callable that cannot be compared, nor asked for anything."""

    async def __call__(self) -> None: ...

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = object.__hash__

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)


def test_callables_of_users_are_not_asked_whether_they_have_changed() -> None:
    """Another object is another job; and what a module shares is the same only where it is the same object."""
    one, other = Rude(), Rude()
    jobs = [Job("job", Every(1), function, Kind.COROUTINE, "jobs") for function in (one, one, other)]
    assert reload.difference(jobs[:1], jobs[1:2]) == reload.Difference([], [], [])
    assert reload.difference(jobs[:1], jobs[2:]) == reload.Difference([], ["job"], [])
    assert Lifespan("jobs", one) == Lifespan("jobs", one)
    assert Lifespan("jobs", one) != Lifespan("jobs", other)


def test_a_method_with_the_same_code_has_not_changed() -> None:
    """It is another object each time that somebody asks for it."""

    class Poller:
        def poll(self) -> None: ...

    poller = Poller()
    jobs = [Job("job", Every(1), function, Kind.FUNCTION, "jobs") for function in (poller.poll, poller.poll)]
    assert jobs[0].function is not jobs[1].function
    assert reload.difference(jobs[:1], jobs[1:]) == reload.Difference([], [], [])
