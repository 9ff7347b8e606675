"""The log: everything that the daemon, its jobs and their libraries say, as lines of one stream.

May import: events, render, sink, output, joblog, clock, starvation, run.

Two structlog loggers end in the same sink: `emit` for the daemon's own events, which need no processor, and the one
that `structlog.get_logger()` gives to jobs, which also takes what comes through stdlib logging. The daemon's own
does not depend on structlog's global configuration, so a job that configures structlog for itself does not touch
it. What is printed, by whomever, comes from `output` and joins in as an event of its own. Lines that the process of a
job has made (`JobLines`, over there) are forwarded as they are.
"""

import os
from collections.abc import Callable
from typing import Any

import structlog

from jobd import clock, events, output, render, starvation
from jobd.clock import Real
from jobd.joblog import LEVELS, JobLines
from jobd.run import Run
from jobd.sink import Sink, Spare

#: Kept here, because a job may put something else into the modules.
_filtering, _wrap_logger = structlog.make_filtering_bound_logger, structlog.wrap_logger

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


def _finish(pipes: output.Output, timeout_s: float) -> None:
    try:
        pipes.finish(timeout_s)
    except Exception as error:  # a job has spoilt what that needs, and it is not to cost the last line
        if starvation.lacking(error):
            raise


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
