"""Releases behind NGINX, and what can go wrong with them."""

import pytest

from tests.rollout.host import Host
from tests.rollout.load import Load
from tests.rollout.scenarios import SCENARIOS, Scenario

KIND = "nginx"


@pytest.mark.servers
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_it_holds(host: Host, users: Load, scenario: Scenario) -> None:
    scenario(host, users)
