"""Finds the features: every package in `features/` that has a module `routes` with a `router`.

They are discovered and not listed, so adding or deleting a feature changes no file of the platform.
"""

import importlib.util
import pkgutil
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute, iter_route_contexts

from .settings import refuse

FEATURES = __package__.rpartition(".")[0] + ".features"


def routers() -> dict[str, APIRouter]:
    """Import the features and return their routers by feature name.

    Raises:
        TypeError: A `routes` module has no `router`.
        SystemExit: With 78, after one line: a feature imports a module that is absent, such as a room that was removed.
    """
    found = {}
    for feature in pkgutil.iter_modules(importlib.import_module(FEATURES).__path__):
        name = f"{FEATURES}.{feature.name}.routes"
        if not feature.ispkg or importlib.util.find_spec(name) is None:
            continue
        try:
            router = getattr(importlib.import_module(name), "router", None)
        except ModuleNotFoundError as error:
            refuse([f"features/{feature.name} imports {error.name}, which is absent; see docs/rooms.md"])
        if not isinstance(router, APIRouter):
            raise TypeError(f"{name} needs `router = APIRouter(...)`")
        found[feature.name] = router
    return found


def install(app: FastAPI) -> None:
    """Add the routes of every feature."""
    for router in routers().values():
        app.include_router(router)


def using(app: FastAPI, dependency: Callable[..., Any]) -> list[str]:
    """The paths of the routes that have a dependency, directly or through another one."""

    def uses(found: Dependant) -> bool:
        return found.call is dependency or any(map(uses, found.dependencies))

    routes = ((each.path or "", each.original_route) for each in iter_route_contexts(app.routes))
    return [path for path, route in routes if isinstance(route, APIRoute | APIWebSocketRoute) and uses(route.dependant)]
