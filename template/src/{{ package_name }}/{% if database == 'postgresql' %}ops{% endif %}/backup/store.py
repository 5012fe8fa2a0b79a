"""Where backups are kept: a folder, or a bucket of S3."""

import errno
import os
import shutil
from contextlib import suppress
from datetime import datetime
from io import BufferedIOBase
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from .errors import BackupError


class StoreError(BackupError):
    """The store refuses or does not respond."""


class Store(Protocol):
    """Objects by name, such as `20261127T000312Z-3f2a/manifest.json`."""

    def names(self) -> list[str]:
        """Return the names of all objects, sorted.

        Raises:
            StoreError: The store cannot be read.
        """

    def read(self, name: str) -> BufferedIOBase:
        """Open an object.

        Raises:
            StoreError: It does not exist, or cannot be read.
        """

    def write(self, name: str, source: BufferedIOBase, *, lock: bool = True) -> None:
        """Store all of `source`; after an error or a kill there is no object of that name.

        Args:
            name: Of the object; one that exists is replaced.
            source: The data.
            lock: Whether BACKUP_LOCK_DAYS applies, if the store can lock.

        Raises:
            StoreError: The store does not accept it.
        """

    def delete(self, name: str) -> None:
        """Delete an object; nothing happens if there is none.

        Raises:
            StoreError: The store refuses, for example because the object is locked.
        """

    def clean(self, before: datetime) -> None:
        """Remove what killed writes have left that began before a time."""


class Folder:
    """Backups in a folder, for example a mounted disk of another machine."""

    def __init__(self, root: Path) -> None:
        self._root = root
        if not root.is_dir():
            raise StoreError(f"{root} is no folder: mount it, or type mkdir -p {root}")

    def names(self) -> list[str]:
        """Return the names of all objects, sorted."""
        found = (file for file in self._root.glob("*/*") if file.is_file() and not file.name.startswith("."))
        return sorted(file.relative_to(self._root).as_posix() for file in found)

    def read(self, name: str) -> BufferedIOBase:
        """Open an object."""
        try:
            return (self._root / name).open("rb")
        except FileNotFoundError:
            raise StoreError(f"{self._root / name}: there is no such file: choose another backup") from None
        except OSError as error:
            raise self._error(error, name) from None

    def write(self, name: str, source: BufferedIOBase, *, lock: bool = True) -> None:
        """Store all of `source`: it is on the disk before it gets its name."""
        target = self._root / name
        part = target.with_name(f".{target.name}")
        try:
            target.parent.mkdir(exist_ok=True)
            with part.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            part.rename(target)
            _sync(target.parent)
            _sync(self._root)
        except OSError as error:
            raise self._error(error, name) from None
        finally:
            part.unlink(missing_ok=True)
            with suppress(OSError):  # it is not empty
                target.parent.rmdir()

    def delete(self, name: str) -> None:
        """Delete an object, and its folder with the last one."""
        target = self._root / name
        try:
            target.unlink(missing_ok=True)
            if target.parent.is_dir() and not any(target.parent.iterdir()):
                target.parent.rmdir()
        except OSError as error:
            raise self._error(error, name) from None

    def clean(self, before: datetime) -> None:
        """Remove the parts of killed writes."""
        for part in self._root.glob("*/.*"):
            if part.stat().st_mtime < before.timestamp():
                self.delete(part.relative_to(self._root).as_posix())

    def _error(self, error: OSError, name: str) -> StoreError:
        advice = ": delete old backups by `backup prune`, or enlarge the disk" if error.errno == errno.ENOSPC else ""
        return StoreError(f"{self._root / name}: {os.strerror(error.errno or 0)}{advice}")


def _sync(folder: Path) -> None:
    """Write a folder's entries to the disk, see rename(2) and fsync(2)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_store(url: str, lock_days: int = 0) -> Store:
    """Open the store of BACKUP_URL.

    Args:
        url: `file:///folder` or `s3://bucket/prefix`.
        lock_days: For S3: how long nobody can delete a new object.

    Raises:
        StoreError: It cannot be opened.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Folder(Path(unquote(parts.path)))
    from .s3 import open_s3  # boto3 takes time, which a folder does not need

    return open_s3(url, lock_days)
