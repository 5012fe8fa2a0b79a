"""The door: the one pass around every request, for the rooms that watch it.

It makes the ids, wraps `send` once and calls the rooms' hooks; pure ASGI, because a `BaseHTTPMiddleware` per concern
costs each request more than all the rooms together.
"""

import random
import re
import time
from collections.abc import Callable, Collection, Iterable
from contextvars import Token
from typing import ParamSpec

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .room import Room
from .state import RequestContext, State, current

P = ParamSpec("P")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header: version, trace id, parent id, flags; all zero is invalid.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Door:
    """Outermost ASGI application of the service, around FastAPI with all that it instruments.

    Args:
        app: What lies behind the door.
        rooms: Outermost first: `begin` runs in this order, `respond` and `finish` in reverse.
        state: The state of the application.
    """

    def __init__(self, app: ASGIApp, rooms: Collection[Room], state: State) -> None:
        self.app = app
        self.state = state
        outward = [*rooms][::-1]
        self.begin = [room.begin for room in rooms if room.begin]
        self.respond = [room.respond for room in outward if room.respond]
        self.finish = [room.finish for room in outward if room.finish]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and let the rooms see it begin, answer and end."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        context = _open(scope, self.state)
        token: Token[RequestContext | None] | None = current.set(context)

        async def watched(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                context.status = message.get("status", 101)
                headers = message["headers"] = list(message.get("headers", ()))
                headers.append((b"x-request-id", context.request_id.encode()))
                if self.state.draining and "status" in message:
                    headers.append((b"connection", b"close"))  # the next request goes to another instance
                _call(self.respond, context, headers)
            elif message["type"] == "http.response.body":
                context.sent += len(message.get("body", b""))
                if not message.get("more_body"):  # background tasks are not waited for by anybody
                    context.seconds = time.perf_counter() - context.started
            await send(message)

        try:
            _call(self.begin, context)
            app = self.state.traced if context.sampled and self.state.traced else self.app
            await app(scope, receive, watched)
        except Exception as error:
            context.error = error  # answered further in, and logged by `finish`
            if not context.status:
                token = None  # the server logs it: its line shall have the ids
                raise
        finally:
            context.seconds = context.seconds or time.perf_counter() - context.started
            _call(self.finish, context)
            if token:
                current.reset(token)


def _call(hooks: Iterable[Callable[P, None]], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call them all: one that fails is a fault of its room, not of the request."""
    for hook in hooks:
        try:
            hook(*args, **kwargs)
        except Exception:
            structlog.get_logger("http").exception("a hook failed", hook=f"{hook.__module__}.{hook.__qualname__}")


def _open(scope: Scope, state: State) -> RequestContext:
    request_id, parent = "", None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id = value.decode()
        elif name == b"traceparent" and not parent:
            parent = _TRACEPARENT.fullmatch(value)
    trace_id = parent[1].decode() if parent else f"{random.getrandbits(128):032x}"  # an id, no secret
    context = RequestContext(scope, state, request_id or trace_id, trace_id, time.perf_counter())
    if parent:
        context.parent_id = parent[2].decode()
        context.parent_sampled = bool(int(parent[3], 16) & 1)
    return context
