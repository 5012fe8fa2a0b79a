"""The platform: one room per production concern, put together by `create_app`.

A room is a module, or a folder, that declares itself by one object `ROOM`: see `room.Room`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from difflib import get_close_matches
from importlib import metadata
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from . import features
from .http import Door
from .room import Room, find_module
from .routes import RouteTemplates
from .settings import RoomSettings, compose
from .state import PROBES, State, current
from .threads import in_thread

# Outermost first: requests meet them in this order, they open in it and close in reverse.
ROOMS = (
    # traces, metrics and logs over OTLP; closes last
    "telemetry",
    # what happened, as lines on stdout
    "logs",
    # errors reported to Sentry
    "errors",
    # values that must not be seen: read first, then kept current
    "secrets",
    # every error as a problem document
    "problems",
    # the process: address, drain, exit
    "server",
    # unknown hosts, oversized bodies, response headers
    "security",
    # entity tags, 304, who may keep what
    "http_cache",
    # what the CDN has to forget
    "http_cache.purge",
    # /livez, /readyz, /version
    "health",
    # /docs and /openapi.json
    "api_docs",
    # one error on request, for `ready`
    "probe",
    # /__dev__, on a developer's machine
    "dev",
    # connections and transactions
    "db",
    # a retried POST happens once
    "idempotency",
    # values that are dear to make, kept for a while
    "cache",
)
ROOM_DEADLINE = 10  # seconds for one room to open or to close
FLUSH_DEADLINE = 5  # seconds for all together to send what they still hold


# The one lookup of rooms by name; a room whose file is gone is left out.
PRESENT: dict[str, Room] = {name: found.ROOM for name in ROOMS if (found := find_module(name, __name__))}


def _settings_of(names: Collection[str]) -> type[RoomSettings]:
    return compose(room.settings for name, room in PRESENT.items() if name in names)


if TYPE_CHECKING:
    PlatformSettings = RoomSettings
else:
    PlatformSettings = _settings_of(ROOMS)


def settings_for(*rooms: str) -> type[RoomSettings]:
    """The settings of a command: those of the rooms that it works with, and what the room `secrets` knows of them."""
    return _settings_of({"secrets", *rooms})


class Service(FastAPI):
    """FastAPI with the door in front and the rooms' share in the OpenAPI document."""

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


def create_app(settings: RoomSettings, *, without: Collection[str] = ()) -> FastAPI:
    """Assemble the service from the rooms and the features.

    Args:
        settings: From `platform.settings.load`.
        without: Names of rooms to leave out.

    Raises:
        ValueError: `without` names a room that does not exist, or one that the service cannot do without.
    """
    for name in without:
        if name not in ROOMS:
            near = get_close_matches(name, ROOMS, 1)
            raise ValueError(f"there is no room {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if name in PRESENT and PRESENT[name].required:
            raise ValueError(f"the room {name!r} cannot be left out")
    about = metadata.metadata(__name__.split(".")[0])
    app = Service(
        title=about["Name"],
        summary=about["Summary"],
        version=about["Version"],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan,
        # The room `telemetry` measures and decides; where it is absent or instruments otherwise, FastAPI does nothing,
        # and neither does an application that is mounted into this one.
        telemetry={"metrics": False, "logs": False, "operation_spans": False, "exclude": _excluded},
    )
    app.rooms = {name: room for name, room in PRESENT.items() if name not in without}
    app.state.platform = State(settings, route_of=RouteTemplates(app).of)
    app.door = Door(super(Service, app).__call__, app.rooms.values(), app.state.platform)
    features.install(app)  # its routes come first: each that does not match costs a request
    for name, room in reversed(app.rooms.items()):  # the middleware added last is the outermost
        if room.install:
            room.install(app, settings)
        if room.readiness:
            app.state.platform.readiness[name] = room.readiness
    _show_probes(app)
    return app


def _show_probes(app: FastAPI) -> None:
    """Put the probes in front of all routes, so that no feature takes their paths."""
    app.router.routes.sort(key=lambda route: getattr(route, "path", None) not in PROBES)


def _excluded(scope: Scope) -> bool:
    context = current.get()
    return not (context and context.sampled) or context.state.traced is not None


@asynccontextmanager
async def _lifespan(app: Service) -> AsyncIterator[None]:
    app.state.platform.closing = asyncio.Event()  # of this event loop
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_flush, app.state.platform.flushes)
        for name, room in app.rooms.items():
            if room.lifespan:
                lifespan = room.lifespan(app, app.state.platform.settings)
                async with asyncio.timeout(ROOM_DEADLINE):
                    await lifespan.__aenter__()
                stack.push_async_callback(_close, name, lifespan)
        yield


async def _close(room: str, lifespan: AbstractAsyncContextManager[None]) -> None:
    try:
        async with asyncio.timeout(ROOM_DEADLINE):
            await lifespan.__aexit__(None, None, None)
    except TimeoutError:
        structlog.get_logger("platform").error("room did not close in time", room=room, seconds=ROOM_DEADLINE)


async def _flush(calls: list[Callable[[], object]]) -> None:
    """Send what the rooms still hold: all at once, under one deadline."""
    ended = await asyncio.gather(*(in_thread(call, FLUSH_DEADLINE) for call in calls), return_exceptions=True)
    for error in filter(None, ended):
        structlog.get_logger("platform").warning("not everything was sent", error=type(error).__name__)
