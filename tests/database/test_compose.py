"""`docker compose up -d database`: its flags and its scripts, run on a real server without the engine."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
import yaml

from tests.compose.native import Native
from tests.compose.servers import database
from tests.projects import Project
from tests.sabotage import Line

pytestmark = pytest.mark.servers
COMPOSE = "compose.yaml"


def serves_developers(project: Project) -> None:
    """The addresses that compose.yaml names work, and what is slow can be seen."""
    shown = re.findall(
        r"^ +# (DATABASE_\w+)=postgresql://(\w+):local@127.0.0.1:5432/(\w+)$",
        (project.root / COMPOSE).read_text(),
        re.M,
    )
    assert len(shown) == 2
    with TemporaryDirectory() as folder, database(Native(project, Path(folder))) as server:
        admin_url = server.url("my_service")
        env = {name: re.sub(r"//[^@]*@", f"//{user}:local@", server.url(base)) for name, user, base in shown}
        project.cli("migrate", env=env, check=True)
        with psycopg.connect(env["DATABASE_URL"]) as app:
            app.execute("SELECT count(*), pg_sleep(0.15) FROM items")
        with psycopg.connect(admin_url) as admin:
            asked = re.search(r"```sql\n(.*?)```", (project.root / "docs/database.md").read_text(), re.S)
            assert asked
            slow = admin.execute(asked[1].encode()).fetchall()
            rows = admin.execute("SELECT rolname FROM pg_authid WHERE rolcanlogin AND rolpassword IS NULL").fetchall()
            assert [name for (name,) in rows if name.startswith("my_service")] == []
        assert any("pg_sleep" in str(row) for row in slow), slow
        assert "pg_sleep" in server.log.read_text()


def test_it_gives_the_roles_of_production_and_shows_what_is_slow(project: Project) -> None:
    serves_developers(project)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Line(COMPOSE, "postgres -c", "postgres -c shared_preload_libraries=pg_stat_statements"),
        Line(COMPOSE, "ALTER ROLE my_service_app PASSWORD"),
    ],
    ids=["silent", "no password"],
)
def test_a_spoiled_file_is_noticed(project: Project, tmp_path: Path, sabotage: Line) -> None:
    with pytest.raises(AssertionError):
        serves_developers(project.variant(tmp_path / "sick", sabotage))


def test_without_a_database_there_is_none(bare_project: Project) -> None:
    whole = yaml.safe_load((bare_project.root / COMPOSE).read_text())
    assert "database" not in whole["services"] | whole["configs"]
    assert not (bare_project.root / "deploy/postgres").exists()
