"""A client over one connection, which never retries and never reconnects: what is lost is seen."""

import http.client
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.balancer.balancer import AUTHORITY, HOST

SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return self.headers.get_all(name, [])


def context(**options: Any) -> ssl.SSLContext:
    """What a client trusts and offers; `options` are attributes, such as `maximum_version`."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the system's authorities take long to load
    AUTHORITY.configure_trust(made)
    for name, value in options.items():
        setattr(made, name, value)
    return made


class Client:
    """One connection.

    Args:
        port: Of the balancer.
        tls: Whether to speak TLS, and how.
        host: The name that it asks for in the handshake, and by default in requests.
        source: The loopback address to come from: for limits and logs it is another client.
        seconds: The longest silence.
    """

    def __init__(
        self,
        port: int,
        *,
        tls: bool | ssl.SSLContext = True,
        host: str = HOST,
        source: str = "127.0.0.1",
        seconds: float = SECONDS,
    ) -> None:
        self.host = host
        self.socket = socket.create_connection(("127.0.0.1", port), seconds, (source, 0))
        if tls:
            self.socket = (context() if tls is True else tls).wrap_socket(self.socket, server_hostname=host)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def request(self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        """Send a request, and read its response."""
        lines = {"Host": self.host, **(headers or {})}
        if body or method in ("POST", "PUT"):
            lines = {"Content-Length": str(len(body)), **lines}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        return self.answer(method)

    def get(self, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a GET request, and read its response."""
        return self.request("GET", target, headers)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def answer(self, method: str = "GET") -> Answer:
        """Read one response; an OSError or HTTPException if the connection ends first."""
        received = http.client.HTTPResponse(self.socket, method=method)
        received.begin()
        return Answer(received.status, received.headers, received.read())

    def rest(self) -> bytes:
        """All that comes until the connection is closed; TimeoutError if it stays open."""
        received = bytearray()
        try:
            while piece := self.socket.recv(65_536):
                received += piece
        except (ConnectionResetError, ssl.SSLError):
            pass  # the end of what was sent
        return bytes(received)


def statuses(received: bytes) -> list[int]:
    """The statuses of the responses in what a client received."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+)", received)]
