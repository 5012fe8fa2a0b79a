"""What a PostgreSQL database contains: rows, sequences, collations, in the snapshot that `pg_dump` uses, too."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, LiteralString, TypeAlias

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row
from sqlalchemy import URL

from ...platform.db.engine import CONNECT
from .errors import BackupError
from .manifest import Facts, Sequence
from .watch import watched

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

LOCK_SECONDS = 60  # to wait for a table that a migration has locked
LOCK = 6049340  # the advisory lock of `create`; 6049338 is the one of roles.sql
LARGE_OBJECTS = "large objects"
# Rows that belong to an extension are made by CREATE EXTENSION.
_TABLES: LiteralString = """
SELECT nspname, relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'r' AND relpersistence <> 't' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
ORDER BY 1, 2"""
# Sequences, and the columns that they fill: those of `serial` and `GENERATED … AS IDENTITY`.
_SEQUENCES: LiteralString = """
SELECT s.schemaname, s.sequencename, s.last_value, s.increment_by > 0, n.nspname, t.relname, attname
FROM pg_sequences s
JOIN pg_namespace o ON o.nspname = s.schemaname
JOIN pg_class c ON c.relname = s.sequencename AND c.relnamespace = o.oid
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
    AND d.refobjsubid > 0
LEFT JOIN pg_class t ON t.oid = d.refobjid
LEFT JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
    AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
WHERE s.schemaname !~ '^pg_' ORDER BY 1, 2"""
_COLLATIONS: LiteralString = """
SELECT collname, collversion FROM pg_collation
WHERE oid IN (SELECT attcollation FROM pg_attribute WHERE attrelid >= 16384) AND collversion IS NOT NULL
UNION SELECT 'default', datcollversion FROM pg_database WHERE datname = current_database()"""

# `roles.sql` has changed settings of this database for the role; the role alone may belong to another database.
_ROLES: LiteralString = """
SELECT count(*) FROM pg_db_role_setting
JOIN pg_database d ON d.oid = setdatabase JOIN pg_roles r ON r.oid = setrole
WHERE datname = current_database() AND rolname = {}"""


@contextmanager
def connect(url: URL) -> Iterator[Connection]:
    """Open a connection whose statements may take long, as long as the server lives; it commits each of them.

    Raises:
        BackupError: The database refuses, does not respond, or rejects a statement.
    """
    options = {**url.get_dialect()().create_connect_args(url)[1], **CONNECT}
    try:
        with (
            psycopg.connect(**options, autocommit=True, row_factory=tuple_row) as connection,
            watched(options, lambda: _shut(connection)),
        ):
            if connection.info.backend_pid != _one(connection, sql.SQL("SELECT pg_backend_pid()")):
                raise BackupError("this is the URL of a pooler: set BACKUP_DATABASE_URL to the one of the database")
            # a hidden row would be missing in the counts, too: an error instead
            connection.execute("SET row_security = off")
            connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
            connection.execute("SET statement_timeout = 0")
            connection.execute("SET idle_in_transaction_session_timeout = 0")
            yield connection
    except psycopg.Error as error:
        raise BackupError(explain(error)) from None


def _shut(connection: Connection) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)


def explain(error: psycopg.Error) -> str:
    """What the server says, in one line, and what to do; it contains no secret."""
    said = error.diag.message_primary or str(error).partition("\n")[0]
    text = said.rpartition("FATAL:")[2].strip()
    if not error.sqlstate:  # no server has said it
        return f"no connection to the database: {text}; check the server and its URL"
    advice = {
        "42501": "; type `make roles`, or set BACKUP_ADMIN_URL to a role that may do this",
        "42P01": "; a migration runs: try again when it is done",
        "55P03": "; a migration runs: try again when it is done",
        "3D000": "; check the name in the URL",
    }
    if "row-level security" in text:
        return f"{text}: type ALTER ROLE … BYPASSRLS for the role of the backup (docs/backups.md)"
    return f"the database says: {text}{advice.get(error.sqlstate or '', '')}"


def version(connection: Connection) -> str:
    """The version of the server, such as `17.11`."""
    return str(connection.info.parameter_status("server_version")).split()[0]


@contextmanager
def snapshot(connection: Connection) -> Iterator[str]:
    """Open a snapshot, which other connections can use as long as it is open.

    Returns:
        Its name, for `pg_dump --snapshot`.

    Raises:
        BackupError: Another backup of this database runs, or the database refuses.
    """
    if not _one(connection, sql.SQL("SELECT pg_try_advisory_lock({})").format(LOCK)):
        raise BackupError("another backup of this database is running: wait for it, or end it")
    tables = [sql.SQL("ONLY {}").format(sql.Identifier(*table)) for table in connection.execute(_TABLES)]
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # Before the snapshot: a table that is rewritten after it is empty in it, and nobody would notice.
        # https://www.postgresql.org/docs/current/mvcc-caveats.html
        if tables:
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.SQL(", ").join(tables)))
        yield str(_one(connection, sql.SQL("SELECT pg_export_snapshot()")))


def read(connection: Connection, client: str = "") -> Facts:
    """Count the rows of all tables, and read the positions of all sequences."""
    tables = {f"{schema}.{table}": _count(connection, schema, table) for schema, table in connection.execute(_TABLES)}
    tables[LARGE_OBJECTS] = int(_one(connection, sql.SQL("SELECT count(*) FROM pg_largeobject_metadata")) or 0)
    now: datetime = _one(connection, sql.SQL("SELECT now()"))
    return Facts(
        kind="postgresql",
        database=connection.info.dbname,
        snapshot=now,
        server=version(connection),
        client=client,
        heads=_heads(connection, tables),
        tables=tables,
        sequences=dict(_sequences(connection)),
        collations=dict(connection.execute(_COLLATIONS).fetchall()),
        locale=_locale(connection),
        roles=bool(_one(connection, sql.SQL(_ROLES).format(f"{_package()}_backup"))),
    )


def _package() -> str:
    return __name__.partition(".")[0]


def _one(connection: Connection, query: sql.SQL | sql.Composed) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def _count(connection: Connection, schema: str, table: str) -> int:
    return int(_one(connection, sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, table))))


def _heads(connection: Connection, tables: dict[str, int]) -> list[str]:
    if "public.alembic_version" not in tables:
        return []
    return sorted(head for (head,) in connection.execute("SELECT version_num FROM public.alembic_version"))


def _sequences(connection: Connection) -> Iterator[tuple[str, Sequence]]:
    for schema, name, last, rises, owner, table, column in connection.execute(_SEQUENCES).fetchall():
        largest = None
        if column and rises:
            query = sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(column), sql.Identifier(owner, table))
            largest = _one(connection, query)
        yield f"{schema}.{name}", Sequence(last=last, largest_key=largest)


def _locale(connection: Connection) -> dict[str, str]:
    """The options of CREATE DATABASE: https://www.postgresql.org/docs/current/sql-createdatabase.html"""
    row = connection.execute(
        "SELECT pg_encoding_to_char(encoding), datcollate, datctype, to_jsonb(d) FROM pg_database d"
        " WHERE datname = current_database()"
    ).fetchone()
    encoding, collate, ctype, columns = row or ("UTF8", "C", "C", {})
    found = {"ENCODING": encoding, "LC_COLLATE": collate, "LC_CTYPE": ctype}
    provider = {"i": "icu", "b": "builtin"}.get(columns.get("datlocprovider", "c"))
    if provider:
        locale = columns.get("datlocale") or columns.get("daticulocale")  # the name until PostgreSQL 16
        found |= {"LOCALE_PROVIDER": provider, f"{provider}_LOCALE".upper(): locale}
    return found
