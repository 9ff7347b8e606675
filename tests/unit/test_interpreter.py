"""What holds for every thread of the interpreter, tried in an interpreter of its own."""

import pytest

from .helpers import python

TAKE = """
import gc, sys, threading, time
from jobd import garbage, interpreter
interpreter.take()
"""


@pytest.mark.parametrize(
    ("attack", "restored"),
    [
        ("sys.setrecursionlimit(60)", "sys.getrecursionlimit() == 1000"),
        ("interpreter._set_switch_interval(1000)", "sys.getswitchinterval() < 0.01"),
        ("sys.settrace(lambda *args: None)", "sys.gettrace() is None"),
        ("sys.setprofile(lambda *args: None)", "sys.getprofile() is None"),
        ("threading.settrace(lambda *args: None)", "threading.gettrace() is None"),
        ("threading.setprofile(lambda *args: None)", "threading.getprofile() is None"),
        ("threading.excepthook = None", "threading.Thread() and threading.excepthook is threading.__excepthook__"),
        ("del threading.excepthook", "threading.excepthook is threading.__excepthook__"),
        ("sys.excepthook = None", "sys.excepthook is sys.__excepthook__"),
        ("sys.unraisablehook = None", "sys.unraisablehook is sys.__unraisablehook__"),
    ],
)
def test_what_was_changed_is_put_back(attack: str, restored: str) -> None:
    """By `keep`, whatever it was."""
    assert python(f"{TAKE}\n{attack}\ninterpreter.keep()\nprint({restored})") == "True\n"


def test_a_higher_recursion_limit_stays() -> None:
    """A job that needs depth may have it."""
    assert (
        python(f"{TAKE}\nsys.setrecursionlimit(5000)\ninterpreter.keep()\nprint(sys.getrecursionlimit())") == "5000\n"
    )


def test_a_hook_of_a_jobs_own_stays() -> None:
    """It is none of our business, as long as there is one."""
    code = "hook = threading.excepthook = lambda args: None\ninterpreter.keep()\nprint(threading.excepthook is hook)"
    assert python(f"{TAKE}\n{code}") == "True\n"


def test_who_traces_the_daemon_from_outside_is_left_alone() -> None:
    """A debugger that was there before us."""
    code = "import sys\ntrace = lambda *args: None\nsys.settrace(trace)\n"
    assert python(f"{code}{TAKE}\ninterpreter.keep()\nprint(sys.gettrace() is trace)") == "True\n"


def test_the_switch_interval_can_only_be_made_shorter() -> None:
    """What `sys.setswitchinterval` is told counts if it is less than jobd's own."""
    code = (
        "for wanted in (1000, 0.0001):\n    sys.setswitchinterval(wanted)\n    print(f'{sys.getswitchinterval():.6f}')"
    )
    assert python(f"{TAKE}\n{code}") == "0.001000\n0.000100\n"


COLLECT = (
    TAKE
    + """
class Dying:
    def __init__(self): self.me = self
    def __del__(self): died.append(threading.current_thread().name)
died = []
collector = garbage.Collector()
def wait_for_death():
    until = time.monotonic() + 20
    while not died and time.monotonic() < until:
        collector.look()
        time.sleep(0.01)
    print(set(died))
"""
)


def test_cyclic_garbage_dies_in_the_collectors_thread() -> None:
    """And not in the one that allocates, however much that is."""
    code = "Dying()\nkept = [[] for _ in range(200_000)]\nprint(died)\nwait_for_death()"
    assert python(COLLECT + code) == "[]\n{'jobd garbage'}\n"


@pytest.mark.parametrize("attack", ["gc.disable()", "gc.set_threshold(1)", "gc.set_threshold(700, 10, 10)"])
def test_collecting_goes_on_whatever_is_done_to_it(attack: str) -> None:
    """The automatic collection stays off, and says that it is on."""
    code = f"{attack}\ncollector.look()\nDying()\nkept = [[] for _ in range(20_000)]\nwait_for_death()\n"
    assert python(COLLECT + code + "print(gc.isenabled(), gc.get_threshold()[0])") == "{'jobd garbage'}\nTrue 0\n"


def test_what_is_dropped_dies_in_the_collectors_thread() -> None:
    """Also where it is no garbage of the cyclic kind, and who has dropped it was the last to hold it."""
    code = """
class Plain:
    def __del__(self): died.append(threading.current_thread().name)
garbage.drop(Plain())
wait_for_death()
"""
    assert python(COLLECT + code) == "{'jobd garbage'}\n"


def test_old_garbage_dies_too() -> None:
    """What has lived through collections of the younger generations is found by one of the oldest."""
    code = """
thing = Dying()
gc.collect()
del thing
until = time.monotonic() + 30
while not died and time.monotonic() < until:
    for _ in range(2_000):
        cycle = []
        cycle.append(cycle)
    collector.look()
    time.sleep(0.001)
print(set(died))
"""
    assert python(COLLECT + code) == "{'jobd garbage'}\n"
