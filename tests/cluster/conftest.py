"""One cluster for all tests of this folder: a node of its own, or the one of KUBECONFIG.

Of a cluster that is there, `GATEWAY` is the address of its gateway, `ADDRESS` that of this machine as pods reach it,
and `LOAD` a command that puts the image of an archive on its nodes, such as `kind load image-archive`.
"""

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from tests import commands
from tests.cluster import images
from tests.cluster.addons import Addons
from tests.cluster.beside import SLUG, Beside
from tests.cluster.cluster import Cluster
from tests.cluster.deployment import Deployment, secret
from tests.cluster.images import DATABASE, OPS, REPOSITORY, Images
from tests.cluster.node import Node
from tests.projects import Project, render

EXISTING = os.environ.get("KUBECONFIG", "")
GIVEN = ("ADDRESS", "GATEWAY", "LOAD")
New = Callable[..., Deployment]


@pytest.fixture(scope="package")
def built() -> Images:
    """The images of the service: made before this thread is in the network of the node, which leads nowhere."""
    return images.ensure()


@pytest.fixture(scope="package")
def node(built: Images) -> Iterator[Node]:
    """The node, with nothing on it."""
    if EXISTING:
        pytest.skip("the cluster of KUBECONFIG is not ours to break")
    Addons.ensure()
    with Node() as started:
        yield started


@pytest.fixture(scope="package")
def addons(node: Node) -> Addons:
    """What a cluster has before the service comes: its gateway, Prometheus, Flagger."""
    return Addons(node)


@pytest.fixture(scope="package")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """The cluster, with all that the emitted page has an operator install."""
    if not EXISTING:
        request.getfixturevalue("addons")
        return cast(Node, request.getfixturevalue("node")).cluster
    if not all(os.environ.get(name) for name in GIVEN):
        pytest.exit(f"with KUBECONFIG set {', '.join(GIVEN)}, too: CONTRIBUTING.md", 2)
    host, _, port = os.environ["GATEWAY"].partition(":")
    return Cluster(Path(EXISTING), (host, int(port or 80)), os.environ["ADDRESS"])


@pytest.fixture(scope="package")
def digests(request: pytest.FixtureRequest, cluster: Cluster, built: Images) -> dict[str, str]:
    """The digests of the images, by version, once they are on the node; in a cluster of somebody else, their tags."""
    if EXISTING:
        commands.must(*shlex.split(os.environ["LOAD"]), built.archive)
        found = {name: name.rpartition(":")[2] for name in built.names}
    else:
        found = request.getfixturevalue("node").load(built.archive)
    services = {each: found[f"{REPOSITORY}:{each}"] for each in built.versions}
    return {**services, "ops": found[OPS], "database": found[DATABASE]}


@pytest.fixture(scope="package")
def versions(built: Images) -> list[str]:
    """What `/version` shows of the images, oldest first."""
    return built.versions


@pytest.fixture(scope="package")
def deployed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose manifests the tests send; a test that edits them makes a `variant`."""
    return Project(render(template, tmp_path_factory.mktemp("deployed") / "service"))


@pytest.fixture(scope="package")
def beside(cluster: Cluster, deployed: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    """PostgreSQL, Redis and OpenBao, configured as the emitted pages say."""
    with Beside(cluster, deployed.variant(tmp_path_factory.mktemp("beside") / "service")) as started:
        yield started


@pytest.fixture(scope="package")
def canary(new: New) -> Iterator[Deployment]:
    """The production overlay with default answers, serving its first version."""
    made = new("")
    made.start(RELEASE="first")
    yield made
    made.remove()


@pytest.fixture(scope="package")
def new(
    cluster: Cluster,
    beside: Beside,
    digests: dict[str, str],
    versions: list[str],
    deployed: Project,
    tmp_path_factory: pytest.TempPathFactory,
) -> New:
    """Prepare a service in a namespace, by default that of the overlay."""

    def made(place: str, project: Project = deployed, overlay: str = "production") -> Deployment:
        copy = project.variant(tmp_path_factory.mktemp(place or "overlay") / "service")
        prepared = Deployment(cluster, copy, digests, versions[0], overlay, place)
        prepared.scale_windows()
        prepare(prepared, beside)
        return prepared

    return made


def prepare(deployment: Deployment, beside: Beside) -> None:
    """What the pages have an operator do before the first `kubectl apply -k`."""
    namespace = deployment.namespace
    account = {"kind": "ServiceAccount", "name": SLUG, "namespace": namespace}
    deployment.cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        secret(namespace, f"{SLUG}-migrate", DATABASE_URL=beside.url("migrator")),
        {  # OpenBao is outside: docs of deploy/vault/vault.toml
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{namespace}-login"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:auth-delegator",
            },
            "subjects": [account],
        },
    )
