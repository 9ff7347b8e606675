"""The states of the daemon, the one table of moves between them, and the outcomes of runs.

Imports nothing of ours. The chart in docs/architecture.md is drawn from `MOVES`, and a test compares the two.
"""

from enum import Enum


class State(Enum):
    """Where the daemon is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    CANCELLING = "cancelling"
    STOPPED = "stopped"


#: What the daemon does in each state.
MEANINGS = {
    State.STARTING: "reading the configuration and importing the jobs",
    State.RUNNING: "starting a run at every tick",
    State.DRAINING: "starting nothing more, and waiting for the runs in flight, for the grace period at most",
    State.CANCELLING: "waiting while the cancelled leftovers clean up, for the cancel timeout at most",
    State.STOPPED: "abandoning what is left, flushing the log, and leaving",
}


class Cause(Enum):
    """Why the daemon moves from one state to the next."""

    #: Every job is loaded and both planes turn.
    READY = "ready"
    #: The configuration cannot be used.
    REFUSED = "configuration refused"
    #: A stop signal, or the like.
    SIGNAL = "stop signal"
    #: The daemon itself failed.
    FAILURE = "internal failure"
    #: No run is in flight any more.
    ALL_ENDED = "all runs ended"
    #: The grace period is over.
    GRACE_OVER = "grace period over"
    #: The cancel timeout is over.
    CLEANUP_OVER = "cancel timeout over"


#: Every allowed move. What is not here does not happen: a cause without an entry leaves the state as it is.
MOVES: dict[tuple[State, Cause], State] = {
    (State.STARTING, Cause.READY): State.RUNNING,
    (State.STARTING, Cause.REFUSED): State.STOPPED,
    (State.STARTING, Cause.SIGNAL): State.DRAINING,
    (State.STARTING, Cause.FAILURE): State.DRAINING,
    (State.RUNNING, Cause.SIGNAL): State.DRAINING,
    (State.RUNNING, Cause.FAILURE): State.DRAINING,
    (State.DRAINING, Cause.ALL_ENDED): State.STOPPED,
    (State.DRAINING, Cause.GRACE_OVER): State.CANCELLING,
    (State.DRAINING, Cause.SIGNAL): State.CANCELLING,
    (State.DRAINING, Cause.FAILURE): State.CANCELLING,
    (State.CANCELLING, Cause.ALL_ENDED): State.STOPPED,
    (State.CANCELLING, Cause.CLEANUP_OVER): State.STOPPED,
    (State.CANCELLING, Cause.SIGNAL): State.STOPPED,
    (State.CANCELLING, Cause.FAILURE): State.STOPPED,
}


class Outcome(Enum):
    """How a run ended."""

    __hash__ = object.__hash__  # each is only itself; Enum's own is a call into Python, for every run several times

    #: The job's code came to its end.
    SUCCEEDED = "succeeded"
    #: The job's code raised an exception.
    FAILED = "failed"
    #: The run took longer than its timeout; jobd cancelled it, and it ended.
    TIMED_OUT = "timed_out"
    #: jobd cancelled the run, and it ended.
    CANCELLED = "cancelled"
    #: The run did not end even after its cancel timeout.
    ABANDONED = "abandoned"
