"""The commands of the plan about the order of a start, a release, a certificate, a spoilt disk and a lost zone."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.database.conftest import Database, make_model
from tests.projects import Project, render
from tests.readiness.tls import proxied
from tests.recovery.plan import Steps, provide, runs, steps_of
from tests.servers.postgres import Postgres, Standby, open_postgres
from tests.servers.redis import Redis
from tests.servers.vault import OpenBao

pytestmark = pytest.mark.servers


@pytest.fixture
def database(project: Project, postgres: Postgres) -> Database:
    return make_model(project, postgres)


def clients(steps: Steps, server: Postgres) -> None:
    """Let the operator have the client tools of PostgreSQL."""
    for program in ("psql", "pg_amcheck"):
        (steps.bin / program).symlink_to(server.programs() / program)


@runs("Order", "Bad release or migration")
def test_the_checks_of_the_order_tell_what_is_up(
    project: Project,
    bao: OpenBao,
    postgres: Postgres,
    redis: Redis,
    database: Database,
    steps: Steps,
    tmp_path: Path,
) -> None:
    clients(steps, postgres)
    provide(steps, "redis-cli", "redis-tools")
    provide(steps, "curl", "curl")
    env = {"DATABASE_URL": database.url("app"), "CACHE_URL": redis.url()}
    with project.serve(tmp_path / "run", env) as service:
        steps.env |= env
        shown = steps.run(
            VAULT_ADDR=bao.url, INSTANCE=f"127.0.0.1:{service.port}", URL=f"http://127.0.0.1:{service.port}"
        )
        assert "PONG" in shown
        assert shown.count('"db":{"ready":true') == shown.count('"name":"my-service"') == 1
        assert '"name":"my-service"' in steps.run()


@pytest.mark.sabotage
@runs("Bad release or migration")
def test_a_service_that_is_not_ready_is_noticed(project: Project, steps: Steps, tmp_path: Path) -> None:
    provide(steps, "curl", "curl")
    with project.serve(tmp_path / "run", {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.db"}) as service:
        url = f"http://127.0.0.1:{service.port}"
        steps.run(code=22, URL=url, INSTANCE=url.removeprefix("http://"))  # curl(1): an HTTP error


@runs("Certificate or DNS expired")
def test_the_end_of_a_certificate_is_read_from_outside(project: Project, steps: Steps, tmp_path: Path) -> None:
    provide(steps, "openssl", "openssl")
    with project.serve(tmp_path / "run") as service, proxied(service.port, tmp_path) as (url, _):
        shown = steps.run(HOST_PORT=url.removeprefix("https://").replace("127.0.0.1", "localhost"))
    assert "notAfter=" in shown
    assert "localhost" in shown.splitlines()[-1]


@pytest.fixture
def disk(project: Project) -> Iterator[tuple[Postgres, Database]]:
    """A server of its own, to be spoilt, with some items."""
    with open_postgres() as server:
        made = make_model(project, server)
        made.run(
            "INSERT INTO items (id, name, quantity, created_at, updated_at)"
            " SELECT gen_random_uuid(), 'lamp' || n, 1, now(), now() FROM generate_series(1, 2000) n"
        )
        yield server, made


def spoil(server: Postgres, database: Database, relation: str) -> None:
    """Overwrite the middle of a file of the database, as a failing disk does."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        (path,) = connection.execute("SELECT pg_relation_filepath(%s)", [relation]).fetchone() or ("",)
    server.stop()
    file = server.home / "data" / path
    with file.open("r+b") as data:
        data.seek(8192 + 4096)
        data.write(b"\xa5" * 2048)
    server.start()


@runs("Corruption")
def test_a_spoilt_index_is_found_and_rebuilt(disk: tuple[Postgres, Database], steps: Steps) -> None:
    server, database = disk
    clients(steps, server)
    check = steps.left[0]
    steps.env |= {"ADMIN_URL": database.admin, "TABLE": "items"}
    assert "checksum_failures" in steps.run()
    spoil(server, database, "items_pkey")
    steps.left.insert(0, check)
    assert "items_pkey" in steps.run(code=2)
    steps.run()
    steps.left.append(check)
    steps.run()


def test_a_standby_is_promoted_and_takes_writes(
    project: Project, template: Path, disk: tuple[Postgres, Database], tmp_path: Path
) -> None:
    """The plan of the tier with a standby."""
    gold = Project(render(template, tmp_path / "gold", recovery_tier="gold"))
    gold.venv = project.venv
    server, database = disk
    name = database.admin.rpartition("/")[2]
    with Standby(server) as standby, steps_of(gold, tmp_path / "operator", ["Zone lost"]) as steps:
        clients(steps, standby)
        server.kill()
        with psycopg.connect(standby.url(name)) as before:
            assert before.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        steps.run(STANDBY_URL=standby.url(name))
        with psycopg.connect(standby.url(name)) as after:
            assert after.execute("SELECT count(*) FROM items").fetchone() == (2000,)
            after.execute("DELETE FROM items")
