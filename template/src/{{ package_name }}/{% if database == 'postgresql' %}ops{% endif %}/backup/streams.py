"""Streams between tar, age and the store: a backup is never held in memory, whatever its size."""

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader, BufferedWriter, FileIO
from pathlib import Path
from typing import Any

from . import age
from .errors import BackupError

CHUNK = 1 << 20  # bytes that are passed on at once


class _Reading(io.RawIOBase):
    def readable(self) -> bool:
        return True


class _Piped(_Reading):
    """What a function writes, as a stream to read.

    The error of the function is raised where the stream ends: a reader never takes a part for the whole.
    """

    def __init__(self, produce: Callable[[BufferedIOBase], None]) -> None:
        self._error: BaseException | None = None
        reading, writing = os.pipe()
        self._pipe = FileIO(reading)
        self._thread = threading.Thread(target=self._run, args=(produce, writing), daemon=True)
        self._thread.start()

    def _run(self, produce: Callable[[BufferedIOBase], None], descriptor: int) -> None:
        try:
            with BufferedWriter(FileIO(descriptor, "w"), CHUNK) as writing:
                produce(writing)
        except BaseException as error:  # raised by readinto
            self._error = error

    def readinto(self, buffer: Any) -> int:
        count = self._pipe.readinto(buffer) or 0
        if not count:
            self._thread.join()
            if self._error:
                raise self._error
        return count

    def close(self) -> None:
        self._pipe.close()  # a function that still writes gets an error, and ends
        self._thread.join()
        super().close()


def _piped(produce: Callable[[BufferedIOBase], None]) -> BufferedReader:
    return BufferedReader(_Piped(produce), CHUNK)


class Measured(_Reading):
    """A stream whose size and SHA-256 are known when it has been read; `progress` gets the size so far."""

    def __init__(self, source: BufferedIOBase, progress: Callable[[int], None]) -> None:
        self._source, self._progress = source, progress
        self._hash = hashlib.sha256()
        self.size = 0

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self._hash.update(data)
        self.size += len(data)
        self._progress(self.size)
        return len(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def sealed(folder: Path, recipient: str | None) -> Iterator[BufferedReader]:
    """Read a folder as a tar archive, encrypted for the recipient; None leaves it readable for everybody."""

    def pack(out: BufferedIOBase) -> None:
        with tarfile.open(fileobj=out, mode="w|", bufsize=CHUNK) as archive:
            archive.add(folder, folder.name)

    with _piped(pack) as packed:
        if recipient is None:
            yield packed
            return
        with _piped(lambda out: age.encrypt(packed, out, recipient)) as encrypted:
            yield encrypted


def unseal(source: BufferedIOBase, identity_file: Path | None, folder: Path) -> None:
    """Unpack into `folder` what `sealed` has made, and read `source` to its end.

    Args:
        source: The archive.
        identity_file: The private key; None for an archive that is not encrypted.
        folder: Where the files go.

    Raises:
        BackupError: The key is missing or wrong, or the data is damaged.
    """
    if identity_file is None:
        _unpack(source, folder)
        return
    with _piped(lambda out: age.decrypt(source, out, identity_file)) as decrypted:
        _unpack(decrypted, folder)


def _unpack(source: BufferedIOBase, folder: Path) -> None:
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=CHUNK) as archive:
            archive.extractall(folder, filter="data")
        while source.read(CHUNK):  # what follows the end of the archive
            pass
    except (tarfile.TarError, EOFError):
        raise BackupError("the data is damaged: it is no whole archive; choose another backup") from None
