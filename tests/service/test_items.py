"""The example's whole life over HTTP: the same answers from PostgreSQL, SQLite and memory."""

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.projects import Project, Service
from tests.proof import count
from tests.sabotage import Body, Value
from tests.servers.postgres import Postgres
from tests.service.conftest import Start, migrated

pytestmark = pytest.mark.servers
ITEMS = "/v1/items"


def life(client: httpx.Client) -> None:
    """Create, read, list, change and delete."""
    made = client.post(ITEMS, json={"name": "Lampe №1", "note": "ein\nzwei", "quantity": 3})
    assert made.status_code == 201
    item = made.json()
    assert (item["name"], item["note"], item["quantity"]) == ("Lampe №1", "ein\nzwei", 3)
    assert item["created_at"] == item["updated_at"]
    assert item["created_at"].endswith("Z")
    path = f"{ITEMS}/{item['id']}"
    assert client.get(path).json() == item
    assert item in client.get(ITEMS).json()["items"]
    changed = client.put(path, json={"name": "Lampe №2"}).json()
    assert (changed["name"], changed["note"], changed["quantity"]) == ("Lampe №2", None, 0)
    assert changed["created_at"] == item["created_at"] < changed["updated_at"]
    assert client.get(path).json() == changed
    gone = client.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (client.get(path), client.put(path, json={"name": "x"}), client.delete(path)):
        assert answer.status_code == 404
        assert answer.json()["code"] == "item-not-found"


def pages(client: httpx.Client) -> None:
    """Pages are newest first, without gap or repetition, while others write and delete."""
    made = [client.post(ITEMS, json={"name": f"page {n}"}).json()["id"] for n in range(7)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(1000):  # pages, of which there are fewer
        page = client.get(ITEMS, params={"limit": "3", **cursor}).json()
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
        client.post(ITEMS, json={"name": "newer than all pages"})
        client.delete(f"{ITEMS}/{page['items'][0]['id']}")
    assert seen[:7] == made[::-1]
    assert len(seen) == len(set(seen))


def once(client: httpx.Client) -> None:
    """A key makes one item, however often and however concurrently it comes; another request is refused."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    name = f"once {key['Idempotency-Key']}"
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.post(ITEMS, json={"name": name}, headers=key), range(count(32, 200))))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    listed = client.get(ITEMS, params={"limit": 100}).json()["items"]
    assert [item["name"] for item in listed].count(name) == 1
    client.put(f"{ITEMS}/{answers[0].json()['id']}", json={"name": "changed since"})
    assert client.post(ITEMS, json={"name": name}, headers=key).text == answers[0].text
    other = client.post(ITEMS, json={"name": name, "quantity": 1}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert client.post(ITEMS, json={"name": name}).json()["id"] != answers[0].json()["id"]


@pytest.mark.parametrize("proof", [life, pages, once])
def test_items(service: Service, proof: Callable[[httpx.Client], None]) -> None:
    proof(service.client)
    assert '"level":"error"' not in service.log
    assert "[error" not in service.log


def test_a_key_holds_across_a_restart(project: Project, postgres: Postgres, tmp_path: Path) -> None:
    env = migrated(project, postgres.create_database())
    key = {"Idempotency-Key": "a-b-c"}
    with project.serve(tmp_path / "first", env) as service:
        first = service.client.post(ITEMS, json={"name": "kept"}, headers=key)
        assert first.status_code == 201
    with project.serve(tmp_path / "second", env) as service:
        assert service.client.post(ITEMS, json={"name": "kept"}, headers=key).text == first.text


SWEEPS = Value("idempotency:SWEEP_SECONDS", "0.3")
FORGETS = Value("idempotency:RETENTION", "timedelta(seconds=0.5)")


def forgotten(service: Service, seconds: float) -> bool:
    """Whether within that time a key makes a second item."""

    def made() -> str:
        answer = service.client.post(ITEMS, json={"name": "x"}, headers={"Idempotency-Key": "brief"})
        return str(answer.json()["id"])

    first, deadline = made(), time.monotonic() + seconds
    while made() == first:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_key_is_forgotten_in_the_end(start: Start) -> None:
    with start("postgresql", SWEEPS, FORGETS) as service:
        assert forgotten(service, 15)


@pytest.mark.sabotage
def test_a_key_that_is_kept_is_noticed(start: Start) -> None:
    """It sweeps, but nothing is old."""
    with start("postgresql", SWEEPS) as service:
        assert not forgotten(service, 3)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("proof", "store", "sabotage"),
    [
        (life, "sqlite", Body("features.items:ItemStore.put", "return await self.get(item_id)")),
        (pages, "postgresql", Body("features.items:ItemStore.before", "return await original(None, limit)")),
        (once, "sqlite", Body("idempotency:Keys.once", "return await make()")),
        (once, "memory", Body("idempotency:Keys.once", "return await make()")),
        (once, "sqlite", Body("idempotency:Keys.once", "return await original(session, scope, key, {}, make)")),
    ],
    ids=["no change", "the first page only", "makes it again", "makes it again in memory", "takes another request"],
)
def test_a_sabotaged_service_fails_the_proof(
    start: Start, proof: Callable[[httpx.Client], None], store: str, sabotage: Body
) -> None:
    with start(store, sabotage) as service, pytest.raises((AssertionError, KeyError)):
        proof(service.client)
