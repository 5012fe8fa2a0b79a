"""The parts of an overlay find each other, also when Flagger has copied the Deployment and rewritten its label."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract import CONTRACT
from tests.kubernetes.manifests import K8S, Manifests, Pod, kustomize
from tests.projects import ROOT, Edit, Project

PLATFORM = next(iter((ROOT / "template/src").glob("*/platform")))
OVERLAY = K8S / "overlays/production"
# Settings of the service that no contract names, those of OpenTelemetry's pod and those of all AWS tools.
OTHERS = {"AWS_REGION", "BACKUP_SCRATCH_DIR", "DB_INSTANCES", "VAULT_JWT_FILE"}
POD = set(re.findall(r'"(K8S_\w+)"', (PLATFORM / "telemetry/sdk.py").read_text()))


def constant(file: str, name: str) -> float:
    """A number of the service, from its source."""
    (found,) = re.findall(rf"^{name} = ([\d.]+)", (PLATFORM / file).read_text(), re.M)
    return float(found)


def lost(found: Manifests) -> Iterator[str]:
    """What leads nowhere."""
    yield from selectors(found)
    yield from ports(found)
    yield from network(found)
    yield from variables(found)
    yield from releases(found)
    yield from shutdown(found)


def selectors(found: Manifests) -> Iterator[str]:
    """What has to find all pods that serve, and finds others or fewer."""
    for kind in ("PodDisruptionBudget", "NetworkPolicy", "Service"):
        for each in found.all(kind):
            spec = each["spec"]
            chosen = found.selected(spec.get("selector") or spec.get("podSelector") or {})
            partial = chosen & found.versions not in (set(), found.versions)
            if not chosen or partial:
                yield f"{kind} {each['metadata']['name']} selects {sorted(chosen) or 'nothing'}"
    for each in found.all("PodDisruptionBudget"):
        if found.selected(each["spec"]["selector"]) != found.versions:
            yield "the budget does not select what serves"
    for pod in found.pods():
        for spread in pod.spec.get("topologySpreadConstraints", []):
            # of both labels Flagger rewrites the value if it is the Deployment's name
            wanted = {
                key: value
                + ("-primary" if key in ("app", "app.kubernetes.io/name") and pod.workload.endswith("-primary") else "")
                for key, value in spread["labelSelector"]["matchLabels"].items()
            }
            if found.selected(wanted) != {pod.workload}:
                yield f"the spread of {pod.workload} counts {sorted(found.selected(wanted))}"


def names(pod: Pod) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in pod.container.get("ports", [])}


def ports(found: Manifests) -> Iterator[str]:
    """Ports of Services and probes that no container has."""
    open_ports = {name for pod in found.pods() for name in names(pod)}
    for each in found.all("Service"):
        for port in each["spec"]["ports"]:
            if port["targetPort"] not in open_ports:
                yield f"Service {each['metadata']['name']}: no container has the port {port['targetPort']}"
    if found.canary and (target := found.canary["spec"]["service"]["targetPort"]) not in open_ports:
        yield f"Canary: no container has the port {target}"
    for pod in found.pods():
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in pod.container and pod.container[probe]["httpGet"]["port"] not in names(pod):
                yield f"{probe}: no such port"


def network(found: Manifests) -> Iterator[str]:
    """What nobody may reach, though somebody has to."""

    def open_to(workload: str) -> set[Any]:
        policies = [
            each["spec"]
            for each in found.all("NetworkPolicy")
            if workload in found.selected(each["spec"]["podSelector"])
        ]
        return {port["port"] for spec in policies for rule in spec.get("ingress", []) for port in rule["ports"]}

    if found.selected(found.one("NetworkPolicy", "default-deny")["spec"]["podSelector"]) != {
        pod.workload for pod in found.pods()
    }:
        yield "default-deny leaves pods out"
    for each in found.all("ServiceMonitor"):
        services = [
            s
            for s in found.all("Service")
            if each["spec"]["selector"]["matchLabels"].items() <= s["metadata"].get("labels", {}).items()
        ]
        for endpoint in each["spec"]["endpoints"]:
            targets = {
                (port["targetPort"], w)
                for s in services
                for port in s["spec"]["ports"]
                if port["name"] == endpoint["port"]
                for w in found.selected(s["spec"]["selector"])
            }
            if {workload for _, workload in targets} != found.versions:
                yield f"the monitor scrapes {sorted(workload for _, workload in targets) or 'nothing'}"
            yield from (f"nobody may scrape {workload}" for port, workload in targets if port not in open_to(workload))
    for policy in found.all("NetworkPolicy"):
        if policy["metadata"]["name"].endswith("-database"):
            reached = found.selected(policy["spec"]["podSelector"])
            yield from (
                f"{pod.workload} may not reach the database" for pod in found.pods() if pod.workload not in reached
            )
    for workload in found.versions:
        if "http" not in open_to(workload):
            yield f"the gateway may not reach {workload}"


def variables(found: Manifests) -> Iterator[str]:
    """Variables that the settings do not know, and Secrets of which Flagger would make a copy."""
    known = {*CONTRACT["variable"].split(), *OTHERS, *POD}
    given = {*found.config}
    for pod in found.pods():
        given |= {each["name"] for each in pod.container.get("env", [])}
    yield from (f"no setting is called {name}" for name in sorted(given - known))
    for each in found.all("ExternalSecret"):
        template = each["spec"]["target"].get("template", {}).get("metadata", {})
        if template.get("annotations", {}).get("flagger.app/config-tracking") != "disabled":
            yield f"Flagger would copy the Secret {each['metadata']['name']}"


def releases(found: Manifests) -> Iterator[str]:
    """A Canary, an autoscaler and a route that are not about the same."""
    scaler = found.one("HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    deployment = found.one("Deployment")
    if target["name"] != deployment["metadata"]["name"]:
        yield "the autoscaler scales something else"
    if "replicas" in deployment["spec"]:
        yield "`replicas` belongs to the autoscaler"
    if scaler["spec"]["minReplicas"] > scaler["spec"]["maxReplicas"]:
        yield "the autoscaler has more at least than at most"
    if str(scaler["spec"]["maxReplicas"]) != found.config.get("DB_INSTANCES", str(scaler["spec"]["maxReplicas"])):
        yield "DB_INSTANCES is not what the autoscaler may start"
    if not found.canary:
        return
    spec, meta = found.canary["spec"], found.canary["metadata"]
    if spec["targetRef"] != target or spec["autoscalerRef"]["name"] != scaler["metadata"]["name"]:
        yield "autoscaler and Canary have different targets"
    if spec["service"]["hosts"][0] not in found.config["TRUSTED_HOSTS"].split(","):
        yield "the service does not trust its host"
    if [each for each in found.all("Service") + found.all("HTTPRoute") if each["metadata"]["name"] == meta["name"]]:
        yield "what Flagger has taken over would be reset by each apply"
    templates = {each["metadata"]["name"] for each in found.all("MetricTemplate")}
    for metric in spec["analysis"]["metrics"]:
        if metric["templateRef"]["name"] not in templates or "interval" not in metric or "thresholdRange" not in metric:
            yield f"the metric {metric['name']} has no template, window or limit"
    for hook in spec["analysis"]["webhooks"]:
        if f"namespace='{meta['namespace']}'" not in hook["metadata"]["cmd"]:
            yield f"the hook {hook['name']} asks another namespace"
    for ref in spec["service"]["gatewayRefs"]:
        if not ref.keys() >= {"group", "kind", "name", "namespace"}:
            yield "Flagger would reset the weights: the reference to the gateway has no group or kind"


def shutdown(found: Manifests) -> Iterator[str]:
    """A pod that is killed before it has ended, and probes that restart it for somebody else's fault."""
    for pod in found.pods():
        if pod.workload not in found.versions:
            continue
        needed = float(found.config["SHUTDOWN_DRAIN_SECONDS"]) + constant("server/__init__.py", "DEADLINE_SECONDS")
        if pod.spec["terminationGracePeriodSeconds"] <= needed:
            yield f"the grace period is not above {needed:g} s"
        if "lifecycle" in pod.container:
            yield "preStop and the drain of the process add up"
        paths = {
            probe: pod.container[probe]["httpGet"]["path"]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        if paths != {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}:
            yield f"probes: {paths}"
        if pod.container["readinessProbe"]["timeoutSeconds"] <= constant("health.py", "CHECK_SECONDS"):
            yield "the probe gives up before the check"


def test_all_parts_find_each_other(
    production: Manifests, production_blue_green: Manifests, deployed: Project, blue_green: Project
) -> None:
    assert production.versions == {"my-service", "my-service-primary"}
    for each in (production, production_blue_green):
        assert list(lost(each)) == []
    for project in (deployed, blue_green):
        for overlay in ("dev", "staging"):
            assert list(lost(Manifests(kustomize(project.root / K8S / "overlays" / overlay)))) == []


def test_the_values_of_a_site_reach_every_place(blue_green: Project, tmp_path: Path) -> None:
    site = blue_green.root / OVERLAY / "site.yaml"
    values = yaml.safe_load(site.read_text())["data"]
    moved = blue_green.variant(tmp_path / "moved")
    new = {
        name: str(90 + n)
        if name.startswith("replicas")
        else f"/{name}"
        if "path" in name
        else f"http://{name}.test"
        if "://" in value
        else f"{name}.test"
        for n, (name, value) in enumerate(values.items())
    }
    (moved.root / OVERLAY / "site.yaml").write_text(yaml.safe_dump({**yaml.safe_load(site.read_text()), "data": new}))
    found = Manifests(kustomize(moved.root / OVERLAY))
    text = yaml.safe_dump_all(found.documents, width=10_000)
    assert [name for name, value in new.items() if value not in text and name != "vault"] == []
    assert [
        name
        for name in ("host", "preview-host", "gateway", "prometheus", "tester")
        if re.search(rf"[ '/=]{re.escape(values[name])}[ '\n]", text)
    ] == []
    assert not found.all("ConfigMap")[1:]  # the values themselves are sent to nobody


CASES = [
    (
        "base/workload.yaml",
        "  selector: {matchLabels: {app.kubernetes.io/component: service, app.kubernetes.io/name:",
        "  selector: {matchLabels: {app.kubernetes.io/component: service, app:",
        "selects ['my-service']",
    ),
    (
        "base/workload.yaml",
        "labelSelector: {matchLabels: {app:",
        "labelSelector: {matchLabels: {app.kubernetes.io/name:",
        "the spread of my-service counts",
    ),
    ("base/workload.yaml", "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 50", "grace period"),
    ("base/workload.yaml", "/readyz", "/livez", "probes:"),
    (
        "base/workload.yaml",
        "name: metrics, containerPort",
        "name: prometheus, containerPort",
        "no container has the port metrics",
    ),
    ("base/kustomization.yaml", "SHUTDOWN_DRAIN_SECONDS=10", "SHUTDOWN_DRAIN_SECONDS=30", "grace period"),
    ("base/kustomization.yaml", "VAULT_ROLE=", "VAULT_ROLES=", "no setting is called VAULT_ROLES"),
    (
        "components/monitoring/monitor.yaml",
        "selector: {app.kubernetes.io/component: service, app.kubernetes.io/name",
        "selector: {app.kubernetes.io/component: service, app",
        "the monitor scrapes ['my-service']",
    ),
    (
        "components/monitoring/monitor.yaml",
        "{port: metrics, protocol: TCP}",
        "{port: http, protocol: TCP}",
        "nobody may scrape",
    ),
    ("components/release/canary.yaml", "targetPort: http", "targetPort: https", "Canary: no container"),
    (
        "components/release/canary.yaml",
        "kind: Deployment, name: my-service",
        "kind: Deployment, name: other",
        "different targets",
    ),
    ("components/release/canary.yaml", "group: gateway.networking.k8s.io, ", "", "reset the weights"),
    ("components/release/canary.yaml", ", interval: 2m", "", "has no template, window or limit"),
    (
        "components/migrate/job.yaml",
        ", app.kubernetes.io/name: my-service}",
        "}",
        "my-service-migrate may not reach the database",
    ),
    ("overlays/production/site.yaml", "namespace: my-service ", "namespace: other ", "asks another namespace"),
    ("overlays/production/site.yaml", 'replicas-min: "3"', 'replicas-min: "30"', "more at least than at most"),
]


@pytest.mark.sabotage
@pytest.mark.parametrize(("file", "old", "new", "fault"), CASES, ids=[f"{case[0]}-{case[3]}" for case in CASES])
def test_a_broken_link_is_found(deployed: Project, tmp_path: Path, file: str, old: str, new: str, fault: str) -> None:
    sick = deployed.variant(tmp_path / "sick", Edit(f"{K8S}/{file}", old, new))
    assert any(fault in said for said in lost(Manifests(kustomize(sick.root / OVERLAY))))
