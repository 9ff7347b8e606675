"""The front door: ``jobd`` and ``python -m jobd``.

Catches the signals before anything heavy is imported, then hands over to the command line. Importing asyncio and
structlog takes tens of milliseconds; a signal that arrives meanwhile waits in the pipe and is obeyed.
"""

import os
import sys


def main() -> None:
    """Run the command line of this process; leave with one of `jobd.exits.ExitCode`."""
    from jobd import descriptors, signals

    descriptors.complete()
    signals.hold()
    from jobd import cli

    os._exit(cli.main(sys.argv[1:]))  # a jobs module may have started threads that would be waited for


if __name__ == "__main__":
    main()
