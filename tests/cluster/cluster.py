"""A cluster as tests talk to it: by kubectl, and by the address of its gateway."""

import base64
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests import commands
from tests.servers import wheels
from tests.servers.process import ServerError

Document = dict[str, Any]
SECONDS = 120.0


@dataclass(frozen=True)
class Cluster:
    """One that runs.

    Args:
        kubeconfig: With the rights of an administrator.
        gateway: Host and port of the Gateway `gateway` in the namespace `gateway`.
        address: Of the servers that run beside it, as pods reach them.
    """

    kubeconfig: Path
    gateway: tuple[str, int]
    address: str

    @property
    def api(self) -> str:
        """The address of its API server."""
        return str(self._entry()["server"])

    def authority(self, file: Path) -> Path:
        """Write the CA of its API server."""
        found = self._entry()
        given = found.get("certificate-authority-data")
        file.write_bytes(base64.b64decode(given) if given else Path(found["certificate-authority"]).read_bytes())
        return file

    def _entry(self) -> Document:
        (found,) = yaml.safe_load(self.kubectl("config", "view", "--minify", "--raw", "--flatten"))["clusters"]
        return dict(found["cluster"])

    def try_kubectl(self, *arguments: str | Path, text: str = "") -> "subprocess.CompletedProcess[str]":
        """Run kubectl; how it ends is for the caller to judge."""
        command = [wheels.ensure("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        return commands.run(*command, text=text)

    def kubectl(self, *arguments: str | Path, text: str = "") -> str:
        """Run what has to succeed: what it prints."""
        done = self.try_kubectl(*arguments, text=text)
        if done.returncode:
            raise ServerError(f"kubectl {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def apply(self, *documents: Document) -> None:
        """Make these, or change them."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=yaml.safe_dump_all(documents))

    def get(self, what: str, namespace: str = "", **options: str) -> Document:
        """One object, as in `deployment/web`, or a list of all that `what` names."""
        given = [f"--{name}={value}" for name, value in options.items()]
        where = [f"--namespace={namespace}"] if namespace else []
        return dict(json.loads(self.kubectl("get", what, *where, *given, "--output=json")))

    def names(self, what: str, namespace: str, selector: str = "") -> list[str]:
        """The names of all objects of a kind."""
        found = self.get(what, namespace, **({"selector": selector} if selector else {}))
        return [each["metadata"]["name"] for each in found["items"]]

    def events(self, namespace: str, about: str = "") -> list[str]:
        """What was said of an object, oldest first."""
        found = self.get("events", namespace)["items"]
        found = [each for each in found if about in each["involvedObject"]["name"]]
        found.sort(key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or "")
        return [f"{each['involvedObject']['kind']}: {each['message']}" for each in found]


def wait(
    until: Callable[[], object], what: str = "it", seconds: float = SECONDS, why: Callable[[], object] = lambda: ""
) -> Any:
    """Return what `until` gives once it is true; an error with `why` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := until()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s\n{why()}")
        time.sleep(0.25)
    return found


def service(name: str, namespace: str, address: str, ports: Sequence[tuple[int, int]]) -> list[Document]:
    """A Service of servers that are no pods: at `address`, by its port and theirs."""
    named = [(f"p{port}", port, target) for port, target in ports]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"ports": [{"name": n, "port": port, "targetPort": target} for n, port, target in named]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": n, "port": target} for n, _, target in named],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        },
    ]
