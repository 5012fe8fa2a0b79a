"""Each role may do its work and nothing else; what it may not do is tried on the real server."""

import re
import subprocess
import uuid
from pathlib import Path

import psycopg
import pytest

from tests.database.conftest import ROLES, Database
from tests.projects import Project
from tests.sabotage import Line
from tests.servers import packages
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.servers
TABLE = (
    "CREATE TABLE items (id uuid PRIMARY KEY, name text NOT NULL, note text, quantity int NOT NULL, "
    "created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL)"
)
MAY = {
    "app": (
        "SELECT * FROM items",
        "INSERT INTO items VALUES (gen_random_uuid(), 'a', null, 1, now(), now())",
        "UPDATE items SET quantity = 2",
        "DELETE FROM items",
        "SELECT * FROM alembic_version",
    ),
    "backup": ("SELECT * FROM items", "LOCK TABLE items IN ACCESS SHARE MODE"),
    "migrator": (
        "CREATE TABLE made (id int GENERATED ALWAYS AS IDENTITY, serial serial); DROP TABLE made",
        "ALTER TABLE items ADD COLUMN more int",
        "CREATE TYPE mood AS ENUM ('well')",
        "UPDATE alembic_version SET version_num = version_num",
    ),
}
MAY_NOT = {
    "app": (
        "CREATE TABLE mine (id int)",
        "CREATE TEMP TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "ALTER TABLE items ADD COLUMN mine int",
        "CREATE INDEX mine ON items (name)",
        "TRUNCATE items",
        "DROP TABLE items",
        "UPDATE alembic_version SET version_num = 'x'",
        "DELETE FROM alembic_version",
        "SET ROLE {owner}",
        "SELECT * FROM pg_authid",
        "CREATE ROLE mine",
        "COPY items TO PROGRAM 'cat'",
    ),
    "backup": (
        "SET default_transaction_read_only = off; INSERT INTO items SELECT * FROM items",
        "SET default_transaction_read_only = off; CREATE TABLE mine (id int)",
        "SET ROLE {owner}",
        "SELECT * FROM pg_authid",
    ),
    "migrator": (
        "SET ROLE NONE; CREATE ROLE mine",
        "CREATE SCHEMA mine",
        "ALTER ROLE {app} SUPERUSER",
        "SELECT * FROM pg_authid",
        "COPY items TO PROGRAM 'cat'",
    ),
}


def refused(url: str, statement: str) -> bool:
    """Whether a role is denied a statement; nothing of it is kept."""
    with psycopg.connect(url) as connection:
        try:
            for part in statement.split("; "):
                connection.execute(part.encode())
                if part.startswith("SET default"):
                    connection.commit()
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
            return True
        finally:
            connection.rollback()
    return False


def wrong(database: Database) -> list[str]:
    """What a role may and should not, or should and may not."""
    names = {"app": f"{database.service}_app", "owner": f"{database.service}_owner"}
    may = [f"{role}: no {s}" for role in MAY for s in MAY[role] if refused(database.url(role), s)]
    return may + [
        f"{role}: {s}" for role in MAY_NOT for s in MAY_NOT[role] if not refused(database.url(role), s.format(**names))
    ]


def outsiders(database: Database) -> list[str]:
    """Who comes in although nobody let them; the server trusts every name, so only its grants hold them."""
    database.run("DROP ROLE IF EXISTS stranger", "CREATE ROLE stranger LOGIN")
    found = []
    for url in (database.url("owner"), database.url("app").replace(f"{database.service}_app", "stranger")):
        try:
            psycopg.connect(url).close()
            found.append(url)
        except psycopg.OperationalError as error:
            assert "permission denied" in str(error) or "not permitted to log in" in str(error)
    return found


def tried(server: Postgres, root: Path) -> Database:
    """A database with a table of the migrator's, its roles by the file under names of their own."""
    database = Database(server.create_database(), f"s{uuid.uuid4().hex[:8]}")
    apply(database, root)
    with psycopg.connect(database.url("migrator")) as connection:
        connection.execute(TABLE)
    return database


