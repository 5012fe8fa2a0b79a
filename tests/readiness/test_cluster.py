"""What `ready` says of a cluster: a real API server has the manifests as emitted, and what controllers would have made.

There is no node and no Flagger here, so states that take them minutes are written as they write them.
"""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import Cluster, Document
from tests.cluster.control import Control
from tests.kubernetes.manifests import K8S, kustomize
from tests.projects import Project, Service
from tests.readiness.conftest import Found, Prober
from tests.readiness.test_kubernetes import AREAS, CHECKS, on_path
from tests.servers import modules

pytestmark = pytest.mark.cluster
NAME, NAMESPACE = "my-service", "my-service"
PRIMARY = f"{NAME}-primary"
KINDS = {
    "Canary",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Namespace",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
}
SELECTS_NOTHING = {"matchLabels": {"app.kubernetes.io/component": "nothing"}}
SCALES = {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound", "message": "it counts"}
NO_METRICS = {**SCALES, "status": "False", "reason": "FailedGetResourceMetric", "message": "no metrics were returned"}
Change = Callable[["Deployed"], object]


@dataclass
class Deployed:
    """The service after its first release."""

    cluster: Cluster
    documents: list[Document] = field(default_factory=list)

    def one(self, kind: str) -> Document:
        found = next(each for each in self.documents if (each["kind"], each["metadata"]["name"]) == (kind, NAME))
        return copy.deepcopy(found)

    def patch(self, what: str, change: Document, *options: str) -> None:
        """Merge into an object; with `--subresource=status` as controllers do."""
        where = f"--namespace={NAMESPACE}"
        self.cluster.kubectl("patch", what, where, "--type=merge", f"--patch={json.dumps(change)}", *options)

    def close(self) -> None:
        """Let the edges select nothing; what denies all still selects all."""
        for name in (NAME, f"{NAME}-metrics", f"{NAME}-smoke"):
            self.patch(f"networkpolicy/{name}", {"spec": {"podSelector": SELECTS_NOTHING}})

    def state(self, what: str, **status: Any) -> None:
        self.patch(what, {"status": status}, "--subresource=status")

    def phase(self, phase: str, weight: int = 0) -> None:
        moment = "2026-11-27T00:00:00Z"
        found = {"failedChecks": 0, "iterations": 0, "lastAppliedSpec": "1", "lastTransitionTime": moment}
        self.state(f"canary/{NAME}", phase=phase, canaryWeight=weight, **found)

    def route(self, canary: int) -> None:
        """What Flagger makes of the route."""
        backends = [(PRIMARY, 100 - canary), (f"{NAME}-canary", canary)]
        references = [
            {"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight} for name, weight in backends
        ]
        self.cluster.apply(
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": {"name": NAME, "namespace": NAMESPACE},
                "spec": {"rules": [{"backendRefs": references}]},
            }
        )

    def copies(self) -> Iterator[Document]:
        """What Flagger makes of Deployment and autoscaler: it rewrites one label."""
        workload, scaler = self.one("Deployment"), self.one("HorizontalPodAutoscaler")
        for each in (workload, scaler):
            each["metadata"] = {"name": PRIMARY, "namespace": NAMESPACE}
        spec = workload["spec"]
        spec["replicas"] = 3
        spec["selector"]["matchLabels"]["app"] = spec["template"]["metadata"]["labels"]["app"] = PRIMARY
        scaler["spec"]["scaleTargetRef"]["name"] = PRIMARY
        yield from (workload, scaler)

    def release(self) -> None:
        """Three pods of the primary serve, none of the canary."""
        made = list(self.copies())
        self.cluster.apply(*[each for each in self.documents if each["kind"] in KINDS], *made)
        self.patch(f"deployment/{NAME}", {"spec": {"replicas": 0}})
        counts = dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas", "availableReplicas"), 3)
        self.state(f"deployment/{PRIMARY}", **counts)
        self.state(f"hpa/{PRIMARY}", desiredReplicas=3, conditions=[SCALES])
        template = made[0]["spec"]["template"]
        for number in range(3):
            name = f"{PRIMARY}-5d8c7b6f9-aaaa{number}"
            metadata = {**template["metadata"], "name": name, "namespace": NAMESPACE}
            self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
            self.state(f"pod/{name}", phase="Running")
        self.route(0)
        self.phase("Succeeded")


@pytest.fixture(scope="module")
def control() -> Iterator[Control]:
    """With the resources of Flagger and Gateway API."""
    with Control() as started:
        found = [*modules.files("flagger"), *modules.files("gateway-api")]
        documents = [each for file in found for each in yaml.safe_load_all(file.read_text()) if each]
        kinds = [each for each in documents if each.get("kind") == "CustomResourceDefinition"]
        wanted = [each for each in kinds if each["spec"]["names"]["kind"] in ("Canary", "HTTPRoute")]
        started.cluster.apply(*wanted)
        for each in wanted:
            name = each["metadata"]["name"]
            started.cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s")
        yield started


@pytest.fixture(scope="module")
def documents(project: Project) -> list[Document]:
    """The production overlay."""
    return kustomize(project.root / K8S / "overlays/production")


@pytest.fixture
def deployed(control: Control, documents: list[Document]) -> Deployed:
    """As after a good release, whatever a test before has changed."""
    made = Deployed(control.cluster, documents)
    made.release()
    return made


@pytest.fixture
def look(control: Control, prober: Prober, service: Service) -> Callable[..., Found]:
    """Run `ready` as an operator with a kubeconfig."""

    def run(user: str = "admin", group: str = "system:masters", namespace: str = NAMESPACE) -> Found:
        file = control.kubeconfig(user, group, namespace)
        return prober.look(service, *AREAS, KUBECONFIG=str(file), PATH=on_path())

    return run


def said(found: Found, check: str) -> tuple[str, str]:
    outcome = found.outcome(check)
    return outcome["status"], outcome["seen"]


def test_a_finished_release_and_what_applies_to_its_pods_are_proven(
    deployed: Deployed, look: Callable[..., Found]
) -> None:
    found = look()
    image = deployed.one("Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert "@sha256:" in image
    served = f"3 pods of {PRIMARY} serve {image}, and 20 requests were served by 0.1.0 (unknown)"
    assert said(found, "releases.kubernetes") == ("proven", f"the release is done: {served}")
    applied = "with an autoscaler, one disruption budget each, and network policies both ways"
    assert said(found, "scaling.pods") == ("proven", f"3 pods run: {applied}")
    assert found.red == set()


def test_a_release_that_was_rolled_back_leaves_the_old_version(deployed: Deployed, look: Callable[..., Found]) -> None:
    old = deployed.one("Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]
    bad = {"spec": {"template": {"spec": {"containers": [{"name": "service", "image": "ghcr.io/acme/bad:1"}]}}}}
    where = (f"deployment/{NAME}", f"--namespace={NAMESPACE}", "--type=strategic", f"--patch={json.dumps(bad)}")
    deployed.cluster.kubectl("patch", *where)
    deployed.phase("Failed")
    status, seen = said(look(), "releases.kubernetes")
    assert (status, seen.split(",")[0]) == ("proven", f"the release is rolled back: 3 pods of {PRIMARY} serve {old}")
    deployed.phase("Succeeded")
    status, seen = said(look(), "releases.kubernetes")
    assert (status, seen) == ("gap", f"{PRIMARY} has {old}, and {NAME} has ghcr.io/acme/bad:1")


RELEASES: dict[str, tuple[Change, str]] = {
    "unfinished": (lambda it: it.phase("Progressing", 10), "the release is not finished: Progressing, at 10 %"),
    "without analysis": (
        lambda it: it.patch(f"canary/{NAME}", {"spec": {"skipAnalysis": True}}),
        "the next release will not be measured, so a bad one will not be rolled back",
    ),
    "a pod that is not ready": (
        lambda it: it.state(f"deployment/{PRIMARY}", readyReplicas=2, availableReplicas=2),
        f"2 of 3 pods of {PRIMARY} are ready, or not all have",
    ),
    "a route to the canary": (lambda it: it.route(10), f"the HTTPRoute sends requests to {NAME}-canary"),
    "no canary": (
        lambda it: it.cluster.kubectl("delete", "canary", NAME, f"--namespace={NAMESPACE}"),
        f"there is no Canary {NAME} in the namespace of KUBECONFIG",
    ),
}
PODS: dict[str, tuple[Change, str]] = {
    "a budget that selects nothing": (
        lambda it: it.patch(f"pdb/{NAME}", {"spec": {"selector": SELECTS_NOTHING}}),
        "has 0 disruption budgets",
    ),
    "an autoscaler without metrics": (
        lambda it: it.state(f"hpa/{PRIMARY}", conditions=[NO_METRICS]),
        f"no autoscaler works for {PRIMARY}: no metrics were returned",
    ),
    "an autoscaler of something else": (
        lambda it: it.patch(f"hpa/{PRIMARY}", {"spec": {"scaleTargetRef": {"name": "other"}}}),
        f"no autoscaler works for {PRIMARY}: none has begun",
    ),
    "an edge that selects nothing": (
        lambda it: it.close(),
        "no network policy allows ingress of the pod",
    ),
    "no policy": (
        lambda it: it.cluster.kubectl("delete", "networkpolicy", "--all", f"--namespace={NAMESPACE}"),
        "no network policy restricts ingress of the pod",
    ),
}


@pytest.mark.parametrize("case", RELEASES)
def test_releases_kubernetes_turns_red(deployed: Deployed, look: Callable[..., Found], case: str) -> None:
    change, seen = RELEASES[case]
    change(deployed)
    found = look()
    deployed.patch(f"canary/{NAME}", {"spec": {"skipAnalysis": False}}) if case == "without analysis" else None
    assert found.red == {"releases.kubernetes"}
    status, text = said(found, "releases.kubernetes")
    assert (status, text[: len(seen)]) == ("gap", seen)


@pytest.mark.parametrize("case", PODS)
def test_scaling_pods_turns_red(deployed: Deployed, look: Callable[..., Found], case: str) -> None:
    change, seen = PODS[case]
    change(deployed)
    found = look()
    assert found.red == {"scaling.pods"}
    status, text = said(found, "scaling.pods")
    assert (status, seen in text) == ("gap", True), text


def test_selectors_with_expressions_are_understood(deployed: Deployed, look: Callable[..., Found]) -> None:
    def select(*rules: tuple[str, str, list[str]]) -> None:
        found = [
            {"key": key, "operator": operator, **({"values": values} if values else {})}
            for key, operator, values in rules
        ]
        deployed.patch(f"pdb/{NAME}", {"spec": {"selector": {"matchLabels": None, "matchExpressions": found}}})

    select(("app", "In", [NAME, PRIMARY]), ("app", "Exists", []), ("other", "DoesNotExist", []), ("x", "NotIn", ["y"]))
    assert said(look(), "scaling.pods")[0] == "proven"
    select(("app", "NotIn", [PRIMARY]))
    assert said(look(), "scaling.pods")[0] == "gap"


def test_another_namespace_and_missing_rights_are_named(deployed: Deployed, look: Callable[..., Found]) -> None:
    found = look(namespace="default")
    assert said(found, "scaling.pods") == ("gap", f"no pod of {NAME} runs in the namespace of KUBECONFIG")
    step = f"type: kubectl config set-context --current --namespace={NAME}; or apply an overlay"
    assert all(found.outcome(check)["step"].startswith(step) for check in CHECKS)
    found = look("nobody", "guests")
    for check in CHECKS:
        status, seen = said(found, check)
        assert status == "unknown"
        assert seen.startswith("kubectl says: Error from server (Forbidden): ")
        assert 'User "nobody" cannot list resource' in seen
