"""One box for the whole session, with jobd installed as README says; for each test a service that knows no other."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .box import INSIDE, Box, CannotBoot
from .service import Service

HERE = Path(__file__).parent
#: What README tells to type, in the checkout.
INSTALLATION = """
python3 -m venv /opt/jobd && /opt/jobd/bin/pip install .
install -D -m 644 systemd/jobd.service /etc/systemd/system/jobd.service
install -D -m 644 systemd/jobd@.service /etc/systemd/system/jobd@.service
systemctl daemon-reload
"""
#: Less than a test may take, so that what pip has said is shown.
INSTALLATION_S = 100.0


@pytest.fixture(scope="session")
def bare_box() -> Iterator[Box]:
    """A box as it has booted."""
    try:
        box = Box()
    except CannotBoot as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must be able to boot a systemd, but: {reason}")
        pytest.skip(f"cannot boot a systemd: {reason}")
    yield box
    box.close()


@pytest.fixture(scope="session")
def box(bare_box: Box) -> Box:
    """A box with jobd installed."""
    bare_box.run("sh", "-e", "-c", f"cd {INSIDE}\n{INSTALLATION}", timeout_s=INSTALLATION_S)
    return bare_box


@pytest.fixture
def jobd(box: Box) -> Iterator[Service]:
    """The service jobd, not started; whatever a test does to it is undone."""
    service = Service(box, "jobd")
    yield service
    service.forget()


@pytest.fixture
def instances(box: Box) -> Iterator[tuple[Service, Service]]:
    """Two instances, not started."""
    both = Service(box, "jobd@a"), Service(box, "jobd@b")
    yield both
    for service in both:
        service.forget()
