"""The scenario about smuggling can fail: a proxy believes the length, and its service believes the chunks."""

import socket
import ssl
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from types import SimpleNamespace
from typing import Any

import pytest

from tests.balancer.balancer import AUTHORITY, HOST
from tests.balancer.edge import what_balancer_and_service_could_read_differently_is_one_request as scenario
from tests.balancer.upstream import Upstream, response
from tests.servers.server import serving

pytestmark = pytest.mark.sabotage


def test_a_naive_proxy_lets_a_request_through(upstream: Upstream) -> None:
    class Naive(StreamRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", upstream.port), 5) as service:
                rows = []
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    rows.append(line)
                lengths = [row for row in rows if row.lower().startswith(b"content-length")]
                length = lengths[0].partition(b":")[2].strip() if lengths else b""
                if any(row.lower().startswith(b"transfer-encoding") for row in rows):
                    rows = [row for row in rows if row not in lengths]
                body = self.rfile.read(int(length)) if length.isdigit() else b""
                service.sendall(b"".join(rows) + b"\r\n" + body)
                with suppress(OSError):
                    self.wfile.write(service.recv(len(response())))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(HOST).configure_cert(context)
    ThreadingTCPServer.daemon_threads = True
    server = ThreadingTCPServer(("127.0.0.1", 0), Naive)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server) as port:
        naive: Any = SimpleNamespace(port=port)
        with pytest.raises(AssertionError, match="/smuggled"):
            scenario(naive, upstream)
