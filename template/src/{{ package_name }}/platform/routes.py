"""Which route served a request, as a template such as `/v1/items/{item_id}`: for logs, metrics, spans and reports.

Frameworks name the innermost route only. This joins the templates over mounts and included routers, once, from
FastAPI's public iteration; a request then costs one look-up by its endpoint.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, compile_path
from starlette.types import Scope


class RouteTemplates:
    """The routes of an application, as they are when the first request has been served."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.found: dict[int, list[tuple[re.Pattern[str], str]]] = {}  # by the identity of the endpoint

    def of(self, scope: Scope) -> str | None:
        """The template of the route that a request has reached; None where there was none."""
        if not self.found:
            for endpoint, path in _walk(self.app.routes, ""):
                self.found.setdefault(id(endpoint), []).append(compile_path(path)[:2])
        found = self.found.get(id(scope.get("endpoint")), ())
        if len(found) == 1:
            return found[0][1]
        path = scope["path"].removeprefix(scope.get("app_root_path", scope.get("root_path", "")))
        return next((template for pattern, template in found if pattern.match(path)), None)


def _walk(routes: Sequence[BaseRoute], prefix: str) -> Iterator[tuple[Any, str]]:
    for route in iter_route_contexts(routes):
        path = prefix + (route.path or "")
        inner = getattr(route, "routes", None)
        if inner:
            yield from _walk(inner, path)
        if route.endpoint:
            yield route.endpoint, path
