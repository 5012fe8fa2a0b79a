"""PostgreSQL on a bad day: each fault has its answer, none is a 500, none fills the log, all end without a restart."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.database.conftest import ITEMS, NEW, Database, lines, serving
from tests.projects import Project, Service
from tests.sabotage import Argument, Body, Sabotage, Value
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.servers
SECONDS = 15.0
PROBLEM = "application/problem+json"


def eventually(ask: Callable[[], bool]) -> None:
    """Wait until a question is answered with yes."""
    deadline = time.monotonic() + SECONDS
    while not ask():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    assert answer.json()["code"] == code
    assert answer.headers.get("retry-after") == ("5" if status == 503 else None)


def restarts(service: Service, server: Postgres) -> None:
    """Requests come throughout; the server stops as an operator stops it, and starts again."""
    seen: list[tuple[int, str]] = []
    over = threading.Event()

    def visit(method: str, body: dict[str, str] | None) -> None:
        with httpx.Client(base_url=str(service.client.base_url), timeout=10, trust_env=False) as client:
            while not over.is_set():
                answer = client.request(method, ITEMS, json=body)
                seen.append((answer.status_code, "" if answer.is_success else answer.json()["code"]))

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(visit, "GET", None), pool.submit(visit, "POST", NEW)] * 2
        try:
            eventually(lambda: len(seen) > 20)
            server.stop()
            eventually(lambda: (503, "database-away") in seen)
            server.start()
            after = len(seen)
            eventually(lambda: {status for status, _ in seen[after:][-10:]} == {200, 201})
        finally:
            over.set()
        for job in jobs:
            job.result()
    assert set(seen) <= {(200, ""), (201, ""), (503, "database-away"), (503, "database-busy")}
    eventually(lambda: service.client.get("/readyz").status_code == 200)
    assert troubles(service).count("database-away") == 1  # although no probe saw it
    assert len(lines(service)) < 10, lines(service)


def reads_on(service: Service, server: Postgres) -> None:
    """The server takes no changes for a while."""
    with psycopg.connect(server.url(), autocommit=True) as admin:

        def set_read_only(value: str) -> None:
            admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
            admin.execute("SELECT pg_reload_conf()")

        try:
            set_read_only("on")
            eventually(lambda: service.client.post(ITEMS, json=NEW).status_code != 201)
            for _ in range(5):
                problem(service.client.post(ITEMS, json=NEW), 503, "database-read-only")
                assert service.client.get(ITEMS).status_code == 200
                assert service.client.get("/readyz").status_code == 200
                time.sleep(0.3)
            assert troubles(service).count("database-read-only") == 1
        finally:
            set_read_only("off")
    eventually(lambda: service.client.post(ITEMS, json=NEW).status_code == 201)
    eventually(lambda: bool(troubles(service, over=True)))
    assert troubles(service, over=True).count("database-read-only") == 1
    assert len(lines(service)) < 10, lines(service)


def troubles(service: Service, over: bool = False) -> list[str]:
    """The codes of the troubles that the log says have begun, or are over."""
    service.client.get("/readyz")
    return re.findall(rf"database trouble{' is over' * over} +code=(\S+)", service.log)


@contextmanager
def locked(database: Database) -> Iterator[psycopg.Connection]:
    """Nobody else gets at the table."""
    with psycopg.connect(database.admin) as connection:
        connection.execute("LOCK TABLE items")
        yield connection


def stops(setting: str, status: int, code: str) -> Callable[[Service, Database], None]:
    """A statement that meets a time-out of its role is answered, and the next one works."""

    def proof(service: Service, database: Database) -> None:
        role = f"ALTER ROLE my_service_app IN DATABASE {database.admin.rpartition('/')[2]}"
        assert service.client.get(ITEMS).status_code == 200
        hang_up = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'my_service_app'"
        database.run(f"{role} SET {setting} = '300ms'", hang_up)
        try:
            assert service.client.get(ITEMS).status_code == 200  # on a new connection: it is tried before use
            with locked(database):
                for _ in range(3):
                    problem(service.client.get(ITEMS), status, code)
            assert service.client.get(ITEMS).status_code == 200
        finally:
            database.run(f"{role} RESET {setting}", hang_up)
        assert len(lines(service)) < 10, lines(service)

    return proof


waits_for_a_lock = stops("lock_timeout", 503, "database-busy")
takes_too_long = stops("statement_timeout", 504, "database-timeout")


def runs_out_of_connections(service: Service, database: Database) -> None:
    """The server has no connection for a request; the one of the probe stays."""
    limit = f"ALTER DATABASE {database.admin.rpartition('/')[2]} CONNECTION LIMIT"
    database.run(f"{limit} 1")
    try:
        for _ in range(5):
            problem(service.client.get(ITEMS), 503, "database-busy")
            assert service.client.get("/readyz").status_code == 200
    finally:
        database.run(f"{limit} -1")
    assert service.client.get(ITEMS).status_code == 200
    assert troubles(service).count("database-busy") == 1
    assert "too many connections for database" in service.log
    assert len(lines(service)) < 10, lines(service)


def fills_its_disk(service: Service, server: Postgres, database: Database) -> None:
    """The file of a table has no room to grow: it is Linux's device that is always full. What is there can be read."""
    database.run("CREATE TABLE keep (LIKE items INCLUDING ALL)", "GRANT ALL ON keep TO my_service_app")
    with psycopg.connect(database.admin, autocommit=True) as admin:
        row = admin.execute("SELECT pg_relation_filepath('keep')").fetchone()
    assert row
    database.run(f"COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; ln -sf /dev/full {row[0]}'")
    swap = "ALTER TABLE {} RENAME TO {}"
    database.run(swap.format("items", "former"), swap.format("keep", "items"))
    try:
        for _ in range(5):
            problem(service.client.post(ITEMS, json=NEW), 503, "database-full")
            assert service.client.get(ITEMS).status_code == 200
        eventually(lambda: "; database-full: could not extend file" in service.client.get("/readyz").text)
        assert service.client.get("/readyz").status_code == 200  # what is there can be read
    finally:
        database.run(swap.format("items", "keep"), swap.format("former", "items"))
    assert service.client.post(ITEMS, json=NEW).status_code == 201
    assert troubles(service).count("database-full") == 1
    assert "No space left on device (53100)" in service.log
    assert len(lines(service)) < 10, lines(service)


