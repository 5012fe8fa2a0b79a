"""A restored database takes the place of the live one: both are renamed or none, and the service goes on by itself."""

import json
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.backup.conftest import Backups, Made, databases, renamed, until, with_password
from tests.backup.contents import contents
from tests.database.conftest import ITEMS, NEW, Database, serving
from tests.sabotage import Body
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.servers


def name(database: Database) -> str:
    """The name of the live database."""
    return database.admin.rpartition("/")[2]


def restored(backups: Backups) -> str:
    """The name of a restored database."""
    return str(json.loads(backups.must("restore", "--json"))["database"])


def swap(database: Database, taken: str) -> tuple[str, ...]:
    """The command that lets it take over."""
    return ("restore", "--restored", taken, "--swap", "--confirm", name(database))


def test_the_service_goes_on_with_the_restored_database(
    backups: Backups, database: Database, server: Postgres, tmp_path: Path
) -> None:
    backups.create()
    with serving(backups.project, tmp_path / "service", database) as service:
        service.client.post(ITEMS, json=NEW, headers={"Idempotency-Key": "a"}).raise_for_status()
        after = contents(database.admin)
        taken = restored(backups)
        before = contents(renamed(database.admin, taken))
        with psycopg.connect(database.admin) as idle:
            said = backups.must(*swap(database, taken))
            with pytest.raises(psycopg.errors.AdminShutdown):
                idle.execute("SELECT 1")

        def answers() -> bool:
            try:
                return service.client.get(ITEMS).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        until(answers)
        assert service.client.get("/readyz").status_code == httpx.codes.OK
    assert contents(database.admin) == before
    (old,) = [each for each in databases(server) if f"{name(database)[:20]}" in each and "_before_" in each]
    assert f"kept as {old}" in said
    assert contents(renamed(database.admin, old)) == after


def test_a_name_that_is_not_typed_right_changes_nothing(backups: Backups, database: Database, server: Postgres) -> None:
    backups.create()
    taken = restored(backups)
    before = databases(server)
    for confirm in (["--confirm", "other"], []):
        done = backups("restore", "--restored", taken, "--swap", *confirm)
        assert (
            done.returncode,
            f"type --confirm with its name, {name(database)}" in " ".join(done.stderr.split()),
        ) == (2, True)
    assert "there is no database nowhere" in backups.fails(*swap(database, "nowhere"))
    assert "was never compared" in backups.fails(*swap(database, "x_unfinished"))
    assert databases(server) == before


def both_or_none(backups: Backups, database: Database, server: Postgres) -> None:
    """The second renaming fails: the live database has its name, and accepts connections."""
    taken = f"{name(database)}_theirs"
    database.run(
        "DROP ROLE IF EXISTS half_an_owner",
        "CREATE ROLE half_an_owner LOGIN CREATEDB",
        f"ALTER DATABASE {name(database)} OWNER TO half_an_owner",
        f"CREATE DATABASE {taken}",
    )
    before = databases(server)
    admin = with_password(server.url().replace("postgres@", "half_an_owner@"))
    line = backups.told(BACKUP_ADMIN_URL=admin).fails(*swap(database, taken))
    assert f"must be owner of database {taken}" in line
    assert databases(server) == before
    assert contents(database.admin)


def test_both_are_renamed_or_none(backups: Backups, database: Database, server: Postgres) -> None:
    both_or_none(backups, database, server)


HALF = """
with connect(self._admin.set(database=MAINTENANCE)) as connection:
    _rename(connection, self.name, old)
    _rename(connection, restored, self.name)
"""


@pytest.mark.sabotage
def test_one_renaming_without_the_other_is_noticed(make: Made, database: Database, server: Postgres) -> None:
    with pytest.raises(AssertionError):
        both_or_none(make(Body("ops.backup.postgres:Postgres.swap", HALF)), database, server)
