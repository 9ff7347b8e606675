"""Honest jobs that run beside hostile ones, and what must hold for them whatever those do."""

import sys
import textwrap
from collections.abc import Mapping

from .harness import Daemon

#: Beside every hostile job. Their first line is a run's whole work, so that only the daemon can keep them from it.
HEARTS = """
@every("0.1")
async def coroutine_heart(): pass
@every("0.1")
def function_heart(): pass
"""
#: Where the hostile job holds the job plane, this one goes on.
FUNCTION_HEART = "function_heart"
ALL_HEARTS = ("coroutine_heart", FUNCTION_HEART)
#: From Python 3.12 on, an audit hook that forbids everything forbids new threads.
UNAUDITED_HEARTS = ALL_HEARTS if sys.version_info < (3, 12) else ("coroutine_heart",)
#: For daemons whose stop has something to wait for.
SHORT = {"JOBD_GRACE_PERIOD": "0.3", "JOBD_CANCEL_TIMEOUT": "0.5"}


def jobs_of(kind: str, bodies: Mapping[str, str]) -> str:
    """A module with a job for each body, named as the mapping says; `kind` is ``def`` or ``async def``."""
    return "\n".join(
        f"@every('1h', name={name!r})\n{kind} job_{number}():\n{textwrap.indent(body.strip(), '    ')}"
        for number, (name, body) in enumerate(bodies.items())
    )


def assert_hearts_beat(daemon: Daemon, hearts: tuple[str, ...] = ALL_HEARTS) -> None:
    """From now on the honest jobs start and succeed as before."""
    for heart in hearts:
        so_far = len(daemon.events("run.finished", job=heart))
        daemon.wait_for("run.finished", job=heart, outcome="succeeded", count=so_far + 3)


def assert_unharmed(daemon: Daemon, *, code: int = 0, hearts: tuple[str, ...] = ALL_HEARTS) -> None:
    """The honest jobs go on, the stop is within the time bound, and the log keeps every promise."""
    assert_hearts_beat(daemon, hearts)
    left_with = daemon.stop()
    daemon.assert_log_is_consistent()
    assert left_with == code
    assert not daemon.events("daemon.failed")
