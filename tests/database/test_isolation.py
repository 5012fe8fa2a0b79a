"""The emitted `tests/conftest.py`: tests share rows with the service, not with each other."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.database.conftest import Database
from tests.plant import Revision
from tests.projects import Project
from tests.sabotage import Body, Line
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.servers
TESTS = '''"""Rows that the test, the service and a migration have written."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from my_service.features.items.store import Row


{example}


@pytest.mark.parametrize("turn", [1, 2])
def test_no_test_sees_rows_of_another(client: TestClient, db: Session, turn: int) -> None:
    assert db.query(Row).count() == len(client.get("/v1/items").json()["items"]) == 0
    created = client.post("/v1/items", json={{"name": "theirs"}}, headers={{"Idempotency-Key": "one"}}).json()
    db.query(Row).one().name = "mine"
    db.commit()
    assert client.get("/v1/items").json()["items"][0]["name"] == "mine"
    path = f"/v1/items/{{created['id']}}"
    assert client.put(path, json={{"name": str(turn)}}).status_code == 200
    assert db.query(Row).one().name == client.get(path).json()["name"] == str(turn)
    db.execute(text("UPDATE kinds SET name = 'changed'"))
    db.commit()


@pytest.mark.parametrize("turn", [1, 2])
def test_rows_of_migrations_stay(client: TestClient, db: Session, turn: int) -> None:
    assert list(db.scalars(text("SELECT name FROM kinds ORDER BY id"))) == ["big", "small"]
    db.execute(text("DELETE FROM kinds"))
    db.commit()
'''
KINDS = """
kinds = op.create_table("kinds", sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("name", sa.Text),
    sa.Column("above", sa.BigInteger, sa.ForeignKey("kinds.id")))
op.bulk_insert(kinds, [{"id": 1, "name": "big", "above": 1}, {"id": 2, "name": "small", "above": 1}])
"""
FILE = "tests/features/test_rows.py"


@dataclass(frozen=True)
class Rows:
    """The tests above, with the one that docs/database.md shows, and files that have the names of others."""

    def apply(self, root: Path) -> None:
        guide = (root / "docs/database.md").read_text().partition("## Tests\n")[2]
        (example,) = re.findall(r"```python\n(.*?)\n```", guide.partition("\n## ")[0], re.S)
        (root / FILE).write_text(TESTS.format(example=example))
        (root / "tests/features/conftest.py").write_text('"""Fixtures of the features."""\n')
        shutil.copy(root / "tests/features/test_items.py", root / "tests/rooms/test_items.py")


def run_tests(project: Project, url: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the tests, on SQLite if the URL is empty."""
    return project.run(
        str(project.venv / "bin/python"), "-m", "pytest", "-q", FILE, env={"TEST_DATABASE_URL": url, **env}, check=False
    )


@pytest.fixture
def planted(project: Project, tmp_path: Path) -> Project:
    """A service with tests and a migration that inserts rows."""
    return project.variant(tmp_path / "planted", Rows(), Revision(KINDS))


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_tests_share_rows_with_the_service_and_not_with_each_other(
    planted: Project, server: Postgres, store: str
) -> None:
    done = run_tests(planted, "" if store == "sqlite" else server.create_database())
    assert (done.returncode, "5 passed" in done.stdout) == (0, True), done.stdout


@pytest.mark.sabotage
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_tests_that_are_not_isolated_see_each_other(
    planted: Project, server: Postgres, tmp_path: Path, store: str
) -> None:
    sick = planted.variant(tmp_path / "sick", Body("tests.conftest:isolated", "yield"))
    done = run_tests(sick, "" if store == "sqlite" else server.create_database())
    assert "3 failed, 2 passed" in done.stdout


@pytest.fixture
def own(project: Project, server: Postgres) -> Database:
    """What a developer works with: exported in the shell, as direnv does with `.env`."""
    made = Database(server.create_database())
    project.cli("migrate", env={"DATABASE_URL": made.admin}, check=True)
    made.run("INSERT INTO items SELECT gen_random_uuid(), 'mine', null, 1, now(), now()")
    return made


def rows_after_drift(project: Project, own: Database) -> int:
    """Run the test that reverts all migrations: the number of rows that the developer still has."""
    env = {"DATABASE_URL": own.admin, "DATABASE_MIGRATOR_URL": own.admin}
    command = str(project.venv / "bin/python"), "-m", "pytest", "-q", "tests/rooms/test_migrations.py"
    assert "1 passed" in project.run(*command, env=env).stdout
    with psycopg.connect(own.admin) as connection:
        return len(connection.execute("SELECT id FROM items").fetchall())


def test_the_database_of_the_developer_is_not_touched(project: Project, own: Database) -> None:
    assert rows_after_drift(project, own) == 1


KEEPS = """
kept = os.environ["DATABASE_MIGRATOR_URL"]
engine = original()
os.environ["DATABASE_MIGRATOR_URL"] = kept
return engine
"""


@pytest.mark.sabotage
def test_tests_that_migrate_the_database_of_the_developer_are_noticed(
    project: Project, own: Database, tmp_path: Path
) -> None:
    assert rows_after_drift(project.variant(tmp_path / "sick", Body("tests.conftest:database", KEEPS)), own) == 0


def types(project: Project) -> str:
    """What mypy says of the tests alone."""
    path = os.pathsep.join([str(project.venv / "bin"), os.environ["PATH"]])
    return project.run("mypy", "--follow-imports=skip", "tests", env={"PATH": path}, check=False).stdout


def test_the_type_checker_reads_files_of_the_same_name(planted: Project) -> None:
    names = (
        "tests/features/conftest.py",
        "tests/conftest.py",
        "tests/features/test_items.py",
        "tests/rooms/test_items.py",
    )
    for name in names:
        with (planted.root / name).open("a") as file:
            file.write('WRONG: int = ""\n')
    said = types(planted)
    assert {line.partition(":")[0] for line in said.splitlines() if "Incompatible types in assign" in line} == {*names}


@pytest.mark.sabotage
def test_without_package_bases_the_names_collide(planted: Project, tmp_path: Path) -> None:
    sick = planted.variant(tmp_path / "sick", Line("pyproject.toml", "explicit_package_bases"))
    assert "Duplicate module named" in types(sick)
