"""The alerts of point-in-time recovery fire when the archive fails or stays behind, and not for an idle database."""

from pathlib import Path

import pytest

from tests.observability.promql import Rule, metrics, queries, rules
from tests.observability.scenarios import HOUR, Scenario, Series, firing, name, quiet
from tests.observability.test_alerts import wrong
from tests.observability.test_queries import orphans, refused
from tests.observability.test_runbook import gaps
from tests.projects import Project, render
from tests.servers.prometheus import Prometheus

pytestmark = pytest.mark.servers
ALL = {"DatabaseLogBehind", "DatabaseLogFails", "DatabaseLogUnseen"}


@pytest.fixture(scope="module", params=["silver", "gold"])
def tier(request: pytest.FixtureRequest, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service of that tier, not installed. Do not change it: make a `variant`."""
    return Project(render(template, tmp_path_factory.mktemp("tier") / "service", recovery_tier=request.param))


def archive(age: str, *, failed: str = "0x90", changed: str = "0+50x90", service: str = "my-service") -> Series:
    """What postgres_exporter says: seconds since the last segment, failures, and rows that were changed."""
    kinds = {"archiver_archived_count": "100x90", "archiver_failed_count": failed, "archiver_last_archive_age": age}
    rows = {f"database_tup_{kind}": "7x90" for kind in ("deleted", "inserted")} | {"database_tup_updated": changed}
    labels = {"service": service, "instance": "db"}
    series = {name(f"pg_stat_{kind}", **labels): values for kind, values in kinds.items()}
    return series | {name(f"pg_stat_{kind}", **labels, datname="app"): values for kind, values in rows.items()}


SCENARIOS: dict[str, Scenario] = {
    "the log is archived": quiet(archive("40x90"), at=HOUR),
    "an idle database": quiet(archive("0+60x90", changed="900x90"), at=HOUR),
    "one change after a day": quiet(archive("86400x30 20x60", changed="0x30 1x60"), at=32),
    "the log stays behind": firing(archive("40x30 60+60x60"), at=HOUR, alerts="DatabaseLogBehind"),
    "the command fails": firing(
        archive("40x30 60+60x60", failed="0x30 0+3x60"), at=HOUR, alerts="DatabaseLogBehind DatabaseLogFails"
    ),
    "the command fails on a database that is idle again": firing(
        archive("40x30 60+60x60", failed="0x30 0+3x60", changed="0x30 1x60"), at=HOUR, alerts="DatabaseLogFails"
    ),
    "it failed an hour ago": quiet(archive("40x90", failed="0x5 3x90"), at=HOUR),
    "no exporter": firing(alerts="DatabaseLogUnseen"),
    "the exporter of another service": firing(archive("9000x90", service="other"), alerts="DatabaseLogUnseen"),
}


def test_they_fire_when_they_should_and_only_then(tier: Project, tmp_path: Path) -> None:
    assert wrong(tier, tmp_path, SCENARIOS) == {}
    assert {alert for scenario in SCENARIOS.values() for alert in scenario.fires} == ALL


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("rule", "breaks"),
    [
        (Rule("DatabaseLogBehind", " > 0", " >= 0"), {"an idle database"}),
        (
            Rule("DatabaseLogBehind", "pg_stat_database_tup_updated", "pg_stat_database_tup_deleted"),
            {"the log stays behind"},
        ),
        (Rule("DatabaseLogFails", "[15m]", "[1h]"), {"it failed an hour ago"}),
        (Rule("DatabaseLogUnseen", '{service="my-service"}', ""), {"the exporter of another service"}),
    ],
    ids=["idle", "changes", "window", "service"],
)
def test_a_changed_rule_breaks_its_scenario(tier: Project, tmp_path: Path, rule: Rule, breaks: set[str]) -> None:
    sick = tier.variant(tmp_path / "sick", rule)
    assert set(wrong(sick, tmp_path, {key: SCENARIOS[key] for key in breaks})) == breaks


def test_each_has_its_heading_its_source_and_queries_that_prometheus_takes(
    tier: Project, emitted: Project, prometheus: Prometheus
) -> None:
    added = {rule["alert"] for rule in rules(tier.root) if "alert" in rule}
    assert added - {rule["alert"] for rule in rules(emitted.root) if "alert" in rule} == ALL
    assert "pg_stat_archiver_failed_count" in {metric for _, query in queries(tier.root) for metric in metrics(query)}
    assert gaps(tier.root) == []
    assert orphans(tier) == set()
    assert refused(tier, prometheus) == []
