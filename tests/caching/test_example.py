"""The example on PostgreSQL: what was written is what is read, whoever reads when."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.caching.conftest import Lab, lab
from tests.projects import Edit, Project
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
STORE = "src/my_service/features/items/store.py"


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    """The server of this module."""
    with Redis() as server:
        yield server


def never_reads_what_was(project: Project, folder: Path, postgres: Postgres, redis: Redis, *edits: Edit) -> None:
    """Two instances, one writes and both read: also while the write is under way, before its commit."""
    url = postgres.create_database()
    env = migrated(project, url)
    with (
        lab(project, folder / "a", redis, *edits, env=env) as one,
        lab(project, folder / "b", redis, *edits, env=env) as two,
    ):
        for made in (one, two):
            made.wait(lambda made=made: made.hits("warm"))  # type: ignore[misc]
        item = one.service.client.post("/v1/items", json={"name": "first"}).json()
        path = f"/v1/items/{item['id']}"
        assert read(one, path) == read(two, path) == "first"
        with psycopg.connect(url) as other:  # holds the row: the update waits, and so does its commit
            other.execute("SELECT 1 FROM items WHERE id = %s FOR UPDATE", [item["id"]])
            thread = threading.Thread(target=one.service.client.put, args=(path,), kwargs={"json": {"name": "second"}})
            thread.start()
            time.sleep(0.5)
            assert read(two, path) == "first"
        thread.join()
        assert read(one, path) == read(two, path) == "second"
        with psycopg.connect(url) as direct:  # behind its back: what is read now comes from the cache
            direct.execute("UPDATE items SET name = 'unseen'")
        assert read(one, path) == read(two, path) == "second"
        assert one.service.client.put(path, json={"name": "x" * 101}).status_code == 422
        assert two.service.client.delete(path).status_code == 204
        assert [made.service.client.get(path).status_code for made in (one, two)] == [404, 404]


def read(made: Lab, path: str) -> str:
    return str(made.service.client.get(path).json()["name"])


def test_a_write_is_read_by_every_instance_after_its_commit(
    projects: dict[str, Project], tmp_path: Path, postgres: Postgres, redis: Redis
) -> None:
    never_reads_what_was(projects["redis"], tmp_path, postgres, redis)


@pytest.mark.parametrize(
    "edit",
    [
        Edit(STORE, "await state.cache.invalidate(*changed)", "pass"),
        Edit(
            STORE,
            "        self.changed.add(_tag(item_id))\n        statement",
            "        await self.cache.invalidate(_tag(item_id))\n        statement",
        ),
        Edit(
            STORE,
            "return await self.cache.get_or_load(ITEM, str(item_id), load, tags=[_tag(item_id)])",
            "return await load()",
        ),
    ],
    ids=["dropped", "before the commit", "no cache"],
)
def test_an_invalidation_that_is_dropped_or_early_is_noticed(
    projects: dict[str, Project], tmp_path: Path, postgres: Postgres, redis: Redis, edit: Edit
) -> None:
    with pytest.raises(AssertionError):
        never_reads_what_was(projects["redis"], tmp_path, postgres, redis, edit)


def test_a_known_item_is_read_while_the_database_is_away(
    projects: dict[str, Project], tmp_path: Path, redis: Redis
) -> None:
    from tests.servers.postgres import open_postgres

    with (
        open_postgres() as own,
        lab(projects["redis"], tmp_path, redis, env=migrated(projects["redis"], own.url())) as made,
    ):
        made.wait(lambda: made.hits("warm"))
        item = made.service.client.post("/v1/items", json={"name": "known"}).json()
        path = f"/v1/items/{item['id']}"
        assert read(made, path) == "known"
        own.kill()
        assert read(made, path) == "known"
        assert made.service.client.get("/v1/items/0190b3f0-0000-7000-8000-000000000000").status_code == 503
