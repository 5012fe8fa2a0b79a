"""HTTP caching headers by RFC 9110 and 9111: `no-store`, unless the route declares an `HttpPolicy`.

Responses of a route with a policy get an entity tag, and 304 if the client's copy is current. HEAD is handled as GET
without content. Streamed responses get no entity tag, because it could be computed only at their end.
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
# RFC 9110 section 15.4.5: a 304 has no headers of the content. No cookie either: a cache may send the 304 to others.
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
        scope["method"] = "GET"  # for the router; reset when the response starts, because the server reads it then
        try:
            await self.app(scope, receive, CachingSend(scope, send, method))
        finally:
            scope["method"] = method


class CachingSend:
    """The `send` of one request: adds the headers of the policy, and turns a response into a 304."""

    __slots__ = ("complete", "if_none_match", "method", "scope", "send", "start")

    def __init__(self, scope: Scope, send: Send, method: str) -> None:
        self.scope = scope
        self.send = send
        self.method = method
        self.start: Message | None = None  # the start of a response, delayed until its entity tag is known
        self.if_none_match = b""
        self.complete = False  # no more messages are sent

    async def __call__(self, message: Message) -> None:
        """Send a message, changed if the route has a policy."""
        if message["type"] == "http.response.start":
            self.scope["method"] = self.method
            policy = policy_of(self.scope)
            if policy and message["status"] == 200:
                message = self._apply(message, policy)
            if not self.start:
                await self._send_start(message)
            return
        if self.start:
            start, self.start = self.start, None
            if message["type"] == "http.response.body" and not message.get("more_body"):
                start["headers"].append((b"etag", entity_tag(message.get("body", b"")).encode()))
            await self._send_start(start)
        if not self.complete:
            await self.send(message)

    def _apply(self, message: Message, policy: HttpPolicy) -> Message:
        """Add the headers of the policy, and delay the start of the response if its entity tag is not known yet."""
        headers: Headers = list(message["headers"])
        present, request_headers = dict(headers), self.scope["headers"]
        personal = b"set-cookie" in present or any(name in PERSONAL for name, _ in request_headers)
        self.if_none_match = b",".join(value for name, value in request_headers if name == b"if-none-match")
        vary, cache_control = policy.vary, policy.header
        if policy.private:
            vary = (*vary, "Authorization", "Cookie")  # also in a browser that several users share
        elif personal:
            cache_control = NO_STORE[1]
        else:
            headers += tag_headers((*policy.tags, *self.scope.get(TAGS, ())))
        if b"cache-control" not in present:
            headers.append((b"cache-control", cache_control))
        if vary:
            _merge(headers, vary)
        message = {**message, "headers": headers}
        length = present.get(b"content-length", b"")
        if b"etag" not in present and length.isdigit() and int(length) <= MAX_TAGGED_BYTES:
            self.start = message
        return message

    async def _send_start(self, message: Message) -> None:
        self.complete = self.method == "HEAD"
        tag = dict(message["headers"]).get(b"etag") if self.if_none_match else None
        if tag and matches(self.if_none_match.decode("latin-1"), tag.decode("latin-1"), weak=True):
            headers = [header for header in message["headers"] if header[0] not in NOT_IN_304]
            message, self.complete = {**message, "status": 304, "headers": headers}, True
        await self.send(message)
        if self.complete:
            await self.send({"type": "http.response.body", "body": b""})


def _merge(headers: Headers, more: tuple[str, ...]) -> None:
    """Add names to `Vary`, as one line, and retain the names that are there."""
    there = b", ".join(value for name, value in headers if name == b"vary").decode("latin-1")
    names = {each.strip().lower(): each.strip() for each in (*there.split(","), *more) if each.strip()}
    headers[:] = [header for header in headers if header[0] != b"vary"]
    headers.append((b"vary", b"*" if "*" in names else ", ".join(names.values()).encode("latin-1")))


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Add the middleware."""
    app.add_middleware(HttpCache)


def respond(context: RequestContext, headers: Headers) -> None:
    """Add `no-store` unless the route declares a policy, and HEAD to the methods that a 405 allows."""
    if not any(name == b"cache-control" for name, _ in headers):
        headers.append(NO_STORE)
    if context.status == 405:
        headers[:] = [(name, with_head(value) if name == b"allow" else value) for name, value in headers]


def with_head(allowed: bytes) -> bytes:
    """Return the value of `Allow` with HEAD if it has GET, because this room serves both."""
    methods = {method.strip() for method in allowed.split(b",")}
    return b", ".join(sorted(methods | {b"HEAD"} if b"GET" in methods else methods))


def describe(schema: dict[str, Any], app: FastAPI) -> None:
    """Add `If-None-Match` and 304 to the routes with a policy in the OpenAPI document."""
    parameter = {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}}
    parameter["description"] = "Entity tags of the client's copies: 304 if one is current."
    for route in iter_route_contexts(app.routes):
        operation = schema.get("paths", {}).get(route.path_format, {}).get("get")
        if operation and "GET" in (route.methods or ()) and policy_of({"endpoint": route.endpoint}):
            operation.setdefault("parameters", []).append(parameter)
            operation["responses"]["304"] = {"description": "The client's copy is current"}


ROOM = Room(install=install, respond=respond, describe=describe)
