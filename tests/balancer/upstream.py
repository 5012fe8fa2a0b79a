"""A service of which a test controls every byte, behind a balancer: it keeps the requests that reach it."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import BaseRequestHandler, ThreadingTCPServer

from tests.servers.server import serving


@dataclass(frozen=True)
class Request:
    """What reached the service: names of headers in lower case, in their order."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int  # its number
    idle: float  # seconds that the connection was idle before

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for each, value in self.headers if each == name]


def response(body: bytes = b"{}", status: str = "200 OK", **headers: str) -> bytes:
    """A response as bytes; `cache_control` names the header Cache-Control."""
    lines = {"content-type": "application/json", "cache-control": "no-store", "content-length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


@dataclass
class Upstream:
    """Behind a balancer.

    Args:
        reply: Its response to a request; None closes the connection without one.

    `ready` is its response to the health checks of a balancer, which are counted in `checks` only; `open` has the
    connections that are open.
    """

    reply: Callable[[Request], bytes | None] = lambda request: response()
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    unreadable: list[bytes] = field(default_factory=list)  # what no request could be made of
    connections: int = 0
    open: set[object] = field(default_factory=set)
    ready: bool = True
    checks: int = 0

    @contextmanager
    def run(self) -> Iterator["Upstream"]:
        """Serve for the length of a `with`."""
        upstream = self

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                upstream.connections += 1
                upstream.open.add(self.client_address)
                upstream.serve(self.request, upstream.connections)
                upstream.open.discard(self.client_address)

        ThreadingTCPServer.daemon_threads = True
        server = ThreadingTCPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        server.request_queue_size = 200
        server.server_bind()
        server.server_activate()
        with serving(server) as self.port:
            yield self

    def serve(self, client: socket.socket, number: int) -> None:
        """Serve one connection until its end."""
        client.settimeout(60)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader, since = client.makefile("rb"), time.monotonic()
        try:
            while line := reader.readline():
                idle = time.monotonic() - since
                head = [line]
                while (line := reader.readline()) not in (b"\r\n", b"\n", b""):
                    head.append(line)
                try:
                    method, target, version = head[0].decode("latin-1").split()
                    pairs = [row.decode("latin-1").partition(":")[::2] for row in head[1:]]
                    headers = [(name.lower(), value.strip()) for name, value in pairs]
                    body = read_body(reader.read, reader.readline, dict(headers))
                except ValueError:
                    self.unreadable.append(b"".join(head))
                    return
                request = Request(method, target, headers, body, number, idle)
                if target == "/readyz" and request.all("host") == ["localhost"]:  # the balancer's own check
                    self.checks += 1
                    client.sendall(response(status="200 OK" if self.ready else "503 Service Unavailable"))
                    continue
                self.requests.append(request)
                if (said := self.reply(request)) is None:
                    return
                client.sendall(said)
                if version == "HTTP/1.0" or "close" in request.all("connection"):
                    return
                since = time.monotonic()
        except OSError:
            pass  # the balancer has closed the connection
        finally:
            reader.close()

    @property
    def last(self) -> Request:
        """The request that came last."""
        assert self.requests, "no request reached the service"
        return self.requests[-1]


def read_body(read: Callable[[int], bytes], line: Callable[[], bytes], headers: dict[str, str]) -> bytes:
    """Read a body by its length or in chunks."""
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return read(int(headers.get("content-length", 0)))
    body = b""
    while size := int(line().split(b";")[0], 16):
        body += read(size)
        line()
    while line() not in (b"\r\n", b"\n", b""):
        pass
    return body
