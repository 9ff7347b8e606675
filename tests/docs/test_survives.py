"""The page on what jobd survives names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_promise_is_shown_by_a_test_that_exists() -> None:
    """Every row of the promises names a test, and every test that the page names is there."""
    page = (ROOT / "docs/survives.md").read_text()
    tests = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert set(re.findall(r"`(test_\w+)`", page)) <= tests
    promises, _, _ = page.partition("## Not winnable")
    rows = [line for line in promises.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    assert len(rows) > 20
    assert [row for row in rows if "`test_" not in row.rpartition(" | ")[2]] == []
