"""Every answer has ids, security headers and exactly one access line with the status that was sent."""

import http.client
import json
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.projects import Edit, Project, Service
from tests.sabotage import Body, Sabotage, Value
from tests.service.doors import Reply, access_line, ask, lines_of, opened, shake

pytestmark = pytest.mark.servers
HOST = "Host: localhost"
HEADERS = {
    "content-security-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "referrer-policy",
    "x-content-type-options",
}
# method, target, status
ANSWERS = [
    ("GET", "/kinds/plain", 200),
    ("HEAD", "/kinds/plain", 200),
    ("GET", "/kinds/drip", 200),
    ("HEAD", "/kinds/drip", 200),
    ("GET", "/kinds/redirect", 307),
    ("GET", "/kinds/plain/", 307),
    ("GET", "/sub", 307),
    ("GET", "/sub/x/1", 200),
    ("HEAD", "/sub/x/1", 200),
    ("GET", "/sub/x/one", 422),
    ("GET", "/sub/x/1/", 307),
    ("GET", "/sub/nowhere", 404),
    ("POST", "/sub/x/1", 405),
    ("GET", "/files", 307),
    ("GET", "/files/main.py", 200),
    ("HEAD", "/files/main.py", 200),
    ("GET", "/files/nothing", 404),
    ("DELETE", "/files/main.py", 405),
    ("GET", "/nothing", 307),
    ("GET", "/nothing/x", 500),
    ("GET", "/nowhere", 404),
    ("DELETE", "/kinds/plain", 405),
    ("OPTIONS", "*", 404),
    ("HEAD", "/nowhere", 404),
    ("GET", "/docs", 200),
]
# target, status of the refused handshake
REFUSED = [
    ("/kinds/closes", 403),
    ("/kinds/raises", 403),
    ("/kinds/denies", 402),
    ("/kinds/problem", 429),
    ("/kinds/needs", 403),
    ("/kinds/returns", 500),
    ("/kinds/fails", 500),
    ("/sub/closes", 403),
    ("/sub/nowhere", 403),
    ("/files/main.py", 403),
    ("/nothing/x", 500),
    ("/nowhere", 403),
]


