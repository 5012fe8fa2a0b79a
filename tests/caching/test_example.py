"""The example on PostgreSQL: what was written is what is read, whoever reads when."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.caching.conftest import Lab, lab, turns_red
from tests.projects import Project
from tests.sabotage import Body, Sabotage
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis

pytestmark = pytest.mark.servers


def read(made: Lab, path: str) -> str:
    return str(made.service.client.get(path).json()["name"])


def waits(url: str) -> bool:
    """Whether a statement waits for the row that somebody holds."""
    with psycopg.connect(url) as asking:
        query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return asking.execute(query).fetchone() is not None


def never_reads_what_was(url: str, one: Lab, two: Lab) -> None:
    """Two instances, one writes and both read: also while the write is under way, before its commit."""
    item = one.service.client.post("/v1/items", json={"name": "first"}).json()
    path = f"/v1/items/{item['id']}"
    assert read(one, path) == read(two, path) == "first"
    with psycopg.connect(url) as other:  # holds the row: the update waits, and so does its commit
        other.execute("SELECT 1 FROM items WHERE id = %s FOR UPDATE", [item["id"]])
        thread = threading.Thread(target=one.service.client.put, args=(path,), kwargs={"json": {"name": "second"}})
        thread.start()
        one.wait(lambda: waits(url))
        assert read(two, path) == "first"
    thread.join()
    assert read(one, path) == read(two, path) == "second"
    with psycopg.connect(url) as direct:  # behind its back: what is read now comes from the cache
        direct.execute("UPDATE items SET name = 'unseen'")
    assert read(one, path) == read(two, path) == "second"
    assert one.service.client.put(path, json={"name": "x" * 101}).status_code == 422
    assert two.service.client.delete(path).status_code == 204
    assert [made.service.client.get(path).status_code for made in (one, two)] == [404, 404]


def test_a_write_is_read_by_every_instance_after_its_commit(pair: list[Lab], stored: dict[str, str]) -> None:
    never_reads_what_was(stored["DATABASE_URL"], *pair)


def stored_values(made: Lab) -> dict[bytes, bytes]:
    assert isinstance(made.server, Redis)
    return {name: made.server.value(name) for name in made.server.names()}


def a_read_invalidates_nothing(made: Lab) -> None:
    """Only a write replaces a value in Redis: what an invalidation does."""
    path = f"/v1/items/{made.service.client.post('/v1/items', json={'name': 'first'}).json()['id']}"
    assert read(made, path) == "first"
    before = stored_values(made)
    for each in (path, "/v1/items", path):
        assert made.service.client.get(each).status_code == 200
    assert len(before) > 0
    assert stored_values(made) == before
    assert made.service.client.put(path, json={"name": "second"}).status_code == 200
    assert any(stored_values(made).get(name) != value for name, value in before.items())


def test_a_read_invalidates_nothing(pair: list[Lab]) -> None:
    a_read_invalidates_nothing(pair[0])


EARLY = """
    await self.state.cache.invalidate(f"item:{item_id}")
    item = await original(item_id, new)
    self.session.info[transaction].clear()
    return item
"""


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("features.items.store:ItemStore.put", EARLY),
        Body("features.items.store:ItemStore.cached", "return await self.get(item_id)"),
    ],
    ids=["an invalidation before the commit", "no cache"],
)
def test_a_sabotaged_store_fails_the_proof(
    on_redis: Project, tmp_path: Path, pair: list[Lab], stored: dict[str, str], sabotage: Sabotage
) -> None:
    with lab(on_redis, tmp_path, pair[1].server, sabotage, env=stored) as made:
        turns_red(lambda: never_reads_what_was(stored["DATABASE_URL"], made, pair[1]), made)


# A read that says that it has changed what it returns.
CHANGES = """
invalidate(self.session, f"item:{item_id}")
return await original(item_id)
"""


@pytest.mark.sabotage
def test_a_read_that_invalidates_fails_the_proof(
    on_redis: Project, tmp_path: Path, pair: list[Lab], stored: dict[str, str]
) -> None:
    reads = Body("features.items.store:ItemStore.cached", CHANGES)
    with lab(on_redis, tmp_path, pair[1].server, reads, env=stored) as made:
        turns_red(lambda: a_read_invalidates_nothing(made), made)


@contextmanager
def closed(postgres: Postgres, url: str) -> Iterator[None]:
    """Nobody gets to a database any more."""
    name = url.rpartition("/")[2]
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_a_known_item_is_read_while_the_database_is_away(
    pair: list[Lab], stored: dict[str, str], postgres: Postgres
) -> None:
    made = pair[0]
    path = f"/v1/items/{made.service.client.post('/v1/items', json={'name': 'known'}).json()['id']}"
    unknown = "/v1/items/0190b3f0-0000-7000-8000-000000000000"
    assert read(made, path) == "known"
    assert made.service.client.get(unknown).status_code == 404
    with closed(postgres, stored["DATABASE_URL"]):
        assert made.service.client.get(unknown).status_code == 503
        assert read(made, path) == "known"
    made.wait(lambda: made.service.client.get(unknown).status_code == 404)
