"""Smoke tests of the rooms that every service has; a room that may go has a file of its own."""

from fastapi.testclient import TestClient


def test_the_process_lives_and_is_ready(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json()["status"] == "ready"


def test_the_version_is_told(client: TestClient) -> None:
    assert client.get("/version").json()["environment"] == "test"


def test_an_unknown_route_is_a_problem_document_with_an_id(client: TestClient) -> None:
    answer = client.get("/nowhere", headers={"X-Request-ID": "smoke-test-1"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "smoke-test-1"


def test_an_unknown_host_is_refused(client: TestClient) -> None:
    assert client.get("/version", headers={"Host": "evil.test"}).status_code == 400
    assert client.get("/livez", headers={"Host": "10.0.0.7:8000"}).status_code == 200


def test_an_oversized_body_is_refused(client: TestClient) -> None:
    assert client.post("/nowhere", content=b"x" * 2_000_000).status_code == 413


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    headers = client.get("/nowhere").headers
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["x-content-type-options"] == "nosniff"
