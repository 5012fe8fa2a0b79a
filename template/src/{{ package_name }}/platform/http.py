"""The door: the one pass around every request, for the rooms that watch it.

It makes the ids, wraps `send` once and calls the rooms' hooks; pure ASGI, because a `BaseHTTPMiddleware` per concern
costs each request more than all the rooms together.
"""

import random
import re
import time
from collections.abc import Iterable
from contextvars import Token
from types import ModuleType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .state import Exchange, State, current

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header: version, trace id, parent id, flags; all zero is invalid.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Door:
    """Outermost ASGI application of the service, around FastAPI with all that it instruments.

    Args:
        app: What lies behind the door.
        rooms: Modules with hooks: `begin(exchange)`, `respond(exchange, headers)` with the raw headers of an answer
            that is about to start, and `finish(exchange)` when it is out.
        state: The state of the application.
    """

    def __init__(self, app: ASGIApp, rooms: Iterable[ModuleType], state: State) -> None:
        self.app = app
        self.state = state
        self.begin = [room.begin for room in rooms if hasattr(room, "begin")]
        self.respond = [room.respond for room in rooms if hasattr(room, "respond")]
        self.finish = [room.finish for room in rooms if hasattr(room, "finish")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and let the rooms see it begin, answer and end."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        exchange = _open(scope, self.state)
        token: Token[Exchange | None] | None = current.set(exchange)

        async def watched(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                exchange.status = message.get("status", 101)
                headers = message["headers"] = list(message.get("headers", ()))
                headers.append((b"x-request-id", exchange.request_id.encode()))
                if self.state.draining and "status" in message:
                    headers.append((b"connection", b"close"))  # the next request goes to another instance
                for hook in self.respond:
                    hook(exchange, headers)
            elif message["type"] == "http.response.body":
                exchange.sent += len(message.get("body", b""))
                if not message.get("more_body"):  # background tasks are not waited for by anybody
                    exchange.seconds = time.perf_counter() - exchange.started
            await send(message)

        try:
            for hook in self.begin:
                hook(exchange)
            if not (exchange.sampled and self.state.native_spans):
                scope["fastapi.telemetry"] = None  # says no to FastAPI, before it asks what it may do
            await self.app(scope, receive, watched)
        except Exception as error:
            exchange.error = error  # answered further in, and logged by `finish`
            if not exchange.status:
                token = None  # the server logs it: its line shall have the ids
                raise
        finally:
            exchange.seconds = exchange.seconds or time.perf_counter() - exchange.started
            for hook in self.finish:
                hook(exchange)
            if token:
                current.reset(token)


def _open(scope: Scope, state: State) -> Exchange:
    request_id, parent = "", None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id = value.decode()
        elif name == b"traceparent" and not parent:
            parent = _TRACEPARENT.fullmatch(value)
    trace_id = parent[1].decode() if parent else f"{random.getrandbits(128):032x}"  # an id, no secret
    exchange = Exchange(scope, state, request_id or trace_id, trace_id, time.perf_counter())
    if parent:
        exchange.parent_id = parent[2].decode()
        exchange.parent_sampled = bool(int(parent[3], 16) & 1)
    return exchange
