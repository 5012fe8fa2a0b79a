"""Each balancer keeps its promises on real requests, and each promise hangs on a directive."""

from collections.abc import Iterator

import pytest

from tests.balancer.conftest import KINDS, RED, Open
from tests.balancer.scenarios import HASTY, SCENARIOS, Scenario
from tests.balancer.upstream import Upstream
from tests.projects import Change

PLAYED = [(name, each) for name, kind in KINDS.items() for each in SCENARIOS if each.__name__ not in kind.lacks]


def broken() -> Iterator[object]:
    """Each sabotage of each kind, with the scenario that it turns red."""
    scenarios = {each.__name__: each for each in SCENARIOS}
    for name, kind in KINDS.items():
        for scenario, changes in kind.sabotages.items():
            for number, change in enumerate(changes):
                yield pytest.param(name, scenarios[scenario], change, id=f"{name}-{scenario}-{number}")


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
