"""What the fuzz tests share."""

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from jobd.settings import PREFIX


@pytest.fixture(scope="module", autouse=True)
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A current directory of its own, without a `.env` and without variables of ours around it."""
    directory, before = tmp_path_factory.mktemp("fuzz"), Path.cwd()
    os.chdir(directory)
    try:
        with mock.patch.dict(os.environ):
            for name in [name for name in os.environ if name.startswith(PREFIX)]:
                del os.environ[name]
            yield directory
    finally:
        os.chdir(before)
