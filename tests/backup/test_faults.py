"""Each fault ends in a non-zero exit and one line that says what to do; what is stored and the live database stay."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests import proof
from tests.backup.conftest import (
    PASSWORD,
    Backups,
    Key,
    Made,
    after,
    begin,
    databases,
    drop,
    renamed,
    until,
    with_password,
    write_manifest,
)
from tests.backup.contents import contents
from tests.database.conftest import Database, copy
from tests.projects import Project
from tests.sabotage import Body, Value
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import NewestPostgres, Postgres
from tests.servers.process import descendants

pytestmark = pytest.mark.servers
HASTY = Value("ops.backup.facts:LOCK_SECONDS", "1")


# --- what is stored is damaged ---------------------------------------------------------------------------------------


def flip(file: Path, at: float) -> None:
    """Flip a bit of a file, at a part of its length."""
    data = bytearray(file.read_bytes())
    data[int(len(data) * at)] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    """Take the end of a file."""
    file.write_bytes(file.read_bytes()[:-2])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda folder: cut(folder / "dump.tar.age"), r"has \d+ bytes of \d+: choose another"),
    "empty": (lambda folder: (folder / "dump.tar.age").write_bytes(b""), r"has 0 bytes of \d+: choose"),
    "longer": (lambda folder: (folder / "dump.tar.age").open("ab").write(b"x"), r"bytes of \d+: choose"),
    "a bit of the head": (lambda folder: flip(folder / "dump.tar.age", 0.001), "its SHA-256 differs: choose another"),
    "a bit of the data": (lambda folder: flip(folder / "dump.tar.age", 0.7), "its SHA-256 differs: choose another"),
    "no data": (lambda folder: (folder / "dump.tar.age").unlink(), r"dump\.tar\.age: there is no such file: choose"),
    "manifest cut": (lambda folder: cut(folder / "manifest.json"), "manifest.json is damaged: choose another"),
    "manifest of another program": (
        lambda folder: (folder / "manifest.json").write_text("[]"),
        "manifest.json is damaged: choose another backup",
    ),
}


@pytest.fixture(scope="module")
def pair(project: Project, server: Postgres, model: Database, key: Key, folder: Path) -> tuple[Backups, str, str]:
    """The command on a database with two backups, and their ids, the older one first."""
    backups = Backups(project, with_password(copy(project, server, model).admin), folder, key, server.programs())
    first = backups.create()
    time.sleep(1)  # ids have seconds
    return backups, first, backups.create()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pair")


Pair = tuple[Backups, str, str]


def copied(pair: Pair, folder: Path, project: Project | None = None) -> tuple[Backups, str]:
    """The same backups, to be damaged, and the id of the newer one."""
    backups, _, newer = pair
    shutil.copytree(backups.store, folder / "store")
    return replace(backups, folder=folder, project=project or backups.project), newer


def notices(backups: Backups, backup: str, damage: Callable[[Path], object], line: str) -> None:
    """A damaged backup is refused by `verify` and `restore`."""
    damage(backups.store / backup)
    for command in ("verify", "restore"):
        assert re.search(line, backups.fails(command, backup))
    assert list(backups.scratch.glob("*/*/")) == []


@pytest.mark.parametrize(("damage", "line"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_refused(pair: Pair, tmp_path: Path, damage: Callable[[Path], object], line: str) -> None:
    notices(*copied(pair, tmp_path), damage, line)


@pytest.mark.sabotage
def test_without_the_hash_a_flipped_bit_is_not_explained(pair: Pair, project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Body("ops.backup.restore:check_data", "pass"))
    with pytest.raises(AssertionError):
        notices(*copied(pair, tmp_path, sick), *DAMAGES["a bit of the data"])


def test_the_backup_before_a_damaged_one_is_restored(pair: Pair, tmp_path: Path, server: Postgres) -> None:
    backups, newer = copied(pair, tmp_path)
    cut(backups.object(newer))
    before = contents(backups.url)
    restored = json.loads(backups.must("restore", pair[1], "--json"))["database"]
    assert contents(renamed(backups.url, restored)) == contents(backups.url) == before
    drop(server, restored)


def every_bit_counts(backups: Backups, backup: str) -> None:
    """No byte of the manifest can change without being noticed."""
    file = backups.object(backup, "manifest.json")
    whole = file.read_bytes()
    for at in [0, *range(5, len(whole), len(whole) // proof.count(gate=8, full=100))]:
        if not whole[at : at + 1].isspace():
            flip(file, at / len(whole))
            assert "damaged" in backups.fails("verify", backup), whole[at - 20 : at + 20]
            file.write_bytes(whole)


def test_every_bit_of_the_manifest_counts(pair: Pair, tmp_path: Path) -> None:
    every_bit_counts(*copied(pair, tmp_path))


@pytest.mark.sabotage
def test_without_its_digest_a_changed_manifest_is_taken(pair: Pair, project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Body("ops.backup.manifest:_digest", "return found.get('digest')"))
    backups, newer = copied(pair, tmp_path, sick)
    file = backups.object(newer, "manifest.json")
    file.write_text(file.read_text().replace('"digest": "', '"digest": null, "was": "'))
    with pytest.raises(AssertionError):
        every_bit_counts(backups, newer)


def test_an_unencrypted_backup_that_is_damaged_is_refused(backups: Backups) -> None:
    plain = backups.told(BACKUP_AGE_RECIPIENT="off")
    backup = plain.create()
    assert not plain.object(backup).exists()
    assert plain.must("verify", backup)
    flip(plain.object(backup, "dump.tar"), 0.5)
    assert "SHA-256 differs" in plain.fails("restore", backup)


def test_a_manifest_of_another_backup_is_refused(backups: Backups) -> None:
    first = backups.create()
    moved = re.sub(r".{4}$", "beef", first)
    shutil.copytree(backups.store / first, backups.store / moved)
    assert f"belongs to {first}: somebody has moved it" in backups.fails("restore", moved)
    assert first in backups("list").stdout


def test_a_damaged_manifest_hides_no_other_backup(backups: Backups) -> None:
    first = backups.create()
    second = re.sub(r".{4}$", "ffff", first)
    shutil.copytree(backups.store / first, backups.store / second)
    cut(backups.object(second, "manifest.json"))
    listed = backups("list")
    assert (listed.returncode, first in listed.stdout, second in listed.stderr) == (1, True, True)


def test_a_backup_that_does_not_exist_is_said(backups: Backups) -> None:
    assert "there is no backup yet: type `backup create`" in backups.fails("restore")
    first = backups.create()
    backups.object(first, "manifest.json").rename(backups.store / "aside")
    for name in (first, "../../etc", "20260101T000000Z-0000"):
        assert "type `backup" in backups.fails("restore", name)
    assert first not in backups("list").stdout


def test_a_backup_of_another_database_is_said(backups: Backups, tmp_path: Path) -> None:
    backups.create()
    lite = backups.told(DATABASE_URL=f"sqlite:///{tmp_path}/local.db")
    assert "is a backup of postgresql: set DATABASE_URL" in lite.fails("restore")


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_said(backups: Backups, tmp_path: Path) -> None:
    backup = backups.create()
    other, text, absent = Key.make(tmp_path / "other.txt"), tmp_path / "text.txt", tmp_path / "absent.txt"
    text.write_text("AGE-SECRET-KEY-1NOTONE\n")
    for file, line in {
        other.file: "the key of BACKUP_AGE_IDENTITY_FILE is not the one of this backup",
        text: f"{text} contains no key of `age-keygen`",
        absent: f"{absent} cannot be read",
    }.items():
        for command in ("verify", "restore"):
            assert line in backups.told(BACKUP_AGE_IDENTITY_FILE=str(file)).fails(command, backup)
    without = backups.told(BACKUP_AGE_IDENTITY_FILE="")
    assert "set BACKUP_AGE_IDENTITY_FILE to the file with the private key" in without.fails("restore", backup)
    assert "stored whole" in without.must("verify", backup)


def encrypted(backups: Backups) -> None:
    """Nobody reads a backup without the key."""
    backup = backups.create()
    head = backups.object(backup).read_bytes()[:1000]
    assert head.startswith(b"age-encryption.org/v1")
    assert b"toc.dat" not in head


def test_what_is_stored_is_encrypted(backups: Backups) -> None:
    encrypted(backups)


@pytest.mark.sabotage
def test_a_backup_that_anybody_can_read_is_noticed(make: Made) -> None:
    sick = make(Body("ops.backup.age:encrypt", "import shutil; shutil.copyfileobj(source, out)"))
    with pytest.raises(AssertionError):
        encrypted(sick)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("BACKUP_URL", "", "BACKUP_URL: set where backups are kept"),
        ("BACKUP_URL", "/var/backups", "BACKUP_URL: use file:///"),
        ("BACKUP_AGE_RECIPIENT", "age1placeholder", "BACKUP_AGE_RECIPIENT: use the public key that `age-keygen`"),
        ("BACKUP_DATABASE_URL", "mysql://a:hush-4711@b/c", "BACKUP_DATABASE_URL: use postgresql://"),
    ],
)
def test_a_wrong_setting_is_refused(backups: Backups, name: str, value: str, line: str) -> None:
    done = backups.told(**{name: value})("create")
    assert (done.returncode, line in done.stderr, done.stderr.count("\n") <= 2) == (78, True, True), done.stderr


def test_production_demands_a_choice_about_encryption(backups: Backups) -> None:
    off = ("CACHE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "SENTRY_DSN", "USAGE_KEY")
    env = {
        "ENVIRONMENT": "production",
        "SECRETS_BACKEND": "env",
        "TRUSTED_HOSTS": "a.example",
        "BACKUP_AGE_RECIPIENT": "",
    }
    done = backups.told(**env, **dict.fromkeys(off, "off"))("create")
    assert (done.returncode, "BACKUP_AGE_RECIPIENT: set the public key" in done.stderr) == (78, True), done.stderr


def test_a_folder_that_is_not_mounted_is_said(backups: Backups, tmp_path: Path) -> None:
    gone = backups.told(BACKUP_URL=f"file://{tmp_path}/not-mounted")
    assert f"{tmp_path}/not-mounted is no folder: mount it" in gone.fails("create")
    assert not (tmp_path / "not-mounted").exists()


# --- clients and servers ---------------------------------------------------------------------------------------------


def fake(folder: Path, version: str) -> Path:
    """Programs that say that they are of that version."""
    folder.mkdir()
    for name in ("pg_dump", "pg_restore"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version} (Debian {version}-1)'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("version", ["15.18", "14.20", "18.6"])
def test_a_client_that_is_unsafe_older_or_newer_is_refused(backups: Backups, tmp_path: Path, version: str) -> None:
    line = backups.told(BACKUP_PG_BIN=str(fake(tmp_path / "bin", version))).fails("create")
    if version == "15.18":
        assert "has the fault CVE-2026-18408: update postgresql-client-15 (fixed in 15.19," in line
    else:
        assert f"of PostgreSQL 15 are needed, and only {version} is here: install postgresql-client-15" in line


@pytest.mark.sabotage
def test_an_unsafe_client_that_is_taken_is_noticed(make: Made, tmp_path: Path) -> None:
    sick = make(Value("ops.backup.clients:OLDEST", "{15: 0}"))
    with pytest.raises(AssertionError):
        test_a_client_that_is_unsafe_older_or_newer_is_refused(sick, tmp_path, "15.18")


def test_a_role_that_the_server_has_not_is_said(
    backups: Backups, newest_postgres: NewestPostgres, database: Database
) -> None:
    """Policies name roles: on a new server they are made first."""
    database.run(
        "DROP ROLE IF EXISTS only_here",
        "CREATE ROLE only_here",
        "CREATE TABLE secret (n int)",
        "ALTER TABLE secret ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON secret TO only_here USING (n = 1)",
    )
    backups.create()
    before = databases(newest_postgres)
    env = {"BACKUP_ADMIN_URL": with_password(newest_postgres.url()), "BACKUP_PG_BIN": str(newest_postgres.programs())}
    line = backups.told(**env).fails("restore")
    assert 'role "only_here" does not exist: type `make roles` for any database of this server, or CREATE ROLE' in line
    assert databases(newest_postgres) == before


def test_a_dump_of_a_newer_server_is_not_restored_into_an_older_one(
    backups: Backups, newest_postgres: NewestPostgres, server: Postgres
) -> None:
    newer = backups.told(DATABASE_URL=newest_postgres.create_database(), BACKUP_PG_BIN=str(newest_postgres.programs()))
    newer.create()
    before = databases(server)
    assert "pg_restore: unsupported version" in backups.fails("restore")
    assert databases(server) == before


def test_an_extension_that_the_server_has_not_is_said(
    backups: Backups, newest_postgres: NewestPostgres, server: Postgres, database: Database
) -> None:
    database.run("CREATE EXTENSION pgcrypto", "DELETE FROM items")
    backups.create()  # the newest server has none, it was built without OpenSSL
    before = databases(newest_postgres)
    env = {"BACKUP_ADMIN_URL": with_password(newest_postgres.url()), "BACKUP_PG_BIN": str(newest_postgres.programs())}
    assert "install the extension pgcrypto on the server" in backups.told(**env).fails("restore")
    assert databases(newest_postgres) == before


def row_security(backups: Backups, database: Database) -> None:
    """A role that does not see all rows is refused, with what to type; with BYPASSRLS all of them come back."""
    database.run(
        "CREATE TABLE secret (n int)",
        "INSERT INTO secret VALUES (1), (2)",
        "ALTER TABLE secret ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY own ON secret TO {database.service}_app USING (n = 1)",
        f"GRANT SELECT ON secret TO {database.service}_backup",
        f"ALTER ROLE {database.service}_backup NOBYPASSRLS",
    )
    reader = backups.told(BACKUP_DATABASE_URL=with_password(database.url("backup")))
    assert "row-level security policy" in (line := reader.fails("create"))
    assert "type ALTER ROLE" in line
    assert "BYPASSRLS for the role of the backup" in line
    database.run(f"ALTER ROLE {database.service}_backup BYPASSRLS")
    try:
        reader.create()
    finally:
        database.run(f"ALTER ROLE {database.service}_backup NOBYPASSRLS")
    restored = json.loads(reader.told(BACKUP_ADMIN_URL=backups.url).must("restore", "--json"))
    assert restored["tables"]["public.secret"] == 2
    assert contents(renamed(database.admin, restored["database"])) == contents(database.admin)


def test_hidden_rows_are_no_silent_loss(backups: Backups, database: Database) -> None:
    row_security(backups, database)


def test_a_role_that_may_not_create_databases_is_said(backups: Backups, database: Database) -> None:
    backups.create()
    reader = backups.told(BACKUP_DATABASE_URL=with_password(database.url("backup")))
    assert "permission denied to create database; " in (line := reader.fails("restore"))
    assert "set BACKUP_ADMIN_URL to a role that may" in line


def test_the_address_of_a_pooler_is_refused(backups: Backups, server: Postgres) -> None:
    with PgBouncer(server, 2) as pooler:
        url = re.sub(r":\d+/", f":{pooler.port}/", backups.url)
        line = backups.told(DATABASE_URL=url).fails("create")
    assert "this is the URL of a pooler: set BACKUP_DATABASE_URL to the one of the database" in line


def test_a_server_that_is_down_is_said(backups: Backups) -> None:
    down = backups.told(DATABASE_URL="postgresql://a:hush-4711@127.0.0.1:1/b")
    assert "Connection refused" in down.fails("create")
    assert "does not exist" in backups.told(DATABASE_URL=renamed(backups.url, "nowhere")).fails("create")


IMPATIENT = (Value("ops.backup.watch:CHECK_SECONDS", "0.2"), Value("ops.backup.watch:HUNG_SECONDS", "1"))


SLOW = """
print("backup: slow: 0.0 s", file=__import__("sys").stderr, flush=True)
_one(connection, sql.SQL("SELECT pg_sleep(3)"))
return original(connection, client)
"""


def ends(backups: Backups, server: Postgres, when: Callable[[subprocess.Popen[str]], None]) -> None:
    """A server that hangs: the command ends, with one line."""
    process = begin(backups, "create")
    try:
        when(process)
        server.pause()
        _, said = process.communicate(timeout=45)
    finally:
        server.resume()
        process.kill()
    assert (process.returncode, "the database has not responded for 1 s: check the server" in said) == (1, True), said
    assert "Traceback" not in said
    assert backups("list").stdout == "no backups yet\n"


def in_a_statement(process: subprocess.Popen[str]) -> None:
    after(process, "slow")


@pytest.fixture(scope="module")
def hanging() -> Iterator[Postgres]:
    """A server of its own for tests that stop it."""
    with Postgres() as opened:
        yield opened


def big(server: Postgres, rows: int = 200_000) -> str:
    """The address of a database that takes a while to dump."""
    url = server.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        query = "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 20) AS t FROM generate_series(1, %s) n"
        connection.execute(query, [rows])
    return url


def test_a_server_that_hangs_in_a_statement_does_not_hang_the_command(make: Made, hanging: Postgres) -> None:
    sick = make(*IMPATIENT, Body("ops.backup.facts:read", SLOW)).told(DATABASE_URL=hanging.create_database())
    ends(sick, hanging, in_a_statement)


def test_a_server_that_hangs_in_the_dump_does_not_hang_the_command(make: Made, hanging: Postgres) -> None:
    backups = make(*IMPATIENT).told(DATABASE_URL=big(hanging))
    ends(backups, hanging, lambda process: until(lambda: list(backups.scratch.glob("*/*/dump/*.dat.gz")) != []))


# --- at the same time ------------------------------------------------------------------------------------------------


@contextmanager
def locked(database: Database, table: str = "items") -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A migration that holds the lock of a table."""
    with psycopg.connect(database.admin) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield connection


