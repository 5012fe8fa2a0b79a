"""A bounded load for services on this machine, and only for these.

One thread and one selector: a client that shares the machine with what it measures has to be cheap.
"""

import ipaddress
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from bench.harness import BenchError

MOST_CONNECTIONS = 256
MOST_SECONDS = 60.0
PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Load:
    """What came back. `requests` counts answers with the status that was expected, `errors` everything else."""

    requests: int
    errors: int
    seconds: float


class _Connection:
    """One request after the other on one socket; one that breaks is not opened again."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.request = request
        self.buffer = b""
        self.socket = socket.create_connection(address, timeout=PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self) -> None:
        self.socket.sendall(self.request)

    def receive(self) -> bytes:
        """The status of a whole answer; empty while some of it is missing.

        Raises:
            OSError: The connection broke, or what came states no length.
        """
        chunk = self.socket.recv(65_536)
        if not chunk:
            raise ConnectionError("closed")
        self.buffer += chunk
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        length = _content_length(head) if end and head[9:12] != b"304" else 0
        if not end or len(body) < length:
            return b""
        self.buffer = body[length:]
        return head[9:12]


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    raise ConnectionError("no Content-Length")


def load(
    host: str,
    port: int,
    path: str,
    *,
    connections: int = 8,
    headers: Mapping[str, str] | None = None,
    seconds: float = 4.0,
    status: int = 200,
) -> Load:
    """Ask for `path` over connections that stay open, each anew as soon as it has its answer.

    What is under way when the time is over is waited for, so that the counts match the work done.

    Raises:
        BenchError: The address is not of this machine, a bound is exceeded, or nobody listens.
    """
    _check(host, connections, seconds)
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": f"{host}:{port}", **(headers or {})}.items())
    request = f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()
    with selectors.DefaultSelector() as selector:
        try:
            for _ in range(connections):
                connection = _Connection((host, port), request)
                selector.register(connection.socket, selectors.EVENT_READ, connection)
        except OSError as error:
            _close(selector)
            raise BenchError(f"no connection to {host}:{port}: {error.strerror}") from error
        try:
            return _drive(selector, seconds, str(status).encode())
        finally:
            _close(selector)


def _drive(selector: selectors.BaseSelector, seconds: float, expected: bytes) -> Load:
    requests = errors = 0
    began = time.perf_counter()
    deadline = began + seconds
    for key in selector.get_map().values():
        key.data.send()
    # Silence ends it, not the clock: a machine that paused has the answers still to be read.
    while selector.get_map() and (ready := selector.select(PATIENCE_SECONDS)):
        for key, _ in ready:
            late = time.perf_counter() - deadline
            over = late >= 0
            try:
                if status := key.data.receive():
                    requests, errors = requests + (status == expected), errors + (status != expected)
                    if not over:
                        key.data.send()
                elif late > MOST_SECONDS:
                    raise TimeoutError  # an answer that never ends
                else:
                    over = False  # the rest of it is still to come
            except OSError:
                errors, over = errors + 1, True
            if over:
                selector.unregister(key.fileobj)
                key.data.socket.close()
    errors += len(selector.get_map())  # never answered
    return Load(requests, errors, time.perf_counter() - began)


def _close(selector: selectors.BaseSelector) -> None:
    for key in list(selector.get_map().values()):
        key.data.socket.close()


def _check(host: str, connections: int, seconds: float) -> None:
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False  # a name may lead anywhere
    if not loopback:
        raise BenchError(f"{host} is not a loopback address: this client loads nobody else")
    if not 0 < connections <= MOST_CONNECTIONS or not 0 < seconds <= MOST_SECONDS:
        bounds = f"{MOST_CONNECTIONS} connections and {MOST_SECONDS:g} s"
        raise BenchError(f"{connections} connections for {seconds:g} s exceed {bounds}")
