"""Each edge of the network policies is needed and enough: what may connect does, and nobody else."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.cluster.cluster import Cluster, Document, wait
from tests.cluster.deployment import SERVICE, SLUG, Deployment, image_name
from tests.cluster.node import Node

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PUBLIC = "198.51.100.7"  # RFC 5737: an address that is not private
HTTP, METRICS = 8000, 9464
CLIENTS = ("gateway", "flagger-system", "monitoring", "strangers")
IN = {("gateway", HTTP), ("flagger-system", HTTP), ("monitoring", METRICS)}
SERVERS = {4318, 443, 5432, 6379, 8200, 9999}
# What each kind of pod may connect to: private addresses, and public ones.
OUT = {
    "service": ({4318, 443, 5432, 6379, 8200}, {443}),
    "migrate": ({5432}, set()),
    "backup": ({4318, 443, 5432}, {4318, 443}),
}
CONNECT = """
import json, socket, sys
open_ = []
for address, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((address, port), 1.5).close()
        open_.append([address, port])
    except OSError:
        pass
print(json.dumps(open_))
"""


@pytest.fixture(scope="module")
def listeners(node: Node) -> Iterator[None]:
    """Something listens on every port, at the address of the node and at a public one."""
    node.space.run("ip", "addr", "add", f"{PUBLIC}/32", "dev", "lo")
    with ExitStack() as stack:
        for address in (node.cluster.address, PUBLIC):
            for port in SERVERS:
                try:
                    server = stack.enter_context(socket.create_server((address, port)))
                except OSError:  # PostgreSQL, Redis and OpenBao are there
                    continue
                threading.Thread(target=_accept, args=(server,), daemon=True).start()
        yield


def _accept(server: socket.socket) -> None:
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


@pytest.fixture(scope="module")
def pods(canary: Deployment, digests: dict[str, str]) -> Iterator[dict[str, tuple[str, str]]]:
    """Pods to connect from: one in each namespace of a client, and one with the labels of each kind; by its name."""
    image = image_name("", digests[canary.version])
    kinds = {"client": CLIENTS, "": tuple(OUT)}
    made: list[Document] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strangers"}}]
    where: dict[str, tuple[str, str]] = {}
    for each in kinds["client"]:
        made.append(_pod("client", each, {}, image))
        where[each] = (each, "client")
    for each in kinds[""]:
        labels = {"app.kubernetes.io/name": SLUG, "app.kubernetes.io/component": each}
        made.append(_pod(f"as-{each}", canary.namespace, labels, image))
        where[each] = (canary.namespace, f"as-{each}")
    canary.cluster.apply(*made)
    for namespace, name in where.values():
        canary.cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", namespace, "--timeout=90s")
    yield where
    for namespace, name in where.values():
        canary.cluster.kubectl("delete", "pod", name, "-n", namespace, "--grace-period=0", "--force")
    canary.cluster.kubectl("delete", "namespace", "strangers", "--wait=false")


def _pod(name: str, namespace: str, labels: dict[str, str], image: str) -> Document:
    safe = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "sleep", "image": image, "command": ["sleep", "infinity"], "securityContext": safe}
    user = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "containers": [container],
            "securityContext": user,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
        },
    }


def connects(cluster: Cluster, pod: tuple[str, str], targets: list[tuple[str, int]]) -> set[tuple[str, int]]:
    """Which of the targets a pod reaches."""
    command = ["exec", pod[1], f"--namespace={pod[0]}", "--", "python3", "-c", CONNECT, json.dumps(targets)]
    return {(address, port) for address, port in json.loads(cluster.kubectl(*command))}


def serving(canary: Deployment) -> str:
    """The address of a pod that serves."""
    found = canary.cluster.get("pods", canary.namespace, selector=SERVICE)["items"]
    return str(next(p["status"]["podIP"] for p in found if p["metadata"]["name"].startswith(f"{SLUG}-primary")))


def test_only_gateway_tester_and_prometheus_reach_the_service(
    canary: Deployment, pods: dict[str, tuple[str, str]]
) -> None:
    address = serving(canary)

    def reached() -> set[tuple[str, int]]:
        targets = [(address, HTTP), (address, METRICS)]
        return {(who, port) for who in CLIENTS for _, port in connects(canary.cluster, pods[who], targets)}

    wait(lambda: reached() == IN, "exactly these edges", 60, reached)


@pytest.mark.parametrize("kind", OUT)
@pytest.mark.usefixtures("listeners")
def test_a_pod_reaches_its_servers_and_no_other(
    canary: Deployment, pods: dict[str, tuple[str, str]], kind: str
) -> None:
    near, far = OUT[kind]
    wanted = {(canary.cluster.address, port) for port in near} | {(PUBLIC, port) for port in far}
    everything = [(address, port) for address in (canary.cluster.address, PUBLIC) for port in sorted(SERVERS)]

    def reached() -> set[tuple[str, int]]:
        return connects(canary.cluster, pods[kind], everything)

    wait(lambda: reached() == wanted, "exactly these edges", 60, reached)


EDGES = [
    (f"{SLUG}", "gateway", HTTP),
    (f"{SLUG}-smoke", "flagger-system", HTTP),
    (f"{SLUG}-metrics", "monitoring", METRICS),
    (f"{SLUG}", "service", 6379),
    (f"{SLUG}-database", "service", 5432),
    (f"{SLUG}-database", "migrate", 5432),
    (f"{SLUG}-backup", "backup", 443),
]


@pytest.mark.parametrize(("policy", "who", "port"), EDGES, ids=[f"{who}-{port}" for _, who, port in EDGES])
@pytest.mark.usefixtures("listeners")
def test_without_its_policy_an_edge_is_closed(
    canary: Deployment, pods: dict[str, tuple[str, str]], policy: str, who: str, port: int
) -> None:
    """Each policy is needed: the same connection fails once it is gone, and works once it is back."""
    address = serving(canary) if who in CLIENTS else canary.cluster.address
    name, namespace = f"networkpolicy/{policy}", f"--namespace={canary.namespace}"
    kept = canary.cluster.get(name, canary.namespace)
    for field in ("resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"):
        kept["metadata"].pop(field, None)

    def open_() -> bool:
        return bool(connects(canary.cluster, pods[who], [(address, port)]))

    wait(open_, "it is open", 60)
    canary.cluster.kubectl("delete", name, namespace)
    try:
        wait(lambda: not open_(), "it is closed", 60)
    finally:
        canary.cluster.kubectl("create", "-f", "-", namespace, text=json.dumps(kept))
    wait(open_, "it is open again", 60)
