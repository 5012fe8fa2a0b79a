"""What rooms offer each other, as one typed object: `None` where a room is absent.

Rooms do not import one another, so each can be read, replaced or removed alone.
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
Headers = list[tuple[bytes, bytes]]  # as ASGI has them
T = TypeVar("T")
# Asked every few seconds, by address, by whoever starts and balances: neither traffic nor news.
PROBES = {"/livez", "/readyz"}
# Asked as often; also by an open page of a developer, who wants to read the log beside it.
QUIET = {*PROBES, "/__dev__/data"}
# https://opentelemetry.io/docs/specs/semconv/http/http-spans/: what else clients make up is one name, `_OTHER`.
METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE", "WEBSOCKET"}


class NotReady(Exception):
    """A required part cannot do its work; the text says why, for people and without secrets."""


class Database(Protocol):
    """The room `db`."""

    def begin(self) -> AbstractAsyncContextManager[Any]:
        """Open a transaction: commits at the end, rolls back on an error. The value is SQLAlchemy's `AsyncSession`."""


@dataclass(frozen=True, slots=True, eq=False)
class CachePolicy(Generic[T]):
    """How values of one kind are cached: a constant of the feature that they belong to.

    Args:
        name: In keys, metrics and spans, as in `item`.
        kind: What a value is: all that pydantic writes as JSON and reads again. Another shape means other keys, so
            that old and new code, side by side in a release, never read each other's values.
        seconds: How long a value is fresh, give or take a tenth: not all of them end at once.
        stale_seconds: How much longer it may stand in while its source fails.
        private: Whether a value belongs to one principal. Then each call has to say whose it is.
        lock: Whether one process at a time asks the source, and the others wait for its value.
    """

    name: str
    kind: type[T]
    seconds: float
    stale_seconds: float = 0
    private: bool = False
    lock: bool = False

    def key(self, key: str, principal: str | None) -> bytes:
        """What a value is found by: its key, and whose it is.

        Raises:
            ValueError: The policy is private, and nobody is named.
        """
        if self.private and not principal:
            raise ValueError(f"values of {self.name!r} are private: say whose, by `principal`")
        return orjson.dumps([key, principal])


Load = Callable[[], Awaitable[T | None]]


class Cache(Protocol):
    """The room `cache`."""

    async def get_or_load(
        self, policy: CachePolicy[T], key: str, load: Load[T], *, tags: Iterable[str] = (), principal: str | None = None
    ) -> T | None:
        """Give the value of a key from the cache, else from its source.

        Args:
            policy: How values of this kind are kept.
            key: Which of them.
            load: Asks the source. Who comes meanwhile waits for the same call and gets the same object, so it must not
                use what ends with a request, as a transaction does. None is no value, and is not kept.
            tags: What the value is made of: `invalidate` takes these. The same key has always the same ones.
            principal: Whose value it is; required where the policy is private.

        Raises:
            ValueError: The policy is private, and nobody is named.
        """

    async def invalidate(self, *tags: str) -> None:
        """Forget all values that have one of the tags, after the commit of what changed them. Never fails.

        Without tags it does nothing.
        """


class NoCache:
    """What stands where the cache is off, or its room is gone: every value comes from its source."""

    async def get_or_load(
        self, policy: CachePolicy[T], key: str, load: Load[T], *, tags: Iterable[str] = (), principal: str | None = None
    ) -> T | None:
        """Ask the source; a private value has to name its principal here, too."""
        policy.key(key, principal)
        return await load()

    async def invalidate(self, *tags: str) -> None:
        """There is nothing to forget."""


class Idempotency(Protocol):
    """The room `idempotency`."""

    async def once(
        self, session: Any, scope: str, key: str, request: Json, make: Callable[[], Awaitable[Json]]
    ) -> Json:
        """Make a result once per `scope` and `key`; repeat it for the same request.

        Raises:
            ServiceError: The key came before with another request (422).
        """


class Secrets(Protocol):
    """The room `secrets`."""

    def on_change(self, name: str, call: Callable[[str], Awaitable[None]]) -> None:
        """Have `call` told each new value of a setting, such as `database_url`, while requests run."""


class ErrorReports(Protocol):
    """The room `errors`."""

    def logged(self, event: Json) -> None:
        """Report what was logged as an error, its exception among it."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that a room registers, read whenever metrics are exported.

    Args:
        name: After the semantic conventions of OpenTelemetry.
        unit: In UCUM, as in `s` or `{connection}`.
        description: One sentence.
        read: Gives each value with its attributes; called in the thread that exports.
        kind: Whether the value only grows, can be added up over instances, or neither.
    """

    name: str
    unit: str
    description: str
    read: Callable[[], Iterable[tuple[float, Mapping[str, str]]]]
    kind: Literal["counter", "up_down_counter", "gauge"] = "gauge"


@dataclass(slots=True)
class RequestContext:
    """One request and its response, as far as known: made by the door, read by several rooms.

    Ids are those of W3C Trace Context, in hex. `span_id` is empty where there is no span: telemetry is off, or the
    request is not sampled.
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
    notes: dict[type[Any], Any] = field(default_factory=dict)  # what a room notes for itself, by a class of its own
    matched: str | None = None  # the route, once somebody has asked

    @property
    def method(self) -> str:
        """The method, `WEBSOCKET` or `_OTHER`: as many names as this says, whatever a client sends."""
        method: str = self.scope.get("method", "WEBSOCKET")
        return method if method in METHODS else "_OTHER"

    @property
    def route(self) -> str | None:
        """The template of the route, as in `/v1/items/{item_id}`, joined over mounts; None if there was none."""
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
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # set when streams have to end: docs/streams.md
    cache: Cache = field(default_factory=NoCache)
    database: Database | None = None
    errors: ErrorReports | None = None
    idempotency: Idempotency | None = None
    secrets: Secrets | None = None
    traced: ASGIApp | None = None  # where sampled requests go, unless FastAPI makes their spans itself
    route_of: Callable[[Scope], str | None] = lambda scope: None
    metrics: list[Metric] = field(default_factory=list)  # told to `telemetry` before the service starts
    own: dict[type[Any], Any] = field(default_factory=dict)  # what a room keeps for itself, by a class of its own
    readiness: dict[str, Readiness] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)  # told each line of the log, after redaction
    spans: list[Any] = field(default_factory=list)  # exporters of OpenTelemetry: given each span, after redaction
    flushes: list[Callable[[], object]] = field(default_factory=list)  # called last and together; they may block


def state_of(app: FastAPI) -> State:
    """The state of an application made by `create_app`."""
    return cast(State, app.state.platform)


def release_of(app: FastAPI) -> str:
    """What runs, as in `orders@1.2.0+4f3c2b1`: the name under which every backend files what it gets from here."""
    commit = state_of(app).settings.git_commit
    return f"{app.title}@{app.version}" + (f"+{commit}" if commit != "unknown" else "")
