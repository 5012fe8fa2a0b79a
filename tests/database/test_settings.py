"""What the database is told and what is told about it: addresses, pool sizes, one process on SQLite."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.database.conftest import Database
from tests.projects import Project
from tests.sabotage import Body

pytestmark = pytest.mark.servers
SQLITE = {"DATABASE_URL": "sqlite:///./x.db"}
POSTGRESQL = {"DATABASE_URL": "postgresql://app:s3cret-marker@127.0.0.1:1/orders"}
ONE_PROCESS = "SQLite supports one process only: set DATABASE_URL to PostgreSQL, or this to 1"


@pytest.mark.parametrize("name", ["DB_INSTANCES", "WEB_CONCURRENCY"])
def test_sqlite_serves_one_process(project: Project, name: str) -> None:
    done = project.quick("serve", env={"PORT": "0", **SQLITE, name: "2"})
    assert (done.returncode, done.stderr) == (78, f"configuration refused: {name}: {ONE_PROCESS}\n")


def test_postgresql_may_serve_many(project: Project) -> None:
    done = project.cli("migrate", env={**POSTGRESQL, "WEB_CONCURRENCY": "2"})
    assert (done.returncode, "does not respond" in done.stderr) == (1, True)


@pytest.mark.sabotage
def test_a_file_that_many_write_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Body("db:Settings._one_process_on_sqlite", "return number"))
    assert sick.cli("migrate", env={"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "DB_INSTANCES": "2"}).returncode == 0


READ = """
import json, sys
from pydantic import SecretStr
from my_service.platform.db import Settings
from my_service.platform.db.url import url_of
found = []
for text in json.loads(sys.argv[1]):
    try:
        url = url_of(Settings(database_url=text).database_url)
        parameters = url.get_dialect()().create_connect_args(url)[1]
        found.append([parameters.get(key) for key in ("host", "port", "user", "password", "dbname")])
    except Exception as error:
        found.append(str(error))
print(json.dumps(found))
"""


def test_an_address_may_name_several_hosts(project: Project) -> None:
    """As libpq takes it: https://www.postgresql.org/docs/current/libpq-connect.html, section 34.1.1.3."""
    plain = ["h", 5432, "u", "p", "d"]
    several = ["a,b", "5432,5433", "u", "p,/w", "d"]
    wanted = {
        "postgresql://u:p@h:5432/d": plain,
        "postgresql://u:p@h:5432/d?application_name=a,b@c": plain,
        "postgresql://u:p,q@h:5432/d": ["h", 5432, "u", "p,q", "d"],
        "postgresql://u:p%2C%2Fw@a:5432,b:5433/d?target_session_attrs=read-write": several,
        "postgresql://u@a:1,b:2,c:3/d": ["a,b,c", "1,2,3", "u", None, "d"],
        "postgresql://a:1,b:2/d": ["a,b", "1,2", None, None, "d"],
    }
    wrong = ["postgresql://u:s3cret@marker:s3cret-port@h/d", "postgresql://u:p@h:s3cret-port/d", "s3cret,s3cret"]
    said = project.run(str(project.venv / "bin/python"), "-c", READ, json.dumps([*wanted, *wrong])).stdout
    found = json.loads(said)
    assert dict(zip(wanted, found, strict=False)) == wanted
    assert all("use postgresql://user:password@host:5432/name" in refusal for refusal in found[len(wanted) :])
    assert "s3cret" not in said


REFUSED = {
    # Prisma and Supabase: https://www.prisma.io/docs/orm/overview/databases/postgresql
    "?pgbouncer=true": "the option pgbouncer is unknown: remove it, and set DB_POOLER=pgbouncer-transaction",
    "?schema=public": "the option schema is unknown: type options=-csearch_path%3DNAME, or remove it if it is public",
    "?connection_limit=1": "the option connection_limit is unknown: remove it, and set DB_POOL_SIZE",
    # asyncpg: https://docs.sqlalchemy.org/en/21/dialects/postgresql.html
    "?ssl=require": "the option ssl is unknown: type sslmode=require",
    "?prepared_statement_cache_size=0": "the option prepared_statement_cache_size is unknown: remove it; https://www.post",
    "?sslmode=on": "the option sslmode must be disable|allow|prefer|require|verify-ca|verify-full",
    "?connect_timeout=5s": "the option connect_timeout must be [0-9]+",
    "?port=s3cret": "the option port must be [0-9]+",
    "?word=1@h/d": "type @ in the password as %40, and ? as %3F",
}
SQLITE_REFUSED = {
    "?pgbouncer=true": "the option pgbouncer is unknown: remove it",
    "?timeout=abc": "the option timeout must be [0-9]+",
}
TAKEN = {
    "postgres://u:p@h/d": "h",  # the scheme of Heroku
    "postgresql+asyncpg://u:p@h/d?sslmode=require\n": "h",
    " postgresql://u:p@h/d?channel_binding=require&sslrootcert=system ": "h",  # Neon
    "postgresql://u:p@/d?host=/var/run/postgresql": "/var/run/postgresql",
}


