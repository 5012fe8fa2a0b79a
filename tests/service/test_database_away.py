"""The database is killed and comes back: the service lives throughout, says so, and needs no restart."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects import Edit, Project, Service
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
    for _ in range(20):
        answer = service.client.get(ITEMS)
        assert answer.status_code == 503
        assert answer.json()["code"] == "database-away"
        assert answer.headers["retry-after"] == "5"
        assert service.client.get("/readyz").status_code == 503
        time.sleep(0.12)  # together longer than an answer of /readyz is shared
    postgres.start()
    until(service, 200)
    assert kept in service.client.get(ITEMS).json()["items"]
    assert (service.process.pid, service.process.running) == (before, True)
    assert service.log.count("not ready") == 1
    assert service.log.count("ready again") == 1


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
        assert service.log.count("the database does not answer") == 1
        assert "s3cret-marker" not in service.log + service.client.get("/readyz").text


def test_an_older_schema_is_not_ready_and_a_newer_one_is(project: Project, postgres: Postgres, tmp_path: Path) -> None:
    """Code is rolled back, schemas are not: at least the head that the code needs."""
    newer = project.variant(tmp_path / "newer")
    first = (newer.root / "migrations/versions/0001_items.py").read_text()
    second = (
        first.replace('revision = "0001"', 'revision = "0002"', 1)
        .replace("down_revision = None", 'down_revision = "0001"')
        .replace('branch_labels = "service"', "branch_labels = None")
        .replace('"items"', '"more_items"')
    )
    (newer.root / "migrations/versions/0002_more.py").write_text(second)
    url = postgres.create_database()
    with newer.serve(tmp_path / "empty", {"DATABASE_URL": url}) as service:
        assert "make migrate" in service.client.get("/readyz").json()["parts"]["db"]["evidence"]
        migrated(project, url)
        time.sleep(1.2)  # an answer is shared for a second
        behind = service.client.get("/readyz")
        assert (behind.status_code, "0002 is missing" in behind.text) == (503, True)
        migrated(newer, url)
        until(service, 200)
    with project.serve(tmp_path / "old", {"DATABASE_URL": url}) as service:
        assert service.client.get("/readyz").status_code == 200


DB = "src/my_service/platform/db/__init__.py"
FAULTS = "src/my_service/platform/db/faults.py"
HEALTH = "src/my_service/platform/health.py"


@pytest.mark.parametrize(
    "edit",
    [
        Edit(
            HEALTH,
            'return {"status": "alive"}',
            "for part in (await parts.look()).values():\n            assert part['ready']\n        return {}",
        ),
        Edit(HEALTH, "200 if ready and", "200 if True and"),
        Edit(FAULTS, "AWAY = (503,", "AWAY = (500,"),
        Edit(DB, "if str(reason) != self.reason:", "if True:"),
    ],
    ids=["liveness looks", "readiness does not", "500", "says it each time"],
)
def test_a_sabotaged_service_fails_the_proof(
    project: Project, own_postgres: Postgres, tmp_path: Path, edit: Edit
) -> None:
    sick = project.variant(tmp_path / "sick", edit)
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
