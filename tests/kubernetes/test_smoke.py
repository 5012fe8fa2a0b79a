"""The smoke test of a release: the command of the rendered Canary, run by bash against the real service."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.manifests import Manifests
from tests.projects import Project, Service
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
COMMIT = "3f2a9c" + 34 * "0"


def command(found: Manifests, hook: str) -> str:
    """What the load tester runs, and how: the namespace is in the URL."""
    (metadata,) = (
        each["metadata"] for each in found.one("Canary")["spec"]["analysis"]["webhooks"] if each["name"] == hook
    )
    assert metadata["type"] == "bash"
    return str(metadata["cmd"])


def run(text: str, *changes: tuple[str, str]) -> int:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60, check=False).returncode


@pytest.fixture(scope="module")
def service(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that trusts the host of the overlay, as its ConfigMap says."""
    folder = tmp_path_factory.mktemp("smoke")
    env = {"ENVIRONMENT": "test", "GIT_COMMIT": COMMIT, "TRUSTED_HOSTS": "my-service.example.com"}
    with project.serve(folder, env | migrated(project, f"sqlite:///{folder}/service.db")) as running:
        yield running


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ([], True),
        ([("release='-'", f"release='{COMMIT}'")], True),
        ([("release='-'", f"release='{COMMIT[:6]}'")], True),
        ([("release='-'", "release='0.1.0'")], True),
        ([("release='-'", f"release='{COMMIT[1:]}'")], False),
        ([("path='/v1/items'", "path='/v1/nowhere'")], False),
        ([("host='my-service.example.com'", "host='other.example.com'")], False),
    ],
    ids=[
        "as emitted",
        "its commit",
        "its short commit",
        "its version",
        "another commit",
        "a path that fails",
        "a host it does not trust",
    ],
)
def test_only_the_right_version_passes(
    service: Service, production: Manifests, changes: list[tuple[str, str]], passes: bool
) -> None:
    url = ("my-service-canary.$namespace", f"127.0.0.1:{service.port}")
    assert (run(command(production, "smoke"), url, *changes) == 0) is passes


def test_a_version_that_is_not_ready_does_not_pass(project: Project, production: Manifests, tmp_path: Path) -> None:
    env = {
        "ENVIRONMENT": "test",
        "TRUSTED_HOSTS": "my-service.example.com",
        "DATABASE_URL": f"sqlite:///{tmp_path}/empty.db",
    }
    with project.serve(tmp_path / "run", env) as service:
        url = ("my-service-canary.$namespace", f"127.0.0.1:{service.port}")
        assert run(command(production, "smoke"), url, ("path='/v1/items'", "path='/version'")) != 0