def options_are_checked(project: Project) -> None:
    addresses = [f"postgresql+asyncpg://u:s3cret@h/d{options}" for options in REFUSED]
    addresses += [f"sqlite:///./x.db{options}" for options in SQLITE_REFUSED]
    done = project.run(str(project.venv / "bin/python"), "-c", READ, json.dumps([*TAKEN, *addresses]))
    found = json.loads(done.stdout)
    assert [parameters[0] for parameters in found[: len(TAKEN)]] == list(TAKEN.values())
    for refusal, told in zip(found[len(TAKEN) :], [*REFUSED.values(), *SQLITE_REFUSED.values()], strict=True):
        assert f"{told}" in refusal
    assert "s3cret" not in done.stdout


def test_an_option_that_does_not_exist_is_refused_with_what_to_type(project: Project) -> None:
    options_are_checked(project)
    env = {"DATABASE_URL": "postgresql://u:s3cret@h/d?pgbouncer=true"}
    for command in ("serve", "migrate"):
        done = project.quick(command, env={"PORT": "0", **env})
        told = f"configuration refused: DATABASE_URL: {REFUSED['?pgbouncer=true']}\n"
        assert (done.returncode, done.stderr) == (78, told)


@pytest.mark.sabotage
def test_an_option_that_nobody_checks_is_noticed(project: Project, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, TypeError)):
        options_are_checked(project.variant(tmp_path / "sick", Body("db:_wrong", "yield from ()")))


TOO_FEW = "too few connections for a release"
OPEN = """
import asyncio, json, sys
from my_service.platform import create_app
from my_service.platform.settings import load
from my_service.settings import Settings

async def main():
    for values in json.loads(sys.argv[1]):
        app = create_app(load(Settings, **values))
        async with app.router.lifespan_context(app):
            for _ in range(3):  # as probes do
                await app.state.platform.database.check()
        print("next")

asyncio.run(main())
"""


def warnings(project: Project, database: Database, *starts: Mapping[str, object]) -> list[tuple[int, int] | None]:
    """For each start, how many connections the log says are allowed and wanted; it says so once, or not at all."""
    env = {**database.env, "LOG_FORMAT": "json"}
    said = project.run(str(project.venv / "bin/python"), "-c", OPEN, json.dumps(starts), env=env).stdout
    found: list[tuple[int, int] | None] = []
    for start in said.split("next\n")[: len(starts)]:
        lines = [json.loads(line) for line in start.splitlines() if TOO_FEW in line]
        assert len(lines) <= 1
        found.append((lines[0]["allowed"], lines[0]["wanted"]) if lines else None)
    return found


FOUR = {"db_instances": 2, "web_concurrency": 2}


def test_a_release_that_would_run_out_of_connections_is_said_at_the_start(project: Project, database: Database) -> None:
    """The server has 97 for us, a process may open 16, and a release doubles the processes."""
    starts = (FOUR, {"db_instances": 3}, {**FOUR, "db_pooler": "pgbouncer-transaction"}, {**FOUR, "db_pool_size": 1})
    assert warnings(project, database, *starts) == [(97, 128), None, None, None]
    name = database.admin.rpartition("/")[2]
    database.run(f"ALTER DATABASE {name} CONNECTION LIMIT 20")
    assert warnings(project, database, {}) == [(20, 32)]


@pytest.mark.sabotage
def test_a_warning_that_forgets_the_other_processes_is_noticed(
    project: Project, database: Database, tmp_path: Path
) -> None:
    sick = project.variant(tmp_path / "sick", Body("db:check_capacity", "await original(connection, pool, 1)"))
    assert warnings(sick, database, FOUR) == [None]
