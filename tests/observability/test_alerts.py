"""Which alerts fire: the emitted rules, evaluated by the real promtool on made-up series."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.observability.promql import ALERTS, Rule
from tests.observability.scenarios import OTHER, SCENARIOS, Scenario
from tests.projects import Edit, Project
from tests.proof import FULL
from tests.servers.prometheus import promtool

pytestmark = pytest.mark.servers
FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'


def results(project: Project, folder: Path, scenarios: Mapping[str, Scenario], expression: str) -> dict[str, str]:
    """What promtool gets for an expression at the end of each scenario."""
    found: dict[str, str] = {}
    for step in {scenario.step for scenario in scenarios.values()}:
        chosen = {key: scenario for key, scenario in scenarios.items() if scenario.step == step}
        file = folder / f"test-{step}.json"  # JSON is YAML
        file.write_text(json.dumps(suite(project.root / ALERTS, step, chosen, expression)))
        done = promtool("test", "rules", file)
        # No expectation can be met, so every result is told.
        told = dict(re.findall(r"# (.*?)\", time.*?\n.*?\n\s+got: (.*)", done.stdout + done.stderr))
        assert told.keys() == chosen.keys(), done.stdout + done.stderr
        found |= told
    return found


def suite(rules: Path, step: int, scenarios: Mapping[str, Scenario], expression: str) -> dict[str, Any]:
    return {
        "rule_files": [str(rules)],
        "evaluation_interval": f"{step}m",
        "tests": [
            {
                "interval": f"{step}m",
                "input_series": [{"series": key, "values": values} for key, values in scenario.series.items()],
                "promql_expr_test": [
                    {
                        "expr": f"{expression} # {key}",
                        "eval_time": f"{scenario.at}m",
                        "exp_samples": [{"labels": "never", "value": 0}],
                    }
                ],
            }
            for key, scenario in scenarios.items()
        ],
    }


def wrong(project: Project, folder: Path, scenarios: Mapping[str, Scenario]) -> dict[str, set[str]]:
    """The scenarios in which other alerts fire than should, and which do."""
    told = results(project, folder, scenarios, FIRING)
    fired = {key: set(re.findall(r'alertname="(\w+)"', got)) for key, got in told.items()}
    return {key: alerts for key, alerts in fired.items() if alerts != scenarios[key].fires}


def test_alerts_fire_when_they_should_and_only_then(emitted: Project, tmp_path: Path) -> None:
    assert wrong(emitted, tmp_path, SCENARIOS) == {}


def test_each_alert_has_a_scenario_in_which_it_fires(emitted: Project) -> None:
    groups = yaml.safe_load((emitted.root / ALERTS).read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert alerts == {alert for scenario in SCENARIOS.values() for alert in scenario.fires}


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("rule", "breaks"),
    [
        (Rule("AvailabilityBurnsFast", "14.4 * 0.001", "50 * 0.001"), {"fast burn"}),
        (Rule("AvailabilityBurnsSlow", "> 6 * 0.001", "> 60 * 0.001"), {"a burn that has just ended", "slow burn"}),
        (Rule("LatencyBurns", "> 1 * 0.01", "> 10 * 0.01"), {"creeping latency burn"}),
        (
            Rule("AvailabilityBurnsFast", " and slo:bad:rate5m{", " and 1 + slo:bad:rate5m{"),
            {"a burn that has just ended", "a burn that is over"},
        ),
        (Rule("AvailabilityBurnsFast", ">= 10", ">= 0"), {"few requests, one fails"}),
        (Rule("slo:bad:rate5m", 'le=~"0.25"', 'le=~".Inf"', slo="latency"), {"creeping latency burn"}),
        (Rule("MetricsAbsent", "5m", "1h"), {"metrics absent"}),
        (Rule("MetricsAbsent", 'process_cpu_time_seconds_total{job=~"(.+/)?my-service"}', "target_info"), {OTHER}),
        (Rule("CertificateExpiresNow", "< 2 * 86400", "< 0 * 86400"), {"certificate of a day"}),
        (Rule("CertificateExpiresSoon", "< 14 * 86400", "< 7 * 86400"), {"certificate of ten days"}),
        (Rule("BackupAbsent", "absent_over_time", "present_over_time"), {"no backup ever reported"}),
        (
            Rule("BackupOverdue", "last_over_time(backup_target", "2 * last_over_time(backup_target"),
            {"no backup since yesterday"},
        ),
        (Rule("BackupShrunk", "0.7", "0.3"), {"a backup is half as large"}),
        (
            Rule("DrillOverdue", "or absent_over_time(backup_drill", "and absent_over_time(backup_drill"),
            {"backups without a drill"},
        ),
        (Rule("CacheAway", "== 1", "== 2"), {"cache away"}),
        (Rule("DatabasePoolSaturated", "max by", "avg by"), {"pool full"}),
        (Rule("EventLoopLags", "> 0.1", "> 1"), {"loop lags"}),
        (Rule("LogLinesDropped", "[15m]", "[2m]"), {"a few log lines are lost at once"}),
        (Rule("SecretsLeaseRunsOut", "< 1 / 3", "< 0"), {"a lease runs out"}),
        (Rule("MemoryGrows", "[1h] offset 1d", "[1h]"), {"memory doubles"}),
        (Rule("CapacityRunsOut", " offset 3d", ""), {"load rises since yesterday"}),
        (Rule("CapacityRunsOut", "> 0.8", "> 8"), {"load rises"}),
        (Rule("CanaryRuns", "[1d:1h]) == 1", "[1d:1h]) >= 1"), {"a canary that was forgotten"}),
    ],
    ids=lambda each: each.name if isinstance(each, Rule) else "",
)
def test_a_changed_rule_breaks_its_scenario(emitted: Project, tmp_path: Path, rule: Rule, breaks: set[str]) -> None:
    sick = emitted.variant(tmp_path / "sick", rule)
    chosen = set(SCENARIOS) if FULL else breaks
    assert set(wrong(sick, tmp_path, {key: SCENARIOS[key] for key in chosen})) >= breaks


def bad_requests(project: Project, folder: Path) -> str:
    """The recorded rate of bad requests where there never was a 5xx."""
    healthy = {"healthy": SCENARIOS["healthy"]}
    return results(project, folder, healthy, 'sum(slo:bad:rate5m{slo="availability"})')["healthy"]


def test_without_any_error_the_rate_of_errors_is_zero_and_not_absent(emitted: Project, tmp_path: Path) -> None:
    assert bad_requests(emitted, tmp_path) == "{} 0E+00"


@pytest.mark.sabotage
def test_an_absent_rate_of_errors_is_noticed(emitted: Project, tmp_path: Path) -> None:
    sick = emitted.variant(tmp_path / "sick", Rule("slo:bad:rate5m", "or 0 * sum", "and 0 * sum", slo="availability"))
    assert bad_requests(sick, tmp_path) == "nil"


def test_promtool_finds_no_fault(emitted: Project, without_database: Project) -> None:
    for project in (emitted, without_database):
        done = promtool("check", "rules", project.root / ALERTS)
        assert (done.returncode, "SUCCESS" in done.stdout) == (0, True)


@pytest.mark.sabotage
def test_promtool_finds_a_planted_fault(emitted: Project, tmp_path: Path) -> None:
    sick = emitted.variant(tmp_path / "sick", Edit(ALERTS, "absent(", "absent(("))
    assert promtool("check", "rules", sick.root / ALERTS).returncode != 0


def test_a_service_without_a_database_has_no_alert_on_it(emitted: Project, without_database: Project) -> None:
    assert "db_client" in (emitted.root / ALERTS).read_text()
    text = (without_database.root / ALERTS).read_text()
    assert "order-desk" in text
    assert "db_client" not in text
