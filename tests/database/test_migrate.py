"""Migrations of a table that is in use: one migrator at a time, short waits, all or nothing, and old code goes on."""

import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.database.conftest import Database, Later, apply_roles, recipe, serving
from tests.projects import Project
from tests.sabotage import Argument, Body, Value
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.servers
ADD = """
op.add_column("items", sa.Column("price", sa.BigInteger))
op.create_table("orders", sa.Column("id", sa.Uuid, primary_key=True))
"""
SLOW = """
op.create_table("orders", sa.Column("id", sa.Uuid, primary_key=True))
op.execute("SELECT pg_sleep(1)")
"""
INDEX = "An index on a table in use"
COLUMN = "A column that is required"
LOCK = 0x5C4E3A  # as in migrations/env.py: two releases wait for one another
SECONDS = 120.0


class Migrator:
    """A running `migrate`; what it says is read while it runs."""

    def __init__(self, project: Project, database: Database) -> None:
        self.process = subprocess.Popen(
            project.command("migrate"),
            cwd=project.root,
            env=project.env(database.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        self.said.extend(line for line in iter(self.process.stderr.readline, ""))

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not any(text in line for line in self.said):
            assert time.monotonic() < deadline, self.said
            assert self.process.poll() is None or text in "".join(self.said), self.said
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        """Its exit code, and all that it said."""
        try:
            code = self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        assert self.process.stdout
        with self.process.stdout as out:
            return code, "".join(self.said) + out.read()


def revisions(database: Database) -> set[str]:
    with psycopg.connect(database.admin) as connection:
        return {str(name) for (name,) in connection.execute("SELECT version_num FROM alembic_version")}


@contextmanager
def holding(database: Database) -> Iterator[psycopg.Connection]:
    """A long transaction that has read the table, as a report does."""
    with psycopg.connect(database.admin) as connection:
        connection.execute("SELECT count(*) FROM items")
        yield connection


def two_at_once(project: Project, database: Database) -> list[tuple[int, str]]:
    first, second = Migrator(project, database), Migrator(project, database)
    return [first.end(), second.end()]


def test_of_two_migrators_one_waits(later: Later, project: Project, database: Database) -> None:
    """The first also builds an index concurrently, which waits for every running statement: the other has none."""
    newer = later(SLOW, recipe(project, INDEX))
    ended = two_at_once(newer, database)
    assert [code for code, _ in ended] == [0, 0], ended
    assert sum("another migrator is running on this database, waiting" in said for _, said in ended) == 1
    assert revisions(database) == {"0003", "p0001"}


WAITS = """
connection.execute(select(func.pg_advisory_lock(ADVISORY_LOCK)))
connection.commit()
"""


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [Body("migrations.env:lock_migrations", "pass"), Body("migrations.env:lock_migrations", WAITS)],
    ids=["no lock", "a statement that waits"],
)
def test_without_the_lock_two_migrators_spoil_it(
    later: Later, project: Project, database: Database, tmp_path: Path, sabotage: Body
) -> None:
    sick = later(SLOW, recipe(project, INDEX)).variant(tmp_path / "sick", sabotage)
    role = f"ALTER ROLE my_service_migrator IN DATABASE {database.admin.rpartition('/')[2]}"
    if sabotage.body == WAITS:  # the index would wait for ever
        database.run(f"{role} SET statement_timeout = 2500")
    ended = two_at_once(sick, database)
    assert any(code for code, _ in ended), ended


TWICE = "from my_service.ops.migrate import run; run(); run()"
HURRIED = Value("migrations.env:MIGRATOR_SECONDS", "1")
GAVE_UP = "another migrator has been running on this database for 1 s"


def test_the_lock_goes_with_the_connection(project: Project, database: Database) -> None:
    done = project.run(str(project.venv / "bin/python"), "-c", TWICE, env=database.env)
    assert done.stdout.count("schema at") == 2


def test_the_wait_for_another_migrator_ends(later: Later, database: Database, tmp_path: Path) -> None:
    hurried = later(SLOW).variant(tmp_path / "hurried", HURRIED)
    with psycopg.connect(database.admin) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        code, said = Migrator(hurried, database).end()
    assert (code, GAVE_UP in said) == (1, True)
    assert revisions(database) == {"0001", "p0001"}


@pytest.mark.sabotage
def test_a_lock_that_is_kept_is_noticed(project: Project, database: Database, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Argument("ops.migrate:connect", "poolclass", "None"), HURRIED)
    done = sick.run(str(sick.venv / "bin/python"), "-c", TWICE, env=database.env, check=False)
    assert (done.returncode, GAVE_UP in done.stderr) == (1, True)


def gets_through(project: Project, database: Database) -> str:
    """Migrate a table that a long transaction holds; requests are served meanwhile, and at its end it goes through."""
    with holding(database) as report:
        migrator = Migrator(project, database)
        migrator.wait_for("a table is locked, retrying")
        with psycopg.connect(database.url("app")) as request:  # waits no longer than the role allows
            request.execute("INSERT INTO items SELECT gen_random_uuid(), 'a', null, 1, now(), now()")
        assert revisions(database) == {"0001", "p0001"}
        report.rollback()
        code, said = migrator.end()
    assert code == 0, said
    return said


def test_a_table_that_is_held_makes_it_wait_and_not_the_requests(later: Later, database: Database) -> None:
    said = gets_through(later(ADD), database)
    assert "schema at 0002, p0001" in said or "schema at p0001, 0002" in said
    assert revisions(database) == {"0002", "p0001"}


@pytest.mark.sabotage
def test_without_a_second_try_it_fails(later: Later, database: Database, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="canceling statement due to lock timeout"):
        gets_through(later(ADD).variant(tmp_path / "sick", Value("ops.migrate:MAX_ATTEMPTS", "1")), database)


def test_a_table_that_stays_held_gives_one_line_and_keeps_nothing(
    later: Later, database: Database, tmp_path: Path
) -> None:
    hasty = later(ADD).variant(tmp_path / "hasty", Value("ops.migrate:MAX_ATTEMPTS", "2"))
    with holding(database):
        code, said = Migrator(hasty, database).end()
    assert code == 1
    assert said.splitlines()[1:] == [
        "migrate: 0002_later.py failed and was rolled back: OperationalError: canceling statement due to lock "
        "timeout (55P03) in 2 attempts; end the transaction that locks the table (docs/database.md)"
    ]
    assert revisions(database) == {"0001", "p0001"}
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT to_regclass('orders')").fetchone() == (None,)


def test_the_recipes_of_the_guide_work_while_the_table_is_read_and_written(
    later: Later, project: Project, database: Database
) -> None:
    database.run(
        "INSERT INTO items SELECT gen_random_uuid(), 'a', null, n, now(), now() FROM generate_series(1, 2500) n"
    )
    newer = later(ADD, recipe(project, INDEX), recipe(project, COLUMN))
    # What a failed try leaves: an index that is there, and not valid.
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("CREATE INDEX ix_items_name ON items (name)")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_items_name'::regclass")
    done = newer.cli("migrate", env=database.env, check=True)
    assert "0004" in done.stdout
    with psycopg.connect(database.admin) as connection:
        valid = connection.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_items_name'::regclass")
        assert valid.fetchone() == (True,)
        assert connection.execute("SELECT count(*) FROM items WHERE price IS NULL").fetchone() == (0,)


def test_the_recipe_for_an_index_works_on_sqlite_too(later: Later, project: Project, tmp_path: Path) -> None:
    newer = later(recipe(project, INDEX), ADD)
    done = newer.cli("migrate", env={"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}, check=True)
    assert "0003" in done.stdout


def rolled_back(old: Project, database: Database) -> str:
    """What a rollback begins with: the old release's `migrate`."""
    done = old.cli("migrate", env=database.env)
    return done.stdout + done.stderr


def test_an_old_release_leaves_a_newer_schema_alone(later: Later, project: Project, database: Database) -> None:
    later(ADD).cli("migrate", env=database.env, check=True)
    said = rolled_back(project, database)
    assert said == "schema at 0002, p0001, newer than this code: nothing to do\n"
    assert revisions(database) == {"0002", "p0001"}


@pytest.mark.sabotage
def test_an_old_release_that_migrates_all_the_same_is_noticed(
    later: Later, project: Project, database: Database, tmp_path: Path
) -> None:
    later(ADD).cli("migrate", env=database.env, check=True)
    sick = project.variant(
        tmp_path / "sick", Body("ops.migrate:_migrate", 'command.upgrade(config, "heads")\nreturn ""')
    )
    assert rolled_back(sick, database) == "migrate: Can't locate revision identified by '0002'\n"


def features(old: Project, database: Database) -> str:
    """The feature tests of a version, on a database that a later one may have migrated."""
    env = {"TEST_DATABASE_URL": database.admin}
    return old.run(str(old.venv / "bin/python"), "-m", "pytest", "-q", "tests/features", env=env, check=False).stdout


def test_old_code_works_on_the_expanded_schema(later: Later, project: Project, database: Database) -> None:
    later(ADD, recipe(project, INDEX)).cli("migrate", env=database.env, check=True)
    said = features(project, database)
    assert " passed" in said, said
    assert "failed" not in said


@pytest.mark.sabotage
def test_a_release_that_contracts_at_once_is_noticed(project: Project, database: Database) -> None:
    database.run("ALTER TABLE items RENAME name TO title")
    assert "failed" in features(project, database)


def test_behind_a_pooler_migrations_need_a_way_past_it(project: Project, database: Database) -> None:
    pooled = {"DB_POOLER": "pgbouncer-transaction", "DATABASE_URL": database.url("app")}
    done = project.cli("migrate", env=pooled)
    assert done.returncode == 78
    assert done.stderr == "configuration refused: DATABASE_MIGRATOR_URL: set the URL of the server itself\n"
    assert project.cli("migrate", env={**pooled, "DATABASE_MIGRATOR_URL": database.url("migrator")}).returncode == 0


def says_what_is_missing(project: Project, database: Database) -> None:
    """Each role that cannot migrate, and what to do then."""
    app, migrator = database.url("app"), database.url("migrator")
    told = "permission denied for schema public (42501): the role of {}"
    tried = {
        f"{told.format('DATABASE_URL')} may not change the schema; set DATABASE_MIGRATOR_URL": {"DATABASE_URL": app},
        f"{told.format('DATABASE_MIGRATOR_URL')} may not change the schema; run `make roles`": {
            "DATABASE_URL": app,
            "DATABASE_MIGRATOR_URL": app,
        },
        'the database refuses the login; check that it is running and that DATABASE_MIGRATOR_URL is correct: role "x': {
            "DATABASE_URL": app,
            "DATABASE_MIGRATOR_URL": migrator.replace("my_service_migrator", "x"),
        },
        "the database refuses connections; check that it is running and that DATABASE_URL is correct: database": {
            "DATABASE_URL": f"{app}_absent",
        },
    }
    for text, env in tried.items():
        done = project.cli("migrate", env=env)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert text in done.stderr


def test_a_role_that_cannot_migrate_is_told_which_setting_is_missing(project: Project, server: Postgres) -> None:
    database = Database(server.create_database())
    apply_roles(project, database.admin)
    says_what_is_missing(project, database)


def test_the_folder_of_migrations_may_have_any_name(project: Project, tmp_path: Path) -> None:
    """A `%` is the escape of Python's configparser, in which Alembic keeps its options."""
    folder = tmp_path / "50% of %(it)s"
    shutil.copytree(project.root / "migrations", folder)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "MIGRATIONS_DIR": str(folder)}
    assert "schema at" in project.cli("migrate", env=env, check=True).stdout


@pytest.mark.sabotage
def test_a_folder_that_is_not_escaped_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Body("ops.migrate:_escaped", "return str(folder)"))
    with pytest.raises(AssertionError):
        test_the_folder_of_migrations_may_have_any_name(sick, tmp_path)


def serves_umlauts(project: Project, server: Postgres, encoding: str, folder: Path) -> None:
    """The service migrates a database of this encoding, and keeps what is sent."""
    name = f"test_{uuid.uuid4().hex}"
    where = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {where}".encode())
    made = Database(server.url(name))
    apply_roles(project, made.admin)
    done = project.quick("migrate", env=made.env)
    assert done.returncode == 0, done.stderr
    with serving(project, folder, made) as service:
        assert service.client.post("/v1/items", json={"name": "Lämp"}).status_code == 201
        assert [each["name"] for each in service.client.get("/v1/items").json()["items"]] == ["Lämp"]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_the_encoding_of_a_database_is_no_matter(
    project: Project, server: Postgres, encoding: str, tmp_path: Path
) -> None:
    serves_umlauts(project, server, encoding, tmp_path)


@pytest.mark.sabotage
def test_a_connection_that_takes_over_the_encoding_is_noticed(
    project: Project, server: Postgres, tmp_path: Path
) -> None:
    spoilt = project.variant(tmp_path / "spoilt", Value("db.engine:CONNECT", "{'connect_timeout': 3}"))
    with pytest.raises(AssertionError, match="bytes-like"):
        serves_umlauts(spoilt, server, "SQL_ASCII", tmp_path)
