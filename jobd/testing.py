"""For those who write jobs: what would jobd do with them, in a day, or when somebody stops it?

May import: everything below the daemon. The real spawner, runner and stop sequence play the jobs on virtual time, so a
day takes less than a second, and nothing waits::

    from jobd.testing import simulate

    story = simulate("myapp.jobs", lasting="1h", stop_at="37s", grace_period="20s")
    assert story.exit_code == 0
    assert {run.outcome for run in story.runs} == {"succeeded"}

Coroutines are really called, and what they await of asyncio's own sleeps and timeouts takes virtual time. Plain
functions and commands are not called: they take no time, or as much as `takes` says, which also stands in for the
body of a coroutine that is not to be called: one that waits for a thread or a socket, say, because nothing real happens
while virtual time passes. Lifespans are not opened.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import ModuleType
from typing import Any

from jobd import events, loader, log, modules, policy, settings, stop
from jobd import job as jobs
from jobd.errors import Unusable
from jobd.exits import ExitCode
from jobd.job import Job, Kind
from jobd.notify import Notifier
from jobd.plane import JobPlane
from jobd.run import current_run
from jobd.runner import Runner
from jobd.schedule import Every
from jobd.spawner import Spawner
from jobd.states import Outcome
from jobd.virtual import VirtualLoop, Wall

#: How long a run takes: so many seconds, a duration as text, an exception that it fails with at once; or a function
#: that says so for the number of a tick.
Takes = float | str | BaseException | Callable[[int], "float | str | BaseException"]

_SECOND_NS = 1_000_000_000
_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class RunTold:
    """What the log tells of one run."""

    job: str
    run_id: str
    tick: int
    #: The tick's instant, the actual start, and the end; that is None while it is in flight.
    scheduled_at: datetime
    started_at: datetime
    ended_at: datetime | None = None
    #: ``succeeded``, ``failed``, ``timed_out``, ``cancelled`` or ``abandoned``; None while it is in flight.
    outcome: str | None = None
    attempts: int = 1
    #: `type` and `message` of what it failed with.
    error: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """One tick of a job, and what became of it: a run, or the reason why it had none."""

    job: str
    tick: int
    run: RunTold | None
    reason: str | None


@dataclass(slots=True)
class Story:
    """Everything that has happened."""

    #: In the order of their starts.
    runs: list[RunTold] = field(default_factory=list)
    #: Every tick that came due, in the order in which it was told.
    ticks: list[Tick] = field(default_factory=list)
    #: Every line of the log.
    lines: list[dict[str, Any]] = field(default_factory=list)
    #: When the daemon left, and with which code; None if it was not stopped.
    left_at: datetime | None = None
    exit_code: int | None = None

    def of(self, job: str) -> list[RunTold]:
        """The runs of one job."""
        return [run for run in self.runs if run.job == job]


def simulate(
    *targets: "str | ModuleType | Callable[[], Any] | Job",
    lasting: str | float = "1h",
    start: datetime = _START,
    stop_at: "str | float | Sequence[str | float]" = (),
    takes: Mapping[str, Takes] | None = None,
    grace_period: str | float = settings.DEFAULTS.grace_period,
    cancel_timeout: str | float = settings.DEFAULTS.cancel_timeout,
    max_running: int | None = None,
    interval: str | float = settings.DEFAULTS.interval,
) -> Story:
    """What jobd does with the jobs within `lasting`, from `start` on, which is what the wall clock shows then.

    A target is what `jobd run` takes, a module, a function or a `Job`. A stop signal comes after each `stop_at`, which
    is counted from the start; the story goes on to the end of the daemon then. Settings are those of jobd. Raises
    `jobd.errors.InvalidConfig` for a target that gives no jobs, and `ValueError` for a duration that is none, a
    function that can be no job, and a name in `takes` that no job has.
    """
    if max_running is not None and max_running < 1:
        raise ValueError(f"max_running must be at least 1, or None for no limit; not {max_running!r}")
    durations = [stop_at] if isinstance(stop_at, str | int | float) else stop_at
    stops = [policy.seconds(each) for each in durations]
    given = replace(
        settings.DEFAULTS,
        grace_period=policy.seconds(grace_period),
        cancel_timeout=policy.seconds(cancel_timeout),
        max_running=max_running,
    )
    found = _jobs(targets, policy.seconds(interval))
    _check({job.name for job in found}, len(found), takes or {})
    played = [_played(job, (takes or {}).get(job.name)) for job in found]
    with _loop() as loop:
        play = _Play(loop, start, given)
        play.begin(played, stops)
        end_s = max(policy.seconds(lasting), *(at + stop.bound_s(given) + 1 for at in stops), 0.0)
        loop.run_until(end_s)
        return play.story


class _Play:
    """One daemon on virtual time."""

    def __init__(self, loop: VirtualLoop, start: datetime, given: settings.Settings) -> None:
        self._loop = loop
        self._wall = Wall(round(start.timestamp() * _SECOND_NS))
        self.story = Story()
        self._log = _Recorder(loop, self._wall, self.story)
        plane = JobPlane(loop)
        self._runner = Runner(loop, plane, self._log)
        self._runner.set_limits(given.max_running, given.cancel_timeout)
        self._spawner = Spawner(loop, self._wall, self._runner.offer)
        self._spawner.early = 0.0
        self._stop = stop.StopSequence(
            loop=loop,
            settings=given,
            runner=self._runner,
            to=self._log,
            notifier=Notifier(None),
            fence=_NoFence(),
            stop_spawning=lambda: self._runner.skip(self._spawner.stop()),
            leave=self._leave,
        )
        self._runner.on_change = self._stop.runs_changed

    def begin(self, played: list[Job], stops: list[float]) -> None:
        self._stop.ready()
        self._spawner.start(played)
        for at in stops:
            self._loop.call_at(at, self._stop.signalled, signal.SIGTERM, at)

    def _leave(self, code: ExitCode) -> None:
        if self.story.exit_code is None:
            self.story.exit_code = int(code)
            self.story.left_at = self._log.now()
        self._loop.stop()


class _Recorder(log.Log):
    """A log that makes a story of what it is told."""

    def __init__(self, loop: VirtualLoop, wall: Wall, story: Story) -> None:
        self._loop = loop
        self._wall = wall
        self._story = story
        self._runs: dict[str, RunTold] = {}

    def now(self) -> datetime:
        return _at(self._wall.wall_ns(self._loop.time()))

    def emit(self, event: events.Event, /, *, level: str | None = None, **fields: Any) -> None:
        now = self.now()
        self._story.lines.append({"timestamp": now, "level": level or event.level, "event": event.name, **fields})
        if event is events.RUN_STARTED:
            at = datetime.fromisoformat(fields["scheduled_at"])
            run = RunTold(fields["job"], fields["run_id"], fields["tick"], at, now)
            self._runs[run.run_id] = run
            self._story.runs.append(run)
            self._story.ticks.append(Tick(run.job, run.tick, run, None))
        elif event is events.RUN_FINISHED:
            run = self._runs.pop(fields["run_id"])
            run.ended_at, run.outcome = now, fields["outcome"]
            run.attempts, run.error = fields.get("attempts", 1), fields.get("error")
        elif event is events.TICK_SKIPPED:
            for tick in range(fields["tick"], fields["tick"] + fields["count"]):
                self._story.ticks.append(Tick(fields["job"], tick, None, fields["reason"]))

    def teller(self, level: str, *, brief: bool = False) -> Callable[..., None]:
        return partial(self.emit, level=level)

    def push(self) -> None:
        """Nothing waits here."""

    def hold(self) -> None:
        """Nothing waits here."""

    def finish(self, event: events.Event, timeout_s: float, longest_s: float, /, **fields: Any) -> None:
        self.emit(event, **fields)


class _NoFence:
    """Virtual time cannot be held up."""

    def unread_s(self) -> float:
        return 0.0

    def arm(self, within_s: float) -> None:
        pass


def _at(wall_ns: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=wall_ns // 1000)


@contextlib.contextmanager
def _loop() -> Iterator[VirtualLoop]:
    """A loop that is closed at the end, whatever is still to be done on it."""
    switch_interval = sys.getswitchinterval()
    loop = VirtualLoop(alone=True)
    loop.set_exception_handler(lambda loop, context: None)
    try:
        yield loop
    finally:
        sys.setswitchinterval(switch_interval)  # a stop has changed it
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is part of the story
        loop.close()


def _check(names: set[str], count: int, takes: Mapping[str, Takes]) -> None:
    if len(names) < count:
        raise ValueError("two of the jobs have the same name; names must differ")
    for name, how in takes.items():
        if name not in names:
            raise ValueError(
                f"takes names {name!r}, and there is no such job{jobs.nearest(name, dict.fromkeys(names))}"
            )
        if not isinstance(how, BaseException) and not callable(how):
            policy.seconds(how)


def _jobs(targets: Sequence[Any], interval_s: float) -> list[Job]:
    found: list[Job] = []
    for target in targets:
        if isinstance(target, Job):
            found.append(target)
        elif isinstance(target, str | ModuleType):
            name = target if isinstance(target, str) else target.__name__
            found += loader.load([name], interval_s, "simulate()", "").jobs
        else:
            found.append(_job(target, interval_s))
    return found


def _job(function: Callable[[], Any], interval_s: float) -> Job:
    declared = jobs.declared(function) or jobs.Declaration(Every(interval_s), None)
    try:
        kind = modules.kind_of(modules.job_function(function), bool(declared.isolated))
    except Unusable as unusable:
        raise ValueError(f"{function!r} {unusable}") from None
    name = declared.name or str(getattr(function, "__name__", "job"))
    return Job(name, declared.schedule, function, kind, name, declared.policies)


def _played(job: Job, takes: Takes | None) -> Job:
    """The job with a body that can be played: its own, or one that takes so long."""
    if takes is None and job.kind is Kind.COROUTINE:
        return job
    body = partial(_body, 0.0 if takes is None else takes, job.kind is Kind.FUNCTION)
    return replace(job, kind=Kind.COROUTINE, function=body)


async def _body(takes: Takes, stubborn: bool) -> None:
    """Take so long; `stubborn`: a thread, which cannot be cancelled."""
    how = takes(current_run().tick) if callable(takes) else takes
    if isinstance(how, BaseException):
        raise how
    loop = asyncio.get_running_loop()
    end = loop.time() + policy.seconds(how)
    while (left := end - loop.time()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            if not stubborn:
                raise
            run = current_run()
            if run.cancel_as is not Outcome.TIMED_OUT:
                run.cancelled = None  # a thread does not know, so it comes to its own end


__all__ = ["RunTold", "Story", "Takes", "Tick", "simulate"]
