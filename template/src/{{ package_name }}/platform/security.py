"""What is refused before it costs anything, and the headers that every answer carries.

Headers after the OWASP REST Security Cheat Sheet; a route that sets one of them itself keeps its own.
"""

from typing import Annotated

from fastapi import FastAPI
from pydantic import Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from .problems import response
from .settings import Names, RealInProduction, RoomSettings, part
from .state import Exchange

# Probes come to an address, not to a name.
ANY_HOST = {"/livez", "/readyz"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
ONE_YEAR = 31_536_000  # seconds


class Settings(RoomSettings):
    """Who may be addressed, and how much may be sent."""

    trusted_hosts: Annotated[Names, RealInProduction("orders.acme.com,*.acme.com", embedded=("*",))] = (
        "localhost",
        "127.0.0.1",
        "[::1]",
    )
    max_body_bytes: Annotated[int, Field(ge=0)] = 1_048_576


class Gate:
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
        headers = Headers(scope=scope)
        if not self._known(headers.get("host", "")) and scope["path"] not in ANY_HOST:
            await response(400, "unknown-host", "This host is not served here.")(scope, receive, send)
            return
        length = headers.get("content-length")
        if length is None or not length.isdigit():
            await self.limited(scope, receive, send)  # counts what nobody declared
        elif int(length) > self.most:
            detail = f"The body has more than {self.most} bytes."
            await response(413, "content-too-large", detail)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
        name = name.lower()
        return self.any or name in self.names or name.endswith(self.endings)


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Put the gate in front of the router."""
    app.add_middleware(Gate, settings=part(settings, Settings))


def respond(exchange: Exchange, headers: MutableHeaders) -> None:
    """Add the headers that are not there yet."""
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if exchange.scope["scheme"] in ("https", "wss"):
        headers.setdefault("Strict-Transport-Security", f"max-age={ONE_YEAR}; includeSubDomains")
