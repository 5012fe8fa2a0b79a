"""Caches values that are expensive to compute, on the server that `CACHE_URL` names.

The cache is optional. If it is down, hangs, is full or returns garbage, a few requests lose a quarter of a second.
After that all values come from their sources, and the cache is used again as soon as it responds to a probe.
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

# The module for each URL scheme; that of a server is only there if the server was chosen.
BACKENDS = {"memory": "memory", "memcached": "memcached", "redis": "redis", "rediss": "redis"}


def _known(url: SecretStr) -> SecretStr:
    here = [kind for kind, module in BACKENDS.items() if find_spec(f".{module}", __package__)]
    with suppress(ValueError):  # an invalid port or option: its message would reveal the URL
        parsed = urlsplit(text := url.get_secret_value())
        if parsed.scheme in ("memory", "null") or (parsed.scheme in here and parsed.hostname and parsed.port != 0):
            if parsed.scheme != "null":
                _backend(text)
            return url
    raise ValueError(f"use a URL that begins with {':// or '.join(here)}://, with known options only, or off")


class Settings(RoomSettings):
    """Which cache is used."""

    cache_url: Annotated[
        Annotated[SecretStr, AfterValidator(_known)] | None,
        OrOff,
        RealInProduction("redis://:password@cache.internal:6379/0", embedded=("memory:", "null:"), optional=True),
    ] = SecretStr("memory://")


def _backend(url: str) -> Backend:
    return cast(Backend, import_module(f".{BACKENDS[urlsplit(url).scheme]}", __package__).Server(url))


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Provide the cache to features; with `null://` and `off` all values come from their sources."""
    url = part(settings, Settings).cache_url
    if not url or url.get_secret_value().startswith("null:"):
        return
    state, cache = state_of(app), ReadThrough(f"{app.title}:{settings.environment}", _backend(url.get_secret_value()))
    state.cache = cache
    state.metrics += [
        Metric("cache.requests", "{request}", "Requested values by policy and result.", cache.observe, "counter"),
        Metric("cache.breaker.open", "", "1 while the cache is unavailable.", lambda: [(int(cache.breaker.open), {})]),
    ]


@asynccontextmanager
async def lifespan(app: FastAPI, settings: RoomSettings) -> AsyncIterator[None]:
    """Connect before the first request, probe a server that fails, and switch when the URL is rotated."""
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
    breaker.trip()  # until the first probe has connected: a cache that is down must not delay the start
    watching = asyncio.create_task(breaker.watch(cache.probe))
    yield
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    await cache.backend.close()


ROOM = Room(settings=Settings, install=install, lifespan=lifespan)
