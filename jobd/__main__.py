"""The front door: ``jobd`` and ``python -m jobd``.

Makes the signals wait before anything is imported, catches them before anything heavy is, then hands over to the
command line. Importing asyncio and structlog takes tens of milliseconds; a signal that arrives meanwhile waits and is
obeyed. What comes before the first line of `main` (the interpreter's own start, the console script's own imports) is
not ours, and a SIGTERM in it ends the process silently, or, for PID 1, is lost.
"""

import _signal  # type: ignore[import-not-found]  # the core of `signal`, which takes milliseconds to import
import os
import sys


def main() -> None:
    """Run the command line of this process; leave with one of `jobd.exits.ExitCode`."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())  # until `hold`
    if os.getpid() == 1:
        from jobd import init

        init.split()
    from jobd import descriptors, signals

    descriptors.complete()
    signals.hold()
    import gc

    gc.disable()  # what is imported stays; to look through it for garbage takes a sixth of the start. See `garbage`
    from jobd import cli

    os._exit(cli.main(sys.argv[1:]))  # a jobs module may have started threads that would be waited for


if __name__ == "__main__":
    main()
