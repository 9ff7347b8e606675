"""The timetable holds on to nothing that it has done or will not do."""

import gc
import weakref

import pytest

from jobd.timetable import Timetable

from .virtual import VirtualLoop


class Work:
    """Something to be done that somebody else may hold, too."""

    def __call__(self) -> None: ...


@pytest.mark.parametrize("called_off", [False, True])
def test_work_is_let_go_of_when_it_is_over(loop: VirtualLoop, called_off: bool) -> None:
    """Done or called off: it may hold a run, its job, and all that a module has, though its hour is far away."""
    timetable = Timetable(loop)
    work = Work()
    seen = weakref.ref(work)
    timer = timetable.after(86_400 if called_off else 1, work)
    del work
    if called_off:
        timetable.call_off(timer)
    else:
        loop.pass_time(2)
    gc.collect()
    assert seen() is None
    assert timer.over
