"""Rejects unknown hosts, foreign origins and oversized bodies early, and adds security headers to every response.

The headers follow the OWASP REST Security Cheat Sheet; a header that a route sets itself is not changed.
"""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Annotated
from urllib.parse import unquote

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import Field
from starlette.datastructures import URL
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import response
from .room import Room
from .settings import RealInProduction, RoomSettings, part
from .state import PROBES, Headers, RequestContext
from .values import Hosts

HEADERS = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
PLAIN = (b"content-type", b"text/plain; charset=utf-8")
HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")


class Settings(RoomSettings):
    """Which hosts are served, and how large a body may be."""

    trusted_hosts: Annotated[Hosts, RealInProduction("orders.acme.com,*.acme.com", embedded=("*",))] = (
        "localhost",
        "127.0.0.1",
        "[::1]",
    )
    max_body_bytes: Annotated[int, Field(ge=0)] = 1_048_576


_HOST = re.compile(rb"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?", re.I)
_ABSOLUTE = re.compile(rb"(?:https?|wss?)://([^/?#]*)(/.*)?", re.I)
NO_HOST = b"-"  # of HTTP/1.0, which has no Host header; never trusted


def too_large() -> Response:
    """The response to a body that is too large."""
    return response(413, "content-too-large", "The body is too large.")


class RequestLimits:
    """ASGI middleware that rejects unknown hosts (400), foreign origins (403) and oversized bodies (413).

    Args:
        app: The application behind it.
        settings: Of the room.
        routes: Which may have their own limits: `@router.post("", max_body_size=20_000_000)`.
        origins: Further sites whose pages may open a WebSocket.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, routes: Sequence[BaseRoute], origins: Collection[str] = ()
    ) -> None:
        self.app = app
        self.limited = RequestBodyLimitMiddleware(app, settings.max_body_bytes)
        own = [getattr(route, "max_body_size", None) for route in iter_route_contexts(routes)]
        limits = [settings.max_body_bytes, *(limit for limit in own if limit is not None)]
        self.lowest, self.highest = min(limits), max(limits)
        hosts = [host.lower() for host in settings.trusted_hosts]
        self.any_host = "*" in hosts
        self.hosts = {host for host in hosts if not host.startswith("*")}
        self.suffixes = tuple(host[1:] for host in hosts if host.startswith("*."))
        self.origins = {origin.lower() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or respond with an error."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if refuse := scope.get("refused"):  # by the connection, which could not read the request
            await refuse(scope, receive, send)
            return
        host: bytes | None = None
        length = b""
        streamed = older = scope.get("http_version") != "1.1"
        for name, value in scope["headers"]:
            if name == b"host":
                host = value if host is None else b""  # two are as invalid as none: RFC 9112 section 3.2
            elif name == b"content-length":
                length = value
            elif name == b"transfer-encoding":
                streamed = True
        if host is None:
            host = NO_HOST if older else b""
        root = scope.get("root_path", "")
        if scope["path"].removeprefix(root)[:1] != "/":
            host = _make_relative(scope, host, root)
        # the Host header of a probe is an IP address
        path = scope["path"].removeprefix(root)
        if not (served := host_name(host)):
            await response(400, "invalid-host", "Send one valid Host header.")(scope, receive, send)
        elif not (self.any_host or self._trusted(served)) and path not in PROBES:
            await response(400, "unknown-host", "This host is not served here.")(scope, receive, send)
        elif scope["type"] == "websocket" and not self._may_connect(scope, served):
            detail = "Pages of this origin may not connect."
            await response(403, "foreign-origin", detail)(scope, receive, send)
        elif length.isdigit() and int(length) > self.highest:
            await too_large()(scope, receive, send)
        elif (streamed and not length) or (length.isdigit() and int(length) > self.lowest):
            await self._limited(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the bytes, up to the limit of the route; Starlette responds in plain text if no route reads them."""
        refused = False

        async def send_problem(message: Message) -> None:
            nonlocal refused
            if message.get("status") == 413 and PLAIN in message["headers"]:
                refused = True
                await too_large()(scope, receive, send)
            elif not refused:
                await send(message)

        await self.limited(scope, receive, send_problem)

    def _trusted(self, name: str) -> bool:
        return name in self.hosts or name.endswith(self.suffixes)

    def _may_connect(self, scope: Scope, served: str) -> bool:
        """Check the origin of a WebSocket, which browsers let any page open, with the user's cookies (CWE-1385).

        Clients that are not browsers send no origin.
        """
        for name, value in scope["headers"]:
            if name == b"origin" and "*" not in self.origins and value.decode("latin-1").lower() not in self.origins:
                found = _ABSOLUTE.fullmatch(value)
                origin = host_name(found[1]) if found and not found[2] else ""
                if origin != served and not self._trusted(origin):
                    return False
        return True


@lru_cache(1024)
def host_name(host: bytes) -> str:
    """Return the name in a Host header, or nothing if it is invalid, also for Starlette, which builds URLs from it."""
    found = _HOST.fullmatch(host)
    if not found or not URL(scope={"path": "", "headers": [(b"host", host)]}).netloc:
        return ""
    return found[1].decode().lower()


def _make_relative(scope: Scope, host: bytes, root: str) -> bytes:
    """Remove the host from a target like `http://host/path`; it must be the same as the header's (RFC 9112 3.2.2)."""
    found = _ABSOLUTE.fullmatch(scope["raw_path"].removeprefix(root.encode()))
    if not found:
        return host
    scope["raw_path"] = root.encode() + (found[2] or b"/")
    scope["path"] = unquote(scope["raw_path"].decode("ascii"))
    return host if found[1].lower() == host.lower() else b""


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Add the middleware."""
    origins = getattr(settings, "cors_origins", ())
    limits = part(settings, Settings)
    app.add_middleware(RequestLimits, settings=limits, routes=app.routes, origins=origins)


def respond(context: RequestContext, headers: Headers) -> None:
    """Add the headers that the response does not have yet."""
    present = {name.lower() for name, _ in headers}
    headers += [header for header in HEADERS if header[0] not in present]
    if context.scope["scheme"] in ("https", "wss") and HSTS[0] not in present:
        headers.append(HSTS)


ROOM = Room(settings=Settings, install=install, respond=respond, required=True)
