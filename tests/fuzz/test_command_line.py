"""The command line: usage and exit code 2, or a configuration; whatever the arguments are."""

import argparse
import contextlib
import io
import os

from hypothesis import given
from hypothesis import strategies as st

from jobd import cli
from jobd.exits import ExitCode
from jobd.settings import DECLARED

from .grammar import bounded, examples, values

_flags = st.sampled_from([setting.flag for setting in DECLARED.values()] + ["--env-file", "--nope", "--inter", "-x"])
_words = st.sampled_from(
    ["run", "check", "--", "-", "", "-h", "--help", "--version", "jobs", "a:b", "@file", ".env", "-5"]
)
_arguments = st.lists(
    st.one_of(_words, _flags, st.builds("{}={}".format, _flags, values()), values()), max_size=6
)  # fmt: skip


def parsed(arguments: list[str]) -> tuple[argparse.Namespace | int, str, str]:
    """What the arguments say, or the exit code; and what was written to stdout and stderr."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            said: argparse.Namespace | int = cli._parser().parse_args(cli._with_command(arguments))
        except SystemExit as left:
            said = int(left.code or 0)
    return said, out.getvalue(), err.getvalue()


@examples(400)
@given(_arguments)
def test_any_arguments_are_a_configuration_help_or_wrong(arguments: list[str]) -> None:
    """Nothing else happens, and what a flag was given is what the setting was given."""
    with bounded():
        said, out, err = parsed(arguments)
        if isinstance(said, int):
            assert said in (ExitCode.OK, ExitCode.USAGE)
            assert ("usage: jobd" in err) == (said == ExitCode.USAGE)
            assert bool(out) == (said == ExitCode.OK)
            return
        assert (out, err) == ("", "")
        configuration = cli._configuration(said, cli._Start("", os.environ))
    for key, setting in DECLARED.items():
        given = getattr(said, key, None)
        assert given is None or configuration.resolved.given[key].text == given
        assert given is None or configuration.resolved.given[key].source == f"command line ({setting.flag})"
    assert all(target in configuration.resolved.given["jobs"].text for target in said.targets)  # type: ignore[operator]
