"""Reads a backup back: checked against its manifest, into a new database, which takes over only on request."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BufferedReader, BytesIO
from pathlib import Path

from .database import Database
from .errors import BackupError
from .manifest import Facts, Manifest
from .report import Report
from .settings import Settings
from .store import Store
from .streams import CHUNK, Measured, unseal
from .workspace import workspace

VERIFIED = "verified.json"  # says when the backup was last decrypted and decoded
UNFINISHED = "_unfinished"  # the end of the name until rows are compared; also what a killed run has left
MAX_NAME = 63 - len(UNFINISHED)  # an identifier of PostgreSQL has 63 bytes


@contextmanager
def opened(store: Store, manifest: Manifest, settings: Settings, command: str, report: Report) -> Iterator[Path]:
    """Download, decrypt and unpack a backup into a private folder.

    Raises:
        BackupError: The data is not what the manifest says, or the key is missing or wrong.
    """
    if manifest.encrypted and not settings.backup_age_identity_file:
        raise BackupError("the backup is encrypted: set BACKUP_AGE_IDENTITY_FILE to the file with the private key")
    identity = settings.backup_age_identity_file if manifest.encrypted else None
    with workspace(settings.backup_scratch_dir, command) as folder:
        with report.step("download and decrypt", manifest.size) as seen, store.read(manifest.name) as source:
            measured = Measured(source, seen)
            try:
                unseal(BufferedReader(measured, CHUNK), identity, folder)
            finally:
                check_data(manifest, measured)
        yield folder


def check_data(manifest: Manifest, measured: Measured) -> None:
    """Compare the data, which has been read, with the manifest."""
    while measured.read(CHUNK):  # the rest, after an error
        pass
    if measured.size != manifest.size:
        raise BackupError(f"{manifest.name} has {measured.size} bytes of {manifest.size}: choose another backup")
    if measured.sha256 != manifest.sha256:
        raise BackupError(f"{manifest.name} is damaged, its SHA-256 differs: choose another backup")


def verify(database: Database, store: Store, manifest: Manifest, settings: Settings, report: Report) -> str:
    """Check that a backup is whole: size, SHA-256 and, with the private key, every row.

    Returns:
        What was checked.

    Raises:
        BackupError: It is not whole.
    """
    if manifest.encrypted and not settings.backup_age_identity_file:
        with report.step("download", manifest.size) as seen, store.read(manifest.name) as source:
            check_data(manifest, Measured(source, seen))
        return "stored whole; to decode its rows, too, set BACKUP_AGE_IDENTITY_FILE"
    with opened(store, manifest, settings, "verify", report) as folder, report.step("decode"):
        database.check(folder, manifest)
    mark = f'{{"verified": "{datetime.now(UTC).isoformat()}"}}\n'
    store.write(f"{manifest.id}/{VERIFIED}", BytesIO(mark.encode()), lock=False)
    return "decrypted, and every row decoded"


def restore(
    database: Database, store: Store, manifest: Manifest, name: str, settings: Settings, report: Report, command: str
) -> Facts:
    """Restore a backup into a new database, and compare that with the manifest; only then it gets its name.

    Returns:
        What the new database contains.

    Raises:
        BackupError: It failed, or the new database is not what the manifest says: then it stays for inspection.
    """
    if database.exists(name):
        raise BackupError(f"the database {name} exists: choose another name by --database, or drop it yourself")
    unfinished = name[-MAX_NAME:] + UNFINISHED
    with opened(store, manifest, settings, command, report) as folder:
        database.restore(folder, manifest, unfinished, report)
    with report.step("compare"):
        found = database.facts(unfinished)
    if wrong := list(differences(manifest, found)):
        raise BackupError(f"the database {unfinished} is not what the backup says: {'; '.join(wrong[:5])}")
    database.rename(unfinished, name)
    return found


def differences(manifest: Facts, found: Facts) -> Iterator[str]:
    """Compare a restored database with its manifest: rows, sequences, schema."""
    for table in sorted(manifest.tables.keys() | found.tables.keys()):
        if manifest.tables.get(table) != found.tables.get(table):
            yield f"{table} has {found.tables.get(table)} rows instead of {manifest.tables.get(table)}"
    for name, was in manifest.sequences.items():
        now = found.sequences.get(name)
        if now is None:
            yield f"the sequence {name} is missing"
        elif (now.last or 0) < (was.last or 0):
            yield f"the sequence {name} is at {now.last}, and was at {was.last}"
        # a key above its sequence that was there already, because rows were inserted with keys of their own, stays
        elif (now.largest_key or 0) > (now.last or 0) and now.largest_key != was.largest_key:
            yield f"the sequence {name} is at {now.last}, below the key {now.largest_key}"
    if manifest.heads != found.heads:
        yield f"the schema is at {', '.join(found.heads)}, and was at {', '.join(manifest.heads)}"


def notes(manifest: Facts, found: Facts) -> Iterator[str]:
    """What differs and is no fault: collations of another version sort in another order."""
    for name, version in manifest.collations.items():
        if found.collations.get(name, version) != version:
            here = found.collations[name]
            yield f"the collation {name} has version {here} here, and had {version}: text may sort differently"


def new_name(live: str, purpose: str) -> str:
    """Return the name of a new database, such as `orders_restored_20261127t000312z`."""
    suffix = f"_{purpose}_{datetime.now(UTC):%Y%m%dt%H%M%Sz}"
    return live[: MAX_NAME - len(suffix)] + suffix
