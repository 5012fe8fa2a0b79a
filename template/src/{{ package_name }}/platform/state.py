"""What rooms offer each other, as one typed object: `None` where a room is absent.

Rooms do not import one another, so each can be read, replaced or removed alone.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast

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

    async def look(self) -> str:
        """Ask whether it answers with a schema that this code can use.

        Raises:
            NotReady: It does not.
        """

    def trace(self, provider: Any) -> None:
        """Make each statement one client span of OpenTelemetry's `TracerProvider`."""

    def connections(self) -> tuple[int, int, int]:
        """How many are idle, how many are used, and how many there may be."""

    async def close(self) -> None:
        """Give all connections back."""


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
        """Forget all values that have one of the tags, after the commit of what changed them. Never fails."""


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


class Telemetry(Protocol):
    """The room `telemetry`, while it has somewhere to send to."""

    def begin(self, context: "RequestContext") -> None:
        """Decide whether the request is sampled."""

    def finish(self, context: "RequestContext") -> None:
        """Count the request."""


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

    def leases(self) -> Mapping[str, tuple[float, float]]:
        """Of each lease the seconds that are left, and those that it had."""


class Cdn(Protocol):
    """The room `cdn`, while there is a CDN to tell."""

    def purge(self, tags: Iterable[str]) -> None:
        """Have its copies with these tags forgotten; soon, and beside the requests."""


class ErrorReports(Protocol):
    """The room `errors`."""

    def isolate(self) -> Any:
        """Keep what this request tells the reporter about itself from all others; what was there before."""

    def rejoin(self, around: Any) -> None:
        """Put back what `isolate` has found."""

    def unhandled(self, error: BaseException) -> None:
        """Report an error for which nobody had an answer."""

    def logged(self, event: Json) -> None:
        """Report what was logged as an error, its exception among it."""


@dataclass(slots=True)
class RequestContext:
    """One request and its answer, as far as known: made by the door, read by the rooms that watch.

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
    span: Any = None  # OpenTelemetry's, of the request as a whole
    around: Any = None  # the error reporter's scope around the request
    counted: tuple[str, str] | None = None  # method and scheme, under which it is among the active requests
    token: Token[Any] | None = None  # of the context that telemetry has put around an unsampled request
    status: int = 0
    sent: int = 0
    seconds: float = 0.0
    error: BaseException | None = None
    reported: BaseException | None = None
    matched: str | None = None  # the route, once somebody has asked

    @property
    def method(self) -> str:
        """The method, `WEBSOCKET` or `_OTHER`: as many names as this says, whatever a client sends."""
        method: str = self.scope.get("method", "WEBSOCKET")
        return method if method in METHODS else "_OTHER"

    @property
    def route(self) -> str | None:
        """The template of the route, as in `/v1/items/{item_id}`, joined over mounts; None if there was none."""
        self.matched = self.matched or self._match()
        return self.matched

    def _match(self) -> str | None:
        found = self.scope.get("fastapi", {}).get("effective_route_context") or self.scope.get("route")
        found = getattr(found, "starlette_route", None) or found  # of a WebSocket in a router
        path: str | None = getattr(found, "path_format", None) or getattr(found, "path", None)
        if path is None:
            return None
        prefix = self.scope.get("root_path", "")
        if prefix and prefix != self.scope.get("app_root_path", prefix):
            for name, value in self.scope.get("path_params", {}).items():  # of a mount below a parameter
                if "{" + name not in path:
                    prefix = prefix.replace(f"/{value}", "/{" + name + "}", 1)
        return str(prefix + path)


current: ContextVar[RequestContext | None] = ContextVar("request", default=None)

Readiness = Callable[["State"], Awaitable[str]]
Line = Callable[[Mapping[str, Any]], None]


@dataclass(slots=True)
class State:
    """The typed state of one application."""

    settings: RoomSettings
    draining: bool = False
    cache: Cache = field(default_factory=NoCache)
    cdn: Cdn | None = None
    database: Database | None = None
    errors: ErrorReports | None = None
    idempotency: Idempotency | None = None
    secrets: Secrets | None = None
    telemetry: Telemetry | None = None
    traced: ASGIApp | None = None  # where sampled requests go, unless FastAPI makes their spans itself
    readiness: dict[str, Readiness] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)  # told each line of the log, after redaction
    spans: list[Any] = field(default_factory=list)  # exporters of OpenTelemetry: given each span, after redaction
    write: Line | None = None  # the shortest way for a line that is complete and holds no secret
    flushes: list[Callable[[], object]] = field(default_factory=list)  # called last and together; they may block


def state_of(app: FastAPI) -> State:
    """The state of an application made by `create_app`."""
    return cast(State, app.state.platform)


def release_of(app: FastAPI) -> str:
    """What runs, as in `orders@1.2.0+4f3c2b1`: the name under which every backend files what it gets from here."""
    commit = state_of(app).settings.git_commit
    return f"{app.title}@{app.version}" + (f"+{commit}" if commit != "unknown" else "")
