"""The load counts what came back, and stays on this machine and within its bounds."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench.harness import BenchError
from bench.load import arrive, load
from tests.servers.process import free_port


class Server(http.server.ThreadingHTTPServer):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[str] = []
        self.pause = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    """200 for /good and /pause, whose first answer takes its time, 503 for anything else, each in two pieces.

    /once ends the connection. 304 for who has a tag.
    """

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        if "If-None-Match" in self.headers:
            self.send_response(304)
            self.end_headers()
            self.server.seen.append(self.path)
            return
        self.send_response(200 if self.path in ("/good", "/pause") else 503)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.server.seen.append(self.path)
        if self.path == "/pause" and not self.server.pause.is_set():
            self.server.pause.set()
            time.sleep(0.4)
        self.wfile.write(b"fi")
        self.wfile.flush()
        self.wfile.write(b"ne")
        self.close_connection = self.path == "/once"

    def log_message(self, format: str, *arguments: object) -> None:
        """Into nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("path", ["/good", "/bad"])
def test_the_load_counts_every_answer_as_request_or_error(server: Server, path: str) -> None:
    found = load("127.0.0.1", server.server_port, path, connections=3, seconds=0.3)
    counted, other = (found.requests, found.errors)[:: 1 if path == "/good" else -1]
    assert counted == len(server.seen) > 3
    assert other == 0


def test_the_load_counts_the_status_that_it_is_told_to(server: Server) -> None:
    headers = {"If-None-Match": '"tag"'}
    found = load("127.0.0.1", server.server_port, "/good", headers=headers, seconds=0.3, status=304)
    assert found.requests == len(server.seen) > 3
    assert found.errors == 0
    unlike = load("127.0.0.1", server.server_port, "/good", headers=headers, seconds=0.3)
    assert unlike.errors > unlike.requests == 0


def test_a_connection_that_breaks_counts_and_is_not_opened_again(server: Server) -> None:
    found = load("127.0.0.1", server.server_port, "/once", connections=3, seconds=5)
    assert len(server.seen) == 3
    assert (found.requests, found.errors) == (0, 6)  # three answers, three closed connections
    assert found.seconds < 5


def test_a_port_where_nobody_listens_is_named() -> None:
    port = free_port()
    with pytest.raises(BenchError, match=f"no connection to 127.0.0.1:{port}: Connection refused"):
        load("127.0.0.1", port, "/")


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost.example.org", "0.0.0.0", "::"])  # noqa: S104
def test_the_load_goes_to_no_other_machine(host: str) -> None:
    with pytest.raises(BenchError, match="not a loopback address"):
        load(host, 80, "/")


@pytest.mark.parametrize("bounds", [{"connections": 257}, {"seconds": 61.0}, {"connections": 0}])
def test_the_load_has_bounds(bounds: dict[str, Any]) -> None:
    with pytest.raises(BenchError, match="exceed 256 connections and 60 s"):
        load("127.0.0.1", 80, "/", **bounds)


def test_requests_at_a_fixed_rate_are_timed_from_when_they_were_due(server: Server) -> None:
    found = arrive("127.0.0.1", server.server_port, "/pause", rate=10, connections=1, seconds=2.0)
    assert (len(found.seconds), found.errors) == (20, 0)
    assert found.percentile(1.0) >= 0.4
    # all that became due in those 0.4 s waited, too: a client that asks one after the other would have seen one
    assert sum(seconds > 0.1 for seconds in found.seconds) >= 3
    assert found.percentile(0.0) < 0.1


def test_a_fixed_rate_counts_unexpected_answers_and_gives_up_on_none(server: Server) -> None:
    assert arrive("127.0.0.1", server.server_port, "/bad", rate=20, seconds=0.5).errors == 10
    with pytest.raises(BenchError, match="broke off"):
        arrive("127.0.0.1", server.server_port, "/once", rate=20, connections=1, seconds=0.5)


def test_connections_are_opened_as_the_caller_says(server: Server) -> None:
    def dial(number: int) -> socket.socket:
        numbers.append(number)
        return socket.create_connection(("127.0.0.1", server.server_port), 5)

    numbers: list[int] = []
    nobody = free_port()
    headers = {"If-None-Match": '"tag"'}
    seen = load("127.0.0.1", nobody, "/good", connections=2, seconds=0.3, dial=dial)
    found = arrive(
        "127.0.0.1", nobody, "/good", rate=20, connections=3, headers=headers, status=304, seconds=0.5, dial=dial
    )
    assert numbers == [0, 1, 0, 1, 2]
    assert seen.requests > 3
    assert len(found.seconds) == 10
    assert seen.errors == found.errors == 0
