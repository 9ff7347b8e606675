"""jobd starts jobs on time, whatever the earlier ones do, and stops on time, whatever the running ones do.

This file is the public face for people who write jobs: ``every`` and ``cron`` declare one, ``lifespan`` what the jobs
of a module share, ``current_run`` tells a job about the run it is in. Names are loaded when first asked for, because
the daemon imports this package before it has caught its signals, and every millisecond until then is one in which a
SIGTERM kills it silently.
"""

TYPE_CHECKING = False  # not from typing, whose import alone takes longer than all that comes before the signals
if TYPE_CHECKING:
    from jobd.job import cron as cron
    from jobd.job import every as every
    from jobd.job import lifespan as lifespan
    from jobd.run import Run as Run
    from jobd.run import current_run as current_run

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "cron", "current_run", "every", "lifespan"]

_HOMES = {"every": "jobd.job", "cron": "jobd.job", "lifespan": "jobd.job", "current_run": "jobd.run", "Run": "jobd.run"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'jobd' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
