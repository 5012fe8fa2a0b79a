"""A bounded load for services on this machine, and only for these.

One thread and one selector: a client that shares the machine with what it measures has to be cheap.
"""

import ipaddress
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.harness import BenchError

MOST_CONNECTIONS = 256
MOST_SECONDS = 60.0
PATIENCE_SECONDS = 5.0
Dial = Callable[[int], socket.socket]  # opens the connection with this number


@dataclass(frozen=True)
class Load:
    """What came back. `requests` counts answers with the status that was expected, `errors` everything else."""

    requests: int
    errors: int
    seconds: float


@dataclass
class Arrivals:
    """Seconds from the moment at which each request was due to its answer, and what did not come as expected."""

    seconds: list[float] = field(default_factory=list)
    errors: int = 0

    def percentile(self, share: float) -> float:
        """The latency below which this share of the requests stayed, in seconds."""
        return sorted(self.seconds)[int(share * (len(self.seconds) - 1))]


class _Connection:
    """One request after the other on one socket; one that breaks is not opened again."""

    def __init__(self, opened: socket.socket, request: bytes) -> None:
        self.request = request
        self.buffer = b""
        self.due = 0.0
        self.socket = opened
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
    dial: Dial | None = None,
) -> Load:
    """Ask for `path` over connections that stay open, each anew as soon as it has its answer.

    What is under way when the time is over is waited for, so that the counts match the work done. `dial` opens the
    connections where plain text from the usual address is not enough.

    Raises:
        BenchError: The address is not of this machine, a bound is exceeded, or nobody listens.
    """
    _check(host, connections, seconds)
    with selectors.DefaultSelector() as selector:
        _connect(selector, (host, port), path, connections, headers or {}, dial)
        try:
            return _drive(selector, seconds, str(status).encode())
        finally:
            _close(selector)


def arrive(
    host: str,
    port: int,
    path: str,
    *,
    rate: float,
    connections: int = 32,
    headers: Mapping[str, str] | None = None,
    seconds: float = 4.0,
    status: int = 200,
    dial: Dial | None = None,
) -> Arrivals:
    """Ask for `path` at a fixed rate, whether or not the answers before have come: an open loop.

    A request is timed from the moment at which it was due. So what waits behind a server that pauses counts, which a
    client that waits for its answers would not even have asked for.

    Args:
        host: Of this machine.
        port: Where the server listens.
        path: What is asked for.
        rate: Requests per second.
        connections: At most so many are under way; the others wait, and their waiting counts.
        headers: Of each request.
        seconds: How long.
        status: What each answer should have.
        dial: Opens the connections, where plain text from the usual address is not enough.

    Raises:
        BenchError: The address is not of this machine, a bound is exceeded, nobody listens, or answers stay away.
    """
    _check(host, connections, seconds)
    with selectors.SelectSelector() as selector:  # epoll waits for whole milliseconds
        _connect(selector, (host, port), path, connections, headers or {}, dial)
        try:
            return _keep_pace(selector, rate, int(rate * seconds), str(status).encode())
        except OSError as error:
            raise BenchError(f"{host}:{port} broke off: {error}") from error
        finally:
            _close(selector)


def _connect(
    selector: selectors.BaseSelector,
    address: tuple[str, int],
    path: str,
    connections: int,
    headers: Mapping[str, str],
    dial: Dial | None,
) -> None:
    host = f"{address[0]}:{address[1]}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": host, **headers}.items())
    request = f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()
    try:
        for number in range(connections):
            opened = dial(number) if dial else socket.create_connection(address, timeout=PATIENCE_SECONDS)
            connection = _Connection(opened, request)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
    except OSError as error:
        _close(selector)
        raise BenchError(f"no connection to {host}: {error.strerror}") from error


def _keep_pace(selector: selectors.BaseSelector, rate: float, total: int, expected: bytes) -> Arrivals:
    found = Arrivals()
    idle: deque[_Connection] = deque(key.data for key in selector.get_map().values())
    began, asked = time.perf_counter(), 0
    while len(found.seconds) < total:
        now = time.perf_counter() - began
        while idle and asked < total and asked / rate <= now:
            connection = idle.popleft()
            connection.due = asked / rate
            connection.send()
            asked += 1
        wait = PATIENCE_SECONDS if asked == total or not idle else max(0.0, asked / rate - now)
        ready = selector.select(wait)
        if not ready and wait == PATIENCE_SECONDS:
            raise TimeoutError("an answer did not come")
        for key, _ in ready:
            if status := key.data.receive():
                found.seconds.append(time.perf_counter() - began - key.data.due)
                found.errors += status != expected
                idle.append(key.data)
    return found


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
