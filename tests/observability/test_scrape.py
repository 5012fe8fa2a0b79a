"""The real Prometheus scrapes the real service: names are those of the contract, and no panel stays empty."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from tests.contract import BUCKETS, METRICS
from tests.observability.promql import metrics, panels
from tests.observability.test_routes import shortened, wait
from tests.projects import Project
from tests.sabotage import Body
from tests.servers.process import free_port
from tests.servers.prometheus import Prometheus
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
SECONDS = 30.0
# What needs a source that is not here, or an error that did not happen.
ELSEWHERE = {"ALERTS", "probe_ssl_earliest_cert_expiry"}
SHORT = {"$__rate_interval": "5s", "$window": "20s", "[5m]": "[1s]", "[1h]": "[12s]", "[30m]": "[6s]"}


@contextmanager
def scraped(project: Project, folder: Path) -> Iterator[Prometheus]:
    """The service after some requests, and a Prometheus with the emitted rules that has seen it."""
    rules = folder / "alerts.yaml"
    rules.write_text(shortened((project.root / "observability/alerts.yaml").read_text()))
    port = free_port()
    env = {"OTEL_METRICS_EXPORTER": "prometheus", "METRICS_PORT": str(port)}
    config = {
        "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "my-service", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    with (
        project.serve(folder / "run", env | migrated(project, f"sqlite:///{folder}/service.db")) as service,
        Prometheus(config) as prometheus,
    ):
        begun = time.monotonic()
        while time.monotonic() - begun < 2:
            service.client.get("/v1/items")
            service.client.get("/nowhere")
            service.client.get(f"/v1/items/{UUID(int=1)}")
            time.sleep(0.02)
        yield prometheus


def missing(prometheus: Prometheus) -> set[str]:
    """Names of the contract that nobody exports."""
    seen = {series["metric"]["__name__"] for series in prometheus.query('{job="my-service"}')}
    return set(METRICS.split()) - seen


def empty(project: Project, prometheus: Prometheus) -> set[str]:
    """Panels without a single series."""
    found = set()
    for file in (project.root / "observability/dashboards").glob("*.json"):
        for panel in panels(file):
            for target in panel.get("targets", []):
                query = target["expr"]
                for name, value in SHORT.items():
                    query = query.replace(name, value)
                if not metrics(query) & ELSEWHERE and not prometheus.query(query):
                    found.add(panel["title"])
    return found


def test_what_the_service_exports_is_what_rules_and_panels_read(project: Project, tmp_path: Path) -> None:
    with scraped(project, tmp_path) as prometheus:
        assert wait(SECONDS, until=lambda: missing(prometheus) == set())
        bounds = {series["metric"]["le"] for series in prometheus.query("http_server_request_duration_seconds_bucket")}
        assert {float(bound) for bound in bounds - {"+Inf"}} == {float(bucket) for bucket in BUCKETS}
        assert wait(SECONDS, until=lambda: empty(project, prometheus) == set()), empty(project, prometheus)
        (version,) = prometheus.query("group by (service_version) (target_info)")
        assert version["metric"]["service_version"]
        assert prometheus.query('ALERTS{alertname!="BackupAbsent"}') == []  # nobody reports backups here


@pytest.mark.sabotage
def test_a_metric_that_is_gone_leaves_a_panel_empty(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Body("telemetry:EventLoopLag.read", "yield from ()"))
    with scraped(sick, tmp_path) as prometheus:
        assert wait(SECONDS, until=lambda: missing(prometheus) == {"process_event_loop_lag_seconds"})
        assert wait(SECONDS, until=lambda: empty(sick, prometheus) == {"Event-loop lag"}), empty(sick, prometheus)
