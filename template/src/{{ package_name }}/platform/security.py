"""What is refused before it costs anything, and the headers that every answer carries.

Headers after the OWASP REST Security Cheat Sheet; a route that sets one of them itself keeps its own.
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
    """Who may be addressed, and how much may be sent."""

    trusted_hosts: Annotated[Names, RealInProduction("orders.acme.com,*.acme.com", embedded=("*",))] = (
        "localhost",
        "127.0.0.1",
        "[::1]",
    )
    max_body_bytes: Annotated[int, Field(ge=0)] = 1_048_576


class RequestLimits:
    """ASGI middleware that refuses unknown hosts (400) and oversized bodies (413)."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.limited = RequestBodyLimitMiddleware(app, settings.max_body_bytes)
        self.most = settings.max_body_bytes
        hosts = [host.lower() for host in settings.trusted_hosts]
        self.any = "*" in hosts
        self.names = {host for host in hosts if not host.startswith("*")}
        self.endings = tuple(host[1:] for host in hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
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
        # probes come to an address, not to a name
        if not self._known(host.decode("latin-1")) and scope["path"] not in PROBES:
            await response(400, "unknown-host", "This host is not served here.")(scope, receive, send)
        elif length.isdigit() and int(length) > self.most:
            detail = f"The body has more than {self.most} bytes."
            await response(413, "content-too-large", detail)(scope, receive, send)
        elif streamed and not length:
            await self.limited(scope, receive, send)  # counts what nobody declared
        else:
            await self.app(scope, receive, send)

    def _known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
        name = name.lower()
        return self.any or name in self.names or name.endswith(self.endings)


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Put the gate in front of the router."""
    app.add_middleware(RequestLimits, settings=part(settings, Settings))


def respond(context: RequestContext, headers: Headers) -> None:
    """Add the headers that are not there yet."""
    there = {name.lower() for name, _ in headers}
    headers += [header for header in HEADERS if header[0] not in there]
    if context.scope["scheme"] in ("https", "wss") and HSTS[0] not in there:
        headers.append(HSTS)


ROOM = Room(settings=Settings, install=install, respond=respond, required=True)
