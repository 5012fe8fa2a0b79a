"""A database as production has it: roles applied, migrated by the migrator, used by the app."""

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.projects import Edit, Project, Service
from tests.servers.postgres import Postgres, open_postgres

ITEMS = "/v1/items"
ROLES = "deploy/postgres/roles.sql"
DB = "src/my_service/platform/db/__init__.py"
FAULTS = "src/my_service/platform/db/faults.py"
ENV = "migrations/env.py"
MIGRATE = "src/my_service/ops/migrate.py"
NEW = {"name": "lamp"}
# Waits that a proof need not sit through.
HASTY = (Edit(ENV, "LOCK_WAIT = 3", "LOCK_WAIT = 1"), Edit(MIGRATE, "uniform(1, 4)", "uniform(0.1, 0.3)"))
REVISION = '''"""A later one."""

import sqlalchemy as sa
from alembic import context, op

revision = "{name}"
down_revision = "{after}"
branch_labels = None
depends_on = None


{body}

def downgrade() -> None:
    pass
'''


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


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server that a module may restart and spoil, as long as it mends it."""
    with open_postgres() as opened:
        yield opened


@pytest.fixture(scope="module")
def model(project: Project, server: Postgres) -> Database:
    """A database with roles and schema, to be copied."""
    made = Database(server.create_database())
    apply_roles(project, made.admin)
    project.cli("migrate", env=made.env, check=True)
    return made


@pytest.fixture
def database(project: Project, server: Postgres, model: Database) -> Database:
    """A database of its own for a test, with roles and schema."""
    return copy(project, server, model)


Later = Callable[..., Project]


@pytest.fixture
def later(project: Project, tmp_path: Path) -> Later:
    """A later version of the service: each body is one more revision."""

    def made(*bodies: str) -> Project:
        newer = project.variant(tmp_path / "later", *HASTY)
        for number, body in enumerate(bodies, 2):
            text = REVISION.format(name=f"{number:04}", after=f"{number - 1:04}", body=body)
            (newer.root / f"migrations/versions/{number:04}_later.py").write_text(text)
        return newer

    return made


def recipe(project: Project, heading: str) -> str:
    """The migration that docs/database.md shows below a heading."""
    text = (project.root / "docs/database.md").read_text().partition(f"### {heading}\n")[2]
    found = re.search(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert found, heading
    return found[1]


@contextmanager
def serving(project: Project, folder: Path, database: Database, **env: str) -> Iterator[Service]:
    """The service, ready."""
    with project.serve(folder, {**database.env, **env}) as service:
        assert service.client.get("/readyz").status_code == 200
        yield service


def lines(service: Service) -> list[str]:
    """What the log says beside one access line per request."""
    return [line for line in service.log.splitlines() if "request" not in line]
