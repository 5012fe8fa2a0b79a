"""Makes a backup: dump, check, encrypt, store; the manifest last."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from io import BufferedReader, BytesIO

from . import manifest as manifests
from .database import Database
from .errors import BackupError
from .manifest import MANIFEST, Manifest, new_id
from .report import Report
from .settings import Settings
from .store import Store, StoreError
from .streams import CHUNK, Measured, sealed
from .workspace import workspace


def create(database: Database, store: Store, settings: Settings, report: Report) -> Manifest:
    """Make a backup.

    Returns:
        Its manifest, as it is stored.

    Raises:
        BackupError: It failed; the store lists no new backup.
    """
    began = time.monotonic()
    backup = new_id(datetime.now(UTC))
    recipient = settings.backup_age_recipient
    name = f"{backup}/dump.tar{'.age' if recipient else ''}"
    with workspace(settings.backup_scratch_dir, "create") as folder, ThreadPoolExecutor(1) as beside:
        facts = database.dump(folder, report)
        checked = beside.submit(database.check, folder, facts)  # while it is encrypted and stored
        with report.step("store") as seen, sealed(folder / "dump", recipient) as stream:
            measured = Measured(stream, seen)
            store.write(name, BufferedReader(measured, CHUNK))
        with report.step("check"):
            try:
                checked.result()
            except BackupError:
                with suppress(StoreError):  # it may be locked; without a manifest it is no backup
                    store.delete(name)
                raise
    manifest = Manifest(
        **facts.model_dump(),
        id=backup,
        finished=datetime.now(UTC),
        seconds=round(time.monotonic() - began, 3),
        dump=name.partition("/")[2],
        size=measured.size,
        sha256=measured.sha256,
        encrypted=recipient is not None,
        release=settings.git_commit,
    )
    store.write(f"{backup}/{MANIFEST}", BytesIO(manifests.sealed(manifest)))
    return manifest
