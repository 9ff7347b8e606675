"""Pages that derive from the code say what the code says."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

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
