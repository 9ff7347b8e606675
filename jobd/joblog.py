"""What jobs and libraries say, as lines of the log: the end of structlog's and stdlib logging's default pipelines.

May import: clock, render, run (for the run that a line belongs to).

Whatever the arguments and whatever the names of the fields, nothing raises in who says it, as stdlib logging promises.
structlog's own methods would, where arguments do not fit the text or a field is called like one of their parameters.
"""

import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import structlog

from jobd import clock, render
from jobd import run as runs
from jobd.run import Run

#: Kept here, because a job may put something else into the modules.
_filtering = structlog.make_filtering_bound_logger
_Logger, _root = logging.Logger, logging.getLogger()
_loggers = _root.manager.loggerDict

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: What jobs call them; more than a daemon needs.
_NUMBERS = LEVELS | {"critical": logging.CRITICAL}
_DESCENDING = tuple(reversed(_NUMBERS.items()))
_SYNONYMS = {"msg": "info", "warn": "warning", "fatal": "critical"}

#: What a plain `logging.LogRecord` holds; anything else on one came in through ``extra=``.
_RECORD_FIELDS = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}


class JobLines:
    """Makes lines of what jobs and libraries say."""

    def __init__(
        self,
        level: str,
        render: Callable[[dict[str, Any]], bytes],
        write: Callable[[bytes], object],
        *,
        of: Run | None = None,
    ) -> None:
        """Have `write` called with each line of `level` and above; `of` is the run of those that belong to no other."""
        self._render = render
        self._write = write
        self._of = of
        self._logger = type("JobLogger", (_logger_of(level),), {})
        structlog.configure(
            processors=[self._line],
            wrapper_class=self._logger,
            context_class=dict,
            logger_factory=lambda *args: _Lines(write),
            cache_logger_on_first_use=True,
        )
        logging.basicConfig(handlers=[_Bridge(self._take_record)], level=LEVELS[level], force=True)

    def use(self, level: str) -> None:
        """Take lines of `level` and above from here on, also from the loggers that jobs have already."""
        self._logger.__bases__ = (_logger_of(level),)
        # As `setLevel` does, but for its lock: a job may hold that for as long as it configures logging.
        _root.level = LEVELS[level]
        for logger in [_root, *_loggers.values()]:
            if _Logger in type(logger).__mro__:  # and whatever it has made of its attributes is not asked
                cache = object.__getattribute__(logger, "__dict__").get("_cache")
                if type(cache) is dict:
                    cache.clear()

    def _line(self, logger: Any, level: str, fields: MutableMapping[str, Any]) -> bytes:
        line = {"timestamp": clock.now(), "level": level, "event": render.text(fields.pop("event", ""))}
        run = runs.current.get(self._of)
        if run is not None:
            line |= {"job": run.job, "run_id": run.run_id}
        if (error := _exception(fields.pop("exc_info", None))) is not None:  # its truth is its author's
            line |= render.failure(error)
        for key, value in (structlog.contextvars.get_contextvars() | dict(fields)).items():
            while key in line:  # the daemon's fields win, and the job's are not lost
                key += "_"
            line[key] = value
        return self._render(line)

    def _take_record(self, record: logging.LogRecord) -> None:
        self._write(self._line(None, _name(record.levelno), _fields(record)))


class _Lines:
    """What structlog calls a logger: finished lines go in, by the name of their level."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = write


class _Bridge(logging.Handler):
    """Hands the records of stdlib logging on, without the lock that `logging.Handler.handle` takes.

    A record whose text never comes must not stop the others.
    """

    def __init__(self, take: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._take = take

    def handle(self, record: logging.LogRecord) -> bool:
        passed = bool(self.filter(record))
        if passed:
            self._take(record)
        return passed


def _logger_of(level: str) -> type:
    """What jobs log with: structlog's filtering logger, but for what the methods do that log."""
    least = LEVELS[level]
    methods = {name: _tells(name) if number >= least else _tell_nothing for name, number in _NUMBERS.items()}
    methods |= {synonym: methods[name] for synonym, name in _SYNONYMS.items()}
    methods |= {"exception": _tell_exception, "log": _tells_from(least)}
    in_place = {f"a{name}": _coroutine(tell) for name, tell in methods.items()}
    return type("Telling", (_filtering(least),), methods | in_place)


def _tell_nothing(self: Any, /, *said: Any, **fields: Any) -> None:
    """Below the level."""


def _tells(level: str) -> Callable[..., None]:
    def tell(self: Any, /, *said: Any, **fields: Any) -> None:
        _tell(self, level, said, fields)

    return tell


def _tell_exception(self: Any, /, *said: Any, **fields: Any) -> None:
    _tell(self, "error", said, {"exc_info": True, **fields})


def _tells_from(least: int) -> Callable[..., None]:
    def tell(self: Any, /, *said: Any, **fields: Any) -> None:
        number = said[0] if said else fields.pop("level", logging.INFO)
        if number >= least:
            _tell(self, _name(number), said[1:], fields)

    return tell


def _coroutine(tell: Callable[..., None]) -> Callable[..., Any]:
    """The same to be awaited. Logging never waits, so it needs no thread for that."""

    async def atell(self: Any, /, *said: Any, **fields: Any) -> None:
        tell(self, *said, **fields)

    return atell


def _tell(logger: Any, level: str, said: tuple[Any, ...], fields: dict[str, Any]) -> None:
    """Do what structlog does, with the text and its arguments, if any, in `said`."""
    text, *args = said or (fields.pop("event", ""),)
    fields = logger._context | fields
    if "event" in fields:  # a field that is called so, beside the text
        fields["event_"] = fields.pop("event")
    try:
        lines, more = logger._process_event(level, _interpolated(text, tuple(args)), fields)
        getattr(logger._logger, level)(*lines, **more)
    except structlog.DropEvent:  # by a processor of the job's own
        pass


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the record says, as structlog would be given it."""
    extra = {key: value for key, value in vars(record).items() if key not in _RECORD_FIELDS}
    text = _filled_in(record.getMessage, record.msg, record.args)
    own = {"event": text, "exc_info": record.exc_info, "logger": record.name}
    return own | {f"{key}_" if key in own else key: value for key, value in extra.items()}


def _interpolated(text: Any, args: tuple[Any, ...]) -> Any:
    """The text with its arguments, as structlog and stdlib logging understand them."""
    if not args:
        return text
    one = len(args) == 1 and isinstance(args[0], Mapping) and args[0]
    return _filled_in(lambda: text % (args[0] if one else args), text, args)


def _filled_in(fill_in: Callable[[], str], text: object, args: object) -> str:
    try:
        return fill_in()
    except BaseException:  # arguments that do not fit the text, or that raise whatever they like
        return f"{render.text(text)} {render.representation(args)}"


#: Code that what is raised in it does not leave as it is.
MAKES_LINES = frozenset({JobLines._line.__code__, _filled_in.__code__})


def _name(number: int) -> str:
    """What a level is called; one between two names, as the lower."""
    return next((name for name, least in _DESCENDING if least <= number), "debug")


def _exception(exc_info: Any) -> BaseException | None:
    """The exception that `exc_info` means, in any of the forms that logging knows."""
    match exc_info:
        case BaseException():
            return exc_info
        case (_, BaseException() as error, _):
            return error
        case None | False:
            return None
        case _:
            return sys.exc_info()[1]
