"""What can be wrong with a configuration, in a form that names what, where it came from and what would be right.

Imports nothing of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing in the configuration that cannot be used; becomes one `config.invalid` line."""

    #: The setting's name, such as ``JOBD_INTERVAL``, or the file that is at fault.
    setting: str
    #: The value as it was given.
    value: str
    #: Where it came from: ``environment``, ``.env line 3``, ``command line``.
    source: str
    #: What is wrong and what would be right, as one sentence.
    reason: str
    #: The fields `error` and `traceback`, where an exception is behind it: of a jobs module at import, say. Made on the
    #: thread that it was raised in, because its texts run the user's code.
    failure: Mapping[str, Any] | None = None


class InvalidConfig(Exception):
    """The configuration cannot be used; `faults` holds every fault that was found, not just the first."""

    def __init__(self, faults: list[Fault], rest: Any = None) -> None:
        """`rest` is what could be read all the same."""
        super().__init__("; ".join(f"{f.setting}={f.value!r} ({f.source}): {f.reason}" for f in faults))
        self.faults = faults
        self.rest = rest


class Unusable(Exception):
    """Something that was named gives no job, for the reason that it says; the cause was raised by the user's code."""
