"""Smoke test of the room `api_docs`: delete this file if you leave that room out."""

from fastapi.testclient import TestClient


def test_the_openapi_document_and_its_page_are_served(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    assert client.get("/openapi.json").json()["openapi"].startswith("3.")