def test_a_restart_of_the_server_costs_no_more_than_503(
    project: Project, server: Postgres, database: Database, tmp_path: Path
) -> None:
    with serving(project, tmp_path, database) as service:
        restarts(service, server)


def test_time_outs_and_a_read_only_server_have_their_answers(
    project: Project, server: Postgres, database: Database, tmp_path: Path
) -> None:
    with serving(project, tmp_path, database) as service:
        waits_for_a_lock(service, database)
        takes_too_long(service, database)
        reads_on(service, server)


def test_a_server_that_is_full_has_its_answers_and_its_lines(
    project: Project, server: Postgres, database: Database, tmp_path: Path
) -> None:
    with serving(project, tmp_path, database) as service:
        runs_out_of_connections(service, database)
    hasty = project.variant(tmp_path / "hasty", Value("db:QUIET_SECONDS", "1"))
    with serving(hasty, tmp_path / "disk", database) as service:
        fills_its_disk(service, server, database)
        eventually(lambda: troubles(service, over=True) == ["database-full"])


@pytest.mark.sabotage
def test_a_full_server_that_is_taken_for_another_trouble_is_noticed(
    project: Project, server: Postgres, database: Database, tmp_path: Path
) -> None:
    sick = project.variant(tmp_path / "sick", Value("db:REFUSALS", "{}"), Value("db:FULL", "BUSY"))
    with serving(sick, tmp_path / "run", database) as service:
        with pytest.raises(AssertionError, match="database-away"):
            runs_out_of_connections(service, database)
        with pytest.raises(AssertionError, match="database-busy"):
            fills_its_disk(service, server, database)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("proof", "sabotage", "shows"),
    [
        (reads_on, Value("db:READ_ONLY", "UNAVAILABLE"), "database-away"),
        (reads_on, Body("db:Troubles.found", "self.open.clear()\noriginal(fault, reason, probed=probed)"), "== 1"),
        (waits_for_a_lock, Body("db:fault_of", "return None"), "500"),
        (takes_too_long, Value("db:TIMEOUT", "UNAVAILABLE"), "database-away"),
        (takes_too_long, Argument("db:make_engine", "pool_pre_ping", "False"), "assert 503 == 200"),
    ],
    ids=["read-only", "says it each time", "lock", "too long", "no ping"],
)
def test_a_sabotaged_answer_is_noticed(
    project: Project,
    server: Postgres,
    database: Database,
    tmp_path: Path,
    proof: Callable[[Service, Database | Postgres], None],
    sabotage: Sabotage,
    shows: str,
) -> None:
    sick = project.variant(tmp_path / "sick", sabotage)
    with serving(sick, tmp_path / "run", database) as service, pytest.raises(AssertionError, match=shows):
        proof(service, server if proof is reads_on else database)


