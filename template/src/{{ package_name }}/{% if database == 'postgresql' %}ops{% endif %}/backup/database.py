"""The database that is backed up, whichever it is."""

from pathlib import Path
from typing import Protocol

from sqlalchemy import URL

from ...platform.db.settings import Settings as DatabaseSettings
from ...platform.db.url import url_of
from .manifest import Facts, Kind, Manifest
from .report import Report
from .settings import Settings
from .sqlite import Sqlite


class Database(Protocol):
    """A live database, and those that are restored beside it."""

    kind: Kind
    name: str

    def dump(self, folder: Path, report: Report) -> Facts:
        """Dump into `folder`, and say what the database contained."""

    def check(self, folder: Path, manifest: Facts) -> None:
        """Decode every row of a dump."""

    def restore(self, folder: Path, manifest: Manifest, name: str, report: Report) -> None:
        """Restore a dump into a new database."""

    def exists(self, name: str) -> bool:
        """Whether there is a database of that name."""

    def facts(self, name: str) -> Facts:
        """Read what a restored database contains."""

    def url(self, name: str) -> URL:
        """Return the URL of a restored database."""

    def drop(self, name: str) -> None:
        """Drop a database that this run has created."""

    def rename(self, name: str, new: str) -> None:
        """Rename a restored database."""

    def swap(self, restored: str, old: str) -> None:
        """Rename the live database to `old`, and the restored one to the live one."""


def open_database(database: DatabaseSettings, settings: Settings) -> Database:
    """Choose by the URL how to back up."""
    live = settings.backup_database_url or database.database_migrator_url or database.database_url
    url = url_of(live, sync=True)
    if url.get_backend_name() == "sqlite":
        return Sqlite(url)
    from .postgres import Postgres  # psycopg, which SQLite does not need

    return Postgres(url, url_of(settings.backup_admin_url or live), settings)
