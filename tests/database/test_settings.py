"""What the database is told and what is told about it: addresses, pool sizes, one process on SQLite."""

import json
from pathlib import Path

import pytest

from tests.database.conftest import DB, Database, serving
from tests.projects import Edit, Project

pytestmark = pytest.mark.servers
CAPACITY = "src/my_service/platform/db_capacity.py"
SQLITE = {"DATABASE_URL": "sqlite:///./x.db"}
POSTGRESQL = {"DATABASE_URL": "postgresql://app:s3cret-marker@127.0.0.1:1/orders"}
ONE_PROCESS = "Value error, SQLite serves one process: set DATABASE_URL to PostgreSQL, or this to 1"


@pytest.mark.parametrize("name", ["DB_INSTANCES", "WEB_CONCURRENCY"])
def test_sqlite_serves_one_process(project: Project, name: str) -> None:
    done = project.cli("serve", env={"PORT": "0", **SQLITE, name: "2"})
    assert (done.returncode, done.stderr) == (78, f"configuration refused: {name}: {ONE_PROCESS}\n")


def test_postgresql_may_serve_many(project: Project, tmp_path: Path) -> None:
    done = project.cli("migrate", env={**POSTGRESQL, "WEB_CONCURRENCY": "2"})
    assert (done.returncode, "does not answer" in done.stderr) == (1, True)
    sick = project.variant(tmp_path / "sick", Edit(DB, "if number > 1 and url", "if False and url"))
    assert sick.cli("migrate", env={"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "DB_INSTANCES": "2"}).returncode == 0


READ = """
import json, sys
from pydantic import SecretStr
from my_service.platform.db import Settings
from my_service.platform.db_url import url_of
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
    assert all("type postgresql://user:password@host:5432/name" in refusal for refusal in found[len(wanted) :])
    assert "s3cret" not in said


TOO_FEW = "too few connections for a release"


def warned(project: Project, database: Database, folder: Path, **env: str) -> str:
    """The line of the log that warns; empty if none does."""
    with serving(project, folder, database, **env) as service:
        for _ in range(3):
            assert service.client.get("/readyz").status_code == 200
        found = [line for line in service.log.splitlines() if TOO_FEW in line]
    assert len(found) <= 1
    return "".join(found)


def test_a_release_that_would_run_out_of_connections_is_said_at_the_start(
    project: Project, database: Database, tmp_path: Path
) -> None:
    """The server has 97 for us, a process may open 15, and a release doubles the processes."""
    four = {"DB_INSTANCES": "2", "WEB_CONCURRENCY": "2", "LOG_FORMAT": "json"}
    line = json.loads(warned(project, database, tmp_path / "four", **four))
    assert (line["allowed"], line["wanted"], line["level"]) == (97, 120, "warning")
    assert warned(project, database, tmp_path / "three", DB_INSTANCES="3") == ""
    assert warned(project, database, tmp_path / "pooled", **four, DB_POOLER="pgbouncer-transaction") == ""
    name = database.admin.rpartition("/")[2]
    database.run(f"ALTER DATABASE {name} CONNECTION LIMIT 20")
    assert json.loads(warned(project, database, tmp_path / "limit", LOG_FORMAT="json"))["allowed"] == 20
    sick = project.variant(tmp_path / "sick", Edit(CAPACITY, "* processes * 2", "* processes"))
    database.run(f"ALTER DATABASE {name} CONNECTION LIMIT -1")
    assert warned(sick, database, tmp_path / "again", **four) == ""
