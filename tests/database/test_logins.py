"""A login that is taken away while the service uses it: 503 with the reason, one line, and the next one at once."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.database.conftest import ITEMS, NEW, Database, lines
from tests.database.test_faults import eventually, problem, troubles
from tests.projects import Project, Service
from tests.sabotage import Body, Sabotage, Value
from tests.secrets.conftest import deploy, users
from tests.servers.postgres import Postgres
from tests.servers.process import free_port
from tests.servers.vault import Space
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
LOGIN = "short_lived"
CREATE = (f"CREATE ROLE {LOGIN} LOGIN IN ROLE my_service_app",)
DROP = f"DROP ROLE {LOGIN}"
AWAY = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{LOGIN}'"  # noqa: S608 a constant


@pytest.fixture
def own_login(database: Database) -> Iterator[Database]:
    """The database with a login that is not the service's for long."""
    database.run(*CREATE)
    yield database
    database.run(f"DROP ROLE IF EXISTS {LOGIN}")


def address(database: Database) -> dict[str, str]:
    return {"DATABASE_URL": database.url("app").replace("my_service_app", LOGIN)}


def unready(service: Service) -> str:
    """What `/readyz` names as the reason."""
    eventually(lambda: service.client.get("/readyz").status_code == 503)
    return str(service.client.get("/readyz").json()["parts"]["db"]["evidence"])


def is_told(service: Service, database: Database, take: list[str], give: list[str], reason: str) -> None:
    """The login goes and comes back; the service has connections of it that are open all the while."""
    assert service.client.get("/readyz").status_code == 200
    assert service.client.post(ITEMS, json=NEW).status_code == 201
    database.run(*take)
    try:
        for _ in range(5):
            problem(service.client.get(ITEMS), 503, "database-login")
            problem(service.client.post(ITEMS, json=NEW), 503, "database-login")
        assert unready(service) == f"the database refuses the login: {reason}"
    finally:
        database.run(*give)
    eventually(lambda: service.client.get("/readyz").status_code == 200)
    assert service.client.get(ITEMS).status_code == 200
    assert troubles(service) == troubles(service, over=True) == ["database-login"]
    assert "Traceback" not in service.log
    assert len(lines(service)) < 10, lines(service)


def dropped(service: Service, database: Database) -> None:
    reason = f'role "{LOGIN}" does not exist (28000)'
    is_told(service, database, [DROP], list(CREATE), reason)


def locked_out(service: Service, database: Database) -> None:
    reason = f'role "{LOGIN}" is not permitted to log in (28000)'
    is_told(service, database, [f"ALTER ROLE {LOGIN} NOLOGIN", AWAY], [f"ALTER ROLE {LOGIN} LOGIN"], reason)


def test_a_login_that_is_taken_away_is_told_and_works_when_it_is_back(
    project: Project, own_login: Database, tmp_path: Path
) -> None:
    with project.serve(tmp_path, address(own_login)) as service:
        dropped(service, own_login)
    with project.serve(tmp_path / "again", address(own_login)) as service:
        locked_out(service, own_login)


def test_a_right_that_is_missing_stays_a_fault_of_the_service(
    project: Project, database: Database, tmp_path: Path
) -> None:
    with project.serve(tmp_path, database.env) as service:
        database.run("REVOKE SELECT ON items FROM my_service_app")
        assert service.client.get(ITEMS).status_code == 500
        assert service.client.get("/readyz").status_code == 200
        assert "permission denied for table items" in service.log
        database.run("REVOKE SELECT ON alembic_version FROM my_service_app")
        assert "permission denied for table alembic_version (42501): the role lacks a right" in unready(service)


CHECK = """
import asyncio, json, sys
from my_service.platform import create_app
from my_service.platform.settings import load
from my_service.platform.state import NotReady
from my_service.settings import Settings

async def main():
    for url in json.loads(sys.argv[1]):
        app = create_app(load(Settings, database_url=url))
        async with app.router.lifespan_context(app):
            try:
                await app.state.platform.database.check()
            except NotReady as reason:
                print(f"reason: {reason}", file=sys.stderr, flush=True)

asyncio.run(main())
"""
RULES = (
    "host all with_password all scram-sha-256",
    "hostnossl all by_tls all reject",
    "local all all trust",
    "host all all all trust",
    "host replication all all trust",
)


