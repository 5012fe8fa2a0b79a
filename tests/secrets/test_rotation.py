"""A new login reaches the pool while requests run: none fails, nothing is restarted, the old login can go."""

from pathlib import Path

import psycopg
import pytest

from tests.projects import Edit, Project, Service
from tests.secrets.conftest import DB, FILES, deploy, load, swap, until, users
from tests.servers.postgres import Postgres
from tests.servers.process import ServerError
from tests.servers.vault import Vault
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
FAST = Edit(FILES, "LOOK = 5", "LOOK = 0.2")


def as_user(url: str, name: str) -> str:
    return url.replace("//postgres@", f"//{name}:of-{name}@", 1)


def create(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'of-{name}'")
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}")


def drop(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {name}")
        connection.execute(f"DROP ROLE {name}")


def exists(url: str, name: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone() is not None


def rotates(service: Service, url: str, rotate, gone) -> None:  # type: ignore[no-untyped-def]
    before = service.process.pid
    with load(service) as seen:
        until(lambda: seen[201] > 20)
        first = users(url)
        assert len(first) == 1
        rotate()
        until(lambda: users(url) and not users(url) & first)
        gone(*first)
        assert not exists(url, *first)
        reached = seen[201]
        until(lambda: seen[201] > reached + 50)
    assert seen.keys() == {200, 201}, seen
    assert (service.process.pid, service.process.running) == (before, True)


def test_for_files(project: Project, postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create_database()
    migrated(project, url)
    create(url, "before")
    create(url, "after")
    swap(tmp_path / "secrets", database_url=as_user(url, "before") + "\n")
    fast = project.variant(tmp_path / "fast", FAST)
    env = {"SECRETS_BACKEND": "files", "SECRETS_DIR": str(tmp_path / "secrets")}
    with fast.serve(tmp_path / "run", env) as service:
        print(service.log)
        rotates(
            service,
            url,
            lambda: swap(tmp_path / "secrets", database_url=as_user(url, "after") + "\n"),
            lambda name: drop(url, name),
        )
        print(service.log[-3000:])


def test_for_a_vault(project: Project, postgres: Postgres, vault: Vault, tmp_path: Path) -> None:
    url = postgres.create_database()
    side = deploy(vault, project, tmp_path, (postgres, url), default_ttl=6, max_ttl=9)
    migrated(project, url)
    side.write(database_url=url)
    with project.serve(tmp_path / "run", side.env) as service:
        rotates(service, url, lambda: None, lambda name: until(lambda: not exists(url, name)))
        print("\n".join(line for line in service.log.splitlines() if "secret" in line))
