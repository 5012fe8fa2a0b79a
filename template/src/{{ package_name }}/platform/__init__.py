"""The platform: one room per production concern; `create_app` builds the application from them.

A room is a module or a package that declares itself with one object, `ROOM`: see `room.Room`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from difflib import get_close_matches
from importlib import metadata
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from . import collisions, features
from .http import Door
from .room import Room, find_module
from .routes import RouteTemplates
from .settings import RoomSettings, compose, refuse
from .state import State
from .threads import in_thread

# Outermost first: requests pass the rooms in this order; rooms open in it and close in reverse.
ROOMS = (
    # traces, metrics and logs over OTLP; closed last
    "telemetry",
    # structured log lines on stdout
    "logs",
    # reports errors to Sentry
    "errors",
    # reads secrets and follows their rotation
    "secrets",
    # turns every error into a problem document
    "problems",
    # the process: address, drain, exit
    "server",
    # rejects unknown hosts and oversized bodies, adds security headers
    "security",
    # which web pages of other origins may use the service
    "cors",
    # entity tags, conditional requests, Cache-Control
    "http_cache",
    # purges the CDN after writes
    "http_cache.purge",
    # /livez, /readyz, /version
    "health",
    # /docs and /openapi.json
    "api_docs",
    # raises a test error for `ready`
    "probe",
    # /__dev__, only on a developer's machine
    "dev",
    # database connections and transactions
    "db",
    # executes a retried POST only once
    "idempotency",
    # caches values that are expensive to compute
    "cache",
)
MAX_FORM_FIELDS = 100  # a route may set its own: `@router.post("", form_limits={"max_files": 50})`
MAX_FORM_FILES = 20
ROOM_SECONDS = 10  # for one room to open or to close
FLUSH_SECONDS = 5  # for all rooms together to send their buffered data


# The only lookup of rooms by name; a room whose file was deleted is skipped.
PRESENT: dict[str, Room] = {name: found.ROOM for name in ROOMS if (found := find_module(name, __name__))}


def _settings_of(names: Collection[str]) -> type[RoomSettings]:
    return compose(room.settings for name, room in PRESENT.items() if name in names)


if TYPE_CHECKING:
    PlatformSettings = RoomSettings
else:
    PlatformSettings = _settings_of(ROOMS)


def settings_for(*rooms: str) -> type[RoomSettings]:
    """Return the settings class of a command: the variables of the given rooms and of `secrets`."""
    return _settings_of({"secrets", *rooms})


class Service(FastAPI):
    """FastAPI behind the door, with the OpenAPI document as the rooms change it."""

    door: Door
    rooms: dict[str, Room]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.door(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if not self.openapi_schema:
            schema = super().openapi()
            for room in self.rooms.values():
                if room.describe:
                    room.describe(schema, self)
        return super().openapi()


def create_app(
    settings: RoomSettings, *, rooms: Mapping[str, Room] | None = None, without: Collection[str] = ()
) -> FastAPI:
    """Create the application from the rooms and the features.

    Args:
        settings: From `platform.settings.load`.
        rooms: Your own rooms by name; they are the innermost, in this order: docs/rooms.md.
        without: Names of rooms of the platform to remove.

    Raises:
        SystemExit: With 78, after one line on stderr for each name that is unknown, needed, or used twice.
    """
    refuse(_misnamed(without))
    package = metadata.metadata(__name__.split(".")[0])
    app = Service(
        title=package["Name"],
        summary=package["Summary"],
        version=package["Version"],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        form_limits={"max_fields": MAX_FORM_FIELDS, "max_files": MAX_FORM_FILES},
        lifespan=_lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # the room `telemetry` does this
    )
    ours = {name: room for name, room in PRESENT.items() if name not in without}
    yours = {f"rooms.{name}": room for name, room in (rooms or {}).items()}  # no name of ours begins so
    refuse([*collisions.settings(type(settings)), *_without_settings(yours, settings)])
    app.rooms = ours | yours
    app.state.platform = state = State(settings, route_of=RouteTemplates(app).of)
    app.door = Door(super(Service, app).__call__, app.rooms.values(), state)
    features.install(app)  # first, because each route that is tried in vain costs time
    for name in PRESENT.keys() & without:
        dependency = PRESENT[name].dependency
        if dependency and (paths := features.using(app, dependency)):
            refuse([f"the room {name!r} cannot be left out: {paths[0]} uses it"])
    _install(app, yours)
    routes, metrics = [*app.router.routes], [*state.metrics]
    _install(app, ours)
    refuse(collisions.routes(routes, app.router.routes[len(routes) :]))
    refuse(collisions.metrics(metrics, state.metrics[len(metrics) :]))
    collisions.put_first(app.router, routes)
    return app


def _misnamed(without: Iterable[str]) -> Iterator[str]:
    for name in without:
        if name not in ROOMS:
            near = get_close_matches(name, ROOMS, 1)
            yield f"there is no room {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        elif name in PRESENT and PRESENT[name].required:
            yield f"the room {name!r} cannot be left out"


def _without_settings(rooms: Mapping[str, Room], settings: RoomSettings) -> Iterator[str]:
    for name, room in rooms.items():
        if room.settings and not isinstance(settings, room.settings):
            module = name.removeprefix("rooms.")
            yield f"{name}: write class Settings({module}.Settings, PlatformSettings) in settings.py"


def _install(app: Service, rooms: dict[str, Room]) -> None:
    for name, room in reversed(rooms.items()):  # the middleware added last is the outermost
        if room.install:
            room.install(app, app.state.platform.settings)
        if room.readiness:
            app.state.platform.readiness[name] = room.readiness


@asynccontextmanager
async def _lifespan(app: Service) -> AsyncIterator[None]:
    app.state.platform.closing = asyncio.Event()  # bound to this event loop
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_flush, app.state.platform.flushes)
        for name, room in app.rooms.items():
            if room.lifespan:
                lifespan = room.lifespan(app, app.state.platform.settings)
                async with asyncio.timeout(ROOM_SECONDS):
                    await lifespan.__aenter__()
                stack.push_async_callback(_close, name, lifespan)
        yield


async def _close(room: str, lifespan: AbstractAsyncContextManager[None]) -> None:
    try:
        async with asyncio.timeout(ROOM_SECONDS):
            await lifespan.__aexit__(None, None, None)
    except TimeoutError:
        structlog.get_logger("platform").error("room did not close in time", room=room, seconds=ROOM_SECONDS)


async def _flush(calls: list[Callable[[], object]]) -> None:
    """Send the buffered data of all rooms concurrently, within one deadline."""
    results = await asyncio.gather(*(in_thread(call, FLUSH_SECONDS) for call in calls), return_exceptions=True)
    for error in filter(None, results):
        structlog.get_logger("platform").warning("flush failed", error=type(error).__name__)
