"""Connections freeze, without an end or a reset, as behind a proxy that hangs: the service opens new ones.

The limits are scaled down; `PROOF=full` proves the 30 s of docs/database.md with those that are emitted.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.database.conftest import ITEMS, Database, lines
from tests.database.test_faults import eventually, locked, patient
from tests.projects import Project, Service
from tests.proof import FULL
from tests.sabotage import Body, Value
from tests.servers.postgres import Postgres
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.servers
SIZE = 4
SECONDS = 30.0 if FULL else 15.0  # for everything to work again
LIMITS = [] if FULL else [Value("db:PING_SECONDS", "0.5")]
ENV = {"DB_POOL_SIZE": str(SIZE), "DB_POOL_EXTRA": "0", **({} if FULL else {"DB_RESPONSE_SECONDS": "2"})}
ALLOWED = {(200, ""), (503, "database-away"), (503, "database-busy")}


@contextmanager
def behind(proxy: Proxy, project: Project, database: Database, folder: Path, *changes: Body) -> Iterator[Service]:
    """The service, whose way to the database is the proxy."""
    patient(database)
    url = database.url("app").replace(f":{proxy.target}/", f":{proxy.port}/")
    changed = project.variant(folder / "changed", *LIMITS, *changes)
    with changed.serve(folder / "run", {"DATABASE_URL": url, **ENV}) as service:
        yield service


def ask(service: Service) -> tuple[int, str]:
    answer = httpx.get(f"{service.client.base_url}{ITEMS}", timeout=SECONDS, trust_env=False)
    return answer.status_code, "" if answer.is_success else answer.json()["code"]


@contextmanager
def busy(service: Service, database: Database) -> Iterator[list[tuple[int, str]]]:
    """All connections of the pool wait for the server; after the block, what their requests got."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'my_service_app' AND wait_event_type = 'Lock'"
    got: list[tuple[int, str]] = []
    with ThreadPoolExecutor(SIZE) as pool, psycopg.connect(database.admin, autocommit=True) as admin:
        with locked(database) as lock:
            jobs = [pool.submit(ask, service) for _ in range(SIZE)]
            eventually(lambda: admin.execute(query.encode()).fetchone() == (SIZE,))
            yield got
            lock.rollback()
        got += [job.result() for job in jobs]


def recovers(service: Service, began: float) -> None:
    """Requests and `/readyz` work again in time; until then they end, and liveness stays."""
    done = 0
    with ThreadPoolExecutor(SIZE) as pool:
        while done < SIZE * 3:
            assert time.monotonic() < began + SECONDS, service.log
            assert service.client.get("/livez").status_code == 200
            seen = list(pool.map(lambda _: ask(service), range(SIZE)))
            assert set(seen) <= ALLOWED
            done = done + SIZE if set(seen) == {(200, "")} else 0
    eventually(lambda: service.client.get("/readyz").status_code == 200)
    assert time.monotonic() < began + SECONDS
    assert len(lines(service)) < 10, lines(service)


def thaws_busy(service: Service, database: Database, proxy: Proxy, every: int = 1) -> None:
    with busy(service, database) as got:
        proxy.freeze(every)
        began = time.monotonic()
    assert time.monotonic() < began + SECONDS
    assert got.count((503, "database-away")) >= SIZE // 2, got
    recovers(service, began)


def thaws_half(service: Service, database: Database, proxy: Proxy) -> None:
    thaws_busy(service, database, proxy, every=2)


def thaws_idle(service: Service, database: Database, proxy: Proxy) -> None:
    with busy(service, database) as got:
        pass
    assert got == [(200, "")] * SIZE
    opened = proxy.accepted
    proxy.freeze()
    recovers(service, time.monotonic())
    assert proxy.accepted > opened


KINDS = {"busy": thaws_busy, "half": thaws_half, "idle": thaws_idle}


@pytest.mark.parametrize("kind", KINDS)
def test_the_service_recovers_from_frozen_connections(
    project: Project, server: Postgres, database: Database, tmp_path: Path, kind: str
) -> None:
    with Proxy(server.port) as proxy, behind(proxy, project, database, tmp_path) as service:
        began = time.monotonic()
        assert service.client.get("/readyz").status_code == 200
        KINDS[kind](service, database, proxy)
        print(f"\n{kind}: works again after {time.monotonic() - began:.1f} s")


@pytest.mark.sabotage
def test_a_service_that_waits_for_ever_is_noticed(
    project: Project, server: Postgres, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.database.test_frozen.SECONDS", 6.0)
    waits = Body("db:BoundedConnection._give_up", "pass")
    with (
        Proxy(server.port) as proxy,
        behind(proxy, project, database, tmp_path, waits) as service,
        pytest.raises(httpx.ReadTimeout),
    ):
        thaws_busy(service, database, proxy)
