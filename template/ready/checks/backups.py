"""Database backups: a database that stores rows, a store that has a young backup, and a backup that can be restored."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from datetime import timedelta
from typing import Any

from ..engine import CannotCheck, Claimed, Gap, NotApplicable, Probe, check
from ..project import command, has_room

STORE_SECONDS = 60.0  # to read the store
DRILL_SECONDS = 4 * 3600.0  # to restore, and to start the service

WRITE_STEP = (
    'add to ready.toml, below [probe]: write = { path = "/v1/…", body = { name = "{marker}" }, '
    'row = "/v1/…/{id}" } (a route that creates a row, and one that reads and deletes it)'
)


@check("backups")
async def schema(probe: Probe) -> str:
    """The database is available, and its schema fits this release."""
    _applies()
    part = (await probe.client.get("/readyz")).json().get("parts", {}).get("db")
    if part is None:
        raise Gap("/readyz lists no database", "do not leave out the room db in main.py, or waive this check")
    if not part["ready"]:
        raise Gap(part["evidence"], "run `make migrate`, or fix the database that DATABASE_URL names")
    if "schema at" not in part["evidence"]:
        raise Gap(f"/readyz reports no schema version ({part['evidence']})", "see platform/db/")
    raise Claimed(f"its database {part['evidence']}")


@check("backups", effect="writes")
async def rows(probe: Probe) -> str:
    """A row that was written can be read and deleted."""
    _applies()
    write = probe.config.probe.write
    if write is None:
        raise Gap("ready.toml names no route that writes", WRITE_STEP)
    body = {key: probe.marker if value == "{marker}" else value for key, value in write.body.items()}
    created = await probe.client.post(write.path, json=body)
    if not created.is_success:
        raise Gap(f"{write.path} returned {created.status_code}", "search the log for the marker, it is the request id")
    row = write.row.replace("{id}", str(created.json().get("id")))
    try:
        found = await probe.client.get(row)
        if not found.is_success or probe.marker not in found.text:
            raise Gap(f"{row} returned {found.status_code} without the marker", "check where the service writes to")
    finally:
        deleted = await probe.client.delete(row)
    after = await probe.client.get(row)
    if (deleted.is_success, after.status_code) != (True, 404):
        raise Gap(f"{row} still exists: DELETE returned {deleted.status_code}", f"delete {row} by hand")
    return f"a row marked {probe.marker} was written, read and deleted"


@check("backups", seconds=STORE_SECONDS)
async def stored(probe: Probe) -> str:
    """The newest backup is as young as the recovery plan allows, and as large as usual."""
    _applies()
    found = await _backup(probe, "status")
    newest, problems = found["newest"], found["problems"]
    if problems:
        raise Gap(*(part.strip() for part in problems[0].rsplit(": ", 1)))
    age, size = timedelta(seconds=round(found["age_seconds"])), newest["size"] / 1e6
    return f"the store has {found['backups']} backups; the newest, {newest['id']}, is {age} old and has {size:.1f} MB"


@check("backups", effect="drill", seconds=DRILL_SECONDS)
async def restored(probe: Probe) -> str:
    """The newest backup is restored into a scratch database, and the service serves on it."""
    _applies()
    found = await _backup(probe, "drill")
    took, limit = (timedelta(seconds=round(each["rto_seconds"])) for each in (found, found["targets"]))
    seen = f"{found['backup']}, {found['rows']} rows, was restored, and the service served on it in {took}"
    if not found["passed"]:
        raise Gap(f"{seen}: RTO ({limit}) or RPO is missed", "see dr/evidence for the slowest phase")
    return seen


async def _backup(probe: Probe, name: str) -> dict[str, Any]:
    """Run the service's own command `backup`, and read what it prints."""
    arguments = [sys.executable, "-c", command(), "backup", name, "--json"]
    process = await asyncio.create_subprocess_exec(*arguments, stdout=PIPE, stderr=PIPE)
    try:
        printed, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    lines = said.decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else f"`backup {name}` exited with {process.returncode} and said nothing"
    if "BACKUP_URL: set" in last and not probe.production:
        raise NotApplicable("because only production needs backups, and BACKUP_URL is not set")
    if process.returncode not in (0, 1):
        raise Gap(last, "set what it names, where `ready` runs: docs/backups.md")
    if not printed.strip():
        raise Gap(last, f"do what the line says, then try `backup {name}`")
    try:
        found: dict[str, Any] = json.loads(printed)
    except ValueError:
        raise CannotCheck(f"`backup {name} --json` printed no JSON", "restore ops/backup as it was") from None
    return found


def _applies() -> None:
    if not has_room("db"):
        raise NotApplicable("because this project has no database: it has no room db")
