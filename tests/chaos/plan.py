"""From a seed to the plan of a round: the same seed is the same plan, on every machine.

Draws only; what to expect of a plan stands in `expectation`, and carrying it out in `round`. A plan can be printed, and
holds nothing that the machine decides.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from signal import SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, Signals
from typing import TypeVar

from .jobs import CATALOGUE, IMPORTS, Effect, Entry, Importing

Choice = TypeVar("Choice")


class Reader(Enum):
    """Who reads the log, and how."""

    READS = "reads everything at once"
    SLOW = "reads 4 KiB at a time"
    STALLS = "stops reading after a while"
    LEAVES = "goes away after a while"
    FILE = "a file"
    FULL = "a full disk"
    SOCKET = "a socket"


class Anchor(Enum):
    """A moment of the daemon's life that signals can be timed by."""

    CAUGHT = "it catches signals"
    IMPORTING = "it imports the jobs"
    RUNNING = "the first run has begun"


@dataclass(frozen=True)
class Send:
    """Send these signals, one right after the other."""

    signals: tuple[Signals, ...]

    def __str__(self) -> str:
        return " ".join(dict.fromkeys(s.name for s in self.signals)) + (
            f" ({len(self.signals)} in all)" if len(self.signals) > 1 else ""
        )


@dataclass(frozen=True)
class Pause:
    """Suspend the process, as SIGSTOP does, and let it go on; `meanwhile` is sent in between."""

    seconds: float
    meanwhile: tuple[Signals, ...] = ()

    def __str__(self) -> str:
        sent = "".join(f" {s.name}" for s in self.meanwhile)
        return f"SIGSTOP{sent}, {self.seconds:.2f} s, SIGCONT"


@dataclass(frozen=True)
class Step:
    """Something that is done to the daemon, so many seconds after the step before."""

    after_s: float
    action: Send | Pause


