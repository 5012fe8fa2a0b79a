"""Every query of a rule, a dashboard or the runbook is one that Prometheus takes, on metrics that somebody exports."""

from pathlib import Path

import pytest
import yaml

from tests.contract import LEASES, METRICS
from tests.observability.promql import Rule, metrics, panels, queries, rules
from tests.projects import Change, Edit, Project
from tests.servers.prometheus import Prometheus

SERVICE = "observability/dashboards/service.json"
SOURCES = "observability/sources.yaml"


def refused(project: Project, prometheus: Prometheus) -> list[str]:
    """Queries that the real parser does not take."""
    return [f"{where}: {said}" for where, query in queries(project.root) if (said := prometheus.refusal(query))]


@pytest.mark.servers
def test_prometheus_takes_each_query(emitted: Project, without_database: Project, prometheus: Prometheus) -> None:
    for project in (emitted, without_database):
        places = [where for where, _ in queries(project.root)]
        assert sum(where.startswith("service.json") for where in places) > 15
        assert sum(where.startswith("slo.json") for where in places) > 8
        assert sum(where.startswith("runbook.md") for where in places) > 5
        assert refused(project, prometheus) == []


@pytest.mark.servers
@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("planted", "where"),
    [
        (Edit(SERVICE, '"expr":"sum(', '"expr":"summ('), "service.json: Requests in flight"),
        (Edit("observability/dashboards/slo.json", "[$window]", "[$windows]"), "slo.json: Error budget left"),
        (Rule("EventLoopLags", "max(process", "max((process"), "EventLoopLags"),
        (Edit("docs/runbook.md", "`topk(5, ", "`topk(, "), "runbook.md: topk"),
    ],
    ids=["function", "variable", "bracket", "runbook"],
)
def test_a_broken_query_is_refused(
    emitted: Project, prometheus: Prometheus, tmp_path: Path, planted: Change, where: str
) -> None:
    found = refused(emitted.variant(tmp_path / "sick", planted), prometheus)
    assert len(found) == 1
    assert found[0].startswith(where)


def orphans(project: Project) -> set[str]:
    """Metrics that a query names and nobody exports."""
    sources = yaml.safe_load((project.root / SOURCES).read_text())["sources"]
    known = {*METRICS.split(), *LEASES.split()} | {metric for source in sources for metric in source["metrics"]}
    return {metric for _, query in queries(project.root) for metric in metrics(query)} - known


def test_each_metric_has_somebody_who_exports_it(emitted: Project, without_database: Project) -> None:
    assert orphans(emitted) == orphans(without_database) == set()
    named = {metric for _, query in queries(emitted.root) for metric in metrics(query)}
    assert named > {"target_info", "slo:bad:rate5m", "http_server_request_duration_seconds_bucket", "ALERTS"}


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("planted", "orphan"),
    [
        (Edit(SERVICE, "http_server_active_requests", "http_server_requests_active"), "http_server_requests_active"),
        (Rule("EventLoopLags", "max(process_event_loop", "max(event_loop"), "event_loop_lag_seconds"),
        (Edit(SOURCES, "probe_ssl_earliest_cert_expiry", "probe_success"), "probe_ssl_earliest_cert_expiry"),
        (Edit("docs/runbook.md", "`service:cpu_cores:rate5m", "`service:cpu:rate5m"), "service:cpu:rate5m"),
    ],
    ids=["dashboard", "rule", "sources", "runbook"],
)
def test_a_metric_of_nobody_is_found(emitted: Project, tmp_path: Path, planted: Change, orphan: str) -> None:
    assert orphans(emitted.variant(tmp_path / "sick", planted)) == {orphan}


def test_each_source_is_used_and_each_record_is_listed(emitted: Project) -> None:
    sources = yaml.safe_load((emitted.root / SOURCES).read_text())["sources"]
    listed = {metric for source in sources for metric in source["metrics"]}
    assert listed <= {metric for _, query in queries(emitted.root) for metric in metrics(query)}
    assert {rule["record"] for rule in rules(emitted.root) if "record" in rule} < listed
    assert not listed & {*METRICS.split(), *LEASES.split()}


def scattered(project: Project) -> list[str]:
    """Panels that show a series per instance: a hundred instances would be a hundred lines."""
    found = []
    for file in (project.root / "observability/dashboards").glob("*.json"):
        for panel in panels(file):
            for target in panel.get("targets", []):
                if not any(
                    word in target["expr"] for word in ("sum", "max", "min", "avg", "count", "slo:", "service:")
                ):
                    found.append(panel["title"])
    return found


def test_each_panel_adds_up_over_instances(emitted: Project) -> None:
    assert scattered(emitted) == []


@pytest.mark.sabotage
def test_a_panel_with_a_line_per_instance_is_found(emitted: Project, tmp_path: Path) -> None:
    edit = Edit(SERVICE, '"sum(http_server_active_requests', '"abs(http_server_active_requests')
    assert scattered(emitted.variant(tmp_path / "sick", edit)) == ["Requests in flight"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ('sum by (a, b) (rate(x_total{c="d{}"}[5m])) > 0.1 and on (e) y:z offset 1d', {"x_total", "y:z"}),
        ("histogram_quantile(0.95, sum by (le) (h_bucket)) or 0 * vector(1)", {"h_bucket"}),
        ("a * on (job) group_left (v) group by (job, v) (b)", {"a", "b"}),
    ],
)
def test_the_names_in_a_query_are_found(query: str, names: set[str]) -> None:
    assert metrics(query) == names
