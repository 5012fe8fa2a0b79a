"""What a backend of secrets is: something that is asked now and then, and may block while it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Lease:
    """Something that is lent.

    Args:
        until: When it ends, by `time.monotonic`: durations only, so a wrong clock on either side does not matter.
        seconds: How long it was when it was given.
        holds: Whether values become worthless at its end.
    """

    until: float
    seconds: float
    holds: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is now.

    Args:
        values: By the name of the setting, in lower case.
        look: Seconds until it has to be asked again.
    """

    values: Mapping[str, str] = field(repr=False)
    look: float


class Backend(Protocol):
    """Asked by one thread at a time, so it needs no lock; `leases` is replaced as a whole, since others read it.

    A module of a backend has a function `open_backend(settings, clock)`, and `Settings` where it needs some.
    """

    leases: Mapping[str, Lease]

    def read(self) -> Snapshot:
        """Read everything, and renew what is due.

        Raises:
            Away: It does not answer now.
            Refused: It answered, and says no. Neither text holds a value.
        """
