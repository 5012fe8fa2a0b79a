"""CORS: which web pages of other origins may read responses; none by default. The allowed origins are `CORS_ORIGINS`.

Every response gets the headers, errors and early refusals included: without them a page sees "network error" only.
"""

import re
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import FastAPI
from pydantic import AfterValidator, ValidationInfo, field_validator
from starlette.datastructures import Headers as RequestHeaders
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from .problems import response
from .room import Room
from .settings import RoomSettings, part
from .state import Headers, RequestContext, state_of
from .values import Names

# As browsers send it: https://html.spec.whatwg.org/multipage/browsers.html#ascii-serialisation-of-an-origin, which has
# no path, and no port if it is the scheme's default one.
_ORIGIN = re.compile(
    r"(?!http://[^/]*:80$|https://[^/]*:443$)[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?"
)
# What a page may read, in addition to the headers that the Fetch standard allows.
EXPOSED = ("ETag", "Location", "Retry-After", "WWW-Authenticate", "X-Request-ID")


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if origins != ("*",) and not (_ORIGIN.fullmatch(origin) and (urlsplit(origin).port or 1)):
            raise ValueError(
                "an origin is scheme://host or scheme://host:port in lower case, without a path and without the default"
                " port, for example https://app.acme.com; or only *"
            )
    return origins


class Settings(RoomSettings):
    """Which web pages may use the service."""

    cors_origins: Annotated[Names, AfterValidator(_origins)] = ()
    cors_credentials: bool = False  # whether they may send cookies

    @field_validator("cors_credentials")
    @classmethod
    def _not_with_any_origin(cls, allowed: bool, info: ValidationInfo) -> bool:
        if allowed and info.data.get("cors_origins") == ("*",):
            raise ValueError("every page could act as the user who visits it: list the origins in CORS_ORIGINS")
        return allowed


class Preflights:
    """ASGI middleware that responds to preflight requests; `respond` adds the headers to all other responses."""

    def __init__(self, app: ASGIApp, rules: CORSMiddleware) -> None:
        self.app = app
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a preflight request, or pass a request on."""
        app = self.app
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = RequestHeaders(scope=scope)
            if "origin" in headers and "access-control-request-method" in headers:
                answer = self.rules.preflight_response(request_headers=headers)
                refused = answer.status_code != 200
                app = response(400, "cors-refused", f"{bytes(answer.body).decode()}.") if refused else answer
        await app(scope, receive, send)


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Add the middleware, if an origin is allowed."""
    mine = part(settings, Settings)
    if not mine.cors_origins:
        return
    rules = state_of(app).own[CORSMiddleware] = CORSMiddleware(
        app,
        allow_credentials=mine.cors_credentials,
        allow_headers=("*",),
        allow_methods=("*",),
        allow_origins=mine.cors_origins,
        expose_headers=EXPOSED,
    )
    app.add_middleware(Preflights, rules=rules)


def respond(context: RequestContext, headers: Headers) -> None:
    """Allow the page to read the response, and make shared caches keep one copy per origin."""
    rules: CORSMiddleware | None = context.state.own.get(CORSMiddleware)
    if not rules:
        return
    found, origin = MutableHeaders(raw=headers), RequestHeaders(scope=context.scope).get("origin")
    if origin and rules.is_allowed_origin(origin) and "access-control-max-age" not in found:
        found.update(rules.simple_headers)
        found.setdefault("access-control-allow-origin", origin)
    if "vary" not in found or found["vary"] != "*":
        found.add_vary_header("Origin")


ROOM = Room(settings=Settings, install=install, respond=respond)
