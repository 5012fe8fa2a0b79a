"""Hosts with an emitted balancer, on which the emitted command releases versions."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.balancer.balancer import Balancer
from tests.balancer.haproxy import HAProxyBalancer
from tests.balancer.nginx import NginxBalancer
from tests.projects import render
from tests.rollout.host import Host
from tests.rollout.load import Load, load

KINDS: dict[str, type[Balancer]] = {"nginx": NginxBalancer, "haproxy": HAProxyBalancer}


@pytest.fixture(scope="session")
def emitted(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A project with a kind of balancer, made once and not installed. Do not change it."""
    made: dict[str, Path] = {}

    def project(kind: str) -> Path:
        if kind not in made:
            made[kind] = render(template, tmp_path_factory.mktemp(kind) / "s", load_balancer=kind, database="none")
        return made[kind]

    return project


@pytest.fixture(scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    """The balancer of the module."""
    return str(request.module.KIND)


@pytest.fixture(scope="module")
def host(kind: str, emitted: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host that the scenarios of a module share, with hasty times."""
    made = Host(KINDS[kind], emitted(kind), tmp_path_factory.mktemp("host"))
    made.hasten()
    with made.run():
        yield made


@pytest.fixture(scope="module")
def users(host: Host) -> Iterator[Load]:
    """Users of that host, all the time."""
    with load(host.balancer.port) as made:
        yield made


@pytest.fixture(autouse=True)
def begins_well(request: pytest.FixtureRequest) -> None:
    """What a failed scenario has left does not make the next one fail."""
    if "host" in request.fixturenames:
        request.getfixturevalue("host").heal()
