"""WebSockets: however a client or the service ends one, it is no error; messages are bounded."""

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.sync.client import connect

from tests.errors.conftest import Since
from tests.projects import Project, Service
from tests.sabotage import Argument, Body, Sabotage, Value
from tests.servers.bugsink import Bugsink
from tests.servers.otlp import open_collector
from tests.service.doors import HANDSHAKE, access_line, lines_of, opened, shake

pytestmark = pytest.mark.servers
LIMIT = 10_000  # bytes
ENV = {"MAX_MESSAGE_BYTES": str(LIMIT), "ENVIRONMENT": "staging"}


@pytest.fixture(scope="module")
def sockets(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with WebSockets."""
    with opened(bare_project, tmp_path_factory.mktemp("sockets"), env=ENV) as service:
        yield service


def url(service: Service, path: str = "/kinds/echo") -> str:
    return f"ws://127.0.0.1:{service.port}{path}"


def raw(service: Service, path: str, request_id: str, *, first: bytes = b"") -> socket.socket:
    """An open WebSocket as a bare connection."""
    connection = socket.create_connection(("127.0.0.1", service.port), 10)
    lines = {"Host": "localhost", "X-Request-ID": request_id, **HANDSHAKE}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    connection.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode() + first)
    return connection


def close_with(code: int) -> Callable[[Service, str], None]:
    def end(service: Service, request_id: str) -> None:
        with connect(url(service), additional_headers={"X-Request-ID": request_id}) as client:
            client.send("x")
            assert client.recv() == "x"
            client.close(code)

    return end


def cut(service: Service, request_id: str) -> None:
    """The network breaks while the service sends."""
    with raw(service, "/kinds/push", request_id) as connection:
        assert b"101" in connection.recv(1000)


def leave_a_group(service: Service, request_id: str) -> None:
    with connect(url(service, "/kinds/group"), additional_headers={"X-Request-ID": request_id}):
        pass


def send_no_text(service: Service, request_id: str) -> None:
    """A text that is not UTF-8: the service closes with 1007 (RFC 6455 section 8.1)."""
    with raw(service, "/kinds/echo", request_id) as connection:
        assert b"101" in connection.recv(4096)
        connection.sendall(b"\x81\x82\0\0\0\0\xff\xfe")
        assert b"\x03\xef" in connection.recv(100)


def send_no_frame(service: Service, request_id: str) -> None:
    """A reserved opcode: the service closes with 1002 (RFC 6455 section 5.2)."""
    with raw(service, "/kinds/echo", request_id) as connection:
        assert b"101" in connection.recv(4096)
        connection.sendall(b"\x83\x80\0\0\0\0")
        assert b"\x03\xea" in connection.recv(100)


def send_too_much(service: Service, request_id: str) -> None:
    with connect(url(service), additional_headers={"X-Request-ID": request_id}) as client:
        client.send("x" * (LIMIT + 1))
        with pytest.raises(ConnectionClosedError) as closed:
            client.recv()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1009


ENDS: dict[str, Callable[[Service, str], None]] = {
    "1000": close_with(1000),
    "1001": close_with(1001),
    "1011, by the client": close_with(1011),
    "4000, by the client": close_with(4000),
    "cut": cut,
    "in a group of tasks": leave_a_group,
    "no text": send_no_text,
    "no frame": send_no_frame,
    "too much": send_too_much,
}


def errors_of(service: Service) -> list[dict[str, Any]]:
    return [line for line in lines_of(service) if line["level"] in ("warning", "error", "critical")]


def ends_quietly(service: Service, name: str) -> None:
    request_id = "end-" + name.encode().hex()
    ENDS[name](service, request_id)
    assert access_line(service, request_id)["status"] == 101
    assert errors_of(service) == []


@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_a_socket_is_no_error(sockets: Service, name: str) -> None:
    ends_quietly(sockets, name)


def test_a_client_that_leaves_before_the_handshake_ends_is_499(sockets: Service) -> None:
    with raw(sockets, "/kinds/slow", "left-early"):
        pass
    assert access_line(sockets, "left-early")["status"] == 499
    assert errors_of(sockets) == []


def bounded(service: Service) -> None:
    """The limit counts a message, not its frames, and what it is unpacked (CWE-409)."""
    with connect(url(service)) as client:
        client.send("x" * LIMIT)
        assert client.recv() == "x" * LIMIT
    fragments = ["x" * (LIMIT // 2)] * 3
    for message in ("x" * (LIMIT + 1), fragments, b"\0" * 10_000_000):
        with connect(url(service)) as client:
            assert client.protocol.extensions
            with pytest.raises(ConnectionClosedError) as closed:
                client.send(message)
                client.recv()
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 1009


def test_a_message_is_bounded_also_in_fragments_and_compressed(sockets: Service) -> None:
    bounded(sockets)


def shuts_down_quietly(service: Service) -> None:
    """Clients that wait, clients that are sent to, and one that does not read."""
    with (
        connect(url(service)) as waits,
        connect(url(service, "/kinds/push")) as reads,
        raw(service, "/kinds/push", "does-not-read"),
    ):
        service.process.send(signal.SIGTERM)
        for client in (waits, reads):
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    client.recv(10)
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 1012
        assert service.process.wait() == 0
    events = [line["event"] for line in lines_of(service)]
    assert events[-1] == "stopped"
    assert events.count("request") >= 3
    assert errors_of(service) == []


def test_a_shutdown_is_no_error(bare_project: Project, tmp_path: Path) -> None:
    with opened(bare_project, tmp_path, env=ENV) as service:
        shuts_down_quietly(service)


def unreported(project: Project, folder: Path, bugsink: Bugsink, *sabotages: Sabotage) -> None:
    """No end of a socket and no refusal reaches Sentry; an error in a socket does."""
    sink = Since.now(bugsink.create_project())
    with opened(project, folder, *sabotages, env={**ENV, "SENTRY_DSN": sink.dsn}) as service:
        for name, end in ENDS.items():
            end(service, "end-" + name.encode().hex())
        for path in ("/kinds/closes", "/kinds/denies", "/kinds/problem", "/nowhere"):
            assert shake(service, path, "Host: localhost").status in (402, 403, 429)
        with raw(service, "/kinds/slow", "left-early"):
            pass
        access_line(service, "left-early")
        with pytest.raises(ConnectionClosed), connect(url(service, "/kinds/breaks")) as client:
            client.recv(10)
        assert shake(service, "/kinds/fails", "Host: localhost").status == 500
        found = sink.wait(2)
    texts = [(event.get("exception") or {"values": [{"value": "none"}]})["values"][-1]["value"] for event in found]
    assert sorted(texts) == ["after the handshake", "before the handshake"]
    assert len(sink.events()) == 2


def test_only_errors_of_the_service_are_reported(bare_project: Project, tmp_path: Path, bugsink: Bugsink) -> None:
    unreported(bare_project, tmp_path, bugsink)


def traced(project: Project, folder: Path, *sabotages: Sabotage) -> None:
    """The span of a socket that its client closed is no error, that of one that failed is."""
    with open_collector() as collector:
        env = {**ENV, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with opened(project, folder, *sabotages, env=env) as service:
            ENDS["1000"](service, "end-traced")
            with pytest.raises(ConnectionClosed), connect(url(service, "/kinds/breaks")) as client:
                client.recv(10)
            collector.wait_until(lambda: len(collector.server_spans()) >= 2)
        failed = {span.attributes["http.route"]: span.error for span in collector.server_spans()}
    assert failed == {"/kinds/echo": False, "/kinds/breaks": True}


def test_a_closed_socket_is_no_error_in_its_trace(bare_project: Project, tmp_path: Path) -> None:
    traced(bare_project, tmp_path)


@pytest.mark.sabotage
def test_a_trace_that_calls_a_closed_socket_an_error_is_noticed(bare_project: Project, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        traced(bare_project, tmp_path, Body("problems:install.socket_closed", "raise error"))


@pytest.mark.sabotage
def test_reports_about_clients_are_noticed(bare_project: Project, tmp_path: Path, bugsink: Bugsink) -> None:
    with pytest.raises(AssertionError):
        unreported(bare_project, tmp_path, bugsink, Body("http:_caused_by_client", "return False"))


def grouped(service: Service) -> None:
    ends_quietly(service, "in a group of tasks")


def garbage(service: Service) -> None:
    ends_quietly(service, "no text")


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("holds", "sabotage"),
    [
        (grouped, Body("http:_caused_by_client", "return not isinstance(error, ExceptionGroup)")),
        (garbage, Value("logs:UNWANTED", "set()")),
        (bounded, Argument("server:serve", "ws_max_size", "16_777_216")),
    ],
)
def test_a_sabotaged_socket_is_noticed(
    bare_project: Project, tmp_path: Path, holds: Callable[[Service], None], sabotage: Sabotage
) -> None:
    with (
        opened(bare_project, tmp_path, sabotage, env=ENV) as service,
        pytest.raises((AssertionError, pytest.fail.Exception)),
    ):
        holds(service)
