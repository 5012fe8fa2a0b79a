"""The database is killed and comes back: the service lives throughout, says so, and needs no restart."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plant import Revision
from tests.projects import Project, Service
from tests.sabotage import Body
from tests.servers.postgres import Postgres, open_postgres
from tests.servers.process import ServerError, free_port
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
ITEMS = "/v1/items"
SECONDS = 12.0


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A server to be killed, apart from the one that others use."""
    with open_postgres() as server:
        yield server


def until(service: Service, status: int) -> float:
    """Wait for `/readyz` to say `status`, while `/livez` says 200 throughout: seconds it took."""
    begun = time.monotonic()
    while time.monotonic() - begun < SECONDS:
        assert service.client.get("/livez").status_code == 200
        if service.client.get("/readyz").status_code == status:
            return time.monotonic() - begun
        time.sleep(0.1)
    raise AssertionError(f"/readyz did not say {status} within {SECONDS:g} s")


def survives(service: Service, postgres: Postgres) -> None:
    """Kill, look, bring back, look."""
    before = service.process.pid
    assert service.client.get("/readyz").json()["status"] == "ready"
    kept = service.client.post(ITEMS, json={"name": "kept"}).json()
    postgres.kill()
    until(service, 503)
    for _ in range(12):
        answer = service.client.get(ITEMS)
        assert answer.status_code == 503
        assert answer.json()["code"] == "database-away"
        assert answer.headers["retry-after"] == "5"
        assert service.client.get("/readyz").status_code == 503
        time.sleep(0.1)  # together longer than an answer of /readyz is shared
    postgres.start()
    until(service, 200)
    assert kept in service.client.get(ITEMS).json()["items"]
    assert (service.process.pid, service.process.running) == (before, True)
    assert service.log.count("database trouble  ") == 1
    assert service.log.count("database trouble is over") == 1


def test_a_killed_database_costs_readiness_and_nothing_else(
    project: Project, own_postgres: Postgres, tmp_path: Path
) -> None:
    env = migrated(project, own_postgres.create_database())
    with project.serve(tmp_path, env) as service:
        survives(service, own_postgres)


@pytest.mark.timing
def test_a_hung_database_fails_readiness_in_time(project: Project, own_postgres: Postgres, tmp_path: Path) -> None:
    env = migrated(project, own_postgres.create_database())
    with project.serve(tmp_path, env) as service:
        until(service, 200)
        own_postgres.pause()
        try:
            assert until(service, 503) < 10
        finally:
            own_postgres.resume()
        until(service, 200)


def test_serve_starts_without_its_database_and_says_so_once(project: Project, tmp_path: Path) -> None:
    url = f"postgresql://app:s3cret-marker@127.0.0.1:{free_port()}/orders"
    with project.serve(tmp_path, {"DATABASE_URL": url}) as service:
        for _ in range(3):
            assert service.client.get("/readyz").status_code == 503
            assert service.client.get(ITEMS).status_code == 503
        assert service.log.count("the database does not respond") == 1
        assert "s3cret-marker" not in service.log + service.client.get("/readyz").text


def test_an_older_schema_is_not_ready_and_a_newer_one_is(project: Project, postgres: Postgres, tmp_path: Path) -> None:
    """Code is rolled back, schemas are not: at least the head that the code needs."""
    more = Revision('op.create_table("more_items", sa.Column("id", sa.Uuid, primary_key=True))')
    newer = project.variant(tmp_path / "newer", more)
    url = postgres.create_database()
    with newer.serve(tmp_path / "empty", {"DATABASE_URL": url}) as service:
        assert "make migrate" in service.client.get("/readyz").json()["parts"]["db"]["evidence"]
        migrated(project, url)
        service.process.wait_until(lambda: "0002 is missing" in service.client.get("/readyz").text, SECONDS)
        assert service.client.get("/readyz").status_code == 503
        migrated(newer, url)
        until(service, 200)
    with project.serve(tmp_path / "old", {"DATABASE_URL": url}) as service:
        assert service.client.get("/readyz").status_code == 200


LOOKS = """
for part in (await parts.check()).values():
    assert part["ready"]
return await original()
"""
AGAIN = "self.open.clear()\noriginal(fault, reason, probed=probed)"


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("health:install.livez", LOOKS),
        Body("health:install.readyz", 'return {**await original(Response()), "status": "ready"}'),
        Body("db:fault_of", "return None"),
        Body("db:Troubles.found", AGAIN),
    ],
    ids=["liveness looks", "readiness does not", "500", "says it each time"],
)
def test_a_sabotaged_service_fails_the_proof(
    project: Project, own_postgres: Postgres, tmp_path: Path, sabotage: Body
) -> None:
    sick = project.variant(tmp_path / "sick", sabotage)
    env = migrated(project, own_postgres.create_database())
    try:
        with (
            pytest.raises((AssertionError, ServerError)),
            sick.serve(tmp_path / "run", env) as service,
        ):
            survives(service, own_postgres)
    finally:
        if not own_postgres.answers():
            own_postgres.kill()
            own_postgres.start()
