"""Secrets as files, one per setting: what Vault's Agent, External Secrets, the CSI driver and Docker write.

They are read again and again, not watched: a read is cheap, and sees a change however it came about.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..settings import ConfigurationError, RoomSettings, SourceUnavailable, part
from .backend import BackendKind, Lease, Snapshot

REFRESH_SECONDS = 5  # seconds; kubelet itself takes up to a minute and a half


class Settings(RoomSettings):
    """Where the files are."""

    secrets_dir: Path = Path("/run/secrets")


class Files:
    """The files of a folder.

    Args:
        folder: In which they are; of Kubernetes, the folder that its symlink `..data` is in.
    """

    leases: Mapping[str, Lease] = {}

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> Snapshot:
        """Read all files: one set, also while Kubernetes swaps `..data`.

        Raises:
            SourceUnavailable: There is none yet, or one is empty: somebody is about to write.
            ConfigurationError: One may not be read, or is no text.
        """
        path = self.folder
        try:
            path = (self.folder / "..data").resolve(strict=True) if (self.folder / "..data").is_symlink() else path
            names = sorted(path.iterdir())
            found = {}
            for path in names:
                if not path.name.startswith(".") and path.is_file():
                    found[path.name.lower()] = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (PermissionError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"SECRETS_DIR: {path}: {type(error).__name__}") from None
        except OSError as error:
            raise SourceUnavailable(f"SECRETS_DIR: {path}: {type(error).__name__}") from None
        empty = [name for name, text in found.items() if not text]
        if empty or not found:
            raise SourceUnavailable(
                f"SECRETS_DIR: {self.folder}: " + (f"empty: {', '.join(empty)}" if empty else "no file")
            )
        return Snapshot(found, REFRESH_SECONDS)


def open_backend(settings: RoomSettings, clock: Callable[[], float] = time.monotonic) -> Files:
    """The files in `SECRETS_DIR`."""
    return Files(part(settings, Settings).secrets_dir)


BACKEND = BackendKind(Settings, open_backend)
