"""The log: everything that the daemon, its jobs and their libraries say, as lines of one stream.

May import: events, render, sink, clock, run (for the run that a line belongs to).

Two structlog pipelines of one processor each end in the same sink: `emit` for the daemon's own events, and the one
that `structlog.get_logger()` gives to jobs, which also takes what comes through stdlib logging. The daemon's own
does not depend on structlog's global configuration, so a job that configures structlog for itself does not touch
it.
"""

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from jobd import clock, events, render
from jobd import run as runs
from jobd.sink import Sink

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

#: What a plain `logging.LogRecord` holds; anything else on one came in through ``extra=``.
_RECORD_FIELDS = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}


class Log:
    """The open log of this process."""

    def __init__(self, level: str, layout: str) -> None:
        """Take over stdout for lines of `level` and above; `layout` is ``json``, ``console`` or ``auto``.

        From here on, what anybody else writes to stdout goes to stderr.
        """
        self._render = _console_line if _is_console(layout) else render.line
        self._sink = Sink(1, self._dropped_line)
        _divert_stdout()
        self._wrapper = structlog.make_filtering_bound_logger(LEVELS[level])
        self._own = self._logger(self._sink.write)
        self._take_job_lines(LEVELS[level])

    def emit(self, event: events.Event, /, *, level: str | None = None, **fields: Any) -> None:
        """Log one of the daemon's own events. Never waits, never raises."""
        getattr(self._own, level or event.level)(event.name, **fields)

    def finish(self, event: events.Event, timeout_s: float, /, **fields: Any) -> None:
        """Log the last line and wait, `timeout_s` at most, until the reader has been given everything."""
        lines: list[bytes] = []
        getattr(self._logger(lines.append), event.level)(event.name, **fields)
        sys.stdout and sys.stdout.flush()
        self._sink.finish(b"".join(lines), timeout_s)

    def flush(self, timeout_s: float) -> None:
        """Wait, `timeout_s` at most, until the reader has been given everything so far."""
        self._sink.flush(timeout_s)

    def _logger(self, write: Callable[[bytes], object]) -> Any:
        return structlog.wrap_logger(
            _Lines(write), processors=[self._own_line], wrapper_class=self._wrapper, context_class=dict
        ).bind()

    def _take_job_lines(self, level: int) -> None:
        """Make this log the end of structlog's and stdlib logging's default pipelines."""
        structlog.configure(
            processors=[self._job_line],
            wrapper_class=self._wrapper,
            context_class=dict,
            logger_factory=lambda *args: _Lines(self._sink.write),
            cache_logger_on_first_use=True,
        )
        logging.basicConfig(handlers=[_Bridge(level)], level=level, force=True)

    def _own_line(self, logger: Any, level: str, fields: MutableMapping[str, Any]) -> bytes:
        return self._render({"timestamp": clock.now(), "level": level, "event": fields.pop("event"), **fields})

    def _job_line(self, logger: Any, level: str, fields: MutableMapping[str, Any]) -> bytes:
        line = {"timestamp": clock.now(), "level": level, "event": render.text(fields.pop("event", ""))}
        run = runs.current.get(None)
        if run is not None:
            line |= {"job": run.job, "run_id": run.run_id}
        if error := _exception(fields.pop("exc_info", None)):
            line |= render.failure(error)
        for key, value in (structlog.contextvars.get_contextvars() | dict(fields)).items():
            line[f"{key}_" if key in line else key] = value  # the daemon's fields win; the job's are not lost
        return self._render(line)

    def _dropped_line(self, count: int) -> bytes:
        event = events.LOG_DROPPED
        return self._render({"timestamp": clock.now(), "level": event.level, "event": event.name, "count": count})


class _Lines:
    """What structlog calls a logger: finished lines go in, by the name of their level."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = write


class _Bridge(logging.Handler):
    """Hands the records of stdlib logging to structlog."""

    def handle(self, record: logging.LogRecord) -> bool:
        """As `logging.Handler.handle`, without its lock: a record whose text never comes must not stop the others."""
        passed = bool(self.filter(record))
        if passed:
            self.emit(record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit the text, or that have none
            message = f"{render.text(record.msg)} {[render.text(arg) for arg in record.args or ()]}"
        extra = {key: value for key, value in vars(record).items() if key not in _RECORD_FIELDS}
        extra.pop("event", None)
        level = max((number for number in LEVELS.values() if number <= record.levelno), default=logging.DEBUG)
        structlog.get_logger().log(level, message, logger=record.name, exc_info=record.exc_info, **extra)


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


def _divert_stdout() -> None:
    """Make descriptor 1 mean stderr, so that nothing but log lines ever reaches the log's reader."""
    if sys.stdout is not None:
        sys.stdout.flush()
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    try:
        os.dup2(2, 1)
    except OSError:  # stderr is closed
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def _is_console(layout: str) -> bool:
    return os.isatty(1) if layout == "auto" else layout == "console"


def _console_line(fields: dict[str, Any]) -> bytes:
    """The fields as a person reads them on a terminal; https://no-color.org is honoured."""
    if "traceback" in fields:
        fields["exception"] = fields.pop("traceback")
    if isinstance(error := fields.get("error"), dict):
        fields["error"] = f"{error['type']}: {error['message']}"
    renderer = structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"), pad_event_to=20)
    return (str(renderer(None, "", fields)) + "\n").encode("utf-8", "backslashreplace")