@pytest.fixture(scope="module")
def door(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with every kind of response."""
    with opened(bare_project, tmp_path_factory.mktemp("door")) as service:
        yield service


def complete(service: Service, reply: Reply, status: int) -> None:
    """The answer has it all, and so has its line."""
    assert reply.status == status
    assert {name.lower() for name, _ in reply.headers} >= HEADERS
    line = access_line(service, reply.header("x-request-id"))
    assert (line["status"], line["bytes"]) == (status, len(reply.body))
    assert line["trace_id"] == line["request_id"]
    if reply.body and ("content-type", "application/problem+json") in reply.headers:
        assert json.loads(reply.body)["request_id"] == line["request_id"]


@pytest.mark.parametrize(("method", "target", "status"), ANSWERS)
def test_every_answer_has_ids_headers_and_one_line(door: Service, method: str, target: str, status: int) -> None:
    complete(door, ask(door, method, target, HOST, "Connection: close"), status)


@pytest.mark.parametrize(("target", "status"), REFUSED)
def test_a_refused_handshake_has_ids_headers_and_one_line(door: Service, target: str, status: int) -> None:
    """ASGI: a close before the accept is 403, and a denial has the status that the application gave."""
    complete(door, shake(door, target, HOST), status)


def test_an_accepted_handshake_has_ids_and_headers(door: Service) -> None:
    complete(door, shake(door, "/kinds/echo", HOST), 101)


def test_a_refused_handshake_is_no_error_in_the_log(door: Service) -> None:
    ids = [shake(door, target, HOST).header("x-request-id") for target, status in REFUSED if status < 500]
    for each in ids:
        access_line(door, each)
    failed = shake(door, "/kinds/fails", HOST).header("x-request-id")
    access_line(door, failed)
    errors = [line for line in lines_of(door) if line["level"] in ("error", "warning")]
    assert failed in {line["request_id"] for line in errors}
    assert not [line for line in errors if line.get("request_id") in ids]
    assert not [line for line in errors if "handshake" in line["event"]]


def test_an_error_before_the_handshake_is_one_line_with_its_traceback(door: Service) -> None:
    request_id = shake(door, "/kinds/fails", HOST).header("x-request-id")
    access_line(door, request_id)
    (line,) = [e for e in lines_of(door) if e["level"] == "error" and e.get("request_id") == request_id]
    assert (line["event"], line["trace_id"]) == ("unhandled error", request_id)
    assert "RuntimeError: before the handshake" in line["exception"]


def test_what_could_not_be_sent_is_not_logged_as_sent(door: Service) -> None:
    """The server refuses a header with a line feed (RFC 9110 section 5.5) after the application has sent a 200."""
    sent = "X-Request-ID: broken-header"
    with pytest.raises(http.client.BadStatusLine):
        ask(door, "GET", "/kinds/broken-header", HOST, sent)
    assert access_line(door, "broken-header")["status"] == 500


def leave(service: Service, target: str, body: str, *headers: str) -> int:
    """Close the connection in the middle of a body: the status in the log."""
    request_id = f"left-{abs(hash((target, body, headers)))}"
    head = f"POST {target} HTTP/1.1\r\n{HOST}\r\nX-Request-ID: {request_id}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", service.port), 10) as connection:
        connection.sendall((head + "".join(f"{line}\r\n" for line in headers) + f"\r\n{body}").encode())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line = access_line(service, request_id)
    assert line["bytes"] == 0
    assert not [e for e in lines_of(service) if e.get("request_id") == request_id and e["level"] == "error"]
    return int(line["status"])


BODIES = [
    ("Content-Length: 100", '{"a":'),
    ("Content-Length: 100", ""),
    ("Transfer-Encoding: chunked", '5\r\n{"a":\r\n'),
]


@pytest.mark.parametrize(("framing", "body"), BODIES)
@pytest.mark.parametrize("target", ["/kinds/json", "/kinds/stream", "/v1/items", "/sub/take", "/sub/read"])
def test_a_client_that_leaves_in_mid_body_is_499(door: Service, target: str, framing: str, body: str) -> None:
    """As NGINX logs it: it was sent nothing."""
    assert leave(door, target, body, framing) == 499


def allowed(service: Service) -> None:
    """Where GET is served, HEAD is served, and `Allow` names both (RFC 9110 sections 9.3.2 and 10.2.1)."""
    for path in ("/kinds/plain", "/v1/items", "/livez", "/version", "/docs", "/openapi.json", "/sub/x/1"):
        answer = service.client.request("TRACE", path)
        assert answer.status_code == 405
        methods = answer.headers["allow"].split(", ")
        assert methods == sorted(set(methods))
        assert "GET" in methods
        head, get = service.client.head(path), service.client.get(path)
        assert ("HEAD" in methods) == (head.status_code == 200), path
        if head.status_code == 200:
            assert head.content == b""
            assert head.headers["content-length"] == get.headers["content-length"]
        else:
            assert head.status_code == 405
    posts = service.client.delete("/kinds/json")
    assert (posts.status_code, posts.headers["allow"]) == (405, "POST")


def test_allow_names_head_where_head_is_served(door: Service) -> None:
    allowed(door)
    assert door.client.delete("/kinds/plain").headers["allow"] == "GET, HEAD"


def test_allow_and_head_agree_without_the_room_that_serves_head(bare_project: Project, tmp_path: Path) -> None:
    without = Edit("src/my_service/main.py", "without=set()", 'without={"http_cache"}')
    with opened(bare_project, tmp_path, without) as service:
        allowed(service)
        assert service.client.delete("/kinds/plain").headers["allow"] == "GET"


def refused(service: Service) -> None:
    complete(service, shake(service, "/kinds/closes", HOST), 403)


def denied(service: Service) -> None:
    complete(service, shake(service, "/kinds/denies", HOST), 402)


def unanswered(service: Service) -> None:
    complete(service, ask(service, "GET", "/nothing/x", HOST, "Connection: close"), 500)


def left(service: Service) -> None:
    assert leave(service, "/v1/items", '{"a":', "Content-Length: 100") == 499


def left_a_mount(service: Service) -> None:
    assert leave(service, "/sub/read", "1", "Content-Length: 100") == 499


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("holds", "sabotage"),
    [
        (denied, Value("http:_STARTS", '("http.response.start", "websocket.accept")')),
        (denied, Value("http:_BODIES", '("http.response.body",)')),
        (unanswered, Body("http:Door.__call__", "await self.app(scope, receive, send)")),
        (left, Body("http:Door.__call__.receive_and_observe", "return await receive()")),
        (left_a_mount, Body("http:_caused_by_client", "return False")),
        (allowed, Body("http_cache:with_head", "return allowed")),
    ],
)
def test_a_sabotaged_door_is_noticed(
    bare_project: Project, tmp_path: Path, holds: Callable[[Service], None], sabotage: Sabotage
) -> None:
    with opened(bare_project, tmp_path, sabotage) as service, pytest.raises((AssertionError, ValueError)):
        holds(service)
