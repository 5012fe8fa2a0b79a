"""Database backups: so far only what they need first, a database that stores rows."""

from ..engine import Claimed, Gap, NotApplicable, Probe, check
from ..project import has_room

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


def _applies() -> None:
    if not has_room("db"):
        raise NotApplicable("because this project has no database: it has no room db")
