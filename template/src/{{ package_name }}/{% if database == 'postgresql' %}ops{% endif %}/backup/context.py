"""What every backup command uses: settings, database and store; an error becomes one line and exit code 1."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from types import FrameType

from sqlalchemy import URL

from ...platform import PRESENT, settings_for
from ...platform.db.settings import Settings as DatabaseSettings
from ...platform.db.url import url_of
from ...platform.settings import RoomSettings, compose, load, part, refuse
from . import manifest as manifests
from .database import Database, open_database
from .errors import BackupError
from .manifest import Manifest
from .report import Report
from .settings import Settings
from .store import Store, open_store


@dataclass(frozen=True)
class Context:
    """What every command uses."""

    loaded: RoomSettings
    settings: Settings
    database: Database
    store: Store
    report: Report

    @property
    def roles(self) -> dict[str, URL]:
        """The URLs with which the service connects and migrates, each with its own role."""
        database = part(self.loaded, DatabaseSettings)
        migrator = database.database_migrator_url or self.settings.backup_admin_url or database.database_url
        given = {"DATABASE_URL": database.database_url, "DATABASE_MIGRATOR_URL": migrator}
        return {name: url_of(url, sync=True) for name, url in given.items()}

    @property
    def service(self) -> str:
        """The name of the project."""
        return metadata.metadata(__name__.partition(".")[0])["Name"]

    def push(self, metrics: dict[str, float]) -> None:
        """Send metrics to the collector, unless the room `telemetry` is deleted."""
        if "telemetry" in PRESENT:
            from ...platform.telemetry.settings import Settings as TelemetrySettings
            from .push import push

            push(part(self.loaded, TelemetrySettings), metrics, self.service)

    def find(self, backup: str | None) -> Manifest:
        """Read the manifest of a backup of this database, or of the newest one."""
        backup = backup or manifests.newest(self.store)
        if backup not in manifests.ids(self.store.names()):
            raise BackupError(f"there is no backup {backup}: type `backup list`")
        found = manifests.read(self.store, backup)
        if found.kind != self.database.kind:
            raise BackupError(f"{found.id} is a backup of {found.kind}: set DATABASE_URL to such a database")
        return found


@contextmanager
def context() -> Iterator[Context]:
    """Open what every command uses; an error becomes one line and exit code 1."""
    signal.signal(signal.SIGTERM, _terminate)
    loaded = load(compose([settings_for("db", "telemetry"), Settings]))
    own, database = part(loaded, Settings), part(loaded, DatabaseSettings)
    refuse(_missing(own))
    try:
        store = open_store(str(own.backup_url), own.backup_lock_days)
        yield Context(loaded, own, open_database(database, own), store, Report())
    except BackupError as error:
        print(f"backup: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)  # so that the files are removed


def _missing(settings: Settings) -> Iterator[str]:
    if not settings.backup_url:
        yield "BACKUP_URL: set where backups are kept, for example file:///var/backups/orders"
    unset = "backup_age_recipient" not in settings.model_fields_set
    if unset and settings.environment in ("staging", "production"):
        yield "BACKUP_AGE_RECIPIENT: set the public key that `age-keygen` prints, or off"
