"""The API describes itself: delete this file where the room `api_docs` is left out."""

from fastapi.testclient import TestClient


def test_the_description_and_its_page_are_served(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    assert client.get("/openapi.json").json()["openapi"].startswith("3.")
