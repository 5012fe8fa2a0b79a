"""The drill: the real service runs on the restored database, and the figures are those of the backup."""

import json
import re
from datetime import datetime, timedelta

import pytest

from tests.backup.conftest import Backups, Made, databases, write_manifest
from tests.database.conftest import Database
from tests.projects import Change, Edit
from tests.sabotage import Body, Line, Value
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.servers
HOUR = 3600
READ = 'read = "/v1/items"'


def promised(**targets: str) -> Edit:
    """A plan with other targets."""
    lines = "\n".join(f'{name} = "{value}"' for name, value in targets.items())
    return Edit("ready.toml", "[thresholds]", f"[recovery.targets]\n{lines}\n[thresholds]")


def older(backups: Backups, backup: str, by: timedelta) -> None:
    """Let a backup be of an earlier time."""
    file = backups.object(backup, "manifest.json")
    snapshot = datetime.fromisoformat(json.loads(file.read_text())["snapshot"]) - by
    write_manifest(file, snapshot=snapshot.isoformat())


def roles(backups: Backups, database: Database) -> Backups:
    """As in production: each step by its own role."""
    return backups.told(
        DATABASE_URL=database.url("app"),
        DATABASE_MIGRATOR_URL=database.url("migrator"),
        BACKUP_DATABASE_URL=database.url("backup"),
        BACKUP_ADMIN_URL=database.admin,
    )


def test_the_service_runs_on_the_restored_rows_and_the_figures_are_right(
    make: Made, database: Database, server: Postgres
) -> None:
    backups = roles(make(promised(rto="10m")), database)
    backup = backups.create()
    older(backups, backup, timedelta(hours=2))
    before = databases(server)
    evidence = json.loads(backups.must("drill", "--json"))
    assert (evidence["backup"], evidence["passed"]) == (backup, True)
    assert 2 * HOUR <= evidence["rpo_seconds"] < 2 * HOUR + 300
    assert evidence["targets"] == {"rto_seconds": 600, "rpo_seconds": 25 * HOUR}
    phases = evidence["phases"]
    assert list(phases) == [
        "download and decrypt",
        "restore",
        "roles and statistics",
        "compare",
        "migrate",
        "start the service",
        "query",
    ]
    assert sum(phases.values()) <= evidence["rto_seconds"] < sum(phases.values()) + 10
    assert evidence["rows"] == 1002  # the items, and the two heads of the schema
    assert databases(server) == before
    folder = backups.project.root / "dr/evidence"
    (file,) = folder.glob("*.json")
    assert json.loads(file.read_text()) == evidence
    assert re.search(
        rf"\| {file.stem} \| {backup} \| 0:0\d:\d\d \| 2:0\d:\d\d \| .* \| passed \|",
        (folder / "README.md").read_text(),
    )
    assert json.loads(backups.must("status", "--json"))["drill"] == evidence


@pytest.mark.parametrize(("targets", "age"), [({"rto": "1s"}, 0), ({"rto": "1h"}, 26)], ids=["RTO", "RPO"])
def test_a_missed_target_exits_with_one(make: Made, targets: dict[str, str], age: int) -> None:
    backups = make(promised(**targets))
    older(backups, backups.create(), timedelta(hours=age))
    done = backups("drill")
    assert (done.returncode, "RTO or RPO is missed" in done.stdout) == (1, True), done.stderr
    assert "| **missed** |" in (backups.project.root / "dr/evidence/README.md").read_text()
    assert "backup: the newest drill missed its targets: see dr/evidence\n" in backups("status").stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Line("ready.toml", READ, 'read = "/v1/nothing"'), "/v1/nothing returned 404 on the restored database"),
        (Line("ready.toml", READ), 'ready.toml names no route: add read = "/v1/…" below [probe]'),
        (Body("health:install", "raise SystemExit(3)"), "on the restored database the service exited with 3"),
    ],
    ids=["no such route", "no route named", "no start"],
)
def test_a_service_that_does_not_serve_on_the_backup_fails_the_drill(
    make: Made, server: Postgres, change: Change, said: str
) -> None:
    backups = make(change)
    backups.create()
    before = databases(server)
    assert said in backups.fails("drill")
    assert databases(server) == before
    assert not (backups.project.root / "dr").exists()


def test_a_backup_of_an_older_release_is_migrated(make: Made, database: Database) -> None:
    backups = roles(make(promised(rto="10m")), database)
    database.run("DELETE FROM alembic_version WHERE version_num = '0001'", "DROP TABLE items")
    backups.create()
    assert json.loads(backups.must("drill", "--json"))["passed"]


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            Body("ops.backup.postgres:Postgres._roles", 'return b"SELECT 1"'),
            "the restored database cannot be migrated: migrate: ",
        ),
        (Body("ops.backup.drill:_migrate", "return None"), "run `make migrate`"),
    ],
    ids=["roles", "migrate"],
)
def test_the_drill_needs_roles_and_migrations(make: Made, database: Database, change: Change, said: str) -> None:
    backups = roles(make(change, Value("ops.backup.drill:START_SECONDS", "20")), database)
    if "migrate" in said:
        database.run("DELETE FROM alembic_version WHERE version_num = '0001'", "DROP TABLE items")
    backups.create()
    assert said in backups.fails("drill")


def test_the_folder_of_the_evidence_is_yours(make: Made) -> None:
    backups = make(promised(rto="10m"))
    backups.create()
    index = backups.project.root / "dr/evidence/README.md"
    index.parent.mkdir(parents=True)
    index.write_text("# Ours\n\n| a | b | c | d | e | f |\n|---|---|---|---|---|---|\n")
    backups.must("drill")
    assert index.read_text().startswith("# Ours\n")
    assert index.read_text().count("| passed |") == 1
