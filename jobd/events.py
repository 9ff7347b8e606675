"""The register of log events: each event that the daemon itself logs, once, with its level, fields and meaning.

Imports nothing of ours. docs/events.md is generated from it. No other file spells an event's name.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """One kind of log line."""

    name: str
    #: The level unless the line says otherwise: ``debug``, ``info``, ``warning``, ``error``.
    level: str
    meaning: str
    #: What each field beside ``timestamp``, ``level`` and ``event`` holds.
    fields: dict[str, str] = field(default_factory=dict)
    #: Whether a job may cause any number of them, so that they are the first to go when the log's reader is too slow.
    spare: bool = False


REGISTER: list[Event] = []


def _event(name: str, level: str, meaning: str, *, spare: bool = False, **fields: str) -> Event:
    event = Event(name, level, meaning, fields, spare)
    REGISTER.append(event)
    return event


_JOB = "the job's name"
_RUN_ID = "which run, unique over all daemons"
_STACK = "where it stands in the code, outermost first"
_RUNNING = "number of runs in flight"
_OLDEST = "the 20 oldest of them, as {`job`, `run_id`, `age_s`}"
_ERROR = "{`type`, `message`} of the exception"
_TRACEBACK = "the traceback, as Python prints it"

DAEMON_STARTING = _event(
    "daemon.starting", "info", "The process has started; nothing is loaded yet.",
    version="jobd's version", pid="the process; where jobd is PID 1, that of its child, the daemon", python="Python's version",
)  # fmt: skip
DAEMON_READY = _event(
    "daemon.ready", "info", "Every job is loaded and the first ticks are due.",
    jobs="number of jobs", startup_s="seconds since the process started",
)  # fmt: skip
DAEMON_STATUS = _event(
    "daemon.status", "info", "Somebody asked with SIGUSR1; a `run.in_flight` follows for each run.",
    state="where the daemon is in its life", running=_RUNNING, uptime_s="seconds since the process started",
)  # fmt: skip
DAEMON_FAILED = _event(
    "daemon.failed", "error", "jobd itself has failed, through no fault of a job; it stops with exit code 70.",
    error=_ERROR, traceback=_TRACEBACK,
)  # fmt: skip
DAEMON_STOPPED = _event(
    "daemon.stopped", "info", "The last line of every log that shows this level.",
    exit_code="what the process leaves with", uptime_s="seconds since the process started",
    shutdown_s="seconds since the stop was asked for", runs="how many runs ended with each outcome",
)  # fmt: skip
DAEMON_STARVED = _event(
    "daemon.starved", "warning",
    "The machine has nothing to give that jobd itself needs just now; it tries again. Told every 10 s at most.",
    lacking="`memory` `descriptors` `threads` `stack`", times="how often since the last such line", error=_ERROR,
)  # fmt: skip
RUN_STARTED = _event(
    "run.started", "info", "A run starts; the next thing that happens is the job's first line.",
    job=_JOB, run_id=_RUN_ID, tick="the tick's number, from 0", scheduled_at="the tick's instant",
    lateness_s="actual start minus the tick's instant",
)  # fmt: skip
RUN_RETRYING = _event(
    "run.retrying", "warning", "An attempt has failed or timed out, and the run goes on with another one.",
    job=_JOB, run_id=_RUN_ID, attempt="which attempt has failed, from 1", delay_s="how long until the next one",
    error=_ERROR,
)  # fmt: skip
RUN_FINISHED = _event(
    "run.finished", "info", "A run has ended. Error for failed, timed_out and abandoned, warning for cancelled.",
    job=_JOB, run_id=_RUN_ID, tick="the tick's number",
    outcome="`succeeded` `failed` `timed_out` `cancelled` `abandoned`",
    duration_s="from the start to the end", attempts="how many there were, if more than one",
    error=f"on failure, {_ERROR}", traceback=f"on failure, {_TRACEBACK}",
    exit_status="with what a command or a process has exited", signal="by which signal it was ended, if by one",
)  # fmt: skip
RUN_IN_FLIGHT = _event(
    "run.in_flight", "info", "A run in flight, because somebody asked with SIGUSR1.",
    job=_JOB, run_id=_RUN_ID, age_s="seconds since its start", stack=_STACK,
)  # fmt: skip
TICK_SKIPPED = _event(
    "tick.skipped", "warning", "Ticks that no run was started for.",
    job=_JOB, tick="number of the first", count="how many, the first included",
    reason="`missed`: they came due while the process was stopped, stalled or about to stop; `overlap`: a run of the "
    "job was in flight; `max_running`: as many runs as allowed were",
)  # fmt: skip
JOB_BLOCKING = _event(
    "job.blocking", "warning", "A coroutine holds the event loop of all coroutine jobs; told again with back-off.",
    job=f"{_JOB}, null where it cannot be known", run_id="which run, null where it cannot be known",
    blocked_s="for how long so far", stack=_STACK,
)  # fmt: skip
JOB_OVERLAPPING = _event(
    "job.overlapping", "warning", "Runs of this job pile up; told when there are 10 at once, and at each doubling. "
    "`JOBD_MAX_RUNNING` sets a limit.",
    job=_JOB, running="number of its runs in flight",
)  # fmt: skip
JOB_OUTPUT = _event(
    "job.output", "info", "Somebody has printed a line: a job, a library, a child.",
    job=f"{_JOB}, null where it cannot be known", run_id="which run, null where it cannot be known",
    stream="`stdout` or `stderr`", line="the line without its end; one longer than 8 KiB comes in pieces",
    spare=True,
)  # fmt: skip
SHUTDOWN_REQUESTED = _event(
    "shutdown.requested", "info", "A stop was asked for; from here on no run starts.",
    signal="by which signal; null if jobd itself has failed", running=_RUNNING,
    grace_period_s="how long they may take",
)  # fmt: skip
SHUTDOWN_WAITING = _event(
    "shutdown.waiting", "info", "The drain goes on; told at least every 5 s.",
    running=_RUNNING, runs=_OLDEST, remaining_s="what is left of the grace period",
)  # fmt: skip
SHUTDOWN_CANCELLING = _event(
    "shutdown.cancelling", "warning", "The leftovers are cancelled.",
    running="number of leftovers", runs=_OLDEST,
    reason="`grace_period`: it is over, or the daemon has failed; `signal`: another signal came",
)  # fmt: skip
SHUTDOWN_ABANDONED = _event(
    "shutdown.abandoned", "error", "A run has not ended even after its cancel timeout.",
    job=_JOB, run_id=_RUN_ID, age_s="seconds since its start", stack=_STACK,
)  # fmt: skip
CHILDREN_KILLED = _event(
    "children.killed", "warning", "Processes that jobs had left running did not end when they were asked to (SIGTERM).",
    count="number of processes", children="the first 20 of them, as {`pid`, `command`}",
)  # fmt: skip
CLOCK_STEPPED = _event(
    "clock.stepped", "warning", "Somebody has set the wall clock.",
    step_s="by how much; less than 0 if back",
)  # fmt: skip
LIFESPAN_FAILED = _event(
    "lifespan.failed", "error", "The lifespan of a module has failed after it had opened, or while it closed.",
    module="the module", error=_ERROR, traceback=_TRACEBACK,
)  # fmt: skip
LIFESPAN_ABANDONED = _event(
    "lifespan.abandoned", "error", "The lifespan of a module had not closed when the time was up.",
    module="the module", stack=_STACK,
)  # fmt: skip
DAEMON_RELOADED = _event(
    "daemon.reloaded", "info", "Jobs and settings were read again (SIGHUP), and are in use.",
    added="names of jobs", changed="likewise", removed="likewise",
)  # fmt: skip
RELOAD_WAITING = _event(
    "reload.waiting", "warning", "For a reload, a module is being imported, or a lifespan opened, or first closed, and "
    "that does not come to its end; told with back-off. Nothing has changed so far, and other requests to reload wait.",
    waited_s="for how long so far", stack=_STACK,
)  # fmt: skip
RELOAD_REFUSED = _event(
    "reload.refused", "error", "Jobs and settings were read again (SIGHUP), and cannot be used: nothing has changed.",
    faults="number of `config.invalid` lines before this one",
)  # fmt: skip
CONFIG_INVALID = _event(
    "config.invalid", "error", "Something in the configuration cannot be used; one line for each fault.",
    setting="the setting or the file", value="as it was given", source="where it came from",
    reason="what is wrong, and what would be right",
    error=f"where code of a job raised, {_ERROR}", traceback=f"where code of a job raised, {_TRACEBACK}",
)  # fmt: skip
CONFIG_UNKNOWN = _event(
    "config.unknown", "warning", "A variable that starts with `JOBD_` and is no setting; it is ignored.",
    setting="the variable", source="where it came from", nearest="the setting that it resembles most, or null",
)  # fmt: skip
CONFIG_LONG_STOP = _event(
    "config.long_stop", "warning", "A stop may take longer than supervisors wait unless they are told to. systemd is "
    "asked for more time as it goes; whoever runs containers has to set their grace period.",
    bound_s="grace period, cancel timeout and 1 s", supervisor="whose usual limit that exceeds", limit_s="that limit",
)  # fmt: skip
CONFIG_DUPLICATE = _event(
    "config.duplicate", "warning", "A file names a variable twice; the last one counts.",
    setting="the variable", source="where it stands the last time",
)  # fmt: skip
SIGNAL_IGNORED = _event(
    "signal.ignored", "warning", "A signal that means nothing to jobd, and would end another process.",
    signal="its name", count="how often it has come so far; told again each time that has doubled",
)  # fmt: skip
LOG_DROPPED = _event(
    "log.dropped", "error", "The reader of the log was too slow, and the oldest waiting lines had to go.",
    count="number of lines lost since the last line that was written",
)  # fmt: skip
STRAY_ERROR = _event(
    "stray.error", "error", "An error outside any run: in a thread or a finaliser of a job's making, say.",
    where="what Python was doing", error=_ERROR, traceback=_TRACEBACK, spare=True,
)  # fmt: skip
STRAY_WARNING = _event(
    "stray.warning", "warning", "A warning that Python issued (`warnings.warn`).",
    message="the warning", category="its class", where="file and line", spare=True,
)  # fmt: skip
