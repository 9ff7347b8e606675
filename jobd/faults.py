"""How faults of the configuration are told in the log.

May import: errors, events, log, render.
"""

from collections.abc import Iterable

from jobd import events, log, render
from jobd.errors import Fault


def tell(to: log.Log, faults: Iterable[Fault]) -> None:
    """Log each fault."""
    for fault in faults:
        failure = {} if fault.exception is None else render.failure(fault.exception)
        to.emit(
            events.CONFIG_INVALID,
            setting=fault.setting,
            value=fault.value,
            source=fault.source,
            reason=fault.reason,
            **failure,
        )


def of_lifespan(module: str, error: BaseException) -> Fault:
    """A module whose lifespan cannot be opened."""
    reason = f"the lifespan of {module} raised {type(error).__name__} when it was opened"
    return Fault("JOBD_JOBS", module, "lifespan", reason, error)


def of_reload(error: BaseException) -> Fault:
    """Jobs that cannot be read again, for a reason that nobody has thought of."""
    return Fault("JOBD_JOBS", "", "reload", f"cannot be read again: {type(error).__name__}", error)
