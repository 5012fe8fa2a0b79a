"""A database as production has it: roles applied, migrated by the migrator, used by the app."""

import re
import textwrap
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.plant import Revision
from tests.projects import Project, Service
from tests.sabotage import Value
from tests.servers.postgres import Postgres, open_postgres

ITEMS = "/v1/items"
ROLES = "deploy/postgres/roles.sql"
NEW = {"name": "lamp"}
# A wait that a proof need not sit through.
HASTY = Value("migrations.env:LOCK_SECONDS", "1")


@dataclass(frozen=True)
class Database:
    """One database, by the address of its superuser."""

    admin: str
    service: str = "my_service"

    def url(self, role: str) -> str:
        """Its address for a role, such as `app`."""
        return re.sub(r"//[^@]*@", f"//{self.service}_{role}@", self.admin)

    @property
    def env(self) -> dict[str, str]:
        """What a service is told."""
        return {"DATABASE_URL": self.url("app"), "DATABASE_MIGRATOR_URL": self.url("migrator")}

    def run(self, *statements: str) -> None:
        """Run statements as the superuser."""
        with psycopg.connect(self.admin, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


def apply_roles(project: Project, url: str) -> None:
    """What `make roles` does; psycopg takes the file as psql does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((project.root / ROLES).read_bytes())


def copy(project: Project, server: Postgres, model: Database) -> Database:
    """A new database with roles and schema: a copy of one that has them, which nobody may be connected to."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {model.admin.rpartition('/')[2]}".encode())
    apply_roles(project, server.url(name))  # settings and grants of a database are not copied
    return Database(server.url(name))


def make_model(project: Project, server: Postgres) -> Database:
    """A new database with roles and schema."""
    made = Database(server.create_database())
    apply_roles(project, made.admin)
    done = project.quick("migrate", env=made.env)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """The worker's server for this folder: a test may restart and spoil it, as long as it mends it."""
    with open_postgres() as opened:
        yield opened


@pytest.fixture(scope="session")
def model(project: Project, server: Postgres) -> Database:
    """A database with roles and schema, to be copied."""
    return make_model(project, server)


@pytest.fixture
def database(project: Project, server: Postgres, model: Database) -> Database:
    """A database of its own for a test, with roles and schema."""
    return copy(project, server, model)


Later = Callable[..., Project]


@pytest.fixture
def later(project: Project, tmp_path: Path) -> Later:
    """A later version of the service: each text is the `upgrade` of one more revision."""

    def made(*bodies: str) -> Project:
        revisions = [Revision(body, f"{number:04}", f"{number - 1:04}") for number, body in enumerate(bodies, 2)]
        return project.variant(tmp_path / "later", HASTY, *revisions)

    return made


def recipe(project: Project, heading: str) -> str:
    """The `upgrade` that docs/database.md shows below a heading."""
    text = (project.root / "docs/database.md").read_text().partition(f"### {heading}\n")[2]
    found = re.search(r"^```python\ndef upgrade\(\) -> None:\n(.*?)^```$", text, re.M | re.S)
    assert found, heading
    return textwrap.dedent(found[1])


@contextmanager
def serving(project: Project, folder: Path, database: Database, **env: str) -> Iterator[Service]:
    """The service, ready."""
    with project.serve(folder, {**database.env, **env}) as service:
        assert service.client.get("/readyz").status_code == 200
        yield service


def lines(service: Service) -> list[str]:
    """What the log says beside one access line per request."""
    return [line for line in service.log.splitlines() if "request" not in line]
