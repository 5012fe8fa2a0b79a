"""What comes back from a backup is what was there, on each server and with each type that is hard to bring back."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.backup.conftest import Backups, Key, drop, renamed, with_password
from tests.backup.contents import BUILTIN, ICU, LIBC, contents, fill
from tests.projects import Project
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
