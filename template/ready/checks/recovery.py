"""Disaster recovery: what the files of this project say about its plan, its people and its newest drill."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ValidationError

from ..config import ConfigurationError, recovery
from ..engine import CannotCheck, Gap, NotApplicable, Probe, check
from ..project import has_room, name

PLAN = Path("docs/disaster-recovery.md")
CONTACTS = Path("docs/contacts.md")
TARGETS = Path("deploy/recovery.toml")
EVIDENCE = Path("dr/evidence")


class Drill(BaseModel):
    """The evidence of a drill, as `backup drill` writes it."""

    started: AwareDatetime
    backup: str
    rto_seconds: float
    rpo_seconds: float
    passed: bool


@check("recovery")
async def plan(probe: Probe) -> str:
    """The recovery plan is there, and names the people and places that it needs."""
    if not _text(PLAN):
        raise Gap(f"there is no {PLAN}", f"restore it, or write yours: {PLAN}")
    rows = _rows(_text(CONTACTS))
    empty = [cells[0] for cells in rows if not all(cells)]
    if not probe.production and (empty or not rows):
        raise NotApplicable(f"because only production needs all contacts, and {CONTACTS} has empty cells")
    if not rows:
        raise Gap(f"{CONTACTS} has no table of contacts", "add a row for each role: | who | for what | how |")
    if empty:
        raise Gap(f"{CONTACTS} has empty cells: {', '.join(empty)}", f"fill in {CONTACTS}")
    return f"{PLAN} is there, and {CONTACTS} names all {len(rows)} people and places"


@check("recovery")
async def drill(probe: Probe) -> str:
    """The newest drill is recent, and restored a backup within RTO and RPO."""
    if not has_room("db"):
        raise NotApplicable("because this project has no database: it has no room db")
    step, targets = f"type: uv run {name()} backup drill", _targets(probe)
    newest = max(_drills(), key=lambda each: each.started, default=None)
    if newest is None and not probe.production:
        raise NotApplicable("because only production needs drills")
    if newest is None:
        raise Gap(f"{EVIDENCE} has no drill", step)
    seen = f"the drill of {newest.started:%Y-%m-%d}, backup {newest.backup},"
    age = datetime.now(UTC) - newest.started
    if age > targets["drill"]:
        raise Gap(f"{seen} is {age.days} days old, the limit is {targets['drill']}", step)
    took, lost = (timedelta(seconds=round(each)) for each in (newest.rto_seconds, newest.rpo_seconds))
    seen += f" took {took} (RTO {targets['rto']}) and lost {lost} of data (limit {targets['rpo']})"
    if took > targets["rto"] or lost > targets["rpo"]:
        raise Gap(f"{seen}: too much", f"find the slowest phase in {EVIDENCE}, fix it, then {step}")
    if not newest.passed:
        raise Gap(f"{seen}, and failed", f"read its file in {EVIDENCE}, fix the cause, then {step}")
    return seen


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _rows(text: str) -> list[list[str]]:
    """The cells of all tables of a page, without their heads."""
    lines = [line.strip() for line in text.splitlines()]
    heads = {number - 1 for number, line in enumerate(lines) if set(line) <= set("|-: ") and "-" in line}
    rows = [line for number, line in enumerate(lines) if line.startswith("|") and not {number, number - 1} & heads]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]


def _targets(probe: Probe) -> dict[str, timedelta]:
    """The limits of a drill: its time, the age of its backup, the time until the next one."""
    try:
        found = recovery(TARGETS, probe.config.recovery)
    except ConfigurationError as error:
        raise Gap(str(error).splitlines()[0], f"fix {TARGETS}, or restore it") from None
    # a drill restores a backup, also where the archived log loses less
    limits = {"rto": found.targets.rto, "rpo": found.backups.rpo, "drill": found.backups.drill}
    if missing := [key for key, limit in limits.items() if limit is None]:
        raise Gap(f"{TARGETS} has no {', '.join(missing)}", f"restore {TARGETS}")
    return {key: limit for key, limit in limits.items() if limit}


def _drills() -> Iterator[Drill]:
    for file in sorted(EVIDENCE.glob("*.json")):
        try:
            yield Drill.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            raise CannotCheck(f"{file} is no evidence of a drill", f"restore {file}, or delete it") from None
