"""The log: everything that the daemon, its jobs and their libraries say, as lines of one stream.

May import: events, render, sink, output, clock, starvation, run (for the run that a line belongs to).

Two structlog loggers end in the same sink: `emit` for the daemon's own events, which need no processor, and the one
that `structlog.get_logger()` gives to jobs, which also takes what comes through stdlib logging. The daemon's own
does not depend on structlog's global configuration, so a job that configures structlog for itself does not touch
it. What is printed, by whomever, comes from `output` and joins in as an event of its own. Lines that the process of a
job has made (`JobLines`, over there) are forwarded as they are.
"""

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from jobd import clock, events, output, render, starvation
from jobd import run as runs
from jobd.clock import Real
from jobd.run import Run
from jobd.sink import Sink, Spare

#: Kept here, because a job may put something else into the modules.
_filtering, _wrap_logger = structlog.make_filtering_bound_logger, structlog.wrap_logger
_Logger, _root = logging.Logger, logging.getLogger()
_loggers = _root.manager.loggerDict

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_DESCENDING = tuple(reversed(LEVELS.items()))

#: What a plain `logging.LogRecord` holds; anything else on one came in through ``extra=``.
_RECORD_FIELDS = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}

#: How long the last line waits for what has been printed and not read yet.
OUTPUT_S = 0.05


class Log:
    """The open log of this process."""

    def __init__(self, level: str, layout: str) -> None:
        """Write lines of `level` and above to stdout; `layout` is ``json``, ``console`` or ``auto``."""
        #: The layout of the lines: ``json`` or ``console``.
        self.layout = "console" if _is_console(layout) else "json"
        self._render = renderer(self.layout)
        self._sink = Sink(1, self._dropped_line)
        self._output: output.Output | None = None
        self._jobs = JobLines(level, self._render, self.forward)
        self._tell_from(level)

    def use(self, level: str) -> None:
        """From here on log lines of `level` and above; whoever has a teller is to ask for it again."""
        if level != self.level:
            self._jobs.use(level)
            self._tell_from(level)

    def _tell_from(self, level: str) -> None:
        self._wrapper = _filtering(LEVELS[level])
        self._told = {name for name, number in LEVELS.items() if number >= LEVELS[level]}
        self._own = self._logger(self._sink.write, self._render)
        self._queued = self._logger(self._sink.put, self._render)
        self._brief = self._logger(self._sink.put, render.brief if self.layout == "json" else self._render)
        self._spare = self._logger(self.forward, self._render)
        #: The least level that is logged.
        self.level = level  # at last: where memory is lacking above, all of it is done again

    def divert(self, pipes: output.Pipes) -> None:
        """Make lines of what anybody prints, so that nothing but this log ever reaches its reader.

        Raises `RuntimeError` where no thread is to be had.
        """
        self._output = output.Output(pipes, self.printed, self._sink)

    def mend(self) -> None:
        """Restore standard descriptors that somebody has closed."""
        if self._output:
            self._output.mend()

    def emit(self, event: events.Event, /, *, level: str | None = None, **fields: Any) -> None:
        """Log one of the daemon's own events. Never waits; where it raises for want of memory, it has not."""
        logger = self._spare if event.spare else self._own
        getattr(logger, level or event.level)(event, **fields)

    def teller(self, level: str, *, brief: bool = False) -> Callable[..., None] | None:
        """Logs events of this level, like `emit`: for what is told again and again; None where the level is not logged.

        Such lines leave together with the next `push`, in one write. `brief`: they hold nothing but the name of a job,
        numbers, and texts of our own.
        """
        return getattr(self._brief if brief else self._queued, level) if level in self._told else None

    def push(self) -> None:
        """Let leave what tellers have told."""
        self._sink.push()

    def hold(self) -> None:
        """Let lines wait until `finish`: each write gives the GIL away, and many busy threads want it."""
        self._sink.hold()

    def finish(self, event: events.Event, timeout_s: float, longest_s: float, /, **fields: Any) -> None:
        """Log the last line and wait, `timeout_s` at most, until the reader has been given everything.

        A reader that is slow but reads gets `longest_s` for the last line.
        """
        deadline = Real.monotonic() + timeout_s
        if self._output:
            _finish(self._output, min(OUTPUT_S, timeout_s / 2))
        line = self._render({"timestamp": clock.now(), "level": event.level, "event": event.name, **fields})
        left_s = max(timeout_s / 2, deadline - Real.monotonic())
        self._sink.finish(line if event.level in self._told else b"", left_s, longest_s - timeout_s + left_s)

    def flush(self, timeout_s: float) -> None:
        """Wait, `timeout_s` at most, until the reader has been given everything so far."""
        self._sink.flush(timeout_s)

    def _logger(self, write: Callable[[bytes], object], render: Callable[[dict[str, Any]], bytes]) -> Any:
        """A filtering logger whose methods do at once what structlog's own would, for one processor and no context."""
        now = clock.now

        def method(level: str) -> Callable[..., None]:
            def tell(self: object, event: events.Event, /, **fields: Any) -> None:
                write(render({"timestamp": now(), "level": level, "event": event.name, **fields}))

            return tell

        direct = type("Direct", (self._wrapper,), {level: method(level) for level in self._told})
        return _wrap_logger(write, processors=[], wrapper_class=direct, context_class=dict).bind()

    def printed(self, run: Run | None, stream: str, line: bytes) -> None:
        """Log a line that somebody has printed."""
        self.emit(
            events.JOB_OUTPUT,
            job=run.job if run else None,
            run_id=run.run_id if run else None,
            stream=stream,
            line=line.decode("utf-8", "backslashreplace"),
        )

    def forward(self, line: bytes) -> None:
        """Take a finished line of a job's, its end included. Never waits."""
        self._sink.write(Spare(line))

    def _dropped_line(self, count: int) -> bytes:
        event = events.LOG_DROPPED
        return self._render({"timestamp": clock.now(), "level": event.level, "event": event.name, "count": count})


