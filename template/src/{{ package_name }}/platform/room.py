"""`Room`: the typed object by which a room declares itself, so that mypy finds a misspelt or wrongly typed hook.

"Find usages" of a field shows where a hook is called and which rooms have it.
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
    """The parts of a room; each module that `ROOMS` names ends with `ROOM = Room(...)`.

    Args:
        settings: Declares its environment variables.
        install: Adds exception handlers, routes and middleware, and sets the room's fields in the state.
        begin: Called when a request starts.
        respond: Called with the raw headers of a response before it starts; may change them.
        finish: Called when a request has ended.
        lifespan: Opened before the service accepts requests, closed at shutdown.
        readiness: Checks a required part: returns evidence for people, or raises `NotReady`.
        describe: Changes the OpenAPI document.
        dependency: A dependency of routes: while one has it, the room cannot be left out.
        required: Whether the service cannot run without the room.
    """

    settings: type[RoomSettings] | None = None
    install: Callable[[FastAPI, RoomSettings], None] | None = None
    begin: Callable[[RequestContext], None] | None = None
    respond: Callable[[RequestContext, Headers], None] | None = None
    finish: Callable[[RequestContext], None] | None = None
    lifespan: Callable[[FastAPI, RoomSettings], AbstractAsyncContextManager[None]] | None = None
    readiness: Callable[[State], Awaitable[str]] | None = None
    describe: Callable[[dict[str, Any], FastAPI], None] | None = None
    dependency: Callable[..., Any] | None = None
    required: bool = False


def find_module(name: str, package: str) -> ModuleType | None:
    """Import a module that may be absent: an answer left it out, or its file was deleted.

    Args:
        name: Relative to the package, for example `cache` or `http_cache.purge`.
        package: The absolute name.
    """
    path = f"{package}.{name}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and f"{path}.".startswith(f"{error.name}.") and error.name != package:
            return None
        raise
