"""Refuses a name of yours that the platform has as well: one of the two would have no effect, and nothing would say so.

What the platform leaves to you, in every version: the package `rooms/`, settings `APP_…`, metrics `app.…`.
"""

import re
from collections.abc import Iterator, Sequence

from fastapi.routing import iter_route_contexts
from pydantic.fields import FieldInfo
from starlette.routing import BaseRoute, Match, Router
from starlette.types import Scope

from .settings import RoomSettings
from .state import Metric

TELEMETRY = ("http_server_", "process_")  # of the room `telemetry`, which adds them when the service starts


def settings(kind: type[RoomSettings]) -> Iterator[str]:
    """Settings that are declared twice and differ."""
    for name, field in kind.model_fields.items():
        kinds = [base for base in kind.__mro__ if issubclass(base, RoomSettings) and name in base.model_fields]
        if any(_declaration(base.model_fields[name]) != _declaration(field) for base in kinds):
            variable = name.upper()
            yield f"{variable}: your settings and the platform's declare it differently; name yours APP_{variable}"


def _declaration(field: FieldInfo) -> tuple[object, ...]:
    return field.annotation, field.default, field.default_factory, field.metadata


def routes(yours: Sequence[BaseRoute], ours: Sequence[BaseRoute]) -> Iterator[str]:
    """Routes with a path and a method of the platform."""
    taken = {path for path, _ in _requests(yours) & _requests(ours)}
    for path in sorted(taken):
        yield f"route {path}: the platform has it; give yours another path, for example below /v1"


def _requests(routes: Sequence[BaseRoute]) -> set[tuple[str, str]]:
    """Paths, whatever their parameters are called, with each of their methods."""
    found = iter_route_contexts(routes)
    return {(re.sub(r"{\w+", "{", each.path or ""), method) for each in found for method in each.methods or ()}


def put_first(router: Router, yours: Sequence[BaseRoute]) -> None:
    """Move the platform's routes before a route of yours that would take their requests, such as `/{path:path}`."""

    def taken(route: BaseRoute) -> bool:
        scope: Scope = {"type": "http", "method": "GET", "path": getattr(route, "path", ""), "headers": []}
        return route not in yours and any(each.matches(scope)[0] != Match.NONE for each in yours)

    router.routes.sort(key=lambda route: not taken(route))


def metrics(yours: Sequence[Metric], ours: Sequence[Metric]) -> Iterator[str]:
    """Metrics with a name of the platform, as Prometheus writes it, or that two of your rooms have."""
    taken = {metric.name.replace(".", "_") for metric in ours}
    for metric in yours:
        name = metric.name.replace(".", "_")
        if name in taken or name.startswith(TELEMETRY):
            yield f"metric {metric.name}: another room has it; begin the names of yours with app."
        taken.add(name)
