"""The door: the outermost ASGI middleware, which calls the rooms' hooks for every request.

It creates the request context, wraps `send` once and calls the hooks. It is pure ASGI, because a `BaseHTTPMiddleware`
per concern costs each request more than all rooms together.
"""

import asyncio
import random
import re
import time
from collections.abc import Callable, Collection, Iterable
from typing import ParamSpec

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from . import trace_headers
from .problems import CLIENT_CLOSED_REQUEST, response
from .room import Room
from .state import RequestContext, State, current

P = ParamSpec("P")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")
_READ = {b"x-request-id", *trace_headers.RULES}
_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_BODIES = ("http.response.body", "websocket.http.response.body")


class _ClientLeft(OSError, ClientDisconnect):
    """A message could not be sent; Starlette expects the first class of the server, our handlers the second."""


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
        token = current.set(context)
        client_left = cut_off = False

        async def receive_and_observe() -> Message:
            nonlocal client_left
            message = await receive()
            if message["type"] == "http.disconnect":
                client_left = True
            return message

        async def send_and_observe(message: Message) -> None:  # calls itself nowhere: each request would leave a cycle
            kind, refusal = message["type"], None
            if client_left:
                return
            if kind == "websocket.close" and not context.status:  # the server would respond without headers and body
                refusal = response(403, "forbidden", "The WebSocket handshake was refused.")
                kind = "websocket.http.response.start"
                message = {"type": kind, "status": refusal.status_code, "headers": refusal.raw_headers}
            if kind in _STARTS:
                context.status = message.get("status", 101)
                headers = message["headers"] = list(message.get("headers", ()))
                headers.append((b"x-request-id", context.request_id.encode()))
                if self.state.draining and "status" in message:
                    headers.append((b"connection", b"close"))  # the next request goes to another instance
                _call(self.respond, context, headers)
            elif kind in _BODIES:
                context.sent += len(message.get("body", b""))
                if not message.get("more_body"):  # the client does not wait for background tasks
                    context.seconds = time.perf_counter() - context.started
            try:
                await send(message)
            except Exception as error:
                if kind in _STARTS:
                    context.status = 0  # it was not sent
                if isinstance(error, OSError):
                    raise _ClientLeft from error
                raise
            if refusal:
                context.sent = len(refusal.body)
                await send({"type": "websocket.http.response.body", "body": refusal.body})

        try:
            _call(self.begin, context)
            app = self.state.traced if context.sampled and self.state.traced else self.app
            try:
                await app(scope, receive_and_observe, send_and_observe)
            except asyncio.CancelledError:
                if not self.state.closing.is_set():
                    raise
                cut_off = True  # uvicorn does not wait any longer
            except Exception as error:
                if _caused_by_client(error):
                    client_left = True
                else:
                    context.error = error  # `finish` of the room `logs` logs it
            if not context.status and not client_left:  # otherwise the server responds, without ids
                failed = response(500, "internal-error", "The service failed. Search its logs for the request id.")
                if cut_off:
                    detail = "The service shut down before the response was ready."
                    failed = response(503, "shutting-down", detail, headers={"Retry-After": "5"})
                try:
                    await failed(scope, receive, send_and_observe)
                    if not cut_off:
                        context.error = context.error or RuntimeError("the application returned without a response")
                except ClientDisconnect:
                    client_left = True
        finally:
            context.status = context.status or (CLIENT_CLOSED_REQUEST if client_left else 500)
            context.seconds = context.seconds or time.perf_counter() - context.started
            _call(self.finish, context)
            current.reset(token)
        if context.error and self.state.settings.environment == "test":
            raise context.error  # so that the test client shows it


def _caused_by_client(error: Exception) -> bool:
    """Whether an error only says that the client has closed the connection, with whatever close code."""
    kinds = ClientDisconnect, WebSocketDisconnect
    rest = error.split(kinds)[1] if isinstance(error, ExceptionGroup) else error
    return rest is None or isinstance(rest, kinds) or isinstance(rest.__cause__, kinds)


def _call(hooks: Iterable[Callable[P, None]], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call all hooks; if one fails, log it and continue, because the request itself is fine."""
    for hook in hooks:
        try:
            hook(*args, **kwargs)
        except Exception:
            structlog.get_logger("http").exception("hook failed", hook=f"{hook.__module__}.{hook.__qualname__}")


def _create_context(scope: Scope, state: State) -> RequestContext:
    request_id = ""
    trace: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _READ:
            if name != b"x-request-id":
                trace[name] = trace[name] + b"," + value if name in trace else value
            elif _REQUEST_ID.fullmatch(value):
                request_id = value.decode()
    parent = trace_headers.read(scope, trace) if trace else None
    trace_id = parent[1].decode() if parent else f"{random.getrandbits(128):032x}"  # an id, not a secret
    context = RequestContext(scope, state, request_id or trace_id, trace_id, time.perf_counter())
    if parent:
        context.parent_id = parent[2].decode()
        context.parent_sampled = bool(int(parent[3], 16) & 1)
    return context