def test_a_migration_that_holds_a_lock_is_said_and_the_next_run_works(make: Made, database: Database) -> None:
    backups = make(HASTY)
    with locked(database):
        line = backups.fails("create")
    assert line.endswith("canceling statement due to lock timeout; a migration runs: try again when it is done")
    assert backups.create()


def sees_all_rows(backups: Backups, database: Database) -> None:
    """A migration rewrites a table while the backup begins: its rows are in it."""
    database.run("CREATE TABLE aa_first (n int)")
    with locked(database, "aa_first") as migration:
        process = begin(backups, "create", "--json")
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'aa_first'::regclass"
        until(lambda: migration.execute(waiting).fetchone() is not None)
        database.run("ALTER TABLE items ALTER COLUMN quantity TYPE bigint")
        migration.rollback()
        said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert json.loads(said)["tables"]["public.items"] == 1000
    restored = json.loads(backups.must("restore", "--json"))["database"]
    assert contents(renamed(database.admin, restored)) == contents(database.admin)


def test_a_table_that_is_rewritten_as_the_backup_begins_is_in_it(backups: Backups, database: Database) -> None:
    sees_all_rows(backups, database)


UNLOCKED = """
with connection.transaction():
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    yield str(_one(connection, sql.SQL("SELECT pg_export_snapshot()")))
"""


