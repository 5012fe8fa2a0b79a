"""The command line of `backup`."""

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from . import manifest as manifests
from . import plan as plans
from .context import context
from .create import create
from .drill import drill
from .errors import BackupError
from .manifest import Manifest
from .prune import prune
from .restore import UNFINISHED, new_name, notes, restore, verify
from .status import exposition, status

app = typer.Typer(
    help="Make and restore backups of the database: docs/backups.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they would print values
    rich_markup_mode=None,
)

Id = Annotated[str | None, typer.Argument(help="which backup, from `backup list`; default: the newest")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="delete nothing")]
Json = Annotated[bool, typer.Option("--json", help="print JSON for machines")]


@app.command("create")
def create_(as_json: Json = False) -> None:
    """Back up the database: dump, check, encrypt, store."""
    with context() as used:
        made = create(used.database, used.store, used.settings, used.report)
        held = f"{len(made.tables)} tables, {sum(made.tables.values())} rows"
        _print(made, as_json, f"{made.id}: {held}, {made.size / 1e6:.1f} MB, {made.seconds:.1f} s")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the backups, the oldest first."""
    with context() as used:
        found, wrong = [], []
        for backup in manifests.ids(used.store.names()):
            try:
                found.append(manifests.read(used.store, backup))
            except BackupError as error:
                wrong.append(str(error))
        if as_json:
            print(json.dumps([each.model_dump(mode="json") for each in found]))
        else:
            Console(width=None if sys.stdout.isatty() else 200).print(_table(found) if found else "no backups yet")
        if wrong:
            raise BackupError("; ".join(wrong))


@app.command("verify")
def verify_(backup: Id = None, as_json: Json = False) -> None:
    """Check that a backup is whole and can be decrypted."""
    with context() as used:
        found = used.find(backup)
        said = verify(used.database, used.store, found, used.settings, used.report)
        _print(found, as_json, f"{found.id}: {said}")


@app.command("restore")
def restore_(
    backup: Id = None,
    database: Annotated[str | None, typer.Option(help="the name of the new database")] = None,
    restored: Annotated[str | None, typer.Option(help="with --swap: a database that was restored before")] = None,
    swap: Annotated[bool, typer.Option("--swap", help="let it take the place of the live database")] = False,
    confirm: Annotated[str | None, typer.Option(help="with --swap: the name of the live database")] = None,
    as_json: Json = False,
) -> None:
    """Restore into a new database, and compare it with the backup."""
    with context() as used:
        live = used.database.name
        if swap and (confirm or _asked(live)) != live:
            raise typer.BadParameter(f"--swap replaces the live database: type --confirm with its name, {live}")
        if restored and restored.endswith(UNFINISHED):
            raise BackupError(f"{restored} was never compared with its backup: drop it, and restore again")
        name = restored
        if not name:
            found = used.find(backup)
            name = database or new_name(live, "restored")
            facts = restore(used.database, used.store, found, name, used.settings, used.report, "restore")
            for note in notes(found, facts):
                print(f"backup: {note}", file=sys.stderr)
            facts = facts.model_copy(update={"database": name})
            _print(facts, as_json, f"{found.id} is restored into {name}, and compared")
        if swap:
            old = new_name(live, "before")
            used.database.swap(name, old)
            print(f"{name} is {live} now; the old one is kept as {old}: drop it when it is not needed any more")
        elif not as_json:
            print(f"to let it take over: backup restore --restored {name} --swap")


@app.command("prune")
def prune_(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Delete old backups: all of a day stay, then 7 daily, 5 weekly and 12 monthly ones."""
    with context() as used:
        own = used.settings
        gone = prune(used.store, datetime.now(UTC), own.backup_keep, own.backup_lock_days, dry_run=dry_run)
        if as_json:
            print(json.dumps(gone))
        else:
            done = "would delete" if dry_run else "deleted"
            print("\n".join(f"{done} {each}" for each in gone) or "nothing to delete")


@app.command("drill")
def drill_(backup: Id = None, as_json: Json = False) -> None:
    """Restore the newest backup, start the service on it, and measure RTO and RPO; exits with 1 if one is missed."""
    with context() as used:
        found, plan = used.find(backup), plans.read()
        seen = drill(used.database, used.store, found, used.roles, used.settings, plan, used.report)
        rto, rpo = _seconds(seen.rto_seconds), _seconds(seen.rpo_seconds)
        result = "RTO and RPO are kept" if seen.passed else "RTO or RPO is missed"
        limits = f"RTO {rto} (limit {plan.targets.rto}), RPO {rpo} (limit {plan.backups.rpo})"
        _print(seen, as_json, f"{found.id}: the service served on it; {limits}: {result}")
        if not seen.passed:
            raise SystemExit(1)


@app.command("status")
def status_(
    as_json: Json = False,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="print metrics for node_exporter")] = False,
) -> None:
    """Compare backups and drills with the recovery plan; exits with 1 if something is wrong."""
    with context() as used:
        seen = status(used.store, plans.read())
        used.push(seen.metrics)
        if prometheus:
            print(exposition(seen.metrics, used.service), end="")
        elif as_json:
            print(seen.model_dump_json())
        else:
            print(f"backups     {seen.backups}, to be made {seen.schedule}")
            if seen.newest:
                age = _seconds(seen.age_seconds or 0)
                print(f"newest      {seen.newest.id}, {age} old, {seen.newest.size / 1e6:.1f} MB")
            if seen.drill:
                print(f"last drill  {seen.drill.started:%Y-%m-%d}, RTO {_seconds(seen.drill.rto_seconds)}")
        problems = seen.problems + seen.drills
        for problem in problems:
            print(f"backup: {problem}", file=sys.stderr)
        if problems and not prometheus:
            raise SystemExit(1)


def _table(found: list[Manifest]) -> Table:
    table = Table("id", "age", "size", "rows", "encrypted", "schema", box=None)
    for each in found:
        age = _seconds((datetime.now(UTC) - each.snapshot).total_seconds())
        rows = sum(each.tables.values())
        encrypted = "yes" if each.encrypted else "no"
        table.add_row(each.id, age, f"{each.size / 1e6:.1f} MB", str(rows), encrypted, ", ".join(each.heads))
    return table


def _asked(live: str) -> str | None:
    return typer.prompt(f"This replaces the live database. Type its name ({live})") if sys.stdin.isatty() else None


def _seconds(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _print(value: BaseModel, as_json: bool, line: str) -> None:
    print(value.model_dump_json() if as_json else line)
