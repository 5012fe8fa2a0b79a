"""Releases of the emitted service under load, with clients that never retry."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.projects import Project
from tests.rollout.conftest import KINDS
from tests.rollout.host import Host
from tests.rollout.load import Load, load
from tests.rollout.losses import SCENARIOS, TRIAL, Scenario

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def service(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The service with a route that says its version."""
    return bare_project.variant(tmp_path_factory.mktemp("trial") / "service", TRIAL)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each balancer in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def host(
    kind: str, emitted: Callable[[str], Path], service: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """A host whose instances are the service."""
    made = Host(KINDS[kind], emitted(kind), tmp_path_factory.mktemp("host"), service)
    with made.run():
        yield made


@pytest.fixture(scope="module")
def users(host: Host) -> Iterator[Load]:
    """Users of that host, all the time."""
    with load(host.balancer.port) as made:
        yield made


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_it_holds(host: Host, users: Load, scenario: Scenario) -> None:
    scenario(host, users)