@pytest.mark.sabotage
def test_a_snapshot_before_the_locks_loses_rows(make: Made, database: Database) -> None:
    with pytest.raises(AssertionError):
        sees_all_rows(make(Body("ops.backup.facts:snapshot", UNLOCKED)), database)


def agrees(backups: Backups, database: Database) -> None:
    """Rows come and go between the count and the dump: what is restored is what was counted."""
    process = begin(backups, "create", "--json")
    after(process, "slow")
    database.run("DELETE FROM items WHERE quantity <= 500", "CREATE TABLE later AS SELECT 1 AS n")
    said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert json.loads(said)["tables"]["public.items"] == 1000
    restored = json.loads(backups.must("restore", "--json"))["database"]
    with psycopg.connect(renamed(database.admin, restored)) as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (1000,)


COUNTED = """
found = original(connection, client)
if client:
    print("backup: slow: 0.0 s", file=__import__("sys").stderr, flush=True)
    _one(connection, sql.SQL("SELECT pg_sleep(1)"))
return found
"""
TORN = (
    Body("ops.backup.facts:read", COUNTED),
    Body(
        "ops.backup.clients:Clients.run",
        "return original(program, url, *[a for a in arguments if 'snapshot' not in a])",
    ),
)


@pytest.mark.sabotage
def test_a_dump_of_another_moment_is_noticed(make: Made, database: Database) -> None:
    with pytest.raises(AssertionError, match="items has 500 rows instead of 1000"):
        agrees(make(*TORN), database)


