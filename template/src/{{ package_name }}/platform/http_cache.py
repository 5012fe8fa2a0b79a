"""HTTP caching as the RFCs 9110 and 9111 have it: nothing may be kept, unless the route has an `HttpPolicy`.

Answers under a policy get an entity tag, and 304 where the client's copy is right; HEAD is GET without its content.
What is streamed passes as it comes: a tag would have to wait for its end.
"""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .http_policy import DECLARED, TAG, entity_tag, matches
from .settings import RoomSettings
from .state import Exchange

MOST = 262_144  # bytes: what is larger is not held back for a tag
NO_STORE = (b"cache-control", b"no-store")
PERSONAL = (b"authorization", b"cookie")
# RFC 9110 section 15.4.5: a 304 describes no content; and it sets no cookie, for a cache may serve it to others.
NOT_IN_304 = {
    b"content-encoding",
    b"content-language",
    b"content-length",
    b"content-range",
    b"content-type",
    b"last-modified",
    b"set-cookie",
}
Headers = list[tuple[bytes, bytes]]


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

    __slots__ = ("held", "method", "over", "scope", "send")

    def __init__(self, scope: Scope, send: Send, method: str) -> None:
        self.scope = scope
        self.send = send
        self.method = method
        self.held: Message | None = None  # the start of an answer, until its tag is known
        self.over = False  # whether all has been sent that will be

    async def __call__(self, message: Message) -> None:
        """Pass a message on, changed where there is a policy."""
        if message["type"] == "http.response.start":
            self.scope["method"] = self.method
            declared = self.scope.get(DECLARED)
            if declared and message["status"] == 200:
                await self._keep(message, *declared)
            else:
                await self._start(message)
            return
        if self.held:
            start, self.held = self.held, None
            if message["type"] == "http.response.body" and not message.get("more_body"):
                start["headers"].append((b"etag", entity_tag(message.get("body", b"")).encode()))
            await self._start(start)
        if not self.over:
            await self.send(message)

    async def _keep(self, message: Message, policy: Any, tags: list[str]) -> None:
        headers: Headers = list(message["headers"])
        names = dict(headers)
        message["headers"] = headers
        personal = b"set-cookie" in names or any(name in PERSONAL for name, _ in self.scope["headers"])
        vary = policy.vary
        if policy.private:
            vary = (*vary, "Authorization", "Cookie")  # also in the browser that two people share
        elif personal:
            headers += [] if b"cache-control" in names else [NO_STORE]
        elif keys := [tag.encode() for tag in tags if TAG.fullmatch(tag)]:
            headers += [(b"surrogate-key", b" ".join(keys)), (b"cache-tag", b",".join(keys))]
        if vary:
            _merge(headers, vary)
        if not any(name == b"cache-control" for name, _ in headers):
            headers.append((b"cache-control", policy.header))
        length = names.get(b"content-length", b"")
        if b"etag" not in names and length.isdigit() and int(length) <= MOST:
            self.held = message
        else:
            await self._start(message)

    async def _start(self, message: Message) -> None:
        headers: Headers = message.get("headers", [])
        if message["status"] == 200 and DECLARED in self.scope and self._known(headers):
            kept = [(name, value) for name, value in headers if name not in NOT_IN_304]
            message = {**message, "status": 304, "headers": kept}
            self.over = True
        await self.send(message)
        if self.over or self.method == "HEAD":
            self.over = True
            await self.send({"type": "http.response.body", "body": b""})

    def _known(self, headers: Headers) -> bool:
        tag = next((value for name, value in headers if name == b"etag"), b"")
        field = b",".join(value for name, value in self.scope["headers"] if name == b"if-none-match")
        return bool(tag and field) and matches(field.decode("latin-1"), tag.decode("latin-1"), weak=True)


def _merge(headers: Headers, more: Iterable[str]) -> None:
    """Add names to `Vary`, as one line; what is there stays."""
    there = b", ".join(value for name, value in headers if name == b"vary").decode("latin-1")
    names = {each.strip().lower(): each.strip() for each in (*there.split(","), *more) if each.strip()}
    headers[:] = [header for header in headers if header[0] != b"vary"]
    headers.append((b"vary", b"*" if "*" in names else ", ".join(names.values()).encode("latin-1")))


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Put it in front of the router."""
    app.add_middleware(HttpCache)


def respond(exchange: Exchange, headers: Headers) -> None:
    """Have nothing kept of which nobody has said that it may be."""
    for name, _ in headers:
        if name == b"cache-control":
            return
    headers.append(NO_STORE)


def describe(schema: dict[str, Any]) -> None:
    """Say in the OpenAPI document where a 304 may come."""
    for path in schema.get("paths", {}).values():
        for operation in path.values():
            if any(each.get("name") == "if-none-match" for each in operation.get("parameters", ())):
                operation["responses"]["304"] = {"description": "A copy that the client has is right"}
