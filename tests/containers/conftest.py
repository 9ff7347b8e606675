"""One image for the whole session; containers of it are started with the harness of the acceptance tests."""

import os
from pathlib import Path

import pytest
from acceptance.conftest import launch

from .engine import Image, why_not

__all__ = ["image", "launch"]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image that the Containerfile makes."""
    if reason := why_not():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must be able to run a container, but: {reason}")
        pytest.skip(f"cannot run a container: {reason}")
    directory: Path = tmp_path_factory.mktemp("image")
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)  # another user is to see what is in it
    return Image(directory)