def test_rows_and_dump_are_of_one_moment(make: Made, database: Database) -> None:
    agrees(make(Body("ops.backup.facts:read", COUNTED)), database)


def excludes(first: Backups, second: Backups, line: str) -> None:
    """Two runs at once: one is refused, and one backup is made."""
    process = begin(first, "create")
    after(process, "slow")
    assert line in second.fails("create")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert second("list", "--json").stdout.count('"id"') == 1


HERE = "`backup create` is running on this machine already: wait for it, or end it"
ELSEWHERE = "another backup of this database is running: wait for it, or end it"


def test_a_second_run_is_refused_here_and_on_another_machine(make: Made, backups: Backups, tmp_path: Path) -> None:
    slow = make(Body("ops.backup.facts:read", SLOW))
    excludes(slow, backups, HERE)
    (tmp_path / "other").mkdir()
    shutil.rmtree(backups.store)
    excludes(slow, backups.told(BACKUP_SCRATCH_DIR=str(tmp_path / "other")), ELSEWHERE)


@pytest.mark.sabotage
def test_two_runs_that_do_not_know_of_each_other_are_noticed(make: Made, backups: Backups, tmp_path: Path) -> None:
    slow = make(Body("ops.backup.facts:read", SLOW), Value("ops.backup.facts:LOCK", "4711"))
    (tmp_path / "other").mkdir()
    with pytest.raises(AssertionError):
        excludes(slow, backups.told(BACKUP_SCRATCH_DIR=str(tmp_path / "other")), ELSEWHERE)


