"""How faults of the configuration are told in the log.

May import: errors, events, log, render.
"""

from collections.abc import Iterable

from jobd import events, log, render
from jobd.errors import Fault


def tell(to: log.Log, faults: Iterable[Fault]) -> None:
    """Log each fault."""
    for fault in faults:
        to.emit(
            events.CONFIG_INVALID,
            setting=fault.setting,
            value=fault.value,
            source=fault.source,
            reason=fault.reason,
            **(fault.failure or {}),
        )


def of_lifespan(module: str, error: BaseException) -> Fault:
    """A module whose lifespan cannot be opened."""
    failure = render.failure(error, skip=1)
    reason = f"the lifespan of {module} raised {failure['error']['type']} when it was opened"
    return Fault("JOBD_JOBS", module, "lifespan", reason, failure)


def of_lifespan_closed(module: str) -> Fault:
    """A module whose lifespan was asked to close before it had opened."""
    return Fault("JOBD_JOBS", module, "lifespan", f"the lifespan of {module} was closed before it had opened")


def of_reload(error: BaseException) -> Fault:
    """Jobs that cannot be read again, for a reason that nobody has thought of."""
    failure = render.failure(error)
    return Fault("JOBD_JOBS", "", "reload", f"cannot be read again: {failure['error']['type']}", failure)
