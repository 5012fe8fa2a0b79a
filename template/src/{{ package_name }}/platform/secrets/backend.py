"""What a backend of secrets is: something that is asked now and then, and may block while it answers."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from ..settings import RoomSettings


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
        refresh_seconds: Seconds until it has to be asked again.
    """

    values: Mapping[str, str] = field(repr=False)
    refresh_seconds: float


class Backend(Protocol):
    """Asked by one thread at a time, so it needs no lock; `leases` is replaced as a whole, since others read it."""

    leases: Mapping[str, Lease]

    def read(self) -> Snapshot:
        """Read everything, and renew what is due.

        Raises:
            SourceUnavailable: It does not answer now.
            ConfigurationError: It answered, and says no. Neither text holds a value.
        """


@dataclass(frozen=True, slots=True)
class BackendKind:
    """What the module of a backend declares, as `BACKEND`.

    Args:
        settings: Its environment variables.
        open: Makes one from them and a clock such as `time.monotonic`; it may raise `Refused`, and asks nothing yet.
    """

    settings: type[RoomSettings]
    open: Callable[[RoomSettings, Callable[[], float]], Backend]


def settings_of(secret: Mapping[str, Any]) -> dict[str, str]:
    """What a secret holds, as settings: what is no text becomes JSON, which pydantic understands.

    Raises:
        AttributeError: It is no object.
    """
    return {name.lower(): value if isinstance(value, str) else json.dumps(value) for name, value in secret.items()}


def with_login(url: str, user: str, password: str) -> str:
    """Put into an address who logs in, in place of whoever stands there."""
    parts = urlsplit(url)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}").geturl()
