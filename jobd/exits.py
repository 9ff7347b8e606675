"""How the process ends, as its supervisor sees it. Imports nothing of ours."""

import os
from enum import IntEnum

#: End the process at once, and its number: kept here, because a job may put something else into `os`.
leave = os._exit
pid = os.getpid


class ExitCode(IntEnum):
    """The exit codes of the contract; 70 and 78 are those of `sysexits.h`."""

    OK = 0
    FENCED = 1
    USAGE = 2
    ABANDONED = 3
    INTERNAL = 70
    CONFIG = 78


#: What each tells the supervisor.
MEANINGS = {
    ExitCode.OK: "stopped on request, and every run ended in time",
    ExitCode.FENCED: "a last fence ended the process: the GIL was held through the whole time bound",
    ExitCode.USAGE: "wrong command line",
    ExitCode.ABANDONED: "stopped on request, but at least one run had to be abandoned",
    ExitCode.INTERNAL: "internal error: the daemon itself failed",
    ExitCode.CONFIG: "wrong configuration",
}
