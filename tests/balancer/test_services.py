"""Each balancer before two instances of the emitted service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.balancer.conftest import KINDS, RED, Open
from tests.balancer.services import DEADLY, ENV, ROUTES, SCENARIOS, Scenario, Services
from tests.projects import Change, Project

pytestmark = pytest.mark.servers
PLAYED = [(name, each) for name, kind in KINDS.items() for each in SCENARIOS if each.__name__ not in kind.lacks]


def broken() -> Iterator[object]:
    """Each sabotage of each kind, with the scenario that it turns red."""
    for name, kind in KINDS.items():
        for scenario in SCENARIOS:
            for number, change in enumerate(kind.sabotages.get(scenario.__name__, ())):
                yield pytest.param(name, scenario, change, id=f"{name}-{scenario.__name__}-{number}")


@pytest.fixture(scope="module")
def behind(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The service with routes for these tests."""
    return bare_project.variant(tmp_path_factory.mktemp("behind") / "service", ROUTES)


@pytest.fixture(scope="module")
def lasting(behind: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Two instances; tests leave them running."""
    folder = tmp_path_factory.mktemp("instances")
    with behind.serve(folder / "a", ENV) as one, behind.serve(folder / "b", ENV) as other:
        yield one, other


@pytest.fixture
def services(scenario: Scenario, lasting: Services, behind: Project, tmp_path: Path) -> Iterator[Services]:
    """Two instances for a scenario."""
    if scenario not in DEADLY:
        yield lasting
        return
    with behind.serve(tmp_path, ENV) as own:
        yield lasting[0], own


@pytest.mark.parametrize(
    ("kind", "scenario"), PLAYED, indirect=["kind"], ids=lambda value: getattr(value, "__name__", value)
)
def test_it_holds(open_balancer: Open, services: Services, scenario: Scenario) -> None:
    with open_balancer(*(service.port for service in services)) as balancer:
        scenario(balancer, services)


@pytest.mark.sabotage
@pytest.mark.parametrize(("kind", "scenario", "change"), [*broken()], indirect=["kind"])
def test_it_does_not_hold_without_its_directive(
    open_balancer: Open, services: Services, scenario: Scenario, change: Change
) -> None:
    with (
        open_balancer(*(service.port for service in services), changes=(change,)) as sick,
        pytest.raises(RED),
    ):
        scenario(sick, services)
