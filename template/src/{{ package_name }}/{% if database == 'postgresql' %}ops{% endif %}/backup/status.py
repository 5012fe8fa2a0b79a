"""What there is: the newest backup and the newest drill, compared with the recovery plan; also as metrics."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from statistics import median

from pydantic import BaseModel, ValidationError

from . import manifest as manifests
from .drill import Evidence
from .plan import Plan
from .store import Store

TYPICAL_OF = 10  # backups whose median size is typical
SHRUNK = 0.7  # of the typical size
DRILLS = re.compile(r"[^/]+/drill-(\d{8}T\d{6}Z)\.json")
HELP = {
    "backup_last_success_timestamp_seconds": "When the data of the newest backup was read.",
    "backup_size_bytes": "Size of the newest backup.",
    "backup_typical_size_bytes": "Median size of the ten backups before it.",
    "backup_duration_seconds": "How long the newest backup took.",
    "backup_target_rpo_seconds": "The greatest age of the newest backup that the plan allows.",
    "backup_drill_timestamp_seconds": "When the newest drill began.",
    "backup_drill_rto_seconds": "How long the newest drill took until the service served again.",
    "backup_drill_rpo_seconds": "The age of the backup in the newest drill.",
    "backup_target_rto_seconds": "The longest recovery that the plan allows.",
    "backup_target_drill_seconds": "The greatest age of the newest drill that the plan allows.",
}


class Status(BaseModel):
    """The newest backup and drill, and what is wrong with them."""

    newest: manifests.Manifest | None
    age_seconds: float | None
    backups: int
    drill: Evidence | None
    schedule: str
    problems: list[str]  # of backups
    drills: list[str]  # problems of drills
    metrics: dict[str, float]


def status(store: Store, plan: Plan, now: datetime | None = None) -> Status:
    """Compare what is stored with the plan.

    Raises:
        BackupError: The store cannot be read.
    """
    now = now or datetime.now(UTC)
    names = store.names()
    ids = manifests.ids(names)
    found = [manifests.read(store, backup) for backup in ids[-TYPICAL_OF - 1 :]]
    newest, drill = found[-1] if found else None, _newest_drill(store, names)
    typical = median([each.size for each in found[:-1]] or [0])
    metrics = dict(_metrics(newest, typical, drill, plan))
    return Status(
        newest=newest,
        age_seconds=(now - newest.snapshot).total_seconds() if newest else None,
        backups=len(ids),
        drill=drill,
        schedule=plan.schedule,
        problems=list(_problems(newest, typical, plan, now)),
        drills=list(_drills(drill, plan, now)),
        metrics=metrics,
    )


def _newest_drill(store: Store, names: list[str]) -> Evidence | None:
    drills = sorted((match[1], match[0]) for match in map(DRILLS.fullmatch, names) if match)
    if not drills:
        return None
    with store.read(drills[-1][1]) as source:
        try:
            return Evidence.model_validate_json(source.read(manifests.MAX_MANIFEST_BYTES))
        except ValidationError:
            return None


def _problems(newest: manifests.Manifest | None, typical: float, plan: Plan, now: datetime) -> Iterator[str]:
    if not newest:
        yield "there is no backup: type `backup create`"
    elif (age := now - newest.snapshot) > plan.backups.rpo:
        yield f"the newest backup is {_text(age)} old, the limit is {plan.backups.rpo}: type `backup create`"
    if newest and newest.size < SHRUNK * typical:
        yield f"the newest backup has {newest.size} bytes, usual are {typical:.0f}: check which data is gone"


def _drills(drill: Evidence | None, plan: Plan, now: datetime) -> Iterator[str]:
    if not drill:
        yield "there was no drill: type `backup drill`"
    elif (age := now - drill.started) > plan.backups.drill:
        yield f"the newest drill is {_text(age)} old, the limit is {plan.backups.drill}: type `backup drill`"
    elif not drill.passed:
        yield "the newest drill missed its targets: see dr/evidence"


def _metrics(
    newest: manifests.Manifest | None, typical: float, drill: Evidence | None, plan: Plan
) -> Iterator[tuple[str, float]]:
    yield "backup_target_rpo_seconds", plan.backups.rpo.total_seconds()
    yield "backup_target_rto_seconds", plan.targets.rto.total_seconds()
    yield "backup_target_drill_seconds", plan.backups.drill.total_seconds()
    if newest:
        yield "backup_last_success_timestamp_seconds", newest.snapshot.timestamp()
        yield "backup_size_bytes", newest.size
        yield "backup_typical_size_bytes", typical
        yield "backup_duration_seconds", newest.seconds
    if drill:
        yield "backup_drill_timestamp_seconds", drill.started.timestamp()
        yield "backup_drill_rto_seconds", drill.rto_seconds
        yield "backup_drill_rpo_seconds", drill.rpo_seconds


def exposition(metrics: dict[str, float], service: str) -> str:
    """Write the metrics for the textfile collector of node_exporter.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    lines = (
        f'# HELP {n} {HELP[n]}\n# TYPE {n} gauge\n{n}{{service="{service}"}} {value}\n' for n, value in metrics.items()
    )
    return "".join(lines)


def _text(age: timedelta) -> str:
    return str(age).partition(".")[0]
