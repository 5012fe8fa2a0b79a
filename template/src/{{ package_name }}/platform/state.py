"""What the rooms offer to each other, as one typed object: a field is `None` if its room is absent.

Rooms do not import each other, so each can be read, replaced or removed on its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

import orjson
from fastapi import FastAPI
from starlette.types import ASGIApp, Scope

from .settings import RoomSettings

Json = Mapping[str, Any]
Headers = list[tuple[bytes, bytes]]  # as in ASGI
T = TypeVar("T")
# Requested every few seconds by orchestrators and load balancers, by IP address: no metrics, no host check.
PROBES = {"/livez", "/readyz"}
# The probes, and the polling of an open /__dev__ page: no traces, access lines at level debug.
QUIET = {*PROBES, "/__dev__/data"}
# https://opentelemetry.io/docs/specs/semconv/http/http-spans/: any other method is recorded as `_OTHER`.
METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE", "WEBSOCKET"}


class NotReady(Exception):
    """A required part does not work; the text gives the reason for people, without secrets."""


class Database(Protocol):
    """The room `db`."""

    def begin(self) -> AbstractAsyncContextManager[Any]:
        """Open a transaction: commits at the end, rolls back on an error. Yields SQLAlchemy's `AsyncSession`."""


@dataclass(frozen=True, slots=True, eq=False)
class CachePolicy(Generic[T]):
    """How values of one kind are cached: a constant of the feature that caches them.

    Args:
        name: Used in keys, metrics and spans, for example `item`.
        kind: The type of the values: anything that pydantic can write as JSON and read again. Its schema is part of
            the key, so that old and new code never read each other's values during a release.
        seconds: How long a value is fresh, plus or minus 10 %, so that values do not all expire at once.
        stale_seconds: How much longer a value may be returned while its source fails.
        private: Whether a value belongs to one principal; then each call needs `principal`.
        lock: Whether only one process at a time loads a value, while the others wait for it.
    """

    name: str
    kind: type[T]
    seconds: float
    stale_seconds: float = 0
    private: bool = False
    lock: bool = False

    def key(self, key: str, principal: str | None) -> bytes:
        """Return the cache key of a value: its own key and its principal.

        Raises:
            ValueError: The policy is private, and `principal` is missing.
        """
        if self.private and not principal:
            raise ValueError(f"values of {self.name!r} are private: principal is required")
        return orjson.dumps([key, principal])


Load = Callable[[], Awaitable[T | None]]


class Cache(Protocol):
    """The room `cache`."""

    async def get_or_load(
        self, policy: CachePolicy[T], key: str, load: Load[T], *, tags: Iterable[str] = (), principal: str | None = None
    ) -> T | None:
        """Return a value from the cache, or load it from its source.

        Args:
            policy: How values of this kind are cached.
            key: Identifies the value.
            load: Loads the value. Concurrent callers wait for the same call and get the same object, so it must not
                use anything that ends with a request, such as a transaction. None means no value, and is not cached.
            tags: What the value depends on, for `invalidate`. The same key always has the same tags.
            principal: The owner of the value; required if the policy is private.

        Raises:
            ValueError: The policy is private, and `principal` is missing.
        """

    async def invalidate(self, *tags: str) -> None:
        """Remove all values that have one of the tags; call it after the commit of the change. Never raises.

        Without tags it does nothing.
        """


class NoCache:
    """The cache if it is off or its room is absent: every value is loaded from its source."""

    async def get_or_load(
        self, policy: CachePolicy[T], key: str, load: Load[T], *, tags: Iterable[str] = (), principal: str | None = None
    ) -> T | None:
        """Load the value; `principal` is required for private values here, too."""
        policy.key(key, principal)
        return await load()

    async def invalidate(self, *tags: str) -> None:
        """Do nothing."""


class Idempotency(Protocol):
    """The room `idempotency`."""

    async def once(
        self, session: Any, scope: str, key: str, request: Json, make: Callable[[], Awaitable[Json]]
    ) -> Json:
        """Create a result once per `scope` and `key`; return it again for the same request.

        Raises:
            ServiceError: The key was already used with another request (422).
        """


