"""Limits what a client can cost with a connection, and corrects what uvicorn reads wrongly.

uvicorn limits neither the size of a request's head nor the time that a client takes to send a request (CWE-400),
executes the body of a request with an unknown `Upgrade` as the next request (uvicorn issue 2722), and adds trailers to
the headers of the running request. A request that cannot be read is answered by the application, like any other.
"""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import cast

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..problems import response

MAX_CONNECTIONS = 65_536
MAX_HEAD_BYTES = 65_536  # more than NGINX, HAProxy and cloud load balancers pass on
MAX_HEADERS = 100  # as Apache and HAProxy
MAX_LINE_BYTES = 8_192  # of a WebSocket's handshake: the limit of `websockets`
MAX_URL_BYTES = 8_192  # RFC 9112 section 3: at least 8000
MIN_BYTES_PER_SECOND = 500  # of a body, as Apache's mod_reqtimeout
RECEIVE_SECONDS = 20  # for a head, and for the body to make progress, as Apache's mod_reqtimeout
SEND_SECONDS = 60  # for a client to continue to read the response, as NGINX

MALFORMED = (400, "malformed-request", "The request is not valid HTTP/1.1.")
TIMEOUT = (408, "request-timeout", f"The request did not arrive within {RECEIVE_SECONDS} seconds.")
URL_TOO_LONG = (414, "url-too-long", f"The URL has more than {MAX_URL_BYTES} bytes.")
HEAD_TOO_LARGE = (431, "headers-too-large", f"More than {MAX_HEADERS} headers or {MAX_HEAD_BYTES} bytes of headers.")


def connection_limit() -> int:
    """Three quarters of the files that the process may open; the others are for the servers that the rooms use."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MAX_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, files * 3 // 4)


async def refuse(problem: tuple[int, str, str], scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI application that responds with a problem document."""
    await response(*problem)(scope, receive, send)


