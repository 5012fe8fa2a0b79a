"""What comes back from a backup is what was there, on each server and with each type that is hard to bring back."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests import commands
from tests.backup.conftest import Backups, Key, Made, drop, renamed, with_password
from tests.backup.contents import BUILTIN, ICU, LIBC, contents, fill
from tests.database.conftest import Database
from tests.database.test_roles import wrong
from tests.projects import Project
from tests.sabotage import Body
from tests.servers import packages
from tests.servers.postgres import NewestPostgres, Postgres

pytestmark = pytest.mark.servers
Filled = Callable[[Postgres, str], Backups]


@pytest.fixture
def filled(project: Project, key: Key, tmp_path: Path) -> Filled:
    """The command on a database with everything that is hard."""

    def made(server: Postgres, collation: str) -> Backups:
        url = server.create_database()
        fill(url, collation)
        return Backups(project, with_password(url), tmp_path, key, server.programs())

    return made


def goes_round(backups: Backups) -> None:
    """A backup is made and verified, restored into a new database, and that equals the first one."""
    before = contents(backups.url)
    backup = backups.create()
    assert "every row decoded" in backups.must("verify", backup)
    restored = json.loads(backups.must("restore", "--json"))["database"]
    assert contents(backups.url) == before
    assert contents(renamed(backups.url, restored)) == before


def test_everything_comes_back_on_debians_server(filled: Filled, server: Postgres) -> None:
    goes_round(filled(server, ICU))


def test_everything_comes_back_on_the_newest_server(filled: Filled, newest_postgres: NewestPostgres) -> None:
    goes_round(filled(newest_postgres, BUILTIN))


def test_a_backup_moves_to_the_newest_server(filled: Filled, server: Postgres, newest_postgres: NewestPostgres) -> None:
    old = filled(server, LIBC)
    old.create()
    admin = newest_postgres.url()
    new = replace(old, programs=newest_postgres.programs()).told(BACKUP_ADMIN_URL=with_password(admin))
    restored = json.loads(new.must("restore", "--json"))["database"]
    here, there = contents(old.url), contents(renamed(admin, restored))
    for each in (here, there):
        del each["extensions"]  # newer ones
        each["constraints"] = [row for row in each["constraints"] if not str(row[1]).startswith("NOT NULL")]
    assert there == here
    drop(newest_postgres, restored)


def test_an_empty_database_comes_back(server: Postgres, project: Project, key: Key, tmp_path: Path) -> None:
    goes_round(Backups(project, server.create_database(), tmp_path, key, server.programs()))


def works_for_each_role(backups: Backups, database: Database) -> None:
    """The backup role makes a backup; in what is restored each role may do its work and nothing else."""
    reader = backups.told(BACKUP_DATABASE_URL=with_password(database.url("backup")), BACKUP_ADMIN_URL=backups.url)
    reader.create()
    restored = json.loads(reader.must("restore", "--json"))["database"]
    assert contents(renamed(database.admin, restored)) == contents(database.admin)
    assert wrong(Database(renamed(database.admin, restored), database.service)) == []


def test_the_backup_role_is_enough_and_each_role_works_in_what_is_restored(
    backups: Backups, database: Database
) -> None:
    works_for_each_role(backups, database)


@pytest.mark.sabotage
def test_a_restored_database_without_roles_is_noticed(make: Made, database: Database) -> None:
    with pytest.raises(AssertionError):
        works_for_each_role(make(Body("ops.backup.postgres:Postgres._roles", "return b'SELECT 1'")), database)


def block(project: Project, heading: str) -> str:
    """The commands that docs/backups.md shows below a heading."""
    text = (project.root / "docs/backups.md").read_text().partition(f"## {heading}\n")[2]
    found = re.search(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    assert found, heading
    return found[1]


def test_the_documented_lines_restore_a_backup_without_this_code(
    backups: Backups, database: Database, server: Postgres, tmp_path: Path
) -> None:
    backup = backups.create()
    shutil.copy(backups.object(backup), tmp_path / "dump.tar.age")
    shutil.copy(backups.key.file, tmp_path / "key.txt")
    (tmp_path / "deploy").symlink_to(backups.project.root / "deploy")
    path = f"{server.programs()}:{packages.ensure('age', 'age').parent}:/usr/bin:/bin"
    env = {"PATH": path, "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres"}
    try:
        script = "set -euo pipefail\n" + block(backups.project, "Restore without this code")
        commands.must("bash", "-c", script, cwd=tmp_path, env=env)
        assert contents(server.url("restored")) == contents(database.admin)
        assert wrong(Database(server.url("restored"), database.service)) == []
    finally:
        drop(server, "restored")


# --- SQLite ----------------------------------------------------------------------------------------------------------

LITE = """
CREATE TABLE "odd ""one"" name" (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB, real REAL, text TEXT COLLATE NOCASE);
INSERT INTO "odd ""one"" name" (data, real, text) VALUES (x'00ff', 1e308, 'é'), (NULL, -0.0, ''),
    (zeroblob(9999), 0, NULL);
CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('0001');
CREATE VIEW seen AS SELECT id FROM "odd ""one"" name";
CREATE INDEX by_text ON "odd ""one"" name" (text);
"""


@pytest.fixture
def lite(project: Project, key: Key, tmp_path: Path) -> Backups:
    """The command on a database of SQLite."""
    with closing(sqlite3.connect(tmp_path / "local.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(LITE)
    return Backups(project, f"sqlite:///{tmp_path}/local.db", tmp_path, key, tmp_path)


def rows(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump())


def test_sqlite_comes_back_while_it_is_used(lite: Backups, tmp_path: Path) -> None:
    live = tmp_path / "local.db"
    with closing(sqlite3.connect(live)) as used:
        used.execute("INSERT INTO alembic_version VALUES ('not committed')")
        backup = lite.create()
        lite.must("verify", backup)
    before = rows(live)
    restored = tmp_path / (json.loads(lite.must("restore", "--json"))["database"] + ".db")
    assert rows(restored) == before
    assert rows(live) == before


def test_sqlite_is_swapped_when_nobody_uses_it(lite: Backups, tmp_path: Path) -> None:
    live = tmp_path / "local.db"
    lite.create()
    before = rows(live)
    restored = json.loads(lite.must("restore", "--json"))["database"]
    swap = ("restore", "--restored", restored, "--swap", "--confirm", "local")
    with closing(sqlite3.connect(live)) as used:
        used.execute("DELETE FROM alembic_version")
        used.commit()
        used.execute("SELECT * FROM alembic_version").fetchall()
        assert "database is locked" in lite.fails(*swap)
        after = rows(live)
    assert "local_before_" in lite.must(*swap)
    (old,) = tmp_path.glob("local_before_*.db")
    assert (rows(live), rows(old)) == (before, after)