class Secrets(Protocol):
    """The room `secrets`."""

    def on_change(self, name: str, call: Callable[[str], Awaitable[None]]) -> None:
        """Register `call` for each new value of a setting, such as `database_url`, while the service runs."""

    def renew(self, name: str) -> None:
        """Get a new value of a setting at once, because a server refused the current one. Returns at once.

        Call it on the event loop, as often as you like: it is done once a second at most, and less often if the new
        value is refused as well.
        """


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that a room registers; it is read at each export.

    Args:
        name: Follows the semantic conventions of OpenTelemetry.
        unit: In UCUM, for example `s` or `{connection}`.
        description: One sentence.
        read: Returns each value with its attributes; called in the exporter's thread.
        kind: A counter only grows, an up_down_counter can be summed over instances, a gauge neither.
    """

    name: str
    unit: str
    description: str
    read: Callable[[], Iterable[tuple[float, Mapping[str, str]]]]
    kind: Literal["counter", "up_down_counter", "gauge"] = "gauge"


@dataclass(slots=True)
class RequestContext:
    """One request and its response so far: created by the door, read by several rooms.

    Ids follow W3C Trace Context, in hex. `span_id` is empty if there is no span: telemetry is off, or the request is
    not sampled.
    """

    scope: Scope
    state: "State"
    request_id: str
    trace_id: str
    started: float
    parent_id: str = ""  # the caller's span
    parent_sampled: bool = False
    sampled: bool = False
    span_id: str = ""
    status: int = 0
    sent: int = 0
    seconds: float = 0.0
    error: BaseException | None = None
    notes: dict[type[Any], Any] = field(default_factory=dict)  # private data of a room, by a class of that room
    matched: str | None = None  # the route, after its first lookup

    @property
    def method(self) -> str:
        """The method, `WEBSOCKET`, or `_OTHER`, so that clients cannot create new metric series."""
        method: str = self.scope.get("method", "WEBSOCKET")
        return method if method in METHODS else "_OTHER"

    @property
    def root_path(self) -> str:
        """The prefix below which a proxy serves the service: `ROOT_PATH`."""
        root: str = self.scope.get("app_root_path", self.scope.get("root_path", ""))
        return root

    @property
    def path(self) -> str:
        """The path as the routes declare it, without `root_path`."""
        path: str = self.scope["path"]
        return path.removeprefix(self.root_path)

    @property
    def route(self) -> str | None:
        """The template of the route, for example `/v1/items/{item_id}`, including mounts; None if no route matched."""
        self.matched = self.matched or self.state.route_of(self.scope)
        return self.matched


current: ContextVar[RequestContext | None] = ContextVar("request", default=None)

Readiness = Callable[["State"], Awaitable[str]]
Line = Callable[[Mapping[str, Any]], None]


@dataclass(slots=True)
class State:
    """The typed state of one application."""

    settings: RoomSettings
    draining: bool = False
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # set when streams have to end: docs/connections.md
    cache: Cache = field(default_factory=NoCache)
    database: Database | None = None
    report: Callable[[Json], None] | None = None  # reports an event that was logged as an error: the room `errors`
    idempotency: Idempotency | None = None
    secrets: Secrets | None = None
    traced: ASGIApp | None = None  # serves sampled requests, while traces are exported
    route_of: Callable[[Scope], str | None] = lambda scope: None
    metrics: list[Metric] = field(default_factory=list)  # exported by `telemetry`; complete before the service starts
    own: dict[type[Any], Any] = field(default_factory=dict)  # private data of a room, by a class of that room
    readiness: dict[str, Readiness] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)  # called with each log line, after redaction
    spans: list[Any] = field(default_factory=list)  # OpenTelemetry exporters: get each span, after redaction
    flushes: list[Callable[[], object]] = field(default_factory=list)  # called last and concurrently; may block


def state_of(app: FastAPI) -> State:
    """The state of an application made by `create_app`."""
    return cast(State, app.state.platform)


def release_of(app: FastAPI) -> str:
    """The running release, for example `orders@1.2.0+4f3c2b1`: the same name in all telemetry and error reports."""
    commit = state_of(app).settings.git_commit
    return f"{app.title}@{app.version}" + (f"+{commit}" if commit != "unknown" else "")