def test_a_scratch_folder_of_somebody_else_is_refused(backups: Backups) -> None:
    """Who may write to /var/tmp could make it first, and read the dump."""
    (backups.folder / "theirs").mkdir(parents=True)
    assert backups.variables
    (backups.scratch / "my_service-backup-create").symlink_to(backups.folder / "theirs")
    assert "my_service-backup-create belongs to somebody else: remove it" in backups.fails("create")


# --- full disks ------------------------------------------------------------------------------------------------------


@contextmanager
def small(folder: Path, size: str) -> Iterator[Path]:
    """A disk of that size."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


root = pytest.mark.skipif(os.getuid() != 0, reason="a small disk can only be mounted by root")


@root
def test_a_full_disk_is_said_and_loses_nothing(backups: Backups, server: Postgres, tmp_path: Path) -> None:
    backups = backups.told(DATABASE_URL=big(server, 50_000))
    first = backups.create()
    with small(tmp_path / "small", "1m") as disk:
        scratch = backups.told(BACKUP_SCRATCH_DIR=str(disk))
        for command in ("create", "restore"):
            assert "set BACKUP_SCRATCH_DIR to a folder on a larger" in scratch.fails(command)
            assert list(disk.glob("*/*/")) == []
        shutil.copytree(backups.store / first, disk / first, ignore=lambda *_: ["dump.tar.age"])
        store = backups.told(BACKUP_URL=f"file://{disk}")
        assert "dump.tar.age: No space left on device: " in store.fails("create")
        assert [each.name for each in disk.rglob("*") if "backup-" not in str(each)] == [first, "manifest.json"]
    backups.must("verify", first)


# --- targets ---------------------------------------------------------------------------------------------------------


def test_a_name_that_exists_is_never_overwritten(backups: Backups, server: Postgres, database: Database) -> None:
    backups.create()
    live = database.admin.rpartition("/")[2]
    before = databases(server), contents(database.admin)
    assert f"the database {live} exists: choose another name by --database" in backups.fails(
        "restore", "--database", live
    )
    assert (databases(server), contents(database.admin)) == before


def leaves_nothing(backups: Backups, server: Postgres) -> None:
    """A restore that fails leaves no database, and says why."""
    backups.create()
    before = databases(server)
    assert "no file nowhere.sql" in backups.told(ROLES_FILE="nowhere.sql").fails("restore")
    assert databases(server) == before


def test_a_restore_that_fails_leaves_no_database(backups: Backups, server: Postgres) -> None:
    leaves_nothing(backups, server)


@pytest.mark.sabotage
def test_a_half_restored_database_that_stays_is_noticed(make: Made, server: Postgres) -> None:
    with pytest.raises(AssertionError):
        leaves_nothing(make(Body("ops.backup.postgres:Postgres.drop", "pass")), server)


def compares(backups: Backups, server: Postgres) -> None:
    """A database that has not the rows of the manifest does not get the name of a restored one."""
    backup = backups.create()
    file = backups.object(backup, "manifest.json")
    write_manifest(file, tables={**json.loads(file.read_text())["tables"], "public.items": 1001})
    assert "is not what the backup says: public.items has 1000 rows instead of 1001" in backups.fails("restore")
    assert [name for name in databases(server) if "_restored_" in name and not name.endswith("_unfinished")] == []


def test_a_restored_database_is_compared(backups: Backups, server: Postgres) -> None:
    compares(backups, server)


@pytest.mark.sabotage
def test_without_the_comparison_a_lost_row_is_not_noticed(make: Made, server: Postgres) -> None:
    with pytest.raises(AssertionError):
        compares(make(Body("ops.backup.restore:differences", "yield from ()")), server)


SPOILED = """
import gzip
original(program, url, *arguments, progress=progress)
if program == "pg_dump":
    target = next(a for a in arguments if a.startswith("--file=")).partition("=")[2]
    file = max(Path(target).glob("*.dat.gz"), key=lambda each: each.stat().st_size)
    file.write_bytes(file.read_bytes()[:-100])
