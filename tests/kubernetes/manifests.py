"""What the overlays render to, by kubectl's own kustomize, and how its parts find each other."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft7Validator, Draft202012Validator
from referencing import Registry, Resource

from tests.commands import must
from tests.servers import wheels

Document = dict[str, Any]
Labels = Mapping[str, str]
K8S = Path("deploy/k8s")
OVERLAYS = ("dev", "production", "staging")
# The package reads its schemas again for each document.
KUBERNETES = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema/v1.37.0-local-strict"
SCHEMAS = {
    kind: Draft7Validator(schema)
    for kind, schema in json.loads(Path(__file__).with_name("crds.json").read_text()).items()
}
# What makes the manifests, so that a copy takes a second and not three.
PARTS = ("copier.yml", "includes", "template/deploy/*k8s*", "template/observability/alerts.yaml.jinja")
checked: dict[str, list[str]] = {}


def trimmed(template: Path, folder: Path) -> Path:
    """A copy of the template that emits deploy/k8s alone."""
    for pattern in PARTS:
        for source in template.glob(pattern):
            target = folder / source.relative_to(template)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, target)
    return folder


def kustomize(folder: Path) -> list[Document]:
    """What `kubectl apply -k` would send."""
    # the safe loader in C: ten times as fast
    rendered = must(wheels.ensure("kubectl"), "kustomize", folder)
    return list(yaml.load_all(rendered, Loader=yaml.CSafeLoader))


def faults(document: Document) -> list[str]:
    """What Kubernetes, or the definition of a custom resource, does not take."""
    key = json.dumps(document, sort_keys=True)
    if key not in checked:  # most documents are the same for many answers
        name = f"{document['kind']} {document['metadata']['name']}"
        checked[key] = [f"{name}: {said}" for said in _faults(document)]
    return checked[key]


def _faults(document: Document) -> list[str]:
    validator = SCHEMAS.get(document["kind"]) or _validator(document["kind"], document["apiVersion"])
    return [error.message for error in validator.iter_errors(document)]


@cache
def _validator(kind: str, api: str) -> Draft202012Validator:
    """The strict schema of Kubernetes for a kind: it refuses unknown fields."""
    group, _, version = api.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.split(".")[0], version)))
    schema = json.loads((KUBERNETES / f"{name}.json").read_text())
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions())


@cache
def _definitions() -> Registry[Any]:
    return Resource.from_contents(json.loads((KUBERNETES / "_definitions.json").read_text())) @ Registry()


@dataclass(frozen=True)
class Pod:
    """Pods of one workload.

    Args:
        workload: What makes them.
        labels: As they have them when they run.
        spec: Of the pod.
    """

    workload: str
    labels: Labels
    spec: Document

    @property
    def container(self) -> Document:
        (found,) = self.spec["containers"]
        return dict(found)


class Manifests:
    """The documents of one overlay.

    Args:
        documents: As rendered.
    """

    def __init__(self, documents: list[Document]) -> None:
        self.documents = documents

    def all(self, kind: str) -> list[Document]:
        return [each for each in self.documents if each["kind"] == kind]

    def one(self, kind: str, name: str = "") -> Document:
        (found,) = (each for each in self.all(kind) if not name or each["metadata"]["name"] == name)
        return found

    @property
    def canary(self) -> Document | None:
        return next(iter(self.all("Canary")), None)

    @property
    def config(self) -> dict[str, str]:
        """The environment of the service that is not secret."""
        return dict(self.one("ConfigMap")["data"])

    def pods(self) -> Iterator[Pod]:
        """All pods; with a Canary those of both versions: Flagger copies the Deployment, and rewrites one label."""
        for each in self.all("Deployment"):
            template = each["spec"]["template"]
            name, labels = each["metadata"]["name"], template["metadata"]["labels"]
            yield Pod(name, labels, template["spec"])
            if self.canary:
                yield Pod(f"{name}-primary", labels | {"app": f"{labels['app']}-primary"}, template["spec"])
        for each in self.all("Job"):
            template = each["spec"]["template"]
            yield Pod(each["metadata"]["name"], template["metadata"]["labels"], template["spec"])
        for each in self.all("CronJob"):
            template = each["spec"]["jobTemplate"]["spec"]["template"]
            yield Pod(each["metadata"]["name"], template["metadata"]["labels"], template["spec"])

    def selected(self, selector: Document) -> set[str]:
        """The workloads whose pods a selector finds; an empty one finds all."""
        wanted = selector.get("matchLabels", {}) if selector.keys() <= {"matchLabels"} else selector
        return {pod.workload for pod in self.pods() if wanted.items() <= pod.labels.items()}

    @property
    def versions(self) -> set[str]:
        """The workloads that serve requests."""
        return {pod.workload for pod in self.pods() if pod.labels.get("app.kubernetes.io/component") == "service"}
