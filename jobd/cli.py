"""The command line: reads it, resolves the settings, and hands over to the command.

May import everything. Flags derive from the declarations in settings; argparse leaves with exit code 2 by itself.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from jobd import (
    __version__,
    clock,
    daemon,
    envfile,
    events,
    exits,
    faults,
    fence,
    loader,
    log,
    output,
    render,
    settings,
    signals,
    stop,
)
from jobd.errors import Fault, InvalidConfig
from jobd.exits import ExitCode
from jobd.loader import Loaded
from jobd.settings import DECLARED, Resolved, Settings

_DESCRIPTION = "Starts jobs on time, whatever the earlier ones do, and stops on time, whatever the running ones do."
_TARGETS = """\
A target is package.module (every job declared in it), package.module:function (that one, every JOBD_INTERVAL if it
declares no schedule), or a path ending in .toml (every job in that file). The current directory is importable. Without
a target, JOBD_JOBS says what to run, and with that unset too, the built-in demo job: every 10 s it starts a run that
sleeps a random 5 to 15 s.
"""
#: How long a check waits for the reader of its faults; nobody is in a hurry.
CHECK_FLUSH_S = 60.0
_EXITS = "exit codes:\n" + "\n".join(f"  {code.value:<4}{meaning}" for code, meaning in exits.MEANINGS.items())


def main(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; the exit code, where the daemon has not left the process itself."""
    given = _parser().parse_args(_with_command(arguments))
    start = _Start(_here(), dict(os.environ))
    configuration = _configuration(given, start)
    settings.in_use = configuration.resolved.settings
    return _check(configuration) if given.command == "check" else _run(given, start, configuration)


@dataclass(frozen=True, slots=True)
class _Start:
    """Where jobd was started, and with what; a job may go elsewhere, and a reload is to find the same."""

    #: The directory; empty if there is none.
    here: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Configuration:
    """What the command line, the environment and the file say together."""

    here: str
    resolved: Resolved
    file: envfile.EnvFile
    faults: list[Fault]

    def load(self, *, fresh: bool = False) -> Loaded:
        """The jobs, and what they share; from modules that are imported anew where they have changed, if `fresh`.

        Raises `InvalidConfig` with the faults of the settings and those of the targets, all at once.
        """
        taking_back = ExitStack()
        taking_back.callback(_hand_on, dict(_handed_on))
        try:
            _hand_on(self.file.values)
            loaded = self._load(fresh)
            taking_back.callback(loaded.take_back)
            if self.faults:
                raise InvalidConfig(self.faults)
            return replace(loaded, take_back=taking_back.close)
        except BaseException:
            taking_back.close()
            raise

    def _load(self, fresh: bool) -> Loaded:
        now, source = self.resolved.settings, self.resolved.given["jobs"].source
        try:
            return loader.load(now.jobs, now.interval, source, self.here, fresh=fresh)
        except InvalidConfig as invalid:
            raise InvalidConfig(self.faults + invalid.faults) from None


#: The jobs' own variables that a file has put into the environment.
_handed_on: dict[str, str] = {}


def _hand_on(values: Mapping[str, str]) -> None:
    """Put the file's variables for the jobs into the environment, where a real one wins; those it had before go."""
    ours = {name for name, value in _handed_on.items() if os.environ.get(name) == value}
    given = {
        name: value
        for name, value in values.items()
        if not name.startswith(settings.PREFIX) and (name in ours or name not in os.environ)
    }
    for name in _handed_on.keys() - given.keys():
        if name in ours:
            del os.environ[name]
        del _handed_on[name]
    for name, value in given.items():
        os.environ[name] = _handed_on[name] = value


def _configuration(given: argparse.Namespace, start: _Start) -> _Configuration:
    faults: list[Fault] = []
    try:
        file = envfile.read(given.env_file, start.here, settings.PUBLIC)
    except InvalidConfig as invalid:
        file, faults = invalid.rest or envfile.EnvFile(), invalid.faults
    flags = {key: value for key in DECLARED if (value := getattr(given, key, None)) is not None}
    resolved = settings.resolve(flags, start.environment, file, given.targets)
    return _Configuration(start.here, resolved, file, faults + resolved.faults)


