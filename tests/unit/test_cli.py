"""What the command line puts together, where something goes wrong in between."""

import os
from typing import NoReturn

import pytest

from jobd import cli, settings
from jobd.envfile import EnvFile
from jobd.errors import Fault, InvalidConfig


@pytest.mark.parametrize("error", [MemoryError(), InvalidConfig([Fault("JOBD_JOBS", "", "here", "is wrong")])])
def test_variables_of_a_file_go_again_whatever_a_load_ends_with(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """They are those of jobs that are not used."""
    file = EnvFile({"FOR_JOBS_ALONE": "new"})
    configuration = cli._Configuration("", settings.resolve({}, {}, file), file, [])

    def fails(*_: object, **__: object) -> NoReturn:
        assert os.environ["FOR_JOBS_ALONE"] == "new"
        raise error

    monkeypatch.setattr("jobd.loader.load", fails)
    with pytest.raises(type(error)):
        configuration.load(fresh=True)
    assert "FOR_JOBS_ALONE" not in os.environ