def apply(database: Database, root: Path, url: str = "") -> None:
    text = (root / ROLES).read_text()
    with psycopg.connect(url or database.admin, autocommit=True) as connection:
        connection.execute(text.replace("my_service", database.service).encode())


def test_each_role_may_do_its_work_and_nothing_else(project: Project, server: Postgres, database: Database) -> None:
    for each in (database, tried(server, project.root)):  # of the real migrations, and of the one that sabotages use
        assert wrong(each) == []
        assert outsiders(each) == []


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "shows"),
    [
        (Line(ROLES, "REVOKE INSERT, UPDATE, DELETE ON alembic_version"), "app: UPDATE alembic_version"),
        (Line(ROLES, "EXECUTE format('ALTER %s SET role = %L'"), "app: no SELECT"),
        (Line(ROLES, "COMMIT;", "GRANT my_service_owner TO my_service_backup; COMMIT;"), "backup: SET default"),
        (Line(ROLES, "GRANT SELECT ON TABLES TO", "GRANT SELECT ON TABLES TO my_service_app;"), "backup: no"),
        (
            Line(ROLES, "ALTER ROLE my_service_migrator", "ALTER ROLE my_service_migrator LOGIN CREATEROLE;"),
            "migrator: SET ROLE NONE; CREATE",
        ),
    ],
    ids=["app much", "app little", "backup much", "backup little", "migrator much"],
)
def test_a_grant_too_many_or_too_few_is_noticed(
    project: Project, server: Postgres, tmp_path: Path, sabotage: Line, shows: str
) -> None:
    found = wrong(tried(server, project.variant(tmp_path / "sick", sabotage).root))
    assert any(line.startswith(shows) for line in found), found


CATALOGUE = """
    SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolcanlogin, rolbypassrls, rolconnlimit FROM pg_roles;
    SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members;
    SELECT datname, datacl::text FROM pg_database;
    SELECT setdatabase, setrole::regrole::text, setconfig FROM pg_db_role_setting;
    SELECT defaclrole::regrole::text, defaclobjtype, defaclacl::text FROM pg_default_acl;
    SELECT oid::regclass::text, relowner::regrole::text, relacl::text FROM pg_class;
    SELECT nspname, nspowner::regrole::text, nspacl::text FROM pg_namespace;
"""


def catalogue(database: Database) -> list[list[tuple[object, ...]]]:
    with psycopg.connect(database.admin) as connection:
        return [
            sorted(connection.execute(query.encode()).fetchall(), key=str)
            for query in CATALOGUE.split(";")
            if query.strip()
        ]


def test_applied_twice_it_changes_nothing(project: Project, server: Postgres) -> None:
    database = tried(server, project.root)
    once = catalogue(database)
    apply(database, project.root)
    assert catalogue(database) == once


FORGETS = Line(ROLES, "EXECUTE format('ALTER %s SET statement_timeout = %L', target, '15s');")


@pytest.mark.sabotage
def test_time_outs_that_are_missing_are_noticed(project: Project, server: Postgres, tmp_path: Path) -> None:
    database = tried(server, project.root)
    forgets = tried(server, project.variant(tmp_path / "sick", FORGETS).root)
    assert timeouts(forgets, f"{forgets.service}_app") != timeouts(database, f"{database.service}_app")


@pytest.mark.sabotage
def test_a_second_time_that_changes_something_is_noticed(project: Project, server: Postgres, tmp_path: Path) -> None:
    database = tried(server, project.root)
    once = catalogue(database)
    apply(database, project.variant(tmp_path / "sick", Line(ROLES, "COMMIT;", "CREATE TABLE more (); COMMIT;")).root)
    assert catalogue(database) != once


