"""What the service sends is looked for at the far end: a trace store, the real Prometheus, the real Bugsink."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.projects import Service
from tests.readiness.conftest import Found, Prober, Served
from tests.sabotage import Body, Value
from tests.secrets.conftest import deploy
from tests.servers.bugsink import Bugsink, Sink
from tests.servers.otlp import open_collector
from tests.servers.process import free_port
from tests.servers.prometheus import Prometheus
from tests.servers.vault import Space

pytestmark = pytest.mark.servers
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
# The gate does not wait as long for what will not come.
IMPATIENT = (
    Value("ready.checks.caching:SCRAPE_SECONDS", "5.0"),
    Value("ready.checks.errors:ARRIVAL_SECONDS", "3.0"),
    Value("ready.checks.observability:ARRIVAL_SECONDS", "3.0"),
    Value("ready.checks.observability:SCRAPE_SECONDS", "5.0"),
)


@pytest.fixture
def impatient(prober: Prober) -> Prober:
    for each in IMPATIENT:
        each.apply(prober.project.root)
    return prober


def look(prober: Prober, service: Service, area: str, check: str, **env: str) -> tuple[str, str, str, int]:
    found: Found = prober.look(service, "--area", area, **env)
    outcome = found.outcome(check)
    return outcome["status"], outcome["seen"], outcome["step"], found.code


# --- traces -----------------------------------------------------------------------------------------------------


def test_a_trace_is_found_where_it_was_exported_to(prober: Prober, served: Served) -> None:
    with open_collector() as collector:
        prober.far_end("traces", collector.url)
        with served(prober.project, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **QUICK) as service:
            status, seen, _, code = look(prober, service, "observability", "observability.traces")
    assert (status, code) == ("proven", 0)
    assert f"/v1/items was found at {collector.url}/api/traces/" in seen
    assert seen.endswith("spans: 3")  # the request, BEGIN, SELECT


def test_a_far_end_where_nothing_arrives_or_that_is_away_or_locked_is_no_proof(
    impatient: Prober, service: Service
) -> None:
    with open_collector() as collector:
        impatient.far_end("traces", collector.url, "TRACES_TOKEN")
        unset = look(impatient, service, "observability", "observability.traces")
        status, seen, step, code = look(
            impatient, service, "observability", "observability.traces", TRACES_TOKEN="t0ken"
        )
    away = look(impatient, service, "observability", "observability.traces", TRACES_TOKEN="t0ken")
    assert unset[:1] + unset[2:] == ("unknown", "set TRACES_TOKEN to a token that may read", 2)
    assert (status, code) == ("gap", 1)
    assert "did not arrive within 3 s" in seen
    assert "OTEL_TRACES_SAMPLER" in step
    assert (away[0], away[3]) == ("unknown", 2)
    assert f"{collector.url} is unreachable" in away[1]
    assert "t0ken" not in str(away)


# --- metrics ----------------------------------------------------------------------------------------------------


@contextmanager
def scraped(port: int) -> Iterator[Prometheus]:
    """Prometheus, looking at a service every second."""
    target = {"job_name": "my-service", "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    with Prometheus({"scrape_configs": [target]}) as server:
        yield server


def counted(prober: Prober, served: Served, exporter: str) -> tuple[str, str, str, int]:
    port = free_port()
    with (
        served(prober.project, OTEL_METRICS_EXPORTER=exporter, METRICS_PORT=str(port)) as service,
        scraped(port) as prometheus,
    ):
        prober.far_end("metrics", f"http://{prometheus.address}")
        return look(prober, service, "observability", "observability.metrics")


def test_requests_are_counted_in_the_real_prometheus(prober: Prober, served: Served) -> None:
    status, seen, _, code = counted(prober, served, "prometheus")
    assert (status, code) == ("proven", 0), seen
    assert seen.startswith("3 requests: the count went from ")


@pytest.mark.sabotage
def test_observability_metrics_turns_red(impatient: Prober, served: Served) -> None:
    status, seen, step, code = counted(impatient, served, "none")
    assert (status, code) == ("gap", 1)
    assert "the count went from 0 to 0 in 5 s" in seen
    assert "check OTEL_METRICS_EXPORTER" in step


# --- leases -----------------------------------------------------------------------------------------------------


@contextmanager
def lent(
    prober: Prober, served: Served, vault: Space, folder: Path, seconds: int
) -> Iterator[tuple[Service, Prometheus]]:
    """A service with a token that lives so long and is renewed before, in the sight of Prometheus."""
    side, port = deploy(vault, prober.project, folder, token_ttl=seconds), free_port()
    side.write(unused="x")
    env = {**side.env, "OTEL_METRICS_EXPORTER": "prometheus", "METRICS_PORT": str(port)}
    with served(prober.project, **env) as service, scraped(port) as prometheus:
        prober.far_end("metrics", f"http://{prometheus.address}")
        vault.wait_until(lambda: bool(shares(prometheus)))
        yield service, prometheus


def shares(prometheus: Prometheus) -> list[float]:
    """What is left of each lease."""
    found = prometheus.query("secrets_lease_remaining_seconds / secrets_lease_duration_seconds")
    return [float(each["value"][1]) for each in found]


def test_a_lease_that_is_renewed_is_no_gap_and_only_claimed(
    prober: Prober, served: Served, vault: Space, tmp_path: Path
) -> None:
    with lent(prober, served, vault, tmp_path / "side", 60) as (service, _):
        found = prober.look(service, "--area", "secrets")
    assert {each["check"]: each["status"] for each in found.report["outcomes"]} == {
        "secrets.backend": "claimed",
        "secrets.leases": "claimed",
        "secrets.silent": "proven",
    }
    assert found.outcome("secrets.backend")["seen"] == "the service says: secrets of Vault are current: 1"
    assert found.outcome("secrets.leases")["seen"].startswith("the service says: leases: 1; the shortest, token, has ")


@pytest.mark.sabotage
def test_secrets_leases_turns_red(prober: Prober, served: Served, vault: Space, tmp_path: Path) -> None:
    with lent(prober, served, vault, tmp_path / "side", 6) as (service, prometheus):
        vault.network.pause()
        vault.wait_until(lambda: min(shares(prometheus)) < 0.2)
        status, seen, step, code = look(prober, service, "secrets", "secrets.leases")
    assert (status, code) == ("gap", 1)
    assert seen.startswith("the lease token has ")
    assert "SecretsLeaseRunsOut" in step


# --- hits -------------------------------------------------------------------------------------------------------


def hit(prober: Prober, served: Served, cache: str) -> tuple[str, str, str, int]:
    port = free_port()
    env = {"CACHE_URL": cache, "OTEL_METRICS_EXPORTER": "prometheus", "METRICS_PORT": str(port)}
    with served(prober.project, **env) as service, scraped(port) as prometheus:
        prober.far_end("metrics", f"http://{prometheus.address}")
        return look(prober, service, "caching", "caching.hits")


def test_hits_of_the_cache_are_counted_in_the_real_prometheus(prober: Prober, served: Served) -> None:
    status, seen, _, code = hit(prober, served, "memory://")
    assert (status, code) == ("proven", 0), seen
    assert "was read three times, the hits of all clients went from 0 to 2" in seen


@pytest.mark.sabotage
def test_caching_hits_turns_red(impatient: Prober, served: Served) -> None:
    status, seen, step, code = hit(impatient, served, "off")
    assert (status, code) == ("gap", 1)
    assert "the hits stayed at 0 for 5 s" in seen
    assert "check CACHE_URL" in step


# --- errors -----------------------------------------------------------------------------------------------------


def tracked(
    prober: Prober, served: Served, bugsink: Bugsink, listed: Sink, reported: Sink
) -> tuple[str, str, str, int]:
    """Report errors to one project, and look for them in another or the same."""
    prober.far_end("tracker", f"{bugsink.url}/api/canonical/0/issues/?project={listed.number}", "TRACKER_TOKEN")
    token = str(bugsink.client.headers["Authorization"]).removeprefix("Bearer ")
    with served(prober.project, SENTRY_DSN=reported.dsn) as service:
        return look(prober, service, "errors", "errors.tracked", TRACKER_TOKEN=token)


def test_an_error_is_found_in_the_real_bugsink_without_its_secret(
    prober: Prober, served: Served, bugsink: Bugsink
) -> None:
    sink = bugsink.create_project()
    status, seen, _, code = tracked(prober, served, bugsink, sink, sink)
    assert (status, code) == ("proven", 0), seen
    assert seen.endswith(" s, the password in it was not")
    assert [event["exception"]["values"][0]["type"] for event in sink.events()] == ["ProbeError"] * 2  # raised, tracked


@pytest.mark.sabotage
@pytest.mark.parametrize("kind", ["another project", "a leak"])
def test_errors_tracked_turns_red(impatient: Prober, served: Served, bugsink: Bugsink, kind: str) -> None:
    sink, other = bugsink.create_project(), bugsink.create_project()
    if kind == "a leak":
        Body("redaction:redact", "return value").apply(impatient.project.root)
        other = sink
    status, seen, step, code = tracked(impatient, served, bugsink, sink, other)
    assert (status, code) == ("gap", 1)
    assert ("arrived too" if kind == "a leak" else "did not arrive within 3 s") in seen
    assert ("platform/redaction.py" if kind == "a leak" else "SENTRY_DSN") in step


def test_production_has_to_name_its_far_ends(prober: Prober, served: Served) -> None:
    """Also a service that is like production."""
    areas = ("--area", "errors", "--area", "observability")
    with served(prober.project, ENVIRONMENT="test") as service:
        found = prober.look(service, *areas, "--profile", "production", "--yes")
    gaps = {each["check"]: each["step"] for each in found.report["outcomes"] if each["status"] == "gap"}
    assert gaps.keys() == {"errors.tracked", "observability.metrics", "observability.traces"}
    assert "[far_ends.tracker]" in gaps["errors.tracked"]
    assert "[far_ends.metrics]" in gaps["observability.metrics"]
    assert "[far_ends.traces]" in gaps["observability.traces"]