def full(service: Service, database: Database) -> None:
    """Two requests hold the pool's two connections; a third gives up after its wait, then all goes on."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'my_service_app' AND wait_event_type = 'Lock'"
    with (
        ThreadPoolExecutor(2) as pool,
        locked(database) as lock,
        psycopg.connect(database.admin, autocommit=True) as admin,
    ):
        held: list[Future[httpx.Response]] = [pool.submit(service.client.get, ITEMS) for _ in range(2)]
        try:
            eventually(lambda: admin.execute(query.encode()).fetchone() == (2,))
            problem(service.client.get(ITEMS, timeout=4), 503, "database-busy")
            assert not any(job.done() for job in held)
            assert service.client.get("/readyz").status_code == 200
        finally:
            lock.rollback()
        assert [job.result().status_code for job in held] == [200, 200]
    assert service.client.get(ITEMS).status_code == 200
    eventually(lambda: service.client.get("/readyz").status_code == 200)
    assert len(lines(service)) < 10, lines(service)


def patient(database: Database) -> None:
    """Let a statement wait for its lock as long as it takes."""
    name = database.admin.rpartition("/")[2]
    database.run(f"ALTER ROLE my_service_app IN DATABASE {name} SET lock_timeout = 0")


def test_a_request_waits_for_a_connection_but_not_for_ever(
    project: Project, database: Database, tmp_path: Path
) -> None:
    patient(database)
    hasty = project.variant(tmp_path / "hasty", Value("db:POOL_WAIT_SECONDS", "1"))
    with serving(hasty, tmp_path / "run", database, DB_POOL_SIZE="1", DB_POOL_EXTRA="1") as service:
        full(service, database)


@pytest.mark.sabotage
def test_a_probe_that_waits_for_a_connection_of_requests_is_noticed(
    project: Project, database: Database, tmp_path: Path
) -> None:
    patient(database)
    shared = Body("db:Pool.__init__", "original(settings)\nself.probe = self.engine")
    hasty = project.variant(tmp_path / "hasty", Value("db:POOL_WAIT_SECONDS", "1"), shared)
    with (
        serving(hasty, tmp_path / "run", database, DB_POOL_SIZE="1", DB_POOL_EXTRA="1") as service,
        pytest.raises(AssertionError, match="503 == 200"),
    ):
        full(service, database)


@pytest.mark.sabotage
def test_a_pool_that_grows_is_noticed(project: Project, database: Database, tmp_path: Path) -> None:
    patient(database)
    with (
        serving(project, tmp_path, database, DB_POOL_SIZE="3", DB_POOL_EXTRA="0") as service,
        pytest.raises(httpx.ReadTimeout),  # a larger pool has a connection for the third
    ):
        full(service, database)