"""


def decodes(backups: Backups) -> None:
    """A dump that is cut off is noticed before there is a manifest, and nothing of it stays."""
    assert "pg_restore: could not" in backups.fails("create")
    assert list(backups.store.iterdir()) == []


def test_a_dump_that_cannot_be_decoded_is_no_backup(make: Made) -> None:
    decodes(make(Body("ops.backup.clients:Clients.run", SPOILED)))


@pytest.mark.sabotage
def test_a_dump_that_is_not_decoded_is_noticed(make: Made) -> None:
    sick = make(Body("ops.backup.clients:Clients.run", SPOILED), Body("ops.backup.postgres:Postgres.check", "pass"))
    with pytest.raises(AssertionError):
        decodes(sick)


# --- secrets ---------------------------------------------------------------------------------------------------------


def keeps_the_password(backups: Backups) -> None:
    """No process has the password among its arguments, which every user of the machine can read."""
    process = begin(backups, "create")
    seen: set[str] = set()
    while process.poll() is None:
        seen |= {name for pid in descendants(process.pid) if (name := arguments(pid))}
        time.sleep(0.01)
    assert any("pg_dump" in each for each in seen)
    assert not [each for each in seen if PASSWORD in each]


def arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_password_is_no_argument(backups: Backups) -> None:
    keeps_the_password(backups)


@pytest.mark.sabotage
def test_a_password_among_the_arguments_is_noticed(make: Made) -> None:
    more = f"*(['--superuser={PASSWORD}'] if program == 'pg_dump' else [])"
    leaky = f"original(program, url, *arguments, {more}, progress=progress)"
    with pytest.raises(AssertionError):
        keeps_the_password(make(Body("ops.backup.clients:Clients.run", leaky)))
