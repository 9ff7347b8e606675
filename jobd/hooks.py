"""Errors that belong to no run: what Python would print to stderr becomes log lines.

May import: events, log, render. What the event loops report comes through stdlib logging already.
"""

import sys
import threading
import warnings
from typing import TextIO

from jobd import events, log, render


def stray(to: log.Log, where: str, error: BaseException | None) -> None:
    """Log an error that belongs to no run."""
    known = RuntimeError("no exception given") if error is None else error  # not `or`: its truth is its author's
    try:
        to.emit(events.STRAY_ERROR, where=where, **render.failure(known))
    except MemoryError:  # then Python would say so on stderr
        pass


def install(to: log.Log) -> None:
    """Send uncaught exceptions, unraisable ones and warnings to the log."""

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            stray(to, f"thread {args.thread.name if args.thread else '?'}", args.exc_value)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        stray(to, f"{args.err_msg or 'Exception ignored in'} {render.representation(args.object)}", args.exc_value)

    def warned(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        where = f"{filename}:{lineno}"
        to.emit(events.STRAY_WARNING, message=render.text(message), category=category.__name__, where=where)

    sys.excepthook = lambda cls, error, trace: stray(to, "main thread", error)
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable
    warnings.showwarning = warned
