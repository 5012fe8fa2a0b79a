"""What rooms offer each other, as one typed object: `None` where a room is absent.

Rooms do not import one another, so each can be read, replaced or removed alone.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from fastapi import FastAPI
from starlette.types import Scope

from .settings import RoomSettings

Json = Mapping[str, Any]


class NotReady(Exception):
    """A required part cannot do its work; the text says why, for people and without secrets."""


class Database(Protocol):
    """The room `db`."""

    def begin(self) -> AbstractAsyncContextManager[Any]:
        """Open a transaction: commits at the end, rolls back on an error. The value is SQLAlchemy's `AsyncSession`."""

    async def look(self) -> str:
        """Ask whether it answers with a schema that this code can use.

        Raises:
            NotReady: It does not.
        """

    async def close(self) -> None:
        """Give all connections back."""


class Idempotency(Protocol):
    """The room `idempotency`."""

    async def once(
        self, session: Any, scope: str, key: str, request: Json, make: Callable[[], Awaitable[Json]]
    ) -> Json:
        """Make a result once per `scope` and `key`; repeat it for the same request.

        Raises:
            ServiceError: The key came before with another request (422).
        """


class ErrorReports(Protocol):
    """The room `errors`."""

    def isolate(self) -> None:
        """Keep what this request tells the reporter about itself from all others."""

    def unhandled(self, error: BaseException) -> None:
        """Report an error for which nobody had an answer."""

    def logged(self, event: Json) -> None:
        """Report what was logged as an error, its exception among it."""


@dataclass(slots=True)
class Exchange:
    """One request and its answer, as far as known: made by the door, read by the rooms that watch."""

    scope: Scope
    request_id: str
    trace_id: str
    started: float
    span_id: str = ""
    sampled: bool = False
    status: int = 0
    sent: int = 0
    seconds: float = 0.0
    error: BaseException | None = None
    reported: BaseException | None = None

    @property
    def route(self) -> str | None:
        """The template of the route, as in `/v1/items/{item_id}`; None if there was none."""
        found = self.scope.get("fastapi", {}).get("effective_route_context") or self.scope.get("route")
        path: str | None = getattr(found, "path_format", None) or getattr(found, "path", None)
        return path and self.scope.get("root_path", "") + path


current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)

Readiness = Callable[["State"], Awaitable[str]]


@dataclass(slots=True)
class State:
    """The typed state of one application."""

    settings: RoomSettings
    draining: bool = False
    database: Database | None = None
    errors: ErrorReports | None = None
    idempotency: Idempotency | None = None
    readiness: dict[str, Readiness] = field(default_factory=dict)


def state_of(app: FastAPI) -> State:
    """The state of an application made by `create_app`."""
    return cast(State, app.state.platform)


def release_of(app: FastAPI) -> str:
    """What runs, as in `orders@1.2.0+4f3c2b1`: the name under which every backend files what it gets from here."""
    commit = state_of(app).settings.git_commit
    return f"{app.title}@{app.version}" + (f"+{commit}" if commit != "unknown" else "")
