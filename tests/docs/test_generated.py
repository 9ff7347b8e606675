"""Pages that derive from the code say what the code says."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from jobd.states import MOVES, Cause, State

ROOT = Path(__file__).parents[2]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("page", "text"), _generator().pages().items(), ids=lambda value: getattr(value, "name", ""))
def test_page_is_up_to_date(page: Path, text: str) -> None:
    """Each generated page holds what `make docs` would write now."""
    assert page.read_text() == text, f"{page.name} is out of date; run `make docs`"


def test_chart_has_every_move_and_no_other() -> None:
    """Read back from the page, arrow by arrow, the chart of the stop is the table of moves."""
    drawn: list[tuple[State, Cause, State]] = []
    for line in (ROOT / "docs/architecture.md").read_text().splitlines():
        arrow, _, causes = line.strip().partition(": ")
        start, found, to = arrow.partition(" --> ")
        if found and start in State.__members__:
            drawn += [(State[start], Cause(cause), State[to]) for cause in causes.split(" / ") if to != "[*]"]
    assert len(drawn) == len(MOVES)
    assert set(drawn) == {(state, cause, to) for (state, cause), to in MOVES.items()}


def test_table_of_rooms_has_every_module_once() -> None:
    """A file of the package stands in one row."""
    rooms = (ROOT / "docs/architecture.md").read_text().partition("## Rooms")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+)`", rooms.partition("|---|")[2])
    assert sorted(named) == sorted(path.stem for path in (ROOT / "jobd").glob("*.py") if path.stem != "__init__")
