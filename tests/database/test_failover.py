"""A primary is lost, demoted or hung, and its streaming standby takes over: the service follows without a restart."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.database.conftest import ITEMS, NEW, Database, serving
from tests.projects import Project, Service
from tests.proof import count
from tests.sabotage import Body, Sabotage, Value
from tests.servers.postgres import Postgres, Standby

pytestmark = pytest.mark.servers
SECONDS = 30.0


@contextmanager
def pair(origin: Postgres) -> Iterator[tuple[Postgres, Standby]]:
    """A primary with the data of `origin`, and its standby."""
    with Standby(origin) as primary:
        primary.promote()
        with Standby(primary) as standby:
            yield primary, standby


def follows(standby: Standby, database: Database, name: str) -> bool:
    """Whether an item has arrived there."""
    with psycopg.connect(standby.url(database.admin.rpartition("/")[2])) as connection:
        return bool(connection.execute("SELECT count(*) FROM items WHERE name = %s", (name,)).fetchone() == (1,))


def address(primary: Postgres, standby: Postgres, database: Database) -> dict[str, str]:
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    name = database.admin.rpartition("/")[2]
    return {"DATABASE_URL": f"postgresql://my_service_app@{hosts}/{name}?target_session_attrs=read-write"}


def works_again(service: Service, seconds: float = SECONDS) -> float:
    """Seconds until the service is ready and takes changes again; liveness throughout."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        assert service.client.get("/livez").status_code == 200
        if service.client.get("/readyz").status_code == 200:
            answer = service.client.post(ITEMS, json=NEW)
            if answer.status_code == 201:
                return time.monotonic() - began
            assert answer.json()["code"].startswith("database-"), answer.text
        time.sleep(0.2)
    raise AssertionError(f"it did not work again within {seconds:g} s")


def unready(service: Service) -> None:
    deadline = time.monotonic() + SECONDS
    while service.client.get("/readyz").status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def lost(primary: Postgres) -> None:
    primary.kill()


def demoted(primary: Postgres) -> None:
    """It goes on answering, connections stay open, and it takes no changes: what a switchover does."""
    with psycopg.connect(primary.url(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")


def hung(primary: Postgres) -> None:
    """Its connections stay open, and nobody answers."""
    primary.pause()


FATES = {"lost": lost, "demoted": demoted, "hung": hung}
TRIED = list(FATES)[: count(2, 3)]  # a hung one takes 20 s


def survives(project: Project, origin: Postgres, database: Database, folder: Path, fate: str, seconds: float) -> float:
    with pair(origin) as (primary, standby):
        hosts = address(primary, standby, database)
        with serving(project, folder, database, **hosts) as service:
            for _ in range(3):
                assert service.client.post(ITEMS, json={"name": "kept"}).status_code == 201
            deadline = time.monotonic() + SECONDS
            last = service.client.post(ITEMS, json={"name": "the last one"}).json()
            while not follows(standby, database, "the last one"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            FATES[fate](primary)
            try:
                standby.promote()
                if fate == "hung":
                    unready(service)  # until then its requests wait: a balancer sends none after it
                took = works_again(service, seconds)
                assert service.client.get(f"{ITEMS}/{last['id']}").json() == last
                assert service.log.count("code=database-away") <= 2, service.log  # begun, and over
            finally:
                if fate == "hung":
                    primary.resume()
    return took


@pytest.mark.parametrize("fate", TRIED)
def test_a_promoted_standby_is_found_without_a_restart(
    project: Project, server: Postgres, model: Database, tmp_path: Path, fate: str
) -> None:
    took = survives(project, server, model, tmp_path, fate, SECONDS)
    print(f"\n{fate}: changes are taken again after {took:.1f} s")


SABOTAGES = [
    ("demoted", Body("db:leave_read_only", "pass"), 4),
    ("hung", Value("db:CHECK_SECONDS", "PROBE_SECONDS"), 45),
]


@pytest.mark.sabotage
@pytest.mark.parametrize(("fate", "sabotage", "seconds"), SABOTAGES[: count(1, 2)])
def test_a_service_that_keeps_to_its_connections_is_noticed(
    project: Project, server: Postgres, model: Database, tmp_path: Path, fate: str, sabotage: Sabotage, seconds: float
) -> None:
    with pytest.raises(AssertionError, match="did not work again"):
        survives(project.variant(tmp_path / "sick", sabotage), server, model, tmp_path / "run", fate, seconds)
