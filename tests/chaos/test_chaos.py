"""The short form of `make chaos`: the same rounds each time, so that who has broken nothing is not stopped by one of
those that nobody has seen before. These are for `make chaos`.
"""

from pathlib import Path

import pytest

from .__main__ import many
from .expectation import expectation
from .plan import plan

#: Chosen only in that they have nothing in common.
KNOWN = range(1, 26)
#: Rounds mostly wait; more at once than this, and a small machine is what is measured.
AT_ONCE = 4


@pytest.mark.timeout(300)
@pytest.mark.alone
def test_rounds_of_chaos(tmp_path: Path) -> None:
    """Whatever jobs, settings and signals a seed makes up, the daemon and its log keep their promises."""
    failed = [verdict for verdict in many(list(KNOWN), AT_ONCE, tmp_path) if verdict.complaints]
    assert not failed, "\n".join(f"{verdict}\n  replay it: make chaos SEED={verdict.seed}" for verdict in failed)


def test_a_seed_is_a_plan() -> None:
    """The same seed makes the same plan, and expects the same of it."""
    for seed in range(200):
        assert plan(seed) == plan(seed)
        assert expectation(plan(seed)) == expectation(plan(seed))


def test_plans_differ() -> None:
    """Seeds make up rounds of every kind."""
    plans = [plan(seed) for seed in range(500)]
    assert len({str(made) for made in plans}) == len(plans)
    assert {made.reader for made in plans} == set(type(plans[0].reader))
    assert {made.start.first_process for made in plans} == {True, False}
    assert {3 in expectation(made).exits for made in plans} == {True, False}
