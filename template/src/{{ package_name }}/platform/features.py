"""Finds the features: every package in `features/` that has a module `routes` with a `router`.

They are discovered and not listed, so adding or deleting a feature changes no file of the platform.
"""

import importlib.util
import pkgutil

from fastapi import APIRouter, FastAPI

FEATURES = __package__.rpartition(".")[0] + ".features"


def routers() -> dict[str, APIRouter]:
    """Import the features and return their routers by feature name.

    Raises:
        TypeError: A `routes` module has no `router`.
    """
    found = {}
    for feature in pkgutil.iter_modules(importlib.import_module(FEATURES).__path__):
        name = f"{FEATURES}.{feature.name}.routes"
        if not feature.ispkg or importlib.util.find_spec(name) is None:
            continue
        router = getattr(importlib.import_module(name), "router", None)
        if not isinstance(router, APIRouter):
            raise TypeError(f"{name} needs `router = APIRouter(...)`")
        found[feature.name] = router
    return found


def install(app: FastAPI) -> None:
    """Add the routes of every feature."""
    for router in routers().values():
        app.include_router(router)
