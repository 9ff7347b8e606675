"""The benchmarks in their quick form: they still work, and nothing has become far more expensive."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.alone
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="measures what /proc tells")
def test_nothing_costs_far_more_than_it_should() -> None:
    """Figures are held with so much room that a busy machine does not fail them, and are taken twice if they do."""
    command = [sys.executable, "-m", "bench", "--quick"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as quick:
        try:
            said = quick.communicate(timeout=850)[1]
        finally:
            quick.terminate()  # and with it what it has started
    assert quick.returncode == 0, f"{said}\nload: {os.getloadavg()}"
