"""Deleted rows come back from a backup by the commands of the plan: copied into the live database, or swapped in."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests import commands
from tests.database.conftest import Database, make_model
from tests.projects import Project, Service
from tests.recovery.plan import Steps, provide, runs, value
from tests.secrets.conftest import ITEMS
from tests.servers import packages
from tests.servers.postgres import NewestPostgres
from tests.servers.redis import Redis

pytestmark = pytest.mark.servers
RESTORE, DELETED = "Restore a backup", "Accidental delete"
EVIDENCE = "dr/evidence/README.md"
LOST = "name LIKE 'lost%'"
DELETE = f"DELETE FROM items WHERE {LOST}"  # noqa: S608 ours


@dataclass(frozen=True)
class Shop:
    """A service with some items, and the operator's settings of its backups."""

    service: Service
    database: Database
    folder: Path

    def names(self) -> list[str]:
        """What callers see."""
        return sorted(item["name"] for item in self.service.client.get(ITEMS).json()["items"])

    def put(self, *names: str) -> list[str]:
        """Store items: their paths."""
        made = [self.service.client.post(ITEMS, json={"name": name}) for name in names]
        assert {answer.status_code for answer in made} == {201}
        return [f"{ITEMS}/{answer.json()['id']}" for answer in made]


@pytest.fixture
def shop(
    project: Project, newest_postgres: NewestPostgres, redis: Redis, steps: Steps, tmp_path: Path
) -> Iterator[Shop]:
    """It runs throughout; the operator has the tools, and the key of the offline kit."""
    database = make_model(project, newest_postgres)
    (steps.bin / "psql").symlink_to(newest_postgres.programs() / "psql")
    (tmp_path / "backups").mkdir()
    provide(steps, "redis-cli", "redis-tools")
    key = tmp_path / "key.txt"
    said = commands.run(packages.ensure("age-keygen", "age"), "-o", key)
    steps.env |= {
        "ADMIN_URL": database.admin,
        "BACKUP_ADMIN_URL": database.admin,
        "BACKUP_AGE_IDENTITY_FILE": str(key),
        "BACKUP_AGE_RECIPIENT": said.stderr.split()[-1],
        "BACKUP_DATABASE_URL": database.url("backup"),
        "BACKUP_PG_BIN": str(newest_postgres.programs()),
        "BACKUP_URL": f"file://{tmp_path}/backups",
        "CACHE_URL": redis.url(),
        "DATABASE_URL": database.url("app"),
    }
    with project.serve(tmp_path / "run", steps.env) as service:
        yield Shop(service, database, tmp_path / "backups")


def named(database: Database, name: str) -> str:
    """The address of another database of the same server, for its superuser."""
    return f"{database.admin.rpartition('/')[0]}/{name}"


def counted(url: str) -> int:
    with psycopg.connect(url) as connection:
        (found,) = connection.execute("SELECT count(*) FROM items").fetchone() or (0,)
    return int(found)


@runs(RESTORE, DELETED, "Ransomware or stolen credentials", "Failback")
def test_deleted_rows_come_back_and_what_was_written_since_stays(shop: Shop, redis: Redis, steps: Steps) -> None:
    paths = shop.put("kept", "lost 1", "lost 2")
    backup = steps.run("Failback").partition(":")[0]
    assert shop.service.client.put(paths[0], json={"name": "kept, and changed since"}).status_code == 200
    shop.put("new")
    shop.database.run(DELETE)
    assert shop.names() == ["kept, and changed since", "new"]

    shown = steps.run("Ransomware or stolen credentials", ID=backup)
    assert backup in shown
    assert "every row decoded" in shown
    found = re.search(r"restored into (\w+), and compared", steps.run(RESTORE))
    assert found
    new = named(shop.database, found[1])
    assert (counted(new), counted(shop.database.admin)) == (3, 2)  # the live one is as it was

    steps.run(DELETED, RESTORED_URL=new, TABLE="items", WHICH="quantity >= 0")  # all, also those that are still there
    assert shop.names() == ["kept, and changed since", "lost 1", "lost 2", "new"]
    assert not (steps.project.root / "rows.csv").exists()

    live = shop.database.admin.rpartition("/")[2]
    assert "the old one is kept as" in steps.answer(("Type its name", value(live)), title=RESTORE, NEW=found[1])
    connected_again(shop)
    assert shop.service.client.get(paths[0]).status_code == 200
    assert redis.names()
    steps.run(RESTORE)
    assert redis.names() == []
    assert shop.names() == ["kept", "lost 1", "lost 2"]


def connected_again(shop: Shop) -> None:
    """The swap has closed all connections."""
    shop.service.process.wait_until(lambda: shop.service.client.get("/readyz").status_code == 200, 30)


@runs("Drills")
def test_a_drill_leaves_the_evidence_that_ready_demands(shop: Shop, steps: Steps) -> None:
    shop.put("kept")
    steps.project.cli("backup", "create", env=steps.env, check=True)
    assert "last drill  " in steps.run()
    look = ("--url", f"http://127.0.0.1:{shop.service.port}", "--area", "recovery", "--json")
    found = {each["check"]: each for each in json.loads(steps.project.ready(*look).stdout)["outcomes"]}
    assert found["recovery.drill"]["status"] == "proven"
    assert "(RTO 4:00:00)" in found["recovery.drill"]["seen"]
    (row,) = re.findall(r"^\| \d{8}T\d{6}Z \|.* passed \|$", (steps.project.root / EVIDENCE).read_text(), re.M)
    assert found["recovery.drill"]["seen"].split()[5].rstrip(",") in row


@pytest.mark.sabotage
@runs(DELETED)
def test_a_copy_that_does_not_spare_rows_that_exist_is_noticed(shop: Shop, steps: Steps) -> None:
    shop.put("kept")
    steps.spoil(" ON CONFLICT DO NOTHING", "")
    with pytest.raises(AssertionError, match="duplicate key"):
        steps.run(RESTORED_URL=shop.database.admin, TABLE="items", WHICH="quantity >= 0")
