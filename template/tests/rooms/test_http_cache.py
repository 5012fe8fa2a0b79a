"""Smoke tests of the room `http_cache`: delete this file with it."""

from fastapi.testclient import TestClient


def test_responses_are_not_cached_by_default(client: TestClient) -> None:
    assert client.get("/version").headers["cache-control"] == "no-store"
    assert client.get("/nowhere").headers["cache-control"] == "no-store"


def test_head_responds_like_get_without_a_body(client: TestClient) -> None:
    response = client.head("/version")
    assert (response.status_code, response.content) == (200, b"")