class Connection(HttpToolsProtocol):
    """A client's connection: uvicorn's, with limits."""

    limit = connection_limit()
    awaited = "head"  # what the client has to send now: "head", "body", or "" while it waits for its response
    since = 0.0  # when it began, or made progress last
    progress = 0  # bytes of the body since then
    unread = 0  # bytes of the head so far, or of anything after it that is no body, such as trailers
    stalled_since: float | None = None  # the client does not read the response
    upgrade = ""  # "", "websocket" or "ignored"
    problem = MALFORMED  # the response if the parser stops
    refused = False  # the rest of what the client sends is not read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept a connection; if there are too many, close the oldest that wait for their clients."""
        super().connection_made(transport)  # type: ignore[arg-type]  # always TCP
        self.since = self.loop.time()
        if len(self.connections) > self.limit:
            waiting = [each for each in self.connections if isinstance(each, Connection) and each.waits_for_client]
            waiting.sort(key=lambda each: each.since)  # this one is the last
            for each in waiting[: self.limit // 10 + 1]:
                each.transport.abort()

    @property
    def waits_for_client(self) -> bool:
        """Whether no request is executed; one whose body is incomplete does not count."""
        return bool(self.awaited) or self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Read what the client sent."""
        if self.timeout_keep_alive_task:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        if self.refused:
            return
        if not self.awaited:
            self.expect_head()
        self.unread += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            if self.upgrade == "websocket":
                self.handle_websocket_upgrade()
                if not getattr(self.transport.get_protocol(), "handshake_initiated", True):
                    self.transport.abort()  # `websockets` could not read it, and would neither answer nor close
            else:
                self.ignore_upgrade(data[stopped.args[0] :])
        except httptools.HttpParserError:
            self.stop(self.problem)
        else:
            if self.unread > MAX_HEAD_BYTES and self.awaited:
                self.stop(HEAD_TOO_LARGE if self.headers or not self.url else URL_TOO_LONG)

    def expect_head(self) -> None:
        """Begin to wait for a request."""
        self.awaited, self.since, self.unread = "head", self.loop.time(), 0

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        if not self.awaited:  # the previous request was in the same packet
            self.expect_head()

    def on_headers_complete(self) -> None:
        """Check the head, and execute the request."""
        if len(self.url) > MAX_URL_BYTES:
            self.problem = URL_TOO_LONG
        elif len(self.headers) > MAX_HEADERS or (self.unread > MAX_HEAD_BYTES and self.head_bytes() > MAX_HEAD_BYTES):
            self.problem = HEAD_TOO_LARGE
        if self.problem is not MALFORMED and not self.refused:
            raise ValueError(self.problem)  # stops the parser
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("only proxies serve CONNECT")
            self.upgrade = "websocket" if self.is_websocket() else "ignored"
            if self.upgrade == "ignored":
                return
            if max(len(self.url) + 15, *(len(name) + len(value) + 4 for name, value in self.headers)) > MAX_LINE_BYTES:
                self.problem = HEAD_TOO_LARGE
                raise ValueError(self.problem)
        super().on_headers_complete()
        if self.upgrade:
            return
        if self.url[:1] not in b"/*":  # uvicorn drops the host of the target, which the room `security` compares
            target = self.root_path.encode() + self.url.partition(b"?")[0]
            self.scope |= {"path": target.decode(), "raw_path": target}
        self.awaited, self.unread, self.progress = "body", 0, 0
        self.headers = []  # uvicorn would add trailers to the headers of the running request (RFC 9110 section 6.5.1)
        if self.refused:
            cast(Scope, self.scope).update({"method": "-", "path": "-", "refused": partial(refuse, self.problem)})

    def head_bytes(self) -> int:
        """The size of the head; `unread` also counts what came after it in the same packet."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def is_websocket(self) -> bool:
        """Whether the request is a handshake, which has no body; otherwise its `Upgrade` is ignored."""
        headers = dict(self.headers)
        return (
            self.parser.get_method() == b"GET"
            and headers.get(b"upgrade", b"").lower() == b"websocket"
            and b"upgrade" in [token.strip() for token in headers.get(b"connection", b"").lower().split(b",")]
            and not headers.keys() & {b"content-length", b"transfer-encoding"}
        )

    def ignore_upgrade(self, rest: bytes) -> None:
        """Read the head again without `Upgrade`, which a server may ignore (RFC 9110 section 7.8); then the body."""
        line = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.upgrade, self.unread, self.parser = "", 0, httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([line, *headers, b"", rest]))

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on."""
        super().on_body(body)
        self.unread = 0
        self.progress += len(body)
        if self.progress >= MIN_BYTES_PER_SECOND * RECEIVE_SECONDS:
            self.since, self.progress = self.loop.time(), 0

    def on_message_complete(self) -> None:
        """End the request; the client waits for the response now."""
        if not self.upgrade:
            super().on_message_complete()
            self.awaited = ""

    def pause_writing(self) -> None:
        """Remember since when the client does not read."""
        super().pause_writing()
        self.stalled_since = self.loop.time()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self.stalled_since = None

    def check(self, now: float) -> None:
        """Close the connection if the client takes too long; called every second."""
        if self.stalled_since is not None and now - self.stalled_since > SEND_SECONDS:
            self.transport.abort()
        elif self.awaited and self.flow.read_paused:
            self.since = now  # the application is slow, not the client
        elif self.awaited and now - self.since > RECEIVE_SECONDS:
            if self.cycle or self.unread:
                self.stop(TIMEOUT)
            else:
                self.transport.abort()  # it has sent nothing: there is no request to answer

    def stop(self, problem: tuple[int, str, str]) -> None:
        """Answer a request that cannot be read, after the responses before it, and close the connection."""
        if self.refused or self.awaited == "body":
            self.transport.abort()  # the application sees that the client has left
            return
        self.refused, self.problem = True, problem
        self.upgrade, self.parser = "", httptools.HttpRequestParser(self)
        self.parser.feed_data(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n")


def check_all(connections: Iterable[object]) -> None:
    """Close the connections whose clients take too long."""
    now = asyncio.get_running_loop().time()
    for connection in [*connections]:
        if isinstance(connection, Connection):
            connection.check(now)
