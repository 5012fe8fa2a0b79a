"""Database backups: what shall be backed up is there, and really stored."""

from ..engine import Gap, NotApplicable, Probe, check
from ..project import has_room

LINE = (
    'add to ready.toml: [probe.write] path = "/v1/…", body = { name = "{marker}" }, row = "/v1/…/{id}" '
    "(a route that makes a row, and one that reads and deletes it)"
)


@check("backups")
async def schema(probe: Probe) -> str:
    """The database answers with a schema that this release can use."""
    _applies()
    part = (await probe.client.get("/readyz")).json().get("parts", {}).get("db")
    if part is None:
        raise Gap("/readyz names no database", "let the room db stand in main.py, or waive this where it is meant")
    if not part["ready"]:
        raise Gap(part["evidence"], "run `make migrate`, or mend the database that DATABASE_URL names")
    if "schema at" not in part["evidence"]:
        raise Gap(f"/readyz does not say which schema there is ({part['evidence']})", "see platform/db/")
    return f"the database {part['evidence']}"


@check("backups", effect="writes")
async def rows(probe: Probe) -> str:
    """A row that was written is found again, and can be removed."""
    _applies()
    write = probe.config.probe.write
    if write is None:
        raise Gap("no route that writes is named", LINE)
    body = {key: probe.marker if value == "{marker}" else value for key, value in write.body.items()}
    made = await probe.client.post(write.path, json=body)
    if not made.is_success:
        raise Gap(f"{write.path} answered {made.status_code}", "look for the marker in the log, it is the request id")
    row = write.row.replace("{id}", str(made.json().get("id")))
    try:
        found = await probe.client.get(row)
        if not found.is_success or probe.marker not in found.text:
            raise Gap(f"{row} answered {found.status_code} without what was written", "see where the service writes to")
    finally:
        gone = await probe.client.delete(row)
    after = await probe.client.get(row)
    if (gone.is_success, after.status_code) != (True, 404):
        raise Gap(f"{row} is still there: deleting answered {gone.status_code}", f"delete {row} by hand")
    return f"a row marked {probe.marker} was written, read and removed"


def _applies() -> None:
    if not has_room("db"):
        raise NotApplicable("because the service was made without a database (database=none)")
