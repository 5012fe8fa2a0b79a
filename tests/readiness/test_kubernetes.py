"""What `ready` says of Kubernetes where no cluster answers: one line that names the reason."""

import os
import socket
from pathlib import Path

import pytest

from tests.projects import Service
from tests.readiness.conftest import Found, Prober
from tests.sabotage import Gone, Value
from tests.servers import wheels
from tests.servers.process import free_port

pytestmark = pytest.mark.servers
CHECKS = ("releases.kubernetes", "scaling.pods")
AREAS = ("--area", "releases", "--area", "scaling")
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: one, cluster: {{server: "{url}"}}}}]
contexts: [{{name: one, context: {{cluster: one, user: one, namespace: my-service}}}}]
users: [{{name: one, user: {{token: a-secret-of-the-tests}}}}]
current-context: one
"""


def on_path() -> str:
    """With the kubectl of the kit."""
    return os.pathsep.join([str(wheels.ensure("kubectl").parent), os.environ["PATH"]])


def kubeconfig(prober: Prober, url: str) -> str:
    file = prober.project.root / "kubeconfig"
    file.write_text(KUBECONFIG.format(url=url))
    return str(file)


def verdicts(found: Found) -> set[tuple[str, str]]:
    """Status and evidence of both checks, which ask for different kinds."""
    outcomes = [found.outcome(check) for check in CHECKS]
    return {(each["status"], each["seen"]) for each in outcomes}


def test_without_a_kubeconfig_no_cluster_is_checked(prober: Prober, service: Service) -> None:
    found = prober.look(service, *AREAS)
    assert verdicts(found) == {("not run", "a cluster is checked on request only")}
    assert (found.outcome("scaling.pods")["step"], found.code) == ("set KUBECONFIG", 0)
    Gone("deploy/k8s").apply(prober.project.root)
    (prober.project.root / "deploy/k8s").rename(prober.project.root / "deploy/none")
    seen = "because this project has no deploy/k8s: it is not deployed to Kubernetes"
    assert verdicts(prober.look(service, *AREAS)) == {("not applicable", seen)}


def test_a_missing_kubectl_or_kubeconfig_is_named(prober: Prober, service: Service, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    found = prober.look(service, *AREAS, KUBECONFIG=nowhere)
    assert (verdicts(found), found.code) == ({("unknown", f"KUBECONFIG={nowhere} is no file")}, 2)
    file = kubeconfig(prober, "https://127.0.0.1:1")
    found = prober.look(service, *AREAS, KUBECONFIG=file, PATH=str(tmp_path))
    assert verdicts(found) == {("unknown", "there is no kubectl on PATH")}
    assert found.outcome("scaling.pods")["step"] == "install kubectl"


def test_a_cluster_that_is_not_reached_is_named_with_the_command_to_try(prober: Prober, service: Service) -> None:
    port = free_port()
    file = kubeconfig(prober, f"http://127.0.0.1:{port}")
    found = prober.look(service, *AREAS, KUBECONFIG=file, PATH=on_path())
    ((status, seen),) = verdicts(found)
    assert (status, seen.startswith(f"kubectl says: The connection to the server 127.0.0.1:{port} was refused")) == (
        "unknown",
        True,
    )
    assert found.outcome("scaling.pods")["step"].endswith(": kubectl get deployments,hpa,networkpolicies,pdb,pods")
    assert "a-secret-of-the-tests" not in str(found)


def test_a_cluster_that_never_answers_is_given_up(prober: Prober, service: Service) -> None:
    Value("ready.checks.kubernetes:KUBECTL_SECONDS", "3.0").apply(prober.project.root)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = kubeconfig(prober, f"http://127.0.0.1:{silent.getsockname()[1]}")
        found = prober.look(service, *AREAS, KUBECONFIG=file, PATH=on_path())
    assert verdicts(found) == {("unknown", "no response within 3 s")}
    assert max(found.outcome(check)["seconds"] for check in CHECKS) < 8
