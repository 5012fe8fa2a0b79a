"""What the service sends is looked for at the far end: a trace store, the real Prometheus, the real Bugsink."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.projects import Edit, Project, Service
from tests.readiness.conftest import Found, Prober, Served
from tests.secrets.conftest import deploy
from tests.servers.bugsink import Bugsink, Sink
from tests.servers.otlp import open_collector
from tests.servers.process import free_port
from tests.servers.prometheus import Prometheus
from tests.servers.vault import Vault

pytestmark = pytest.mark.servers
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
CHECKS = "ready/checks"
# The gate does not wait as long for what will not come.
IMPATIENT = (
    Edit(f"{CHECKS}/caching.py", "SCRAPE = 70.0", "SCRAPE = 5.0"),
    Edit(f"{CHECKS}/observability.py", "ARRIVE = 20.0", "ARRIVE = 3.0"),
    Edit(f"{CHECKS}/observability.py", "SCRAPE = 70.0", "SCRAPE = 5.0"),
    Edit(f"{CHECKS}/errors.py", "ARRIVE = 20.0", "ARRIVE = 3.0"),
)


@pytest.fixture
def impatient(prober: Prober) -> Prober:
    for edit in IMPATIENT:
        edit.apply(prober.project.root)
    return prober


def name(prober: Prober, end: str, url: str, token_variable: str = "") -> None:
    """Write a far end into `ready.toml`."""
    token = f'token_variable = "{token_variable}"\n' if token_variable else ""
    with (prober.project.root / "ready.toml").open("a") as file:
        file.write(f'\n[far_ends.{end}]\nurl = "{url}"\n{token}')


def look(prober: Prober, service: Service, area: str, check: str, **env: str) -> tuple[str, str, str, int]:
    found: Found = prober.look(service, "--area", area, **env)
    outcome = found.outcome(check)
    return outcome["status"], outcome["seen"], outcome["step"], found.code


# --- traces -----------------------------------------------------------------------------------------------------


def test_a_trace_is_found_where_it_was_exported_to(impatient: Prober, served: Served) -> None:
    with open_collector() as collector:
        name(impatient, "traces", collector.url)
        with served(impatient.project, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **QUICK) as service:
            status, seen, _, code = look(impatient, service, "observability", "observability.traces")
        assert (status, code) == ("proven", 0)
        assert f"/v1/items was found at {collector.url}/api/traces/" in seen
        assert seen.endswith("spans: 3")  # the request, BEGIN, SELECT
        with served(impatient.project, "silent", OTEL_TRACES_SAMPLER="always_off", **QUICK) as service:
            status, seen, step, code = look(impatient, service, "observability", "observability.traces")
    assert (status, code) == ("gap", 1)
    assert "did not arrive within 3 s" in seen
    assert "OTEL_TRACES_SAMPLER" in step


def test_a_far_end_that_is_away_or_locked_is_unknown(impatient: Prober, served: Served) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    name(impatient, "traces", nowhere, "TRACES_TOKEN")
    with served(impatient.project) as service:
        unset = look(impatient, service, "observability", "observability.traces")
        away = look(impatient, service, "observability", "observability.traces", TRACES_TOKEN="t0ken")
    assert unset[:1] + unset[2:] == ("unknown", "set TRACES_TOKEN to a token that may read", 2)
    assert (away[0], away[3]) == ("unknown", 2)
    assert f"{nowhere} does not answer" in away[1]
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
        name(prober, "metrics", f"http://{prometheus.address}")
        return look(prober, service, "observability", "observability.metrics")


def test_requests_are_counted_in_the_real_prometheus(prober: Prober, served: Served) -> None:
    status, seen, _, code = counted(prober, served, "prometheus")
    assert (status, code) == ("proven", 0), seen
    assert seen.startswith("3 requests were sent, the count went from ")


def test_observability_metrics_turns_red(impatient: Prober, served: Served) -> None:
    status, seen, step, code = counted(impatient, served, "none")
    assert (status, code) == ("gap", 1)
    assert "the count went from 0 to 0 in 5 s" in seen
    assert "look at OTEL_METRICS_EXPORTER" in step


# --- leases -----------------------------------------------------------------------------------------------------


@contextmanager
def lent(prober: Prober, served: Served, vault: Vault, folder: Path, seconds: int) -> Iterator[Service]:
    """A service with a token that lives so long and is renewed before, in the sight of Prometheus."""
    side, port = deploy(vault, prober.project, folder, token_ttl=seconds), free_port()
    side.write(nothing="")
    env = {**side.env, "OTEL_METRICS_EXPORTER": "prometheus", "METRICS_PORT": str(port)}
    with served(prober.project, **env) as service, scraped(port) as prometheus:
        name(prober, "metrics", f"http://{prometheus.address}")
        wait(lambda: bool(shares(prometheus)))
        yield service


def shares(prometheus: Prometheus) -> list[float]:
    """What is left of each lease."""
    query = "secrets_lease_remaining_seconds / secrets_lease_duration_seconds"
    return [float(each["value"][1]) for each in prometheus.ask("/api/v1/query", query=query)["data"]["result"]]


def wait(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_lease_that_is_renewed_is_proven(prober: Prober, served: Served, vault: Vault, tmp_path: Path) -> None:
    with lent(prober, served, vault, tmp_path / "side", 60) as service:
        found = prober.look(service, "--area", "secrets")
    assert {each["check"]: each["status"] for each in found.report["outcomes"]} == {
        "secrets.backend": "proven",
        "secrets.leases": "proven",
        "secrets.silent": "proven",
    }
    assert found.outcome("secrets.backend")["seen"] == "/readyz says: secrets of Vault are current: 1"
    assert found.outcome("secrets.leases")["seen"].startswith("leases: 1; of the shortest, token, ")


def test_secrets_leases_turns_red(prober: Prober, served: Served, vault: Vault, tmp_path: Path) -> None:
    with lent(prober, served, vault, tmp_path / "side", 6) as service:
        vault.state = "sealed"
        asked = len(vault.seen)
        wait(lambda: len(vault.seen) > asked + 1)
        time.sleep(2)
        status, seen, step, code = look(prober, service, "secrets", "secrets.leases")
    assert (status, code) == ("gap", 1)
    assert seen.startswith("of the lease token ")
    assert "SecretsLeaseRunsOut" in step


# --- hits -------------------------------------------------------------------------------------------------------


def hit(prober: Prober, served: Served, cache: str) -> tuple[str, str, str, int]:
    port = free_port()
    env = {"CACHE_URL": cache, "OTEL_METRICS_EXPORTER": "prometheus", "METRICS_PORT": str(port)}
    with served(prober.project, **env) as service, scraped(port) as prometheus:
        name(prober, "metrics", f"http://{prometheus.address}")
        return look(prober, service, "caching", "caching.hits")


def test_hits_of_the_cache_are_counted_in_the_real_prometheus(prober: Prober, served: Served) -> None:
    status, seen, _, code = hit(prober, served, "memory://")
    assert (status, code) == ("proven", 0), seen
    assert "was read three times, the hits went from 0 to 2" in seen


def test_caching_hits_turns_red(impatient: Prober, served: Served) -> None:
    status, seen, step, code = hit(impatient, served, "off")
    assert (status, code) == ("gap", 1)
    assert "the hits stayed at 0 for 5 s" in seen
    assert "look at CACHE_URL" in step


# --- errors -----------------------------------------------------------------------------------------------------


def tracked(
    prober: Prober, served: Served, bugsink: Bugsink, listed: Sink, reported: Sink
) -> tuple[str, str, str, int]:
    """Report errors to one project, and look for them in another or the same."""
    name(prober, "tracker", f"{bugsink.url}/api/canonical/0/issues/?project={listed.number}", "TRACKER_TOKEN")
    token = str(bugsink.client.headers["Authorization"]).removeprefix("Bearer ")
    with served(prober.project, SENTRY_DSN=reported.dsn) as service:
        return look(prober, service, "errors", "errors.tracked", TRACKER_TOKEN=token)


def test_an_error_is_found_in_the_real_bugsink_without_its_secret(
    prober: Prober, served: Served, bugsink: Bugsink
) -> None:
    sink = bugsink.create_project()
    status, seen, _, code = tracked(prober, served, bugsink, sink, sink)
    assert (status, code) == ("proven", 0), seen
    assert "the password that was planted in it was not" in seen
    assert [event["exception"]["values"][0]["type"] for event in sink.events()] == ["ProbeError"] * 2  # raised, tracked


@pytest.mark.parametrize("kind", ["another project", "a leak"])
def test_errors_tracked_turns_red(impatient: Prober, served: Served, bugsink: Bugsink, kind: str) -> None:
    sink, other = bugsink.create_project(), bugsink.create_project()
    if kind == "a leak":
        Edit("src/my_service/platform/probe.py", ", password={planted", ", beware of {planted").apply(
            impatient.project.root
        )
        other = sink
    status, seen, step, code = tracked(impatient, served, bugsink, sink, other)
    assert (status, code) == ("gap", 1)
    assert ("has arrived as well" if kind == "a leak" else "did not arrive within 3 s") in seen
    assert ("platform/redaction.py" if kind == "a leak" else "SENTRY_DSN") in step


@pytest.mark.parametrize(
    ("area", "checks"),
    [
        ("observability", {"observability.metrics": "[far_ends.metrics]", "observability.traces": "[far_ends.traces]"}),
        ("errors", {"errors.tracked": "[far_ends.tracker]"}),
    ],
)
def test_production_has_to_name_its_far_ends(
    project: Project, prober: Prober, served: Served, tmp_path: Path, area: str, checks: dict[str, str]
) -> None:
    edit = Edit(
        "src/my_service/platform/health.py", '"environment": settings.environment', '"environment": "production"'
    )
    with served(project.variant(tmp_path / "production", edit)) as service:
        found = prober.look(service, "--area", area, "--yes")
    gaps = {each["check"]: each["step"] for each in found.report["outcomes"] if each["status"] == "gap"}
    assert gaps.keys() == checks.keys()
    assert all(line in gaps[check] for check, line in checks.items())
