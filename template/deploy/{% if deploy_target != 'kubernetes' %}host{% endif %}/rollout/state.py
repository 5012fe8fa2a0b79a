"""What outlives a process: a lock against a second release, and a record by which a killed one is resumed."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from . import CannotLook


@dataclass
class Record:
    """A release that is under way.

    Args:
        kind: canary, blue-green or restart.
        version: The new version.
        old_version: What the stable instances said that they are.
        new: Instances that get the version first.
        old: The others that served before.
        phase: starting, steps, finishing, done, or rolled back.
        step: The percentage that was set last.
    """

    kind: str
    version: str
    old_version: str
    new: list[str]
    old: list[str]
    phase: str = "starting"
    step: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing is left to resume."""
        return self.phase in ("done", "rolled back")


class State:
    """The file of the record, and beside it the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one; the lock ends with the process, however it ends.

        Raises:
            CannotLook: Somebody else is.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.with_suffix(".lock").open("a+")
        except OSError as error:
            raise CannotLook(f"{self.path.parent}: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise CannotLook(f"another release runs (process {file.read().strip() or 'unknown'})") from None
            try:
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
            except OSError:
                pass  # the disk is full: only the number is missing
            yield

    def read(self) -> Record | None:
        """The last release, if there was one."""
        try:
            return Record(**json.loads(self.path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, TypeError, ValueError) as error:
            raise CannotLook(f"{self.path} is not readable: {error}") from error

    def write(self, record: Record) -> None:
        """Replace the record; it is on the disk when this returns."""
        new = self.path.with_suffix(".new")
        with new.open("w") as file:
            json.dump(asdict(record), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)

    def remember(self, record: Record, result: str, reason: str = "") -> None:
        """Add a line to the history, which `make ready` reads; a full disk must not stop a way back."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        versions = {"kind": record.kind, "version": record.version, "old_version": record.old_version}
        with suppress(OSError), self.path.with_suffix(".history").open("a") as file:
            file.write(json.dumps({"ended": now, **versions, "result": result, "reason": reason}) + "\n")
