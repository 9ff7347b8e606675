"""An agenda: work that is done at its time, and is not lost where it fails for want of memory."""

import pytest

from jobd.agenda import Agenda

from .virtual import VirtualLoop


class Starving:
    """Work that fails for want of memory so many times before it is done."""

    def __init__(self, loop: VirtualLoop, times: int = 0) -> None:
        self.times = times
        self.done_at: list[float] = []
        self._loop = loop

    def __call__(self) -> None:
        if self.times:
            self.times -= 1
            raise MemoryError
        self.done_at.append(self._loop.time())


def test_work_is_done_once_at_its_time(loop: VirtualLoop) -> None:
    """In the order of time, not of entry."""
    agenda, first, second = Agenda(loop), Starving(loop), Starving(loop)
    agenda.after(2, "second", second)
    agenda.after(1, "first", first)
    loop.run_out()
    assert (first.done_at, second.done_at) == ([1], [2])
    assert not agenda.has("first")


def test_an_entry_takes_the_place_of_one_of_its_name(loop: VirtualLoop) -> None:
    """Earlier or later."""
    agenda, old, new = Agenda(loop), Starving(loop), Starving(loop)
    agenda.after(5, "look", old)
    agenda.after(1, "look", new)
    agenda.after(3, "look", new)
    loop.run_out()
    assert (old.done_at, new.done_at) == ([], [3])


def test_what_is_cleared_is_not_done(loop: VirtualLoop) -> None:
    """Nor does a timer of it stay."""
    agenda, work = Agenda(loop), Starving(loop)
    agenda.after(1, "look", work)
    agenda.clear()
    loop.run_out()
    assert work.done_at == []


def test_work_may_enter_itself_anew(loop: VirtualLoop) -> None:
    """That is how something is done again and again."""
    agenda = Agenda(loop)
    at: list[float] = []

    def work() -> None:
        at.append(loop.time())
        if len(at) < 3:
            agenda.after(10, "again", work)

    agenda.after(0, "again", work)
    loop.run_out()
    assert at == [0, 10, 20]


def test_work_that_lacks_memory_stays_due_and_lets_the_others_pass(loop: VirtualLoop) -> None:
    """The lack is raised once all that is due has been tried; `resume` tries again."""
    agenda, starving, other = Agenda(loop), Starving(loop, times=2), Starving(loop)
    agenda.after(0, "starving", starving)
    agenda.after(0, "other", other)
    for _ in range(2):
        with pytest.raises(MemoryError):
            agenda.resume()
    assert (starving.done_at, other.done_at) == ([], [0])
    agenda.resume()
    agenda.resume()
    assert starving.done_at == other.done_at == [0]


def test_resume_arms_a_timer_that_got_lost(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop may have had no memory for it when the entry was made."""
    agenda, work = Agenda(loop), Starving(loop)

    def starved(*args: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "call_at", starved)
        with pytest.raises(MemoryError):
            agenda.after(1, "look", work)
    agenda.resume()
    loop.run_out()
    assert work.done_at == [1]


def test_work_that_is_faulty_is_not_tried_again(loop: VirtualLoop) -> None:
    """It would fail for ever; the fault is raised, and what else is entered stays."""
    agenda, other = Agenda(loop), Starving(loop)

    def broken() -> None:
        raise RuntimeError("broken")

    agenda.after(0, "broken", broken)
    agenda.after(1, "other", other)
    with pytest.raises(RuntimeError):
        agenda.resume()
    agenda.resume()
    loop.run_out()
    assert other.done_at == [1]
