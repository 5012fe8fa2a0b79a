"""The manifests of some services, rendered once per worker."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kubernetes.manifests import K8S, Manifests, kustomize, trimmed
from tests.projects import Project, render
from tests.proof import FULL

Overlay = Callable[..., Manifests]
collect_ignore = [] if FULL else ["test_checkov.py"]


@pytest.fixture(scope="session")
def small_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of the template that makes deploy/k8s."""
    return trimmed(template, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def deployed(small_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """deploy/k8s with default answers. Do not change it: make a `variant`."""
    return Project(render(small_template, tmp_path_factory.mktemp("canary") / "service"))


@pytest.fixture(scope="session")
def blue_green(small_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same with the answers that make the most difference."""
    answers = {"rollout": "blue-green", "secrets_manager": "aws", "recovery_tier": "gold", "cache": "memcached"}
    return Project(render(small_template, tmp_path_factory.mktemp("blue-green") / "service", **answers))


@pytest.fixture(scope="session")
def production(deployed: Project) -> Manifests:
    """The production overlay with default answers."""
    return Manifests(kustomize(deployed.root / K8S / "overlays/production"))


@pytest.fixture(scope="session")
def production_blue_green(blue_green: Project) -> Manifests:
    """The production overlay of the other one."""
    return Manifests(kustomize(blue_green.root / K8S / "overlays/production"))
