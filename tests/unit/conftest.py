"""What the tests share: one profile of hypothesis, and loops on virtual time."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from . import virtual

# No deadlines, because a busy machine is no fault; no database, because a test leaves nothing behind.
settings.register_profile(
    "unit", deadline=None, database=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")


@pytest.fixture
def loop() -> Iterator[virtual.VirtualLoop]:
    """A loop on virtual time, at 0."""
    with virtual.virtual_loop() as made:
        yield made


@pytest.fixture
def to(loop: virtual.VirtualLoop) -> virtual.Log:
    """A log that remembers, with the loop's time."""
    return virtual.Log(loop)
