"""Tests of the example through its API: delete this file with it."""

from uuid import uuid4

from fastapi.testclient import TestClient


def test_an_item_is_created_read_changed_and_deleted(client: TestClient) -> None:
    created = client.post("/v1/items", json={"name": "lamp", "quantity": 2})
    assert created.status_code == 201
    path = f"/v1/items/{created.json()['id']}"
    assert client.get(path).json() == created.json()
    assert client.put(path, json={"name": "lamp", "quantity": 3}).json()["quantity"] == 3
    assert client.delete(path).status_code == 204
    assert client.get(path).json()["code"] == "item-not-found"


def test_an_outdated_copy_does_not_overwrite_a_newer_one(client: TestClient) -> None:
    path = f"/v1/items/{client.post('/v1/items', json={'name': 'lamp'}).json()['id']}"
    seen = {"If-Match": client.get(path).headers["etag"]}
    assert client.put(path, json={"name": "mine"}, headers=seen).status_code == 200
    assert client.put(path, json={"name": "theirs"}, headers=seen).json()["code"] == "precondition-failed"
    assert client.delete(path, headers=seen).status_code == 412


def test_pages_follow_each_other_newest_first(client: TestClient) -> None:
    created = [client.post("/v1/items", json={"name": f"page {i}"}).json()["id"] for i in range(3)]
    first = client.get("/v1/items", params={"limit": 2}).json()
    second = client.get("/v1/items", params={"limit": 2, "cursor": first["next"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]][:3] == created[::-1]


def test_a_retry_with_the_same_key_creates_nothing_new(client: TestClient) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    first = client.post("/v1/items", json={"name": "once"}, headers=key)
    assert client.post("/v1/items", json={"name": "once"}, headers=key).json() == first.json()
    assert client.post("/v1/items", json={"name": "another"}, headers=key).json()["code"] == "idempotency-key-reused"


def test_true_is_not_a_quantity(client: TestClient) -> None:
    response = client.post("/v1/items", json={"name": "lamp", "quantity": True})
    assert response.status_code == 422
    assert response.json()["errors"][0]["location"] == "body.quantity"
