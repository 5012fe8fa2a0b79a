"""SQLite: its own backup interface makes a consistent copy while the service writes."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import URL

from .errors import BackupError
from .manifest import Facts, Kind, Manifest
from .report import Report

COPY = "dump/database.sqlite"  # in the archive
PAGES = 4096  # copied at once
BUSY_SECONDS = 60


class Sqlite:
    """The database file of DATABASE_URL, and those that are restored beside it."""

    kind: Kind = "sqlite"

    def __init__(self, url: URL) -> None:
        self._url, self._file = url, Path(url.database or "")
        self.name = self._file.stem

    def dump(self, folder: Path, report: Report) -> Facts:
        """Copy the database into `folder`, and say what the copy contains.

        Raises:
            BackupError: There is no such database, or it cannot be read.
        """
        target = folder / COPY
        target.parent.mkdir()
        now = datetime.now(UTC)
        with report.step("dump") as seen, _open(self._file, "ro") as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy, pages=PAGES, progress=lambda *_: seen(target.stat().st_size))
        return _facts(target).model_copy(update={"database": self.name, "snapshot": now})

    def check(self, folder: Path, manifest: Facts) -> None:
        """Check every page and index of a dump.

        Raises:
            BackupError: It is damaged.
        """
        with _open(folder / COPY, "ro") as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise BackupError(f"the dump is damaged: {found}")

    def restore(self, folder: Path, manifest: Manifest, name: str, report: Report) -> None:
        """Restore a dump into a new database file, in the folder of the live one.

        Raises:
            BackupError: It cannot be written.
        """
        with (
            report.step("restore"),
            _open(folder / COPY, "ro") as source,
            closing(sqlite3.connect(self._path(name))) as to,
        ):
            source.backup(to)

    def facts(self, name: str) -> Facts:
        """Read what a restored database contains."""
        return _facts(self._path(name))

    def url(self, name: str) -> URL:
        """Return the URL of a restored database."""
        return self._url.set(database=str(self._path(name)))

    def drop(self, name: str) -> None:
        """Remove a database that this run has created."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path(name)}{suffix}").unlink(missing_ok=True)

    def rename(self, name: str, new: str) -> None:
        """Rename a restored database."""
        self._path(name).rename(self._path(new))

    def exists(self, name: str) -> bool:
        """Whether there is a database of that name."""
        return self._path(name).exists()

    def swap(self, restored: str, old: str) -> None:
        """Rename the live file to `old`, and the restored one to the live one: there is a live one at any time.

        Raises:
            BackupError: The service still uses the live file.
        """
        if not self._path(restored).exists():
            raise BackupError(f"there is no {self._path(restored)}: its name is what `backup restore` has printed")
        if self._file.exists():
            with _open(self._file, "rw") as connection:  # refused while anybody else is connected
                connection.execute("PRAGMA busy_timeout = 0")
                connection.execute("PRAGMA journal_mode = DELETE")  # the write-ahead log becomes part of the file
            os.link(self._file, self._path(old))
        self._path(restored).replace(self._file)

    def _path(self, name: str) -> Path:
        return self._file.with_name(name if Path(name).suffix else name + self._file.suffix)


def _facts(file: Path) -> Facts:
    with _open(file, "ro") as connection:
        # its own tables begin with sqlite_
        query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_' ORDER BY 1"
        names = [name for (name,) in connection.execute(query)]
        heads = connection.execute("SELECT version_num FROM alembic_version") if "alembic_version" in names else ()
        return Facts(
            kind="sqlite",
            database=file.stem,
            snapshot=datetime.now(UTC),
            server=sqlite3.sqlite_version,
            client=sqlite3.sqlite_version,
            heads=sorted(head for (head,) in heads),
            tables={name: _count(connection, name) for name in names},
        )


def _count(connection: sqlite3.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    return int(connection.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608 it is quoted


@contextmanager
def _open(file: Path, mode: str) -> Iterator[sqlite3.Connection]:
    address = f"{file.absolute().as_uri()}?mode={mode}"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise BackupError(f"{file}: {error}") from None
