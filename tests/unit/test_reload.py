"""Reading everything again, where the machine gives no thread, no memory, or a thread that dies before it has begun."""

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from jobd import reload
from jobd.loader import Loaded
from jobd.settings import Settings

from .helpers import job_of
from .virtual import Log, VirtualLoop, virtual_loop


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
        monkeypatch.setattr(reload, "start_new_thread", lambda work, given: self.works.append(lambda: work(*given)))
        self.reload = reload.Reload(
            loop=loop,
            to=self.to,
            notifier=self,  # type: ignore[arg-type]
            lifespans=None,  # type: ignore[arg-type]
            read=lambda: (cast(Settings, None), Loaded([job_of()], [])),
            may_use=lambda: True,
            in_use=lambda: self.in_use,
            use=self._use,
        )

    def _use(self, _: Settings, loaded: Loaded) -> None:
        if self.lacks:
            self.lacks -= 1
            raise MemoryError
        self.used.append(loaded)

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


def test_what_has_been_read_is_not_lost_for_want_of_memory(starved: Starved) -> None:
    """Whoever takes up what is left undone takes this up, too; once."""
    starved.lacks = 2
    starved.reload.ask()
    starved.begin_thread()
    for _ in range(2):
        with pytest.raises(MemoryError):
            starved.reload.resume()
    starved.reload.resume()
    starved.reload.resume()
    assert len(starved.used) == 1
    assert starved.told == ["daemon.reloaded"]


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
