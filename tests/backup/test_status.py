"""What `status` says of backups and drills, to people, machines and Prometheus."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.backup.conftest import Backups, Made, write_manifest
from tests.projects import Edit
from tests.sabotage import Body, Value
from tests.servers.otlp import Collector
from tests.servers.prometheus import promtool

pytestmark = pytest.mark.servers
# Those of the alerts, without a drill.
ALERTED = (
    "backup_last_success_timestamp_seconds",
    "backup_size_bytes",
    "backup_target_drill_seconds",
    "backup_target_rpo_seconds",
    "backup_typical_size_bytes",
)
NEVER = "backup: there was no drill: type `backup drill`\n"


def change(backups: Backups, backup: str, **values: Any) -> None:
    """Let a backup say something else of itself; a `snapshot` is how much earlier it was."""
    file = backups.object(backup, "manifest.json")
    if "snapshot" in values:
        seen = datetime.fromisoformat(json.loads(file.read_text())["snapshot"])
        values["snapshot"] = (seen - values["snapshot"]).isoformat().replace("+00:00", "Z")
    write_manifest(file, **values)


def said(backups: Backups) -> tuple[int, str]:
    done = backups("status")
    return done.returncode, done.stderr


def test_it_names_what_is_wrong_and_what_to_type(backups: Backups) -> None:
    assert said(backups) == (1, f"backup: there is no backup: type `backup create`\n{NEVER}")
    first = backups.create()
    assert said(backups) == (1, NEVER)
    shown = backups("status").stdout.splitlines()
    assert shown[0] == "backups     1, to be made daily"
    assert shown[1].startswith(f"newest      {first}, 0:00:")
    change(backups, first, snapshot=timedelta(hours=26))
    code, late = said(backups)
    assert (code, late.split(" old")[0][:35]) == (1, "backup: the newest backup is 1 day,")
    assert "the limit is 1 day, 1:00:00: type `backup create`" in late
    change(backups, first, size=10_000_000)
    backups.create()
    code, small = said(backups)
    assert (code, "usual are 10000000: check which data is gone" in small) == (1, True)


def test_the_schedule_follows_from_the_plan(make: Made) -> None:
    for rpo, schedule in (("30m", "hourly"), ("24h", "hourly"), ("25h", "daily"), ("8d", "weekly")):
        plan = Edit("ready.toml", "[thresholds]", f'[recovery.backups]\nrpo = "{rpo}"\n[thresholds]')
        assert f", to be made {schedule}\n" in make(plan)("status").stdout


def test_a_plan_that_cannot_be_read_is_named(make: Made) -> None:
    wrong = make(Edit("ready.toml", "[thresholds]", '[recovery.targets]\nrto = "soon"\n[thresholds]'))
    line = "backup: deploy/recovery.toml or ready.toml: targets.rto: use a number and s, m, h or d, such as 4h"
    assert wrong.fails("status") == line


def metrics(collector: Collector) -> dict[str, float]:
    return {name: collector.named(name)[-1].value for name in ALERTED if collector.named(name)}


def test_the_metrics_of_the_alerts_arrive_at_the_collector_and_in_a_file(
    backups: Backups, collector: Collector
) -> None:
    backup = backups.create()
    manifest = json.loads(backups.object(backup, "manifest.json").read_text())
    sending = backups.told(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    sending("status")
    found = metrics(collector)
    assert found == {
        "backup_last_success_timestamp_seconds": datetime.fromisoformat(manifest["snapshot"]).timestamp(),
        "backup_size_bytes": manifest["size"],
        "backup_target_drill_seconds": 35 * 86400,
        "backup_target_rpo_seconds": 25 * 3600,
        "backup_typical_size_bytes": 0,
    }
    assert collector.named("backup_size_bytes")[-1].attributes == {"service": "my-service"}
    text = backups.must("status", "--prometheus")
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert {name: float(lines[f'{name}{{service="my-service"}}']) for name in found} == found
    done = promtool("check", "metrics", text=text)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_collector_that_is_away_is_named(backups: Backups) -> None:
    backups.create()
    line = backups.told(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_EXPORTER_OTLP_TIMEOUT="1000").fails(
        "status"
    )
    assert line == "backup: the collector at http://127.0.0.1:1/v1/metrics does not accept the metrics: check it"


@pytest.mark.sabotage
def test_a_status_that_never_complains_is_noticed(make: Made) -> None:
    sick = make(Body("ops.backup.status:_problems", "return iter(())"), Value("ops.backup.status:SHRUNK", "0.0"))
    assert "there is no backup" not in said(sick)[1]
