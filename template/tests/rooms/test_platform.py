"""Smoke tests of the rooms that every service has; each optional room has its own test file."""

from fastapi.testclient import TestClient


def test_the_process_is_alive_and_ready(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json()["status"] == "ready"


def test_the_version_is_served(client: TestClient) -> None:
    assert client.get("/version").json()["environment"] == "test"


def test_an_unknown_route_is_a_problem_document_with_an_id(client: TestClient) -> None:
    response = client.get("/nowhere", headers={"X-Request-ID": "smoke-test-1"})
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["x-request-id"] == "smoke-test-1"


def test_an_unknown_host_is_refused(client: TestClient) -> None:
    assert client.get("/version", headers={"Host": "evil.test"}).status_code == 400
    assert client.get("/livez", headers={"Host": "10.0.0.7:8000"}).status_code == 200


def test_an_oversized_body_is_refused(client: TestClient) -> None:
    assert client.post("/nowhere", content=b"x" * 2_000_000).status_code == 413


def test_every_response_has_the_security_headers(client: TestClient) -> None:
    headers = client.get("/nowhere").headers
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["x-content-type-options"] == "nosniff"
