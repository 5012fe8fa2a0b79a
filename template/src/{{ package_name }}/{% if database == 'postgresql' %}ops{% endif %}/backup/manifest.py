"""The manifest: what a backup contains, written after everything else. An object without one is no backup."""

import hashlib
import json
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import BackupError
from .store import Store

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 << 20
Kind: TypeAlias = Literal["postgresql", "sqlite"]
IDS = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")


class Sequence(BaseModel):
    """The position of a sequence, and the largest key of the column that it fills."""

    last: int | None
    largest_key: int | None = None


class Facts(BaseModel):
    """What the database was at the time of the snapshot."""

    kind: Kind
    database: str
    snapshot: datetime
    server: str
    client: str
    heads: list[str]
    tables: dict[str, int]  # rows by table
    sequences: dict[str, Sequence] = {}
    collations: dict[str, str | None] = {}  # the version by collation
    locale: dict[str, str] = {}  # the options of CREATE DATABASE
    roles: bool = False  # whether roles.sql has been applied


class Manifest(Facts):
    """What a backup contains, and how to check that it is whole."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    id: str
    finished: datetime
    seconds: float  # from the start to the end of the upload
    dump: str  # the name of the data
    size: int  # bytes of the data
    sha256: str
    encrypted: bool
    release: str  # the commit of the code that made it

    @property
    def name(self) -> str:
        """The name of the data in the store."""
        return f"{self.id}/{self.dump}"


def new_id(now: datetime) -> str:
    """Return an id that sorts by time."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def made_at(backup: str) -> datetime:
    """Return the time in an id."""
    return datetime.strptime(backup.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def read(store: Store, backup: str) -> Manifest:
    """Read the manifest of a backup.

    Raises:
        BackupError: There is no such backup, or the manifest is damaged or one of something else.
    """
    with store.read(f"{backup}/{MANIFEST}") as source:
        text = source.read(MAX_MANIFEST_BYTES)
    try:
        found = json.loads(text)
        whole = found.pop("digest") == _digest(found)
        manifest = Manifest.model_validate(found) if whole else None
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
        raise BackupError(f"{backup}/{MANIFEST} is of a newer version of this command ({where}): update it") from None
    except (ValueError, AttributeError, KeyError, TypeError):  # no JSON, or other JSON
        manifest = None
    if not manifest:
        raise BackupError(f"{backup}/{MANIFEST} is damaged: choose another backup, from `backup list`")
    if manifest.id != backup:
        raise BackupError(f"{backup}/{MANIFEST} belongs to {manifest.id}: somebody has moved it")
    return manifest


def ids(names: Iterable[str]) -> list[str]:
    """Return the ids of all backups among the names of a store, the oldest first: those that have a manifest."""
    parts = (name.split("/") for name in names)
    return sorted(p[0] for p in parts if len(p) == 2 and p[1] == MANIFEST and IDS.fullmatch(p[0]))


def newest(store: Store) -> str:
    """Return the id of the newest backup.

    Raises:
        BackupError: There is none.
    """
    if not (found := ids(store.names())):
        raise BackupError("there is no backup yet: type `backup create`")
    return found[-1]


def dumps(value: BaseModel, **more: str) -> bytes:
    """Write JSON for people and machines."""
    return json.dumps({**value.model_dump(mode="json"), **more}, indent=1).encode() + b"\n"


def sealed(manifest: Manifest) -> bytes:
    """Write a manifest with a digest of itself, so that a flipped bit is noticed."""
    return dumps(manifest, digest=_digest(manifest.model_dump(mode="json")))


def _digest(found: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
