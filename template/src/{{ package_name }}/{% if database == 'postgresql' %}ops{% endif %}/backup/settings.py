"""The settings of backups: where they are kept, and for whom they are encrypted."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from ...platform.db.url import DatabaseUrl
from ...platform.settings import OrOff, RoomSettings
from .age import check_recipient


def _location(url: str) -> str:
    if not re.fullmatch(r"file:///.+|s3://[a-z0-9][a-z0-9.-]+(/[^?#]*)?", url):
        raise ValueError("use file:///var/backups/orders or s3://bucket/prefix")
    return url


class Settings(RoomSettings):
    """Where backups are kept, and for whom they are encrypted."""

    backup_url: Annotated[str, AfterValidator(_location)] | None = None
    # a public key: the private one stays offline, so a thief of the backups or of this machine cannot read them
    backup_age_recipient: Annotated[Annotated[str, AfterValidator(check_recipient)] | None, OrOff] = None
    backup_age_identity_file: Path | None = None
    backup_admin_url: DatabaseUrl | None = None  # a role that may create databases and roles
    backup_database_url: DatabaseUrl | None = None  # a role that may read everything; default: the migrator's
    backup_jobs: Annotated[int, Field(ge=1)] = max(1, min(4, os.cpu_count() or 1))  # parallel connections
    backup_keep: Annotated[int, Field(ge=1)] = 3  # the fewest backups that `prune` leaves
    backup_lock_days: Annotated[int, Field(ge=0)] = 0  # S3 Object Lock: nobody can delete a backup before
    backup_pg_bin: Path | None = None  # the folder of pg_dump and pg_restore; otherwise they are searched
    backup_scratch_dir: Path = Path("/var/tmp")  # noqa: S108 for the dump while it is made; each run makes a private folder
    roles_file: Path = Path("deploy/postgres/roles.sql")