def test_make_roles_is_the_one_command(project: Project, server: Postgres) -> None:
    url = server.create_database()
    project.run("make", "roles", f"url={url}")
    project.run("make", "roles", f"url={url}")
    with psycopg.connect(Database(url).url("migrator")) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("my_service_owner",)
    done = project.run("make", "roles", check=False)
    assert (done.returncode, "type: make roles url=" in done.stderr) == (2, True)


def test_who_owns_the_database_need_be_no_superuser(project: Project, server: Postgres) -> None:
    database = Database(server.create_database(), f"s{uuid.uuid4().hex[:8]}")
    name = database.admin.rpartition("/")[2]
    database.run(
        f"CREATE ROLE {database.service}_admin LOGIN CREATEROLE",
        f'ALTER DATABASE "{name}" OWNER TO {database.service}_admin',
    )
    for _ in range(2):
        apply(database, project.root, url=database.url("admin"))
    with psycopg.connect(database.url("migrator")) as connection:
        connection.execute(TABLE)
    assert wrong(database) == []


def test_what_is_there_already_gets_the_right_owner_and_grants(project: Project, server: Postgres) -> None:
    """After a restore without owners and grants, or where somebody migrated as superuser."""
    database = Database(server.create_database(), f"s{uuid.uuid4().hex[:8]}")
    database.run(
        "CREATE EXTENSION pg_stat_statements",
        TABLE,
        "CREATE TYPE colour AS ENUM ('red')",
        "CREATE TABLE lamps (id int GENERATED ALWAYS AS IDENTITY, old serial, colour colour)",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE VIEW seen AS SELECT * FROM items",
    )
    apply(database, project.root)
    assert wrong(database) == []
    with psycopg.connect(database.url("migrator")) as connection:
        for statement in (
            "ALTER TYPE colour ADD VALUE 'blue'",
            "ALTER TABLE lamps DROP COLUMN colour",
            "DROP VIEW seen",
            "DROP FUNCTION one()",
        ):
            connection.execute(statement.encode())
        connection.rollback()
    with psycopg.connect(database.url("app")) as connection:
        connection.execute("INSERT INTO lamps (colour) VALUES ('red')")  # takes numbers from both sequences


def timeouts(database: Database, user: str) -> tuple[str, ...]:
    with psycopg.connect(re.sub(r"//[^@]*@", f"//{user}@", database.admin)) as connection:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        rows = [connection.execute(f"SHOW {name}".encode()).fetchone() for name in names]
    return tuple(str(row[0]) for row in rows if row)


def test_time_outs_follow_the_role_and_reach_the_users_that_vault_makes(project: Project, server: Postgres) -> None:
    database = tried(server, project.root)
    vault = f"{database.service}_v_token"
    database.run(f"CREATE ROLE {vault} LOGIN VALID UNTIL '2999-01-01' IN ROLE {database.service}_app")
    app = ("15s", "5s", "30s")
    assert timeouts(database, vault) == timeouts(database, f"{database.service}_app") == app
    assert timeouts(database, f"{database.service}_migrator") == ("0", "3s", "10min")
    assert timeouts(database, f"{database.service}_backup") == ("0", "1min", "0")
    assert not refused(
        database.url("v_token"), "INSERT INTO items VALUES (gen_random_uuid(), 'a', null, 1, now(), now())"
    )
    assert refused(database.url("v_token"), "CREATE TABLE mine (id int)")
    database.run(f"DROP ROLE {vault}")  # it owns nothing


def test_the_backup_role_can_dump(project: Project, server: Postgres) -> None:
    database = tried(server, project.root)
    database.run("INSERT INTO items VALUES (gen_random_uuid(), 'kept', null, 1, now(), now())")
    dump = packages.ensure("initdb", "postgresql").with_name("pg_dump")
    done = subprocess.run([dump, database.url("backup")], capture_output=True, text=True, check=False)
    assert (done.returncode, "kept" in done.stdout) == (0, True), done.stderr
