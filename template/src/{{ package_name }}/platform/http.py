"""The door: the outermost ASGI middleware, which calls the rooms' hooks for every request.

It creates the request context, wraps `send` once and calls the hooks. It is pure ASGI, because a `BaseHTTPMiddleware`
per concern costs each request more than all rooms together.
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
    """Outermost ASGI application of the service, around FastAPI and its middleware.

    Args:
        app: The application behind the door.
        rooms: Outermost first: `begin` runs in this order, `respond` and `finish` in reverse.
        state: The state of the application.
    """

    def __init__(self, app: ASGIApp, rooms: Collection[Room], state: State) -> None:
        self.app = app
        self.state = state
        inner_first = [*rooms][::-1]
        self.begin = [room.begin for room in rooms if room.begin]
        self.respond = [room.respond for room in inner_first if room.respond]
        self.finish = [room.finish for room in inner_first if room.finish]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and call the hooks at its start, its response and its end."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        context = _create_context(scope, self.state)
        token: Token[RequestContext | None] | None = current.set(context)

        async def send_and_observe(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                context.status = message.get("status", 101)
                headers = message["headers"] = list(message.get("headers", ()))
                headers.append((b"x-request-id", context.request_id.encode()))
                if self.state.draining and "status" in message:
                    headers.append((b"connection", b"close"))  # the next request goes to another instance
                _call(self.respond, context, headers)
            elif message["type"] == "http.response.body":
                context.sent += len(message.get("body", b""))
                if not message.get("more_body"):  # the client does not wait for background tasks
                    context.seconds = time.perf_counter() - context.started
            await send(message)

        try:
            _call(self.begin, context)
            app = self.state.traced if context.sampled and self.state.traced else self.app
            await app(scope, receive, send_and_observe)
        except Exception as error:
            context.error = error  # `finish` of the room `logs` logs it
            if not context.status:
                token = None  # uvicorn logs this error, with the ids of the request
                raise
        finally:
            context.seconds = context.seconds or time.perf_counter() - context.started
            _call(self.finish, context)
            if token:
                current.reset(token)


def _call(hooks: Iterable[Callable[P, None]], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call all hooks; if one fails, log it and continue, because the request itself is fine."""
    for hook in hooks:
        try:
            hook(*args, **kwargs)
        except Exception:
            structlog.get_logger("http").exception("hook failed", hook=f"{hook.__module__}.{hook.__qualname__}")


def _create_context(scope: Scope, state: State) -> RequestContext:
    request_id, parent = "", None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id = value.decode()
        elif name == b"traceparent" and not parent:
            parent = _TRACEPARENT.fullmatch(value)
    trace_id = parent[1].decode() if parent else f"{random.getrandbits(128):032x}"  # an id, not a secret
    context = RequestContext(scope, state, request_id or trace_id, trace_id, time.perf_counter())
    if parent:
        context.parent_id = parent[2].decode()
        context.parent_sampled = bool(int(parent[3], 16) & 1)
    return context
