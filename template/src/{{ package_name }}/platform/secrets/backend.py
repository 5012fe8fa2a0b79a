"""The interface of a backend of secrets: it is read periodically, in a thread, so it may block."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from ..settings import RoomSettings


@dataclass(frozen=True, slots=True)
class Lease:
    """A token or login that expires.

    Args:
        until: When it expires, by `time.monotonic`, so that a wrong clock on either side does not matter.
        seconds: Its duration when it was created.
        required: Whether values stop working when it expires.
    """

    until: float
    seconds: float
    required: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The values of one read.

    Args:
        values: By the name of the setting, in lower case.
        refresh_seconds: Seconds until the next read.
    """

    values: Mapping[str, str] = field(repr=False)
    refresh_seconds: float


class Backend(Protocol):
    """Read by one thread at a time, so it needs no lock; `leases` is replaced as a whole, as other threads read it."""

    leases: Mapping[str, Lease]

    def read(self, renew: bool = False) -> Snapshot:
        """Read everything, and renew what is due.

        Args:
            renew: Whether a value was refused by the server that it is for: a login is replaced, even if it is not due.

        Raises:
            SourceUnavailable: It does not respond now.
            ConfigurationError: It refused. Neither message contains a value.
        """


@dataclass(frozen=True, slots=True)
class BackendKind:
    """What the module of a backend declares, as `BACKEND`.

    Args:
        settings: Its environment variables.
        open: Creates the backend from them and a clock such as `time.monotonic`. It may raise `ConfigurationError`, and
            sends no request yet.
    """

    settings: type[RoomSettings]
    open: Callable[[RoomSettings, Callable[[], float]], Backend]


def settings_of(secret: Mapping[str, Any]) -> dict[str, str]:
    """Convert a secret to settings: values that are no strings become JSON, which pydantic parses.

    White space around a value is removed: editors and `vault kv put name=@file` add a line end. Empty values are left
    out, as empty variables are.

    Raises:
        AttributeError: The secret is no object.
    """
    pairs = ((name, "" if value is None else value) for name, value in secret.items())
    texts = {name.lower(): (value if isinstance(value, str) else json.dumps(value)).strip() for name, value in pairs}
    return {name: text for name, text in texts.items() if text}


def with_login(url: str, user: str, password: str) -> str:
    """Replace the user and password of a URL."""
    parts = urlsplit(url)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}").geturl()
