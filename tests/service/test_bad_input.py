"""Bad requests get a problem document with an id: never a 500, never a stack trace, never their own words back."""

import json
import re
import socket
from typing import Any

import httpx
import pytest

from tests.plant import Feature
from tests.projects import Change, Service
from tests.sabotage import Body, Value
from tests.service.conftest import Start

pytestmark = pytest.mark.servers
ITEMS = "/v1/items"
JSON = {"Content-Type": "application/json"}
MARK = "s3cret-marker"
SOME_ID = "01890000-0000-7000-8000-000000000000"

REQUESTS: dict[str, tuple[int, str, str, dict[str, Any]]] = {
    "malformed JSON": (400, "POST", ITEMS, {"content": "{" + MARK, "headers": JSON}),
    "no JSON at all": (422, "POST", ITEMS, {"content": MARK, "headers": {"Content-Type": "text/plain"}}),
    "deeply nested JSON": (400, "POST", ITEMS, {"content": "[" * 100_000, "headers": JSON}),
    "not UTF-8": (400, "POST", ITEMS, {"content": b'{"name": "\xff"}', "headers": JSON}),
    "an endless number": (
        400,
        "POST",
        ITEMS,
        {"content": '{"name": "x", "quantity": 1' + "0" * 5000 + "}", "headers": JSON},
    ),
    "empty body": (422, "POST", ITEMS, {}),
    "wrong type": (422, "POST", ITEMS, {"json": {"name": [MARK]}}),
    "true for an integer": (422, "POST", ITEMS, {"json": {"name": "x", "quantity": True}}),
    "text for an integer": (422, "POST", ITEMS, {"json": {"name": "x", "quantity": "1"}}),
    "out of range": (422, "POST", ITEMS, {"json": {"name": "x", "quantity": 2**31}}),
    "unknown field": (422, "POST", ITEMS, {"json": {"name": "x", "extra": MARK}}),
    "too long": (422, "POST", ITEMS, {"json": {"name": MARK * 100}}),
    "NUL in a text": (422, "POST", ITEMS, {"json": {"name": f"{MARK}\0"}}),
    "lone surrogate": (422, "POST", ITEMS, {"content": '{"name": "\\ud800"}', "headers": JSON}),
    "oversized body": (413, "POST", ITEMS, {"json": {"name": MARK * 100_000}}),
    "bad id": (422, "GET", f"{ITEMS}/{MARK}", {}),
    "absent id": (404, "GET", f"{ITEMS}/{SOME_ID}", {}),
    "bad cursor": (422, "GET", ITEMS, {"params": {"cursor": MARK}}),
    "bad limit": (422, "GET", ITEMS, {"params": {"limit": "0"}}),
    "bad key": (422, "POST", ITEMS, {"json": {"name": "x"}, "headers": {"Idempotency-Key": "with space"}}),
    "unknown route": (404, "GET", f"/{MARK}", {}),
    "unknown method": (405, "PATCH", ITEMS, {}),
    "unknown host": (400, "GET", ITEMS, {"headers": {"Host": f"{MARK}.test"}}),
    "host with the right ending": (400, "GET", ITEMS, {"headers": {"Host": "evillocalhost"}}),
}


def check(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", problem["trace_id"])
    assert {"type", "title", "detail", "code"} <= problem.keys()
    assert MARK not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["content-security-policy"]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_bad_request_gets_a_problem_document(service: Service, name: str) -> None:
    status, method, path, extra = REQUESTS[name]
    check(service.client.request(method, path, **extra), status)
    assert "Traceback" not in service.log


def test_a_chunked_body_is_counted(service: Service) -> None:
    def endless() -> Any:
        for _ in range(200):
            yield b"x" * 65_536

    try:
        answer = service.client.post(ITEMS, content=endless(), headers=JSON)
    except httpx.TransportError:
        return  # refused while it was still sending
    check(answer, 413)


def test_a_request_that_is_no_http_harms_nobody(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), 5) as connection:
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert b"400" in connection.recv(1024)
    assert service.client.get("/livez").status_code == 200


def test_ids_come_from_the_client_where_they_are_well_formed(service: Service) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    sent = {"X-Request-ID": "client-chose-this", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    problem = service.client.get("/nowhere", headers=sent).json()
    assert (problem["request_id"], problem["trace_id"]) == ("client-chose-this", trace)
    for bad in ("a b", "x" * 129, "<script>", "short"):
        assert service.client.get("/nowhere", headers={"X-Request-ID": bad}).json()["request_id"] != bad
    for bad in (f"00-{'0' * 32}-00f067aa0ba902b7-01", f"ff-{trace}-00f067aa0ba902b7-01", "junk", "x" * 10_000):
        found = service.client.get("/nowhere", headers={"traceparent": bad}).json()["trace_id"]
        assert found != trace
        assert re.fullmatch("[1-9a-f][0-9a-f]{31}|0[0-9a-f]{31}", found)


BROKEN = Feature(
    "broken",
    f'''"""A route with an error in it."""

from fastapi import APIRouter

router = APIRouter()


@router.get("/broken")
async def broken() -> None:
    raise RuntimeError("{MARK}")
''',
)


def test_an_unhandled_error_is_a_problem_outside_and_a_traceback_in_the_log(start: Start) -> None:
    with start("memory", BROKEN, LOG_FORMAT="json") as service:
        answer = service.client.get("/broken")
        check(answer, 500)
        service.process.wait_until(lambda: '"/broken"' in service.log, 5)
        lines = [json.loads(line) for line in service.log.splitlines() if line.startswith("{")]
    (error,) = [line for line in lines if line["level"] == "error"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert f"RuntimeError: {MARK}" in error["exception"]
    (access,) = [line for line in lines if line.get("route") == "/broken"]
    assert (access["status"], access["trace_id"]) == (500, error["trace_id"])


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("name", "store", "sabotage"),
    [
        (
            "wrong type",
            "memory",
            Body("problems:install.invalid", 'return response(422, "invalid-request", str(error))'),
        ),
        ("unknown route", "memory", Body("problems:install", "pass")),
        ("absent id", "memory", Body("http:Door.__call__", "await self.app(scope, receive, send)")),
        ("oversized body", "memory", Value("security:Settings.max_body_bytes", "1_000_000_000")),
        ("unknown host", "memory", Body("security:RequestLimits._trusted", "return True")),
        ("NUL in a text", "postgresql", Value("features.items:Text", "str")),
    ],
)
def test_a_sabotaged_service_fails_the_proof(start: Start, name: str, store: str, sabotage: Change) -> None:
    status, method, path, extra = REQUESTS[name]
    with start(store, sabotage) as service:
        answer = service.client.request(method, path, **extra)
        with pytest.raises((AssertionError, KeyError, ValueError)):
            check(answer, status)
