"""Finds the route of a request as a template such as `/v1/items/{item_id}`, for logs, metrics, spans and reports.

Frameworks only give the innermost route. This module joins the templates of mounts and included routers once, with
FastAPI's public iteration; a request then costs one lookup by its endpoint.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, compile_path
from starlette.types import Scope


class RouteTemplates:
    """The route templates of an application, collected after its first request."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.templates: dict[int, list[tuple[re.Pattern[str], str]]] = {}  # by the id() of the endpoint

    def of(self, scope: Scope) -> str | None:
        """Return the template of the route that a request reached, or None if there was none."""
        if not self.templates:
            for endpoint, path in _walk(self.app.routes, ""):
                self.templates.setdefault(id(endpoint), []).append(compile_path(path)[:2])
        candidates = self.templates.get(id(scope.get("endpoint")), ())
        if len(candidates) == 1:
            return candidates[0][1]
        path = scope["path"].removeprefix(scope.get("app_root_path", scope.get("root_path", "")))
        return next((template for pattern, template in candidates if pattern.match(path)), None)


def _walk(routes: Sequence[BaseRoute], prefix: str) -> Iterator[tuple[Any, str]]:
    for route in iter_route_contexts(routes):
        path = prefix + (route.path or "")
        inner = getattr(route, "routes", None)
        if inner:
            yield from _walk(inner, path)
        if route.endpoint:
            yield route.endpoint, path


def example_path(app: FastAPI) -> str:
    """The path of a GET route of a feature without path parameters; empty if there is none."""
    routes = (each for each in iter_route_contexts(app.routes) if getattr(each, "include_in_schema", False))
    paths = (each.path_format for each in routes if each.path_format and "GET" in (each.methods or ()))
    return next((path for path in paths if "{" not in path), "")
