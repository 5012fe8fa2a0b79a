"""The command line of `backup`."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from ...platform import settings_for
from ...platform.db.settings import Settings as DatabaseSettings
from ...platform.settings import compose, load, part, refuse
from . import manifest as manifests
from .create import create
from .database import Database, open_database
from .errors import BackupError
from .manifest import Manifest
from .report import Report
from .restore import new_name, notes, restore, verify
from .settings import Settings
from .store import Store, open_store

app = typer.Typer(
    help="Make and restore backups of the database: docs/backups.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they would print values
    rich_markup_mode=None,
)

Id = Annotated[str | None, typer.Argument(help="which backup, from `backup list`; default: the newest")]
Json = Annotated[bool, typer.Option("--json", help="print JSON for machines")]


@dataclass(frozen=True)
class Context:
    """What every command uses."""

    settings: Settings
    database: Database
    store: Store
    report: Report

    def find(self, backup: str | None) -> Manifest:
        """Read the manifest of a backup of this database, or of the newest one."""
        found = manifests.read(self.store, backup or manifests.newest(self.store))
        if found.kind != self.database.kind:
            raise BackupError(f"{found.id} is a backup of {found.kind}: set DATABASE_URL to such a database")
        return found


@contextmanager
def context() -> Iterator[Context]:
    """Open what every command uses; an error becomes one line and exit code 1."""
    signal.signal(signal.SIGTERM, _terminate)
    settings = load(compose([settings_for("db"), Settings]))
    own, database = part(settings, Settings), part(settings, DatabaseSettings)
    refuse(_missing(own))
    try:
        store = open_store(str(own.backup_url))
        yield Context(own, open_database(database, own), store, Report())
    except BackupError as error:
        print(f"backup: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)  # so that the files are removed


def _missing(settings: Settings) -> Iterator[str]:
    if not settings.backup_url:
        yield "BACKUP_URL: set where backups are kept, for example file:///var/backups/orders"
    unset = "backup_age_recipient" not in settings.model_fields_set
    if unset and settings.environment in ("staging", "production"):
        yield "BACKUP_AGE_RECIPIENT: set the public key that `age-keygen` prints, or off"


@app.command("create")
def create_(json: Json = False) -> None:
    """Back up the database: dump, check, encrypt, store."""
    with context() as used:
        made = create(used.database, used.store, used.settings, used.report)
        rows = sum(made.tables.values())
        _print(
            made,
            json,
            f"{made.id}: {len(made.tables)} tables, {rows} rows, {made.size / 1e6:.1f} MB, {made.seconds:.1f} s",
        )


@app.command("list")
def list_(json: Json = False) -> None:
    """List the backups, the oldest first."""
    with context() as used:
        found = list(manifests.every(used.store))
        if json:
            print("[" + ",".join(each.model_dump_json() for each in found) + "]")
            return
        table = Table("id", "age", "size", "rows", "encrypted", "schema", box=None)
        for each in found:
            age = _hours(datetime.now(UTC) - each.snapshot)
            rows = sum(each.tables.values())
            encrypted = "yes" if each.encrypted else "no"
            table.add_row(each.id, age, f"{each.size / 1e6:.1f} MB", str(rows), encrypted, ", ".join(each.heads))
        Console(width=None if sys.stdout.isatty() else 200).print(table if found else "no backups yet")


@app.command("verify")
def verify_(backup: Id = None, json: Json = False) -> None:
    """Check that a backup is whole and can be decrypted."""
    with context() as used:
        found = used.find(backup)
        said = verify(used.database, used.store, found, used.settings, used.report)
        _print(found, json, f"{found.id}: {said}")


@app.command("restore")
def restore_(
    backup: Id = None,
    database: Annotated[str | None, typer.Option(help="the name of the new database")] = None,
    restored: Annotated[str | None, typer.Option(help="with --swap: a database that was restored before")] = None,
    swap: Annotated[bool, typer.Option("--swap", help="let it take the place of the live database")] = False,
    confirm: Annotated[str | None, typer.Option(help="with --swap: the name of the live database")] = None,
    json: Json = False,
) -> None:
    """Restore into a new database, and compare it with the backup."""
    with context() as used:
        live = used.database.name
        if swap and (confirm or _asked(live)) != live:
            raise typer.BadParameter(f"--swap replaces the live database: type --confirm with its name, {live}")
        name = restored
        if not name:
            found = used.find(backup)
            name = database or new_name(live, found, "restored")
            facts = restore(used.database, used.store, found, name, used.settings, used.report, "restore")
            for note in notes(found, facts):
                print(f"backup: {note}", file=sys.stderr)
            _print(
                facts.model_copy(update={"database": name}), json, f"{found.id} is restored into {name}, and compared"
            )
        if swap:
            old = f"{live}_before_{datetime.now(UTC):%Y%m%dt%H%M%Sz}"
            used.database.swap(name, old)
            print(f"{name} is {live} now; the old one is kept as {old}: drop it when it is not needed any more")
        elif not json:
            print(f"to let it take over: backup restore --restored {name} --swap")


def _asked(live: str) -> str | None:
    return typer.prompt(f"This replaces the live database. Type its name ({live})") if sys.stdin.isatty() else None


def _hours(age: object) -> str:
    return str(age).partition(".")[0]


def _print(value: BaseModel, as_json: bool, line: str) -> None:
    print(value.model_dump_json() if as_json else line)
