"""`Room`: the typed object by which a room declares itself, so that a misspelt or wrongly typed hook fails mypy.

"Find usages" of a field leads from the place that calls a hook to every room that has one.
"""

import importlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from fastapi import FastAPI

from .settings import RoomSettings
from .state import Headers, RequestContext, State


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What a room consists of; each module that `ROOMS` names ends with `ROOM = Room(...)`.

    Args:
        settings: Its environment variables.
        install: Adds handlers, routes, middleware, and the room's share in the state.
        begin: Called when a request comes.
        respond: Called with the raw headers of a response that is about to start; it may change them.
        finish: Called when the response is out.
        lifespan: Opened before the service accepts requests, closed at the end.
        readiness: Gives evidence for people, or raises `NotReady`. Only required parts have one.
        describe: Changes the OpenAPI document.
        required: Whether the service cannot do without the room.
    """

    settings: type[RoomSettings] | None = None
    install: Callable[[FastAPI, RoomSettings], None] | None = None
    begin: Callable[[RequestContext], None] | None = None
    respond: Callable[[RequestContext, Headers], None] | None = None
    finish: Callable[[RequestContext], None] | None = None
    lifespan: Callable[[FastAPI, RoomSettings], AbstractAsyncContextManager[None]] | None = None
    readiness: Callable[[State], Awaitable[str]] | None = None
    describe: Callable[[dict[str, Any], FastAPI], None] | None = None
    required: bool = False


def find_module(name: str, package: str) -> ModuleType | None:
    """Import a module that may be absent: by an answer, or because its file was deleted.

    Args:
        name: Relative to the package, as in `cache` or `http_cache.purge`.
        package: Absolute.
    """
    path = f"{package}.{name}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and f"{path}.".startswith(f"{error.name}.") and error.name != package:
            return None
        raise
