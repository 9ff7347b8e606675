"""The table of moves, explored to the end: there is nothing random here, and nothing that is left out."""

import itertools
from collections.abc import Iterator

import pytest

from jobd.states import MEANINGS, MOVES, Cause, State
from jobd.stop import StopSequence

from .test_stop import Stop, provoke
from .virtual import virtual_loop

#: What comes by itself, whatever the runs do.
TIME_OUTS = {Cause.GRACE_OVER, Cause.CLEANUP_OVER}
#: A path through every state.
LONGEST = len(State) - 1

Path = tuple[tuple[State, Cause], ...]


def moves_from(state: State) -> dict[Cause, State]:
    """Where each cause leads from this state."""
    return {cause: to for (start, cause), to in MOVES.items() if start is state}


def paths(state: State, so_far: Path = ()) -> Iterator[tuple[Path, State]]:
    """Every path from this state to where nothing leads on, or for one step more than there are states."""
    onward = moves_from(state)
    if not onward or len(so_far) > LONGEST:
        yield so_far, state
    for cause, to in onward.items():
        yield from paths(to, (*so_far, (state, cause)))


def reachable(state: State, causes: set[Cause]) -> set[State]:
    """The states that these causes lead to from this one."""
    found = {state}
    while more := {to for start in found for cause, to in moves_from(start).items() if cause in causes} - found:
        found |= more
    return found


def test_every_state_can_be_reached() -> None:
    """From the first one, by some path."""
    assert reachable(State.STARTING, set(Cause)) == set(State)


def test_every_cause_is_one_somewhere() -> None:
    """None is left over that no state knows."""
    assert {cause for _, cause in MOVES} == set(Cause)


def test_nothing_leads_out_of_the_last_state_only() -> None:
    """STOPPED is the end, and nothing else is."""
    assert [state for state in State if not moves_from(state)] == [State.STOPPED]


def test_every_path_ends_in_the_last_state_and_is_short() -> None:
    """No path goes round in a circle; all of them are walked."""
    walked = list(paths(State.STARTING))
    assert {end for _, end in walked} == {State.STOPPED}
    assert max(len(path) for path, _ in walked) == LONGEST


@pytest.mark.parametrize("state", [s for s in State if s is not State.STOPPED], ids=lambda s: s.name)
def test_every_state_has_a_way_out_that_no_run_can_bar(state: State) -> None:
    """A signal always leads on, three of them lead out; and once a stop is on its way, time alone leads out."""
    assert State.STOPPED in reachable(state, {Cause.SIGNAL})
    assert State.STOPPED in reachable(state, {Cause.FAILURE})
    stop_is_on_its_way = state in reachable(State.RUNNING, {Cause.SIGNAL}) - {State.RUNNING}
    assert (State.STOPPED in reachable(state, TIME_OUTS)) == stop_is_on_its_way


def test_from_running_the_third_signal_is_the_last() -> None:
    """Draining, cancelling, gone."""
    state = State.RUNNING
    seen = [state := MOVES[state, Cause.SIGNAL] for _ in range(3)]
    assert seen == [State.DRAINING, State.CANCELLING, State.STOPPED]


def test_no_way_leads_back_to_running() -> None:
    """Once a stop has been asked for, no state starts runs any more."""
    for state in reachable(State.DRAINING, set(Cause)):
        assert State.RUNNING not in moves_from(state).values()


def test_the_sequence_knows_what_to_do_in_every_state_that_it_enters() -> None:
    """And every state has its line in the docs."""
    with virtual_loop() as loop:
        sequence: StopSequence = Stop(loop).sequence
        assert set(sequence._steps) >= set(MOVES.values())
    assert set(MEANINGS) == set(State)


#: What may come to a sequence, as it comes about; `pass` stands for the time-out that is next, whichever that is.
COMING = {
    "ready": Cause.READY,
    "refuse": Cause.REFUSED,
    "signal": Cause.SIGNAL,
    "fail": Cause.FAILURE,
    "end": Cause.ALL_ENDED,
    "pass": None,
}


@pytest.mark.parametrize("first", COMING)
def test_every_row_of_causes_leads_where_the_table_says(first: str) -> None:
    """All rows that are as long as the longest path and one more, on the real sequence, with a run in flight that
    ends only where the row says so. What cannot happen in a state leaves it as it is.
    """
    for row in itertools.product(COMING, repeat=LONGEST):
        with virtual_loop() as loop:
            stop = Stop(loop)
            stop.runs.begin()
            state = State.STARTING
            for coming in (first, *row):
                if state is State.STOPPED:
                    break
                state = _led_to(state, COMING[coming], stop.runs.running == 0)
                _bring_about(stop, COMING[coming])
                assert stop.state is state, (first, *row)
            assert len(stop.left) == (state is State.STOPPED)


def _bring_about(stop: Stop, cause: Cause | None) -> None:
    if cause is not None:
        provoke(stop, cause)
    elif stop.loop.pending:
        before, given_up_at = stop.state, stop.loop.time() + 100
        while stop.state is before and stop.loop.time() < given_up_at:
            stop.loop.pass_time(0.5)


def _led_to(state: State, cause: Cause | None, ended: bool) -> State:
    if cause is None:
        cause = {State.DRAINING: Cause.GRACE_OVER, State.CANCELLING: Cause.CLEANUP_OVER}.get(state, Cause.ALL_ENDED)
    to = MOVES.get((state, cause), state)
    if to is State.DRAINING and state is not to:  # which goes on by itself where nothing is to be waited for
        return State.STOPPED if ended else State.CANCELLING if cause is Cause.FAILURE else to
    return to
