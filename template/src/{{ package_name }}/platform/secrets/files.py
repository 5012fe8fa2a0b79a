"""Reads secrets from files, one per setting, as Vault Agent, External Secrets, the CSI driver and Docker write them.

The files are polled, not watched: a read is cheap, and detects every kind of change.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..settings import ConfigurationError, RoomSettings, SourceUnavailable, part
from .backend import BackendKind, Lease, Snapshot, settings_of

REFRESH_SECONDS = 5  # kubelet itself takes up to a minute and a half


class Settings(RoomSettings):
    """The folder of the files."""

    secrets_dir: Path = Path("/run/secrets")


class Files:
    """The files of a folder.

    Args:
        folder: The folder of the files; in Kubernetes the one that contains the symlink `..data`.
    """

    leases: Mapping[str, Lease] = {}

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, renew: bool = False) -> Snapshot:
        """Read all files, from one version even while Kubernetes replaces `..data`.

        Raises:
            SourceUnavailable: There is no file yet, or one is empty, because it is being written.
            ConfigurationError: A file may not be read, or is no text.
        """
        path = self.folder
        try:
            path = (self.folder / "..data").resolve(strict=True) if (self.folder / "..data").is_symlink() else path
            names = sorted(path.iterdir())
            found = {}
            for path in names:
                if not path.name.startswith(".") and path.is_file():
                    found[path.name.lower()] = text = path.read_text(encoding="utf-8-sig")  # some editors write a BOM
                    if "\0" in text:
                        raise UnicodeError
        except UnicodeError:
            raise ConfigurationError(f"SECRETS_DIR: {path}: no UTF-8 text; put binary files elsewhere") from None
        except (NotADirectoryError, PermissionError) as error:
            raise ConfigurationError(f"SECRETS_DIR: {path}: {type(error).__name__}") from None
        except OSError as error:
            raise SourceUnavailable(f"SECRETS_DIR: {path}: {type(error).__name__}") from None
        values = settings_of(found)
        empty = sorted(found.keys() - values.keys())
        if empty or not found:
            raise SourceUnavailable(
                f"SECRETS_DIR: {self.folder}: " + (f"empty: {', '.join(empty)}" if empty else "no file")
            )
        return Snapshot(values, REFRESH_SECONDS)


def open_backend(settings: RoomSettings, clock: Callable[[], float] = time.monotonic) -> Files:
    """Create the backend for `SECRETS_DIR`."""
    return Files(part(settings, Settings).secrets_dir)


BACKEND = BackendKind(Settings, open_backend)
