"""How a run, or one attempt of it, has ended, as whoever executed it tells the control plane.

May import: durations, render, states. Texts of exceptions are made here, on the thread of the user's code, because
making them runs user code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobd import durations, render
from jobd.states import Outcome


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    outcome: Outcome
    #: What its `run.finished` says beside that: `error` and `traceback` where it failed, a command's exit status.
    fields: Mapping[str, Any] | None = None
    #: With which code a child that the job has forked leaves, if it comes to this end.
    exit_code: int = 0


SUCCEEDED = Ending(Outcome.SUCCEEDED)
CANCELLED = Ending(Outcome.CANCELLED)
ABANDONED = Ending(Outcome.ABANDONED)


def told(kind: str, message: str, traceback: str = "") -> dict[str, Any]:
    """The fields of a failure that no exception of the job's stands for."""
    return {"error": {"type": kind, "message": message}, "traceback": traceback}


#: Made beforehand, for a run whose end takes more memory to tell than there is.
STARVED = Ending(Outcome.FAILED, told("MemoryError", "no memory was left to tell how the run ended"))


def failed(error: BaseException) -> Ending:
    """The job's code has raised this; the traceback is that from its own first line on."""
    exit_code = 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        exit_code = error.code or 0
    return Ending(Outcome.FAILED, _shown(error), exit_code)


def cancelled(outcome: Outcome, timeout_s: float | None, error: BaseException | None = None) -> Ending:
    """Jobd has cancelled the run, and it has ended, with that error if it has let one through."""
    if outcome is not Outcome.TIMED_OUT:
        return CANCELLED
    trace = _shown(error)["traceback"] if error else ""
    message = f"did not end within {durations.show(timeout_s or 0.0)}"
    return Ending(Outcome.TIMED_OUT, told("TimeoutError", message, trace), 1)


def _shown(error: BaseException) -> dict[str, Any]:
    render.shorten(error)  # only here, where nobody is to raise it on: a job may raise the same one in its next run
    return render.failure(error, skip=1)
