"""The environment in which the peers live, apart from jobd's: ``python -m bench.peers.environment`` makes it.

A peer that cannot be installed is left out, and the results say so.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path

PLACE = Path(__file__).resolve().parent.parent / ".venv"
PYTHON = PLACE / "bin" / "python"
#: Where the second version of a library that is there already goes.
APSCHEDULER_4 = PLACE / "apscheduler4"
_INSTALLED = PLACE / "installed.json"

#: What is to be asked of pip, by the names that the results use.
WANTED: dict[str, list[str]] = {
    "APScheduler 3": ["apscheduler>=3.11,<4"],
    "APScheduler 4": ["apscheduler>=4.0.0a6", "--pre", "--target", str(APSCHEDULER_4)],
    "aiojobs": ["aiojobs>=1.4"],
    "aiomisc": ["aiomisc>=17"],
    "structlog": ["structlog>=24.1"],
    "taskiq": ["taskiq>=0.12"],
    "uvloop": ["uvloop>=0.21"],
}


def versions() -> dict[str, str | None]:
    """The version of each peer; None where it could not be installed, and nothing where nobody has tried."""
    found: dict[str, str | None] = json.loads(_INSTALLED.read_text()) if _INSTALLED.exists() else {}
    return found


def make() -> None:
    """Install what is missing."""
    if versions().keys() == WANTED.keys():
        return
    venv.create(PLACE, with_pip=True, clear=True)
    _INSTALLED.write_text(json.dumps({name: _install(asked) for name, asked in WANTED.items()}))


def _install(asked: list[str]) -> str | None:
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, *asked], timeout=300).returncode:
        return None
    name = asked[0].partition(">")[0]
    found = subprocess.run(
        [str(PYTHON), "-c", f"import importlib.metadata as m; print(m.version({name!r}))"],
        env={"PYTHONPATH": str(APSCHEDULER_4)} if "--target" in asked else {},
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


if __name__ == "__main__":
    make()
    for peer, version in versions().items():
        print(peer, version or "could not be installed", file=sys.stderr)