def _run(command: argparse.Namespace, start: _Start, configuration: _Configuration) -> int:
    now = configuration.resolved.settings
    try:
        pipes = output.pipes()
        fences = fence.LastFences(stop.bound_s(now), list(pipes.values()))  # before the log, which has a thread
        to = log.Log(now.log_level, now.log_format)
        parts = daemon.Daemon(now, to, fences)
        to.divert(pipes)
    except (OSError, RuntimeError, MemoryError) as error:  # no descriptor or no thread is to be had
        return _cannot_start(error)

    def load(again: bool) -> tuple[Settings, Loaded]:
        found = _configuration(command, start) if again else configuration
        _warn(to, found)
        return found.resolved.settings, found.load(fresh=again)

    return parts.run(load)


def _cannot_start(error: Exception) -> int:
    fields = {"timestamp": clock.now(), "level": events.DAEMON_FAILED.level, "event": events.DAEMON_FAILED.name}
    with contextlib.suppress(OSError):
        os.write(1, render.line(fields | render.failure(error)))
    return ExitCode.INTERNAL


def _check(configuration: _Configuration) -> int:
    signals.release()  # a check that hangs in an import is ended like any other program, and by Ctrl-C, too
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if who has started it ignores Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for signum in signals.take():  # also by what has come already
        os.kill(os.getpid(), signum)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            loaded = configuration.load()
    except InvalidConfig as invalid:
        now = configuration.resolved.settings
        to = log.Log(now.log_level, now.log_format)
        _warn(to, configuration)
        faults.tell(to, invalid.faults)
        to.flush(CHECK_FLUSH_S)
        return ExitCode.CONFIG
    from jobd import check  # only here, because the daemon does without

    report = "".join(f"{line}\n" for line in check.lines(configuration.resolved, configuration.file, loaded))
    with contextlib.suppress(OSError):  # of a reader that has seen enough, or a disk that is full
        if sys.stdout is not None:  # it has been closed
            sys.stdout.buffer.write(report.encode(sys.stdout.encoding, "backslashreplace"))
            sys.stdout.flush()
    return ExitCode.OK


def _warn(to: log.Log, configuration: _Configuration) -> None:
    for name, source in configuration.resolved.unknown.items():
        to.emit(events.CONFIG_UNKNOWN, setting=name, source=source, nearest=settings.nearest(name))
    for name in configuration.file.duplicates:
        to.emit(events.CONFIG_DUPLICATE, setting=name, source=configuration.file.sources[name])


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it has been removed; what is installed can still be imported
        return ""


def _with_command(arguments: Sequence[str]) -> list[str]:
    """The arguments with `run` put in where no command is named."""
    named = bool(arguments) and (not arguments[0].startswith("-") or arguments[0] in ("-h", "--help", "--version"))
    return list(arguments) if named else ["run", *arguments]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("jobd", description=_DESCRIPTION, epilog=_EXITS, **_LAYOUT)
    parser.add_argument("--version", action="version", version=f"jobd {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    for name, meaning in (
        ("run", "run the daemon in the foreground, logs on stdout; the default"),
        ("check", "load everything, print settings, jobs and next ticks, start nothing; exit 0 or 78"),
    ):
        command = commands.add_parser(name, help=meaning, description=f"{meaning}.\n\n{_TARGETS}", **_LAYOUT)
        command.add_argument("targets", nargs="*", metavar="TARGET", help="what to run instead of JOBD_JOBS")
        command.add_argument("--env-file", metavar="PATH", help="read this file instead of .env in this directory")
        _add_settings(command)
    return parser


_LAYOUT: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}


def _add_settings(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("settings", "A flag wins over the environment, and that over the .env file.")
    for key, setting in DECLARED.items():
        if key == "jobs":
            continue
        default = "unset" if setting.default is None else setting.default
        text = f"{setting.meaning} ({setting.kind}; {setting.name}; default: {default})".replace("%", "%%")
        group.add_argument(setting.flag, dest=key, metavar="VALUE", help=text)
