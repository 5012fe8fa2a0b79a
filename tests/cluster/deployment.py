"""The service in a cluster: its manifests as emitted, with the edits of their owner, and the overlay of a test."""

import http.client
import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cluster import Cluster, Document, wait
from tests.cluster.images import REPOSITORY
from tests.projects import Project

SLUG = "my-service"
K8S = Path("deploy/k8s/overlays")
SERVICE = "app.kubernetes.io/component=service"
# The node has two processors, and a test no time: neither changes what is promised.
SMALL: dict[str, list[tuple[str, Any]]] = {
    "Deployment": [("/spec/template/spec/containers/0/resources/requests/cpu", "20m")],
    "Canary": [("/spec/analysis/interval", "10s")],
    "CronJob": [("/spec/jobTemplate/spec/template/spec/volumes/0", {"name": "scratch", "emptyDir": {}})],
}
WINDOWS = {"2m": "20s", "5m": "60s"}  # of metrics, for that interval


@dataclass
class Deployment:
    """What is to run; `apply` sends it.

    Args:
        cluster: Where.
        project: Whose `deploy/k8s` it is; it is edited in place.
        digests: Of the images, or their tags, by the version; `ops` is that of the tools.
        overlay: The overlay that is sent.
        place: Its namespace, where it is not the one of the overlay.
        site: Values of `site.yaml` that differ.
        config: Variables of the service that differ: each new one is a release.
        patches: By kind: paths and values.
    """

    cluster: Cluster
    project: Project
    digests: Mapping[str, str]
    version: str
    overlay: str = "production"
    place: str = ""
    site: dict[str, str] = field(default_factory=lambda: {"replicas-min": "2", "replicas-max": "4"})
    config: dict[str, str] = field(default_factory=dict)
    patches: dict[str, list[tuple[str, Any]]] = field(default_factory=lambda: {k: [*v] for k, v in SMALL.items()})
    without: list[str] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    _begun: float = 0.0
    _ended: float = 0.0

    @property
    def namespace(self) -> str:
        return self.place or str(self._yaml("kustomization.yaml")["namespace"])

    @property
    def host(self) -> str:
        return f"{self.namespace}.acme.test"

    def apply(self, version: str = "", **config: str) -> None:
        """Release a version, or a configuration, or both: `kubectl apply -k`."""
        self.version = version or self.version
        self.config |= config
        self.write()
        self.cluster.kubectl("apply", f"--kustomize={self.project.root / K8S / 'test'}")

    def write(self) -> None:
        """Write what an owner edits, and the test's overlay over it."""
        kustomization, site = self._yaml("kustomization.yaml"), self._yaml("site.yaml")
        for image in kustomization["images"]:
            found = self.digests["ops" if image["name"].endswith("-ops") else self.version]
            image.pop("digest", None)
            image["digest" if found.startswith("sha256:") else "newTag"] = found
        kustomization["namespace"] = site["data"]["namespace"] = self.namespace
        site["data"]["host"] = self.host
        site["data"] |= self.site
        self._save("kustomization.yaml", kustomization)
        self._save("site.yaml", site)
        made: Document = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self.namespace,
            "resources": [f"../{self.overlay}"],
            "patches": [
                {"target": {"kind": kind}, "patch": json.dumps([_replace(*each) for each in paths])}
                for kind, paths in self.patches.items()
                if paths and kind not in self.without
            ],
        }
        if self.config:
            literals = [f"{name}={value}" for name, value in self.config.items()]
            made["configMapGenerator"] = [{"name": SLUG, "behavior": "merge", "literals": literals}]
        folder = self.project.root / K8S / "test"
        folder.mkdir(exist_ok=True)
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(made))

    def scale_windows(self) -> None:
        """Give the metrics of the Canary windows that go with its short interval."""
        for old, new in WINDOWS.items():
            self.edit("components/release/canary.yaml", f"interval: {old},", f"interval: {new},")

    def edit(self, file: str, old: str, new: str) -> None:
        """Change a file below `deploy/k8s`; `old` must be there."""
        path = self.project.root / "deploy/k8s" / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new))

    def components(self, *names: str) -> None:
        """Have the overlay take these components."""
        kustomization = self._yaml("kustomization.yaml")
        kustomization["components"] = [f"../../components/{name}" for name in names]
        self._save("kustomization.yaml", kustomization)

    def shell(self, line: str) -> None:
        """Run a line of an emitted page in the namespace, as an operator types it."""
        arguments = shlex.split(line)
        assert arguments[0] == "kubectl", line
        self.cluster.kubectl(*arguments[1:], f"--namespace={self.namespace}")

    # --- what one sees of it

    def canary(self) -> Document:
        return self.cluster.get(f"canary/{SLUG}", self.namespace)

    @property
    def phase(self) -> str:
        return str(self.canary().get("status", {}).get("phase", ""))

    def weight(self) -> int:
        return int(self.canary().get("status", {}).get("canaryWeight", 0))

    def wait_for(self, *phases: str, seconds: float = 300) -> str:
        """Wait until the release has one of these phases."""
        wait(lambda: self._look() in phases, f"the release is {' or '.join(phases)}", seconds, self.story)
        return self.phase

    def _look(self) -> str:
        """Its phase; what Flagger says is kept, since the API server sums similar events up."""
        self.told.update(self.events())
        return self.phase

    def start(self, **config: str) -> None:
        """Send it for the first time, and return once the gateway leads to it."""
        self.apply(**config)
        if "Canary" not in self.without:
            self.wait_for("Initialized")
        wait(
            lambda: self.ask("/readyz")[0] == 200, "the gateway leads to it", 120, lambda: (self.ask("/"), self.story())
        )

    def ask(self, path: str) -> tuple[int, str]:
        """Ask the gateway once."""
        connection = http.client.HTTPConnection(*self.cluster.gateway, timeout=10)
        try:
            connection.request("GET", path, headers={"Host": self.host})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError as error:
            return 0, repr(error)
        finally:
            connection.close()

    def begin(self, version: str = "", **config: str) -> None:
        """Release, and return once it has begun."""
        self.told.clear()
        before = self.canary()["status"].get("lastAppliedSpec")
        self._begun = time.monotonic()
        self.apply(version, **config)
        wait(lambda: self.canary()["status"].get("lastAppliedSpec") != before, "a release begins", 60, self.story)

    def end(self) -> str:
        """Wait for how a release ends: `Succeeded` or `Failed`."""
        ended = self.wait_for("Succeeded", "Failed")
        self._ended = time.monotonic()
        return ended

    def release(self, version: str = "", **config: str) -> str:
        """Release, and wait for how it ends: `Succeeded` or `Failed`."""
        self.begin(version, **config)
        return self.end()

    def took(self) -> float:
        """Seconds of the last release."""
        return self._ended - self._begun

    def revert(self, **config: str) -> None:
        """Forget a bad release, so that the next one does not contain it."""
        self.config.pop("FAULT", None)
        self.config |= config

    def restart(self) -> None:
        """Restart all pods that serve, one after the other."""
        name = f"{SLUG}-primary"
        self.cluster.kubectl("rollout", "restart", f"deployment/{name}", "-n", self.namespace)
        self.cluster.kubectl("rollout", "status", f"deployment/{name}", "-n", self.namespace, "--timeout=180s")

    def events(self) -> list[str]:
        """What Flagger said."""
        return [each for each in self.cluster.events(self.namespace, SLUG) if each.startswith("Canary")]

    def ready(self, deployment: str = SLUG) -> bool:
        """Whether all pods of a Deployment are."""
        found = self.cluster.get(f"deployment/{deployment}", self.namespace)
        status, wanted = found.get("status", {}), found["spec"].get("replicas", 1)
        settled = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
        return bool(settled and wanted and status.get("readyReplicas", 0) == status.get("updatedReplicas", 0) == wanted)

    def pods(self) -> list[Document]:
        return list(self.cluster.get("pods", self.namespace, selector=SERVICE)["items"])

    def restarts(self) -> int:
        return sum(each["restartCount"] for pod in self.pods() for each in pod["status"].get("containerStatuses", []))

    def story(self) -> str:
        """All that says why: events and pods."""
        lines = self.cluster.events(self.namespace)[-40:]
        lines += self.cluster.try_kubectl("get", "pods,canary", "-n", self.namespace).stdout.splitlines()
        for pod in self.pods():
            about = pod["status"].get("containerStatuses", [{}])[0]
            lines.append(f"{pod['metadata']['name']}: {json.dumps(about.get('state'))} {about.get('lastState')}")
            lines += self.cluster.try_kubectl(
                "logs", pod["metadata"]["name"], "-n", self.namespace, "--tail=3"
            ).stdout.splitlines()
        return "\n".join(lines)

    def remove(self) -> None:
        """Remove it all; nobody waits until it is gone."""
        namespace = f"--namespace={self.namespace}"
        # Flagger would give the Deployment back, which is gone
        unbound = '{"metadata":{"finalizers":null}}'
        self.cluster.try_kubectl("patch", f"canary/{SLUG}", namespace, "--type=merge", f"--patch={unbound}")
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false", "--ignore-not-found")

    def _yaml(self, name: str) -> Document:
        return dict(yaml.safe_load((self.project.root / K8S / self.overlay / name).read_text()))

    def _save(self, name: str, document: Document) -> None:
        (self.project.root / K8S / self.overlay / name).write_text(yaml.safe_dump(document, width=1000))


def _replace(path: str, value: Any) -> Document:
    return {"op": "replace", "path": path, "value": value}


def secret(namespace: str, name: str, **values: str) -> Document:
    """A Secret of variables."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}


def image_name(which: str, found: str) -> str:
    """The name of an image, as a pod gives it."""
    return f"{REPOSITORY}{which}{'@' if found.startswith('sha256:') else ':'}{found}"