class JobLines:
    """Makes lines of what jobs and libraries say: the end of structlog's and stdlib logging's default pipelines."""

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
        self._logger = type("JobLogger", (_filtering(LEVELS[level]),), {})
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
        self._logger.__bases__ = (_filtering(LEVELS[level]),)
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
        level = next((name for name, number in _DESCENDING if number <= record.levelno), "debug")
        self._write(self._line(None, level, _fields(record)))


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


def _finish(pipes: output.Output, timeout_s: float) -> None:
    try:
        pipes.finish(timeout_s)
    except Exception as error:  # a job has spoilt what that needs, and it is not to cost the last line
        if starvation.lacking(error):
            raise


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the record says, as structlog would be given it."""
    try:
        message = record.getMessage()
    except BaseException:  # arguments that do not fit the text, or that raise whatever they like
        message = f"{render.text(record.msg)} {render.representation(record.args)}"
    extra = {key: value for key, value in vars(record).items() if key not in _RECORD_FIELDS}
    own = {"event": message, "exc_info": record.exc_info, "logger": record.name}
    return own | {f"{key}_" if key in own else key: value for key, value in extra.items()}


#: Code that what is raised in it does not leave as it is.
MAKES_LINES = frozenset({JobLines._line.__code__, _fields.__code__})


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


def _is_console(layout: str) -> bool:
    return os.isatty(1) if layout == "auto" else layout == "console"


def renderer(layout: str) -> Callable[[dict[str, Any]], bytes]:
    """What makes a line of its fields, by the layout of the lines: ``json`` or ``console``."""
    return _for_people if layout == "console" else render.line


def _for_people(fields: dict[str, Any]) -> bytes:
    try:
        return _console_line(fields)
    except Exception:  # whatever the renderer cannot show; no line is lost on it
        return render.line(fields)


def _console_line(fields: dict[str, Any]) -> bytes:
    """The fields as a person reads them on a terminal; https://no-color.org is honoured."""
    tame = render.tame(fields)
    # ConsoleRenderer adds these to a string as they are, whatever they are; they go below the line by themselves.
    below = [_below(tame.pop(key)) for key in ("stack", "exception", "exc_info", "traceback") if key in tame]
    error = tame.get("error")
    if isinstance(error, dict) and error.keys() == {"type", "message"}:
        tame["error"] = f"{error['type']}: {error['message']}"
    tame = {
        render.printable(key): render.printable(value) if isinstance(value, str) else value
        for key, value in tame.items()
    }
    renderer = structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"), pad_event_to=20, sort_keys=False)
    return "\n".join([str(renderer(None, "", tame)), *below, ""]).encode("utf-8", "backslashreplace")


def _below(value: object) -> str:
    """What does not go into the line, one entry of a list for each line."""
    lines = [f"  {item}" for item in value] if isinstance(value, list) else [str(value).rstrip("\n")]
    return render.printable("\n".join(lines))
