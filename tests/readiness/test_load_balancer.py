"""What `ready` sees of a load balancer from outside: NGINX before instances whose traces go to a store, and TLS."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.readiness.conftest import Prober, Served
from tests.readiness.tls import proxied
from tests.sabotage import Value
from tests.servers.nginx import Nginx
from tests.servers.otlp import Collector, open_collector

pytestmark = pytest.mark.servers
AREA = ("--area", "scaling", "--profile", "production")
BALANCER = """
upstream service {{ {peers} }}
server {{
    listen ADDRESS;
    location / {{
        proxy_pass http://service;
        proxy_set_header Host $host;
        {more}
    }}
}}
"""
OVERWRITE = "proxy_set_header X-Forwarded-For $remote_addr;"


@contextmanager
def balanced(
    prober: Prober, served: Served, *, instances: int = 2, more: str = OVERWRITE, sampler: str = "parentbased_always_on"
) -> Iterator[str]:
    """NGINX before instances; the value is its URL."""
    with ExitStack() as opened:
        collector: Collector = opened.enter_context(open_collector())
        prober.far_end("traces", collector.url)
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        env |= {"OTEL_TRACES_SAMPLER": sampler}
        names = [f"instance-{n}" for n in range(instances)]
        ports = [opened.enter_context(served(prober.project, name, **env)).port for name in names]
        peers = " ".join(f"server 127.0.0.1:{port};" for port in ports)
        yield opened.enter_context(Nginx(BALANCER.format(peers=peers, more=more))).url


def look(prober: Prober, url: str, check: str) -> tuple[str, str, str]:
    outcome = prober.look(url, *AREA).outcome(check)
    return outcome["status"], outcome["seen"], outcome["step"]


def test_two_instances_behind_a_balancer_are_proven_and_a_forged_address_has_no_effect(
    prober: Prober, served: Served
) -> None:
    with balanced(prober, served) as url:
        found = prober.look(url, *AREA)
    assert found.outcome("scaling.balanced")["seen"] == "8 requests were served by 2 instances"
    seen = found.outcome("scaling.clients")["seen"]
    assert seen == "X-Forwarded-For: 192.0.2.77 was ignored, the trace has 127.0.0.1"
    assert found.red == set()


@pytest.mark.sabotage
def test_scaling_balanced_turns_red(prober: Prober, served: Served) -> None:
    with balanced(prober, served, instances=1) as url:
        status, seen, step = look(prober, url, "scaling.balanced")
    assert status == "gap"
    assert seen.startswith("8 requests: all were served by the instance ")
    assert step == "start a second instance, and add it to the servers of the load balancer"


@pytest.mark.sabotage
def test_scaling_clients_turns_red(prober: Prober, served: Served) -> None:
    with balanced(prober, served, more="") as url:
        status, seen, step = look(prober, url, "scaling.clients")
    assert (status, seen) == ("gap", "X-Forwarded-For: 192.0.2.77 became the client's address")
    assert "overwrite X-Forwarded-For" in step


def test_without_traces_nothing_is_said_about_instances(prober: Prober, served: Served) -> None:
    Value("ready.checks.load_balancer:ARRIVAL_SECONDS", "2.0").apply(prober.project.root)
    with balanced(prober, served, sampler="always_off") as url:
        found = prober.look(url, *AREA)
    for check, count in (("balanced", "8 of 8"), ("clients", "1 of 1")):
        outcome = found.outcome(f"scaling.{check}")
        assert (outcome["status"], outcome["seen"]) == ("unknown", f"{count} traces did not arrive within 2 s")


# --- TLS --------------------------------------------------------------------------------------------------------


def handshakes(prober: Prober, served: Served, folder: Path, least: ssl.TLSVersion) -> tuple[str, str, str]:
    """Look at a service behind a proxy that speaks TLS from a version on."""
    with served(prober.project) as service, proxied(service.port, folder, least) as (url, authority):
        outcome = prober.look(url, *AREA, SSL_CERT_FILE=str(authority)).outcome("scaling.tls")
    return outcome["status"], outcome["seen"], outcome["step"]


def test_old_versions_of_tls_are_refused(prober: Prober, served: Served, tmp_path: Path) -> None:
    found = handshakes(prober, served, tmp_path, ssl.TLSVersion.TLSv1_2)
    assert found == ("proven", "TLSv1.3 was accepted, TLSv1.1 and older were refused", "")


@pytest.mark.sabotage
def test_scaling_tls_turns_red(prober: Prober, served: Served, tmp_path: Path) -> None:
    found = handshakes(prober, served, tmp_path, ssl.TLSVersion.TLSv1)
    assert found == ("gap", "TLSv1.1 was accepted", "allow TLS 1.2 and 1.3 only where TLS ends")
