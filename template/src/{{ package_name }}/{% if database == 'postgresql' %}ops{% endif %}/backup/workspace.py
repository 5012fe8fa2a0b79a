"""A private folder for a dump while it is made or restored; what a killed run has left is removed by the next one."""

import errno
import fcntl
import os
import shutil
import tempfile
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
        if home.is_symlink() or home.stat().st_uid != os.getuid():  # in /var/tmp, anybody could have made it
            raise BackupError(f"{home} belongs to somebody else: remove it, or set BACKUP_SCRATCH_DIR")
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
        for left in home.glob("*/"):
            shutil.rmtree(left, ignore_errors=True)
        # never the same: a program that a killed run has left may still write to the old one
        folder = Path(tempfile.mkdtemp(dir=home))
        try:
            yield folder
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise BackupError(f"{home}: disk full: set BACKUP_SCRATCH_DIR to a folder on a larger one") from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
