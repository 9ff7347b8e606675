"""How many requests stop signals are, where the daemon takes its time to obey the first of them."""

import asyncio
import dataclasses
import signal

import pytest

from jobd import events
from jobd.settings import DEFAULTS

from .helpers import job_of
from .whole import Whole, whole

GRACE_S = 20.0
SENT_AT_S = 1.0


async def sleeps() -> None:
    """Sleep until cancelled."""
    await asyncio.sleep(3_600.0)


def cancelled_at(daemon: Whole, obeying_s: float, meanwhile: int, then_at_s: float | None) -> float:
    """When the runs are cancelled, after a SIGTERM that takes so long to obey.

    So many more come meanwhile, and one at `then_at_s`.
    """

    def take_time() -> None:
        for _ in range(meanwhile):
            daemon.send(signal.SIGINT)
        daemon.loop.stall(obeying_s)

    daemon.daemon._notifier.stopping = lambda extend_s: take_time()  # type: ignore[method-assign]
    daemon.loop.call_later(SENT_AT_S, daemon.send, signal.SIGTERM)
    if then_at_s is not None:
        daemon.loop.call_later(then_at_s, daemon.send, signal.SIGTERM)
    began = daemon.loop.time()
    daemon.serve([job_of(sleeps)], until=began + 60.0)
    (cancelling,) = (
        at for line, at in zip(daemon.to.lines, daemon.to.times, strict=True)
        if line.event == events.SHUTDOWN_CANCELLING.name
    )  # fmt: skip
    return cancelling - began


@pytest.mark.parametrize(
    ("obeying_s", "meanwhile", "then_at_s", "expected_s"),
    [
        (0.75, 0, None, SENT_AT_S + GRACE_S),
        (0.75, 1, None, SENT_AT_S + GRACE_S),
        (0.75, 3, 1.875, SENT_AT_S + GRACE_S),
        (0.75, 1, 2.0, 2.0),
        (0.125, 0, 1.25, 1.25),
        (0.125, 0, 1.1875, SENT_AT_S + GRACE_S),
        (0.125, 1, 1.375, 1.375),
    ],
    ids=[
        "one alone",
        "what waits meanwhile came with the first",
        "what comes close behind that, too",
        "what comes well behind that is another",
        "a quarter of a second is counted from the first, however long obeying takes",
        "less is one",
        "one that waits is one from which is counted",
    ],
)
def test_what_counts_as_another_request(
    obeying_s: float, meanwhile: int, then_at_s: float | None, expected_s: float
) -> None:
    """A supervisor and a terminal that send theirs together ask once; an operator who asks again is heard."""
    settings = dataclasses.replace(DEFAULTS, grace_period=GRACE_S)
    with whole(settings) as daemon:
        assert cancelled_at(daemon, obeying_s, meanwhile, then_at_s) == pytest.approx(expected_s, abs=0.01)
