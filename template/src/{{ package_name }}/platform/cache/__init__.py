"""The cache: values that are dear to make, kept for a while where CACHE_URL says.

It is optional. A cache that is away, hung, full or wrong costs a few requests a quarter of a second, and then nobody:
values come from their sources, and it is asked again as soon as it answers a probe.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, cast
from urllib.parse import urlsplit

from fastapi import FastAPI
from pydantic import AfterValidator, SecretStr

from ..room import Room
from ..settings import OrOff, RealInProduction, RoomSettings, part
from ..state import Metric, state_of
from .backend import Backend
from .readthrough import ReadThrough

# Which module keeps what an address says; a server's has to be there.
BACKENDS = {"memory": "memory", "memcached": "memcached", "redis": "redis", "rediss": "redis"}


def _known(url: SecretStr) -> SecretStr:
    here = [kind for kind, module in BACKENDS.items() if find_spec(f".{module}", __package__)]
    with suppress(ValueError):  # of a port that is none: its message would show what was typed
        parsed = urlsplit(url.get_secret_value())
        if parsed.scheme in ("memory", "null") or (parsed.scheme in here and parsed.hostname and parsed.port != 0):
            return url
    raise ValueError(f"type an address that begins with {':// or '.join(here)}://, or off")


class Settings(RoomSettings):
    """Where values are kept."""

    cache_url: Annotated[
        Annotated[SecretStr, AfterValidator(_known)] | None,
        OrOff,
        RealInProduction("redis://:password@cache.internal:6379/0", embedded=("memory:", "null:"), optional=True),
    ] = SecretStr("memory://")


def _backend(url: str) -> Backend:
    return cast(Backend, import_module(f".{BACKENDS[urlsplit(url).scheme]}", __package__).Server(url))


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Offer the cache to the features; `null://` and `off` leave them to their sources."""
    url = part(settings, Settings).cache_url
    if not url or url.get_secret_value().startswith("null:"):
        return
    state, cache = state_of(app), ReadThrough(f"{app.title}:{settings.environment}", _backend(url.get_secret_value()))
    state.cache = cache
    state.metrics += [
        Metric("cache.requests", "{request}", "Values by policy and where they came from.", cache.observe, "counter"),
        Metric("cache.breaker.open", "", "1 while the cache is away.", lambda: [(int(cache.breaker.open), {})]),
    ]


@asynccontextmanager
async def lifespan(app: FastAPI, settings: RoomSettings) -> AsyncIterator[None]:
    """Connect before the first request, watch over a server that fails, and follow an address that is rotated."""
    state = state_of(app)
    cache = state.cache
    if not isinstance(cache, ReadThrough):
        yield
        return
    breaker = cache.breaker
    if state.secrets:
        state.secrets.on_change(
            "cache_url", lambda url: cache.move(_backend(_known(SecretStr(url)).get_secret_value()))
        )
    breaker.trip()  # until the first probe has opened connections: a cache that is away does not hold up the start
    watching = asyncio.create_task(breaker.watch(cache.probe))
    yield
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    await cache.backend.close()


ROOM = Room(settings=Settings, install=install, lifespan=lifespan)
