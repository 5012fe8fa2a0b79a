"""Each balancer keeps its promises on real requests, and each promise hangs on a directive."""

from collections.abc import Iterator

import pytest

from tests.balancer import services
from tests.balancer.conftest import KINDS, RED, Open
from tests.balancer.scenarios import HASTY, SCENARIOS, Scenario
from tests.balancer.upstream import Upstream
from tests.projects import Change

PLAYED = [(name, each) for name, kind in KINDS.items() for each in SCENARIOS if each.__name__ not in kind.lacks]


def broken() -> Iterator[object]:
    """Each sabotage of each kind, with the scenario that it turns red."""
    for name, kind in KINDS.items():
        for scenario in SCENARIOS:
            for number, change in enumerate(kind.sabotages.get(scenario.__name__, ())):
                yield pytest.param(name, scenario, change, id=f"{name}-{scenario.__name__}-{number}")


@pytest.mark.servers
@pytest.mark.parametrize(
    ("kind", "scenario"), PLAYED, indirect=["kind"], ids=lambda value: getattr(value, "__name__", value)
)
def test_it_holds(open_balancer: Open, upstream: Upstream, scenario: Scenario) -> None:
    with open_balancer(hasty=scenario in HASTY) as balancer:
        scenario(balancer, upstream)


@pytest.mark.sabotage
@pytest.mark.parametrize(("kind", "scenario", "change"), [*broken()], indirect=["kind"])
def test_it_does_not_hold_without_its_directive(
    open_balancer: Open, upstream: Upstream, scenario: Scenario, change: Change
) -> None:
    with open_balancer(changes=(change,), hasty=scenario in HASTY) as sick, pytest.raises(RED):
        scenario(sick, upstream)


def test_every_sabotage_is_that_of_a_scenario() -> None:
    known = {each.__name__ for each in (*SCENARIOS, *services.SCENARIOS)}
    for kind in KINDS.values():
        assert {*kind.sabotages, *kind.lacks} <= known
        assert not kind.sabotages.keys() & kind.lacks.keys()
