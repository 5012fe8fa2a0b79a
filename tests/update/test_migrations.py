"""A later migration of the platform applies in a service that has revisions of its own."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.plant import Revision
from tests.projects import Edit, Project
from tests.proof import count
from tests.update.versions import LAST, MIGRATIONS, NEXT, commit, duplicate, make_service, release, update

pytestmark = pytest.mark.servers
OWN = """op.create_table("orders", sa.Column("id", sa.Uuid, primary_key=True))"""


def heads(file: Path) -> tuple[set[str], set[str]]:
    """The revisions that a database is at, and its tables."""
    with sqlite3.connect(file) as database:
        revisions = {name for (name,) in database.execute("SELECT version_num FROM alembic_version")}
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return revisions, tables


def grow(service: Path, example: bool) -> None:
    """Give a service a revision of its own, after the example's or instead of it."""
    if not example:
        for folder in ("src/my_service/features/items", "migrations/versions", "tests/features"):
            shutil.rmtree(service / folder)
    Revision(OWN, after="0001" if example else None).apply(service)
    commit(service)


# Most delete the example and begin their own history.
@pytest.mark.parametrize("example", [False, True][: count(1, 2)])
def test_a_platform_migration_joins_the_services_own(
    project: Project, first: Path, tmp_path: Path, example: bool
) -> None:
    service = Project(duplicate(first, tmp_path / "service"))
    service.venv = project.venv
    grow(service.root, example)
    file = tmp_path / "service.db"
    env = {"DATABASE_URL": f"sqlite:///{file}"}
    service.cli("migrate", env=env, check=True)
    assert heads(file)[0] == {"0002", LAST}

    update(service.root)
    with service.serve(tmp_path / "behind", env) as served:
        behind = served.client.get("/readyz")
        assert (behind.status_code, f"{NEXT} is missing" in behind.text) == (503, True)
    service.cli("migrate", env=env, check=True)
    revisions, tables = heads(file)
    assert revisions == {"0002", NEXT}
    assert tables >= {"orders", "quotas"} | ({"items"} if example else set())
    with service.serve(tmp_path / "run", env) as served:
        ready = served.client.get("/readyz")
        assert (ready.status_code, ready.json()["parts"]["db"]["evidence"]) == (200, f"answers, schema at 0002, {NEXT}")


@pytest.mark.sabotage
def test_a_platform_migration_on_the_services_branch_would_be_refused(project: Project, tmp_path: Path) -> None:
    sabotage = Edit(f"{MIGRATIONS}/platform/{NEXT}_quotas.py", f'"{LAST}"', '"0001"')
    template = release(tmp_path / "template", then=sabotage.apply)
    service = Project(make_service(template, tmp_path / "service"))
    service.venv = project.venv
    grow(service.root, example=True)
    update(service.root)
    done = service.cli("migrate", env={"DATABASE_URL": f"sqlite:///{tmp_path}/service.db"})
    assert done.returncode == 1
    assert "two heads" in done.stderr
