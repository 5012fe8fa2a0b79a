"""Rejects unknown hosts and oversized bodies early, and adds security headers to every response.

The headers follow the OWASP REST Security Cheat Sheet; a header that a route sets itself is not changed.
"""

from typing import Annotated

from fastapi import FastAPI
from pydantic import Field
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from .problems import response
from .room import Room
from .settings import Names, RealInProduction, RoomSettings, part
from .state import PROBES, Headers, RequestContext

HEADERS = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")


class Settings(RoomSettings):
    """Which hosts are served, and how large a body may be."""

    trusted_hosts: Annotated[Names, RealInProduction("orders.acme.com,*.acme.com", embedded=("*",))] = (
        "localhost",
        "127.0.0.1",
        "[::1]",
    )
    max_body_bytes: Annotated[int, Field(ge=0)] = 1_048_576


class RequestLimits:
    """ASGI middleware that rejects unknown hosts (400) and oversized bodies (413)."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.limited = RequestBodyLimitMiddleware(app, settings.max_body_bytes)
        self.max_body_bytes = settings.max_body_bytes
        hosts = [host.lower() for host in settings.trusted_hosts]
        self.any_host = "*" in hosts
        self.hosts = {host for host in hosts if not host.startswith("*")}
        self.suffixes = tuple(host[1:] for host in hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or respond with an error."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        host = length = b""
        streamed = scope.get("http_version") != "1.1"
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"content-length":
                length = value
            elif name == b"transfer-encoding":
                streamed = True
        # the Host header of a probe is an IP address
        if not self._known(host.decode("latin-1")) and scope["path"] not in PROBES:
            await response(400, "unknown-host", "This host is not served here.")(scope, receive, send)
        elif length.isdigit() and int(length) > self.max_body_bytes:
            detail = f"The body has more than {self.max_body_bytes} bytes."
            await response(413, "content-too-large", detail)(scope, receive, send)
        elif streamed and not length:
            await self.limited(scope, receive, send)  # no declared length: it counts the bytes
        else:
            await self.app(scope, receive, send)

    def _known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
        name = name.lower()
        return self.any_host or name in self.hosts or name.endswith(self.suffixes)


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Add the middleware."""
    app.add_middleware(RequestLimits, settings=part(settings, Settings))


def respond(context: RequestContext, headers: Headers) -> None:
    """Add the headers that the response does not have yet."""
    present = {name.lower() for name, _ in headers}
    headers += [header for header in HEADERS if header[0] not in present]
    if context.scope["scheme"] in ("https", "wss") and HSTS[0] not in present:
        headers.append(HSTS)


ROOM = Room(settings=Settings, install=install, respond=respond, required=True)
