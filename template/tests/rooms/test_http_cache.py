"""Smoke tests of the room http_cache: delete this file with it."""

from fastapi.testclient import TestClient


def test_nothing_is_kept_unasked(client: TestClient) -> None:
    assert client.get("/version").headers["cache-control"] == "no-store"
    assert client.get("/nowhere").headers["cache-control"] == "no-store"


def test_head_is_answered_like_get(client: TestClient) -> None:
    answer = client.head("/version")
    assert (answer.status_code, answer.content) == (200, b"")
