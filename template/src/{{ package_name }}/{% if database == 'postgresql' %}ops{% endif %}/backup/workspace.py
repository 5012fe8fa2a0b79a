"""A private folder for a dump while it is made or restored; what a killed run has left is removed by the next one."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import BackupError


@contextmanager
def workspace(parent: Path, command: str) -> Iterator[Path]:
    """Open an empty folder that only this user can read, and remove it at the end.

    Args:
        parent: BACKUP_SCRATCH_DIR.
        command: Which command uses it; it runs once at a time on this machine.

    Raises:
        BackupError: The same command runs already, or the folder cannot be used.
    """
    home = parent / f"{__name__.partition('.')[0]}-backup-{command}"
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        home.chmod(0o700)
        lock = (home / "lock").open("w")
    except OSError as error:
        raise BackupError(
            f"{home}: {error.strerror}: set BACKUP_SCRATCH_DIR to a folder that you may write to"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(
                f"`backup {command}` is running on this machine already: wait for it, or end it"
            ) from None
        folder = home / "files"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
