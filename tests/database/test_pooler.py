"""Behind PgBouncer in transaction mode: more clients than connections, no state left on them, and a restart of it."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.database.conftest import ITEMS, NEW, Database, lines, serving
from tests.projects import Project, Service
from tests.sabotage import Body
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.servers
SIZE = 2
CLIENTS = 12
USER = "my_service_app"
PREPARES = Body("db:make_engine", 'return original(url, settings.model_copy(update={"db_pooler": "none"}))')


def through(pooler: PgBouncer, database: Database) -> dict[str, str]:
    return {
        "DATABASE_URL": pooler.url(database.admin.rpartition("/")[2], USER),
        "DB_POOLER": "pgbouncer-transaction",
        "SHUTDOWN_DRAIN_SECONDS": "0",
    }


def shares(service: Service, pooler: PgBouncer, server: Postgres) -> None:
    """All clients are served, and the server sees few of them."""

    def visit(number: int) -> list[int]:
        found = []
        for _ in range(12):  # often enough to be prepared by a driver that does
            found.append(service.client.post(ITEMS, json=NEW).status_code)
            found.append(service.client.get(ITEMS).status_code)
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        seen = Counter(status for each in pool.map(visit, range(CLIENTS)) for status in each)
    assert seen == {200: CLIENTS * 12, 201: CLIENTS * 12}
    with psycopg.connect(pooler.url("pgbouncer"), autocommit=True) as console:
        clients = [row for row in console.execute("SHOW CLIENTS").fetchall() if row[1] == USER]
    with psycopg.connect(server.url()) as admin:
        behind = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (USER,)).fetchone()
    assert len(clients) > SIZE
    assert behind == (SIZE,)


def test_more_clients_than_connections_are_served_and_a_restart_is_survived(
    project: Project, server: Postgres, database: Database, tmp_path: Path
) -> None:
    with (
        PgBouncer(server, SIZE, USER) as pooler,
        serving(project, tmp_path, database, **through(pooler, database)) as service,
    ):
        shares(service, pooler, server)
        pooler.stop()
        for _ in range(5):
            answer = service.client.get(ITEMS)
            assert (answer.status_code, answer.json()["code"]) == (503, "database-away")
        pooler.start()
        assert service.client.get(ITEMS).status_code == 200
        shares(service, pooler, server)
        assert len(lines(service)) < 10, lines(service)


@pytest.mark.sabotage
def test_statements_that_are_prepared_are_noticed(
    project: Project, server: Postgres, database: Database, tmp_path: Path
) -> None:
    sick = project.variant(tmp_path / "sick", PREPARES)
    with (
        PgBouncer(server, SIZE, USER) as pooler,
        pytest.raises(AssertionError, match="500: "),
        serving(sick, tmp_path / "run", database, **through(pooler, database)) as service,
    ):
        shares(service, pooler, server)
