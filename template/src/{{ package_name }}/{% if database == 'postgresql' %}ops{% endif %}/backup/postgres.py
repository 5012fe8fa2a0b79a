"""PostgreSQL: `pg_dump` and `pg_restore` do the work, with several connections."""

from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import URL

from . import clients, facts
from .errors import BackupError
from .facts import Connection, connect
from .manifest import Facts, Kind, Manifest
from .report import Report
from .settings import Settings

DUMP = "dump"  # the folder in the archive, with the format `directory` of pg_dump
MAINTENANCE = "postgres"  # the database to connect to while others are created and renamed
SWAP_ATTEMPTS = 5
LOCALE = ("ENCODING", "LC_COLLATE", "LC_CTYPE", "LOCALE_PROVIDER", "ICU_LOCALE", "BUILTIN_LOCALE")


class Postgres:
    """The database of BACKUP_DATABASE_URL, and those that are restored beside it.

    Args:
        url: Read by `create`.
        admin: A role that may create databases and roles.
        settings: Those of backups.
    """

    kind: Kind = "postgresql"

    def __init__(self, url: URL, admin: URL, settings: Settings) -> None:
        self._url, self._admin, self._settings = url, admin, settings
        self.name = url.database or ""

    def dump(self, folder: Path, report: Report) -> Facts:
        """Dump into `folder`, and say what the database contained.

        Raises:
            BackupError: It failed, or another backup of this database is running.
        """
        with connect(self._url) as connection:
            programs = clients.find(facts.version(connection), self._settings.backup_pg_bin)
            with facts.snapshot(connection) as snapshot:
                with report.step("count rows"):
                    found = facts.read(connection, programs.version)
                with report.step("dump") as seen:
                    programs.run(
                        "pg_dump",
                        self._url,
                        f"--file={folder / DUMP}",
                        "--format=directory",
                        f"--jobs={self._settings.backup_jobs}",
                        f"--snapshot={snapshot}",
                        "--compress=1",
                        "--no-sync",  # the store syncs what it keeps
                        f"--lock-wait-timeout={facts.LOCK_SECONDS}s",
                        progress=lambda: seen(_size(folder)),
                    )
        return found

    def check(self, folder: Path, manifest: Facts) -> None:
        """Decode every row of a dump: `pg_restore --list` would accept half a file.

        Raises:
            BackupError: It is damaged.
        """
        programs = clients.find(manifest.client, self._settings.backup_pg_bin)
        programs.run("pg_restore", None, "--file=/dev/null", str(folder / DUMP))

    def restore(self, folder: Path, manifest: Manifest, name: str, report: Report) -> None:
        """Restore a dump into a new database, up to the first error.

        Raises:
            BackupError: A statement failed: then the new database is gone again.
        """
        with connect(self._admin.set(database=MAINTENANCE)) as connection:
            programs = clients.find(facts.version(connection), self._settings.backup_pg_bin)
            _create(connection, name, manifest)
        try:
            options = ("--exit-on-error", "--no-owner", "--no-acl", f"--jobs={self._settings.backup_jobs}")
            with report.step("restore"):
                programs.run("pg_restore", self.url(name), *options, str(folder / DUMP))
            with report.step("roles and statistics"), connect(self.url(name)) as connection:
                if manifest.roles:
                    connection.execute(self._roles())
                connection.execute("ANALYZE")
        except BaseException:
            with suppress(BackupError):  # the first error says more
                self.drop(name)
            raise

    def _roles(self) -> bytes:
        """What `make roles` does: owner and rights of every table."""
        try:
            return self._settings.roles_file.read_bytes()
        except OSError:
            file = self._settings.roles_file
            raise BackupError(f"no file {file}: run this in the project's folder, or set ROLES_FILE") from None

    def exists(self, name: str) -> bool:
        """Whether there is a database of that name."""
        with connect(self._admin.set(database=MAINTENANCE)) as connection:
            return _exists(connection, name)

    def facts(self, name: str) -> Facts:
        """Read what a restored database contains."""
        with connect(self.url(name)) as connection:
            return facts.read(connection)

    def url(self, name: str) -> URL:
        """Return the URL of a restored database."""
        return self._admin.set(database=name)

    def drop(self, name: str) -> None:
        """Drop a database that this run has created."""
        with connect(self._admin.set(database=MAINTENANCE)) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def rename(self, name: str, new: str) -> None:
        """Rename a restored database."""
        with connect(self._admin.set(database=MAINTENANCE)) as connection:
            _rename(connection, name, new)

    def swap(self, restored: str, old: str) -> None:
        """Rename the live database to `old`, and the restored one to the live one: both or none.

        Connections to both are closed. Requests fail until the service has connected again, for some seconds.

        Raises:
            BackupError: A database is missing or in use, or the role does not own it.
        """
        with connect(self._admin.set(database=MAINTENANCE)) as connection:
            if not _exists(connection, restored):
                raise BackupError(f"there is no database {restored}: its name is what `backup restore` has printed")
            for left in reversed(range(SWAP_ATTEMPTS)):
                _close(connection, self.name, restored)
                try:
                    # locks the name, so that nobody connects, and waits for the connections that are being closed
                    with connection.transaction():
                        if _exists(connection, self.name):
                            _rename(connection, self.name, old)
                        _rename(connection, restored, self.name)
                    return
                except psycopg.errors.ObjectInUse:  # somebody was faster than the lock
                    if not left:
                        raise


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _create(connection: Connection, name: str, manifest: Manifest) -> None:
    """https://www.postgresql.org/docs/current/sql-createdatabase.html"""
    found = {key: manifest.locale[key] for key in LOCALE if key in manifest.locale}
    options = [sql.SQL("{} {}").format(sql.SQL(key), sql.Literal(value)) for key, value in found.items()]
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}")
    connection.execute(statement.format(sql.Identifier(name), sql.SQL(" ").join(options)))


def _exists(connection: Connection, name: str) -> bool:
    return connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is not None


def _close(connection: Connection, *names: str) -> None:
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(%s)"
    connection.execute(query, [list(names)])


def _rename(connection: Connection, name: str, new: str) -> None:
    statement = sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(new))
    connection.execute(statement)
