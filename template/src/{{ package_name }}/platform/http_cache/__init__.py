"""HTTP caching as the RFCs 9110 and 9111 have it: nothing may be kept, unless the route has an `HttpPolicy`.

Answers under a policy get an entity tag, and 304 where the client's copy is right; HEAD is GET without its content.
What is streamed passes as it comes: a tag would have to wait for its end.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..room import Room
from ..settings import RoomSettings
from ..state import Headers, RequestContext
from .policy import TAGS, HttpPolicy, entity_tag, matches, policy_of, tag_headers

MAX_TAGGED_BYTES = 262_144  # larger responses get no entity tag
NO_STORE = (b"cache-control", b"no-store")
PERSONAL = (b"authorization", b"cookie")
# RFC 9110 section 15.4.5: a 304 describes no content; and it sets no cookie, for a cache may serve it to others.
CONTENT = b"content-encoding content-language content-length content-range content-type last-modified"
NOT_IN_304 = {*CONTENT.split(), b"set-cookie"}


class HttpCache:
    """ASGI middleware around the router."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        scope["method"] = "GET"  # for the router; the server asks for it again when the answer starts
        try:
            await self.app(scope, receive, Answer(scope, send, method))
        finally:
            scope["method"] = method


class Answer:
    """Takes the place of `send` for one request."""

    __slots__ = ("held", "known", "method", "over", "scope", "send")

    def __init__(self, scope: Scope, send: Send, method: str) -> None:
        self.scope = scope
        self.send = send
        self.method = method
        self.held: Message | None = None  # the start of an answer, until its tag is known
        self.known = b""  # what the client has, by If-None-Match
        self.over = False  # whether all has been sent that will be

    async def __call__(self, message: Message) -> None:
        """Pass a message on, changed where there is a policy."""
        if message["type"] == "http.response.start":
            self.scope["method"] = self.method
            policy = policy_of(self.scope)
            if policy and message["status"] == 200:
                message = self._keep(message, policy)
            if not self.held:
                await self._start(message)
            return
        if self.held:
            start, self.held = self.held, None
            if message["type"] == "http.response.body" and not message.get("more_body"):
                start["headers"].append((b"etag", entity_tag(message.get("body", b"")).encode()))
            await self._start(start)
        if not self.over:
            await self.send(message)

    def _keep(self, message: Message, policy: HttpPolicy) -> Message:
        """Say who may keep the answer, and hold its start back where its tag has yet to be made."""
        headers: Headers = list(message["headers"])
        there, asked = dict(headers), self.scope["headers"]
        personal = b"set-cookie" in there or any(name in PERSONAL for name, _ in asked)
        self.known = b",".join(value for name, value in asked if name == b"if-none-match")
        vary, said = policy.vary, policy.header
        if policy.private:
            vary = (*vary, "Authorization", "Cookie")  # also in the browser that two people share
        elif personal:
            said = NO_STORE[1]
        else:
            headers += tag_headers((*policy.tags, *self.scope.get(TAGS, ())))
        if b"cache-control" not in there:
            headers.append((b"cache-control", said))
        if vary:
            _merge(headers, vary)
        message = {**message, "headers": headers}
        length = there.get(b"content-length", b"")
        if b"etag" not in there and length.isdigit() and int(length) <= MAX_TAGGED_BYTES:
            self.held = message
        return message

    async def _start(self, message: Message) -> None:
        self.over = self.method == "HEAD"
        tag = dict(message["headers"]).get(b"etag") if self.known else None
        if tag and matches(self.known.decode("latin-1"), tag.decode("latin-1"), weak=True):
            kept = [header for header in message["headers"] if header[0] not in NOT_IN_304]
            message, self.over = {**message, "status": 304, "headers": kept}, True
        await self.send(message)
        if self.over:
            await self.send({"type": "http.response.body", "body": b""})


def _merge(headers: Headers, more: tuple[str, ...]) -> None:
    """Add names to `Vary`, as one line; what is there stays."""
    there = b", ".join(value for name, value in headers if name == b"vary").decode("latin-1")
    names = {each.strip().lower(): each.strip() for each in (*there.split(","), *more) if each.strip()}
    headers[:] = [header for header in headers if header[0] != b"vary"]
    headers.append((b"vary", b"*" if "*" in names else ", ".join(names.values()).encode("latin-1")))


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Put it in front of the router."""
    app.add_middleware(HttpCache)


def respond(context: RequestContext, headers: Headers) -> None:
    """Have nothing kept of which nobody has said that it may be."""
    if not any(name == b"cache-control" for name, _ in headers):
        headers.append(NO_STORE)


def describe(schema: dict[str, Any], app: FastAPI) -> None:
    """Say in the OpenAPI document where a 304 may come."""
    known = {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}}
    known["description"] = "Tags of copies that the client has: 304 if one is right."
    for route in iter_route_contexts(app.routes):
        operation = schema.get("paths", {}).get(route.path_format, {}).get("get")
        if operation and "GET" in (route.methods or ()) and policy_of({"endpoint": route.endpoint}):
            operation.setdefault("parameters", []).append(known)
            operation["responses"]["304"] = {"description": "A copy that the client has is right"}


ROOM = Room(install=install, respond=respond, describe=describe)