@dataclass(frozen=True)
class Start:
    """What the daemon finds when it starts."""

    ignored: tuple[Signals, ...] = ()
    blocked: bool = False
    closed: tuple[int, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    first_process: bool = False
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything about a round."""

    seed: int
    #: Names in the catalogue, with the intervals that they declare; None is for JOBD_INTERVAL.
    jobs: tuple[tuple[str, str | None], ...]
    importing: str
    settings: Mapping[str, str]
    reader: Reader
    #: When the reader changes its mind, where it does, in seconds after the start.
    reader_after_s: float
    start: Start
    anchor: Anchor
    steps: tuple[Step, ...]

    @property
    def entries(self) -> list[Entry]:
        """What the catalogue says about the jobs."""
        return [CATALOGUE[name] for name, _ in self.jobs]

    @property
    def effects(self) -> Effect:
        """All that the jobs may do to the round; nothing, if none of them ever runs."""
        effects = Effect.NONE
        for entry in self.entries if self.runs else ():
            effects |= entry.effects
        return effects | (Effect.SPOILS if self.module.spoils else Effect.NONE)

    @property
    def module(self) -> Importing:
        """What importing the jobs does."""
        return IMPORTS[self.importing]

    @property
    def runs(self) -> bool:
        """Whether the configuration is good, so that jobs may run."""
        return self.module.ends and not self.module.exits and "JOBD_DEMO_MAX" not in self.settings

    def duration(self, setting: str) -> float:
        """The value of a setting that is a duration, in seconds."""
        return float(self.settings[setting])

    @property
    def bound_s(self) -> float:
        """The time bound of the stop."""
        return self.duration("JOBD_GRACE_PERIOD") + self.duration("JOBD_CANCEL_TIMEOUT") + 1

    @property
    def stop_signals(self) -> int:
        """How many signals are sent that ask for the stop."""
        sent = [s for step in self.steps for s in _signals(step.action)]
        return sum(self.asks_to_stop(s) for s in sent)

    @property
    def suspended_until_s(self) -> float:
        """How long after the first request to stop the last suspension ends; 0 if there is none from then on."""
        clock_s = until_s = 0.0
        stopping = Effect.STOPS in self.effects  # at any moment
        for step in self.steps:
            clock_s += step.after_s
            if isinstance(step.action, Pause):
                clock_s += step.action.seconds
                until_s = clock_s if stopping else 0.0
            if not stopping and any(self.asks_to_stop(s) for s in _signals(step.action)):
                stopping, clock_s = True, 0.0
        return until_s

    def asks_to_stop(self, signum: Signals) -> bool:
        """Whether this signal asks for the stop, under these start conditions."""
        return signum == SIGTERM or (signum == SIGINT and SIGINT not in self.start.ignored)

    def __str__(self) -> str:
        jobs = [f"  {name} every {interval or 'JOBD_INTERVAL'}" for name, interval in self.jobs]
        steps = [f"  {step.after_s:.2f} s later: {step.action}" for step in self.steps]
        start = [f"  {name}: {value}" for name, value in vars(self.start).items() if value]
        return "\n".join(
            [
                f"seed {self.seed}",
                "settings: " + " ".join(f"{name}={value}" for name, value in self.settings.items()),
                f"stdout: {self.reader.value}" + (f" ({self.reader_after_s:.2f} s)" if self.reader_after_s else ""),
                *(["start:", *start] if start else []),
                f"importing: {self.importing}",
                "jobs:",
                *jobs,
                f"when {self.anchor.value}:",
                *steps,
            ]
        )


def plan(seed: int) -> Plan:
    """The plan that follows from the seed."""
    random = Random(seed)
    jobs = _jobs(random)
    start = _start(random)
    if any(Effect.DEAFENS in CATALOGUE[name].effects for name, _ in jobs):
        start = replace(start, first_process=False)  # whoever stands in between cannot know when signals are heard
    importing = _weighted(random, IMPORTS, [module.weight for module in IMPORTS.values()])
    anchor = _anchor(random, IMPORTS[importing])
    return Plan(
        seed=seed,
        jobs=jobs,
        importing=importing,
        settings=_settings(random),
        reader=_weighted(random, Reader, [8, 2, 2, 1, 2, 1, 1]),
        reader_after_s=random.uniform(0.2, 1.5),
        start=start,
        anchor=anchor,
        steps=tuple(_steps(random, start, anchor)),
    )


def _jobs(random: Random) -> tuple[tuple[str, str | None], ...]:
    """A few jobs, each at most once; most rounds have honest ones beside the hostile."""
    names = list(CATALOGUE)
    weights = [entry.weight for entry in CATALOGUE.values()]
    drawn = dict.fromkeys(_weighted(random, names, weights) for _ in range(random.randint(1, 10)))
    return tuple((name, _interval(random, CATALOGUE[name])) for name in drawn)


def _interval(random: Random, entry: Entry) -> str | None:
    bears_any = "0.7s" in entry.intervals and not entry.declares
    return None if bears_any and random.random() < 0.1 else random.choice(entry.intervals)


def _settings(random: Random) -> dict[str, str]:
    settings = {
        "JOBD_GRACE_PERIOD": random.choice(["0", "0.1", "0.3", "0.5", "1", "1.5"]),
        "JOBD_CANCEL_TIMEOUT": random.choice(["0", "0.2", "0.5", "1"]),
        "JOBD_INTERVAL": random.choice(["0.7", "1s", "900ms"]),
        "JOBD_LOG_LEVEL": random.choice(["debug", "info", "info", "info", "info", "warning", "error"]),
        "JOBD_LOG_FORMAT": random.choice(["json", "json", "auto"]),
    }
    if random.random() < 0.2:
        settings["JOBD_MAX_RUNNING"] = str(random.choice([1, 2, 3, 5, 20]))
    if random.random() < 0.03:
        settings["JOBD_DEMO_MAX"] = "10 parsecs"
    return settings


def _start(random: Random) -> Start:
    """Mostly as everybody starts a program; else with one or more oddities."""
    if random.random() < 0.5:
        return Start()
    return Start(
        ignored=tuple(s for s in (SIGHUP, SIGINT, SIGTERM) if random.random() < 0.2),
        blocked=random.random() < 0.2,
        closed=random.choice([(), (), (), (), (0,), (2,), (0, 2)]),
        limits=random.choice([(), (), (), (), (("NOFILE", 40),), (("AS", 3 << 30),), (("STACK", 1 << 18),)]),
        first_process=random.random() < 0.2,
        environment=random.choice(
            [
                (),
                (),
                (),
                (("NOTIFY_SOCKET", "/nonexistent"), ("WATCHDOG_USEC", "300000")),
                (("PYTHONDEVMODE", "1"),),
                (("PYTHONUNBUFFERED", "1"),),
                (("PYTHONOPTIMIZE", "2"),),
                (("LC_ALL", "POSIX"), ("PYTHONCOERCECLOCALE", "0"), ("PYTHONUTF8", "0")),
            ]
        ),
    )


def _anchor(random: Random, module: Importing) -> Anchor:
    """Signals mostly come while jobs run; where none ever does, while they are imported."""
    if module.deafens:
        return Anchor.RUNNING
    early = random.choice([Anchor.CAUGHT, Anchor.IMPORTING])
    if not module.ends or module.exits:
        return early
    return early if random.random() < 0.15 else Anchor.RUNNING


def _steps(random: Random, start: Start, anchor: Anchor) -> Iterable[Step]:
    """Some disturbances, then the stop, in one to three requests with more disturbances in between."""
    for _ in range(random.choice([0, 0, 0, 1, 1, 2, 3])):
        yield Step(random.uniform(0, 0.6), _disturbance(random, anchor))
    begin = random.uniform(0.3, 2) if anchor is Anchor.RUNNING else random.choice([0, random.uniform(0, 0.4)])
    if random.random() < 0.08:
        yield Step(begin, Pause(random.uniform(0.1, 1.5), (_stop(random, start),)))
    else:
        yield Step(begin, Send((_stop(random, start),) * random.choice([1, 1, 1, 1, 2, 30])))
    for _ in range(random.choice([0, 0, 0, 0, 1, 2, 5])):
        after_s = random.choice([random.uniform(0, 0.2), random.uniform(0.3, 0.6)])
        yield Step(after_s, random.choice([Send((_stop(random, start),)), _disturbance(random, anchor)]))


def _stop(random: Random, start: Start) -> Signals:
    """A signal that asks for the stop, under these start conditions."""
    return SIGTERM if SIGINT in start.ignored else random.choice([SIGTERM, SIGTERM, SIGINT])


def _disturbance(random: Random, anchor: Anchor) -> Send | Pause:
    """Signals that do not ask for the stop."""
    if anchor is Anchor.RUNNING and random.random() < 0.3:
        return Pause(random.uniform(0.05, 1.5))
    harmless = [SIGUSR1, SIGUSR1, SIGHUP, SIGQUIT, SIGCONT]
    return Send(tuple(random.choices(harmless, k=random.choice([1, 1, 1, 5, 100]))))


def _signals(action: Send | Pause) -> tuple[Signals, ...]:
    return action.signals if isinstance(action, Send) else action.meanwhile


def _weighted(random: Random, choices: Iterable[Choice], weights: Iterable[float]) -> Choice:
    return random.choices(list(choices), list(weights))[0]
