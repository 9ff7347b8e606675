"""From a plan to what its round must show: computed before anything runs, so nothing is excused afterwards.

Knows the contract, and what the entries of the catalogue declare.
"""

from dataclasses import dataclass
from enum import Enum
from signal import SIGQUIT

from .jobs import SUCCEEDED, Effect
from .plan import Pause, Plan, Reader, Send

#: A clean-up may take so long on a machine that does much else; a shorter cancel timeout excuses everybody.
CLEAN_UP_S = 0.5
#: With these about, nobody is on time.
DELAYS = Effect.BUSY | Effect.HOLDS_GIL | Effect.HOLDS_GIL_FOR_GOOD | Effect.STARVES
#: What a busy machine may add to the moments of a plan.
LATE_S = 0.5
#: With these about, the process may end in the middle of anything, even behind its last line.
CUTS_OFF = Effect.CRASHES | Effect.HOLDS_GIL_FOR_GOOD


class Log(Enum):
    """How much of the log the reader must have got."""

    #: The whole story, to `daemon.stopped`.
    WHOLE = "whole"
    #: Lines may be missing, because of the reader, the level or a crash; those that are there are true.
    PARTIAL = "partial"
    NONE = "none"


@dataclass(frozen=True)
class Expectation:
    """What the round must show."""

    exits: frozenset[int]
    #: Whether the process may end before it was asked to.
    ends_by_itself: bool
    log: Log
    #: Whether the process may end in the middle of anything, whatever its log has told.
    may_be_cut_off: bool
    #: Whether the log may end in the middle of a line.
    last_line_may_be_torn: bool
    #: How the runs of each job may end while nobody stops the daemon.
    ends: dict[str, frozenset[str]]
    #: The jobs whose runs may be abandoned.
    may_be_abandoned: frozenset[str]
    #: The jobs whose runs nothing may keep from being started.
    beating: frozenset[str]
    #: Whether stderr may show stacks, and what jobs have printed last; it never shows anything else.
    may_dump_stacks: bool
    may_show_last_words: bool
    #: Whether any children may outlive the daemon, and how those look that may in any case.
    may_leave_children: bool
    may_leave: tuple[str, ...]


def expectation(plan: Plan) -> Expectation:
    """What the round of this plan must show."""
    effects = plan.effects
    jobs = {"first", *(name for name, _ in plan.jobs)}
    abandoned = _may_be_abandoned(plan, jobs)
    exits = _exits(plan, bool(abandoned))
    cut_off = bool(effects & CUTS_OFF) or 1 in exits
    return Expectation(
        exits=exits,
        ends_by_itself=bool(effects & (Effect.CRASHES | Effect.STOPS)) or bool(exits & {70, 78}),
        log=_log(plan, cut_off),
        may_be_cut_off=cut_off,
        last_line_may_be_torn=plan.reader in (Reader.STALLS, Reader.LEAVES, Reader.SLOW) or cut_off,
        ends=_ends(plan),
        may_be_abandoned=abandoned,
        beating=_beating(plan),
        may_dump_stacks=_sends_sigquit(plan) or cut_off,
        may_show_last_words=cut_off or Effect.LOSES_LINES in effects,
        may_leave_children=_may_leave_children(effects),
        may_leave=tuple(e.orphans for e in plan.entries if e.orphans),
    )


def _may_leave_children(effects: Effect) -> bool:
    """After a crash; or where the guard hears nothing, and without a descriptor nobody sees them in /proc."""
    blind = Effect.CLOSES_DESCRIPTORS in effects and Effect.TAKES_DESCRIPTORS in effects
    leaves = bool(effects & (Effect.LEAVES_CHILDREN | Effect.LEAVES_COPIES))
    return blind or (leaves and Effect.CRASHES in effects)


def _exits(plan: Plan, may_abandon: bool) -> frozenset[int]:
    if not plan.runs:
        refused = frozenset({78}) if "JOBD_DEMO_MAX" in plan.settings and plan.module.ends else frozenset()
        return frozenset({0}) | refused | plan.module.exits  # 0: stopped before it came to that
    exits = frozenset({0}) | (frozenset({3}) if may_abandon else frozenset())
    fenced = frozenset({1}) if _may_be_fenced(plan) else frozenset()
    return exits.union(fenced, *(entry.exits for entry in plan.entries))


def _may_be_fenced(plan: Plan) -> bool:
    """Whether the process may be suspended for what is left of its time bound: then the fence falls as it goes on."""
    return plan.suspended_until_s > 0 and plan.suspended_until_s + LATE_S > plan.bound_s - 1


def _log(plan: Plan, cut_off: bool) -> Log:
    if plan.reader is Reader.FULL:
        return Log.NONE
    effects = plan.effects
    lost = cut_off or Effect.LOSES_LINES in effects
    lost_by_reader = plan.reader in (Reader.STALLS, Reader.LEAVES) or (
        plan.reader is Reader.SLOW and Effect.FLOODS in effects
    )
    told = plan.settings["JOBD_LOG_LEVEL"] in ("debug", "info")
    return Log.PARTIAL if lost or lost_by_reader or not told else Log.WHOLE


def _may_be_abandoned(plan: Plan, jobs: set[str]) -> frozenset[str]:
    """Those that refuse to end; everybody, where nobody gets the time to."""
    effects = plan.effects
    asked = plan.stop_signals + (2 if Effect.STOPS in effects else 0)  # a job may ask in each of its runs
    enough = 2 if plan.duration("JOBD_GRACE_PERIOD") < CLEAN_UP_S else 3  # the first may be the end of the grace period
    hurried = asked >= enough or plan.duration("JOBD_CANCEL_TIMEOUT") < CLEAN_UP_S or _is_suspended(plan)
    if not plan.runs:
        return frozenset()
    if hurried or effects & (DELAYS | Effect.HOLDS_PLANE | Effect.LEAVES_COPIES):
        return frozenset(jobs)
    return frozenset(entry.name for entry in plan.entries if Effect.REFUSES in entry.effects)


def _ends(plan: Plan) -> dict[str, frozenset[str]]:
    spoilt = plan.effects & (Effect.SPOILS | Effect.STARVES | Effect.CANCELS_OTHERS) or _limits(plan)
    also = frozenset({"failed", "succeeded"}) if spoilt else frozenset()
    return {entry.name: entry.ends | also for entry in plan.entries} | {"first": SUCCEEDED | also}


def _beating(plan: Plan) -> frozenset[str]:
    """The jobs that nothing in this round may keep from being started."""
    if plan.effects & DELAYS or "JOBD_MAX_RUNNING" in plan.settings or _limits(plan) or _is_suspended(plan):
        return frozenset()
    hindered = {"beats"} if plan.effects & (Effect.HOLDS_PLANE | Effect.LEAVES_COPIES) else set()
    return frozenset({"beats", "beats_in_a_thread"} & {name for name, _ in plan.jobs} - hindered)


def _limits(plan: Plan) -> list[str]:
    """What jobs may find too little of; for enough stack the daemon sees to it."""
    return [name for name, _ in plan.start.limits if name != "STACK"]


def _is_suspended(plan: Plan) -> bool:
    return any(isinstance(step.action, Pause) for step in plan.steps)


def _sends_sigquit(plan: Plan) -> bool:
    return any(isinstance(step.action, Send) and SIGQUIT in step.action.signals for step in plan.steps)