def gives_reasons(project: Project, server: Postgres, database: Database) -> None:
    """In the words of the server or of libpq, as `/readyz` and the log show them."""
    with psycopg.connect(database.admin, autocommit=True) as admin:
        file = admin.execute("SELECT current_setting('hba_file')").fetchone()
        assert file
        admin.execute(f"COPY (SELECT unnest(string_to_array('{';'.join(RULES)}', ';'))) TO '{file[0]}'".encode())
        admin.execute("SELECT pg_reload_conf()")
        for role in ("with_password LOGIN PASSWORD 'right'", "by_tls LOGIN"):
            admin.execute(f"CREATE ROLE {role}".encode())
    at = f"127.0.0.1:{server.port}/postgres"
    tried = {
        f"postgresql://with_password:s3cret@{at}": "refuses the login: password authentication failed for user",
        f"postgresql://with_password@{at}": "refuses the login: connection to server",  # no password supplied
        f"postgresql://by_tls:s3cret@{at}": "refuses the login: pg_hba.conf rejects connection for host",
        f"postgresql://by_tls:s3cret@{at}?sslmode=require": "refuses the login: connection to server",  # no TLS there
        f"postgresql://app:s3cret@{at}": 'refuses the login: role "app" does not exist (28000)',
        f"postgresql://postgres:s3cret@{at}_absent": 'refuses connections: database "postgres_absent"',
        f"postgresql://app:s3cret@127.0.0.1:{free_port()}/x": "does not respond: connection to server at",
        "postgresql://app:s3cret@nowhere.invalid/x": "does not respond: failed to resolve host 'nowhere.invalid'",
    }
    done = project.run(str(project.venv / "bin/python"), "-c", CHECK, json.dumps([*tried]), env={"LOG_FORMAT": "json"})
    reasons = re.findall(r"^reason: the database (.*)$", done.stderr, re.M)
    assert len(reasons) == len(tried), done.stderr
    for reason, told in zip(reasons, tried.values(), strict=True):
        assert reason.startswith(told), reason
        assert json.dumps(f"the database {reason}") in done.stdout  # once in the log
    assert "s3cret" not in done.stdout + done.stderr


def test_the_reason_of_the_database_reaches_people_without_the_password(
    project: Project, server: Postgres, database: Database
) -> None:
    try:
        gives_reasons(project, server, database)
    finally:
        database.run("DROP ROLE with_password, by_tls")


def renews(project: Project, vault: Space, database_url: str, folder: Path) -> None:
    """Vault ends the lease long before its time; the source is not due before that."""
    side = deploy(vault, project, folder, database_url, default_ttl=600, max_ttl=900)
    migrated(project, f"{database_url}?options=-crole%3Dmy_service_owner")
    side.write(database_url=database_url)
    with project.serve(folder / "run", side.env) as service:
        assert service.client.post(ITEMS, json=NEW).status_code == 201
        first = users(database_url)
        vault.client().sys.revoke_prefix("database/creds")
        eventually(lambda: not exist(database_url, first))
        seen = set()

        def works() -> bool:
            answer = service.client.post(ITEMS, json=NEW)
            seen.add((answer.status_code, answer.json().get("code")))
            return answer.status_code == 201

        eventually(works)
        assert (503, "database-login") in seen
        assert seen <= {(503, "database-login"), (201, None)}
        assert "Traceback" not in service.log
        eventually(lambda: service.client.get("/readyz").status_code == 200)


def exist(url: str, names: set[str]) -> bool:
    with psycopg.connect(url) as connection:
        return bool(connection.execute("SELECT 1 FROM pg_roles WHERE rolname = ANY(%s)", [list(names)]).fetchall())


def test_a_lease_that_is_revoked_is_replaced_at_once(
    project: Project, vault: Space, database_url: str, tmp_path: Path
) -> None:
    renews(project, vault, database_url, tmp_path)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "shows"),
    [
        (Value("db:RIGHTS", "()"), "500"),  # neither closed nor asked about
        (Body("db:Pool._dispose", "pass"), "invalid role OID"),
    ],
    ids=["500", "stays"],
)
def test_a_service_that_does_not_tell_is_noticed(
    project: Project, own_login: Database, tmp_path: Path, sabotage: Sabotage, shows: str
) -> None:
    sick = project.variant(tmp_path / "sick", sabotage)
    with sick.serve(tmp_path / "run", address(own_login)) as service, pytest.raises(AssertionError, match=shows):
        dropped(service, own_login)


@pytest.mark.sabotage
def test_a_service_that_waits_for_its_lease_to_end_is_noticed(
    project: Project, vault: Space, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.database.test_faults.SECONDS", 4.0)
    waits = Body("db:Pool.found", "self.troubles.found(fault, reason, probed=probed)")
    with pytest.raises(AssertionError, match="did not happen"):
        renews(project.variant(tmp_path / "sick", waits), vault, database_url, tmp_path)


@pytest.mark.sabotage
def test_a_reason_that_is_not_given_is_noticed(
    project: Project, server: Postgres, database: Database, tmp_path: Path
) -> None:
    sick = project.variant(tmp_path / "sick", Body("db:reason_of", "return type(error).__name__"))
    try:
        with pytest.raises(AssertionError, match="OperationalError"):
            gives_reasons(sick, server, database)
    finally:
        database.run("DROP ROLE with_password, by_tls")
