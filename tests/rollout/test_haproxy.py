"""Releases behind HAProxy, and what can go wrong with them."""

import pytest
from pytest import ParameterSet

from tests.rollout.host import Host
from tests.rollout.load import Load
from tests.rollout.scenarios import SCENARIOS, Scenario

KIND = "haproxy"
# What does not depend on the balancer is proven behind NGINX.
SHARED = {
    "a_command_that_fails_says_so",
    "a_killed_release_is_aborted",
    "a_program_reads_json_and_a_terminal_moves",
    "a_version_that_fails_its_smoke_test_gets_no_request",
    "a_version_that_is_another_one_gets_no_request",
    "a_version_that_never_starts_gets_no_request",
    "after_a_rollback_the_old_version_is_started_again",
    "markers_are_set_at_each_end",
    "one_instance_alone_is_not_restarted",
    "two_operators_do_not_meet",
    "what_is_wrong_in_its_file_is_named",
}


def each(scenario: Scenario) -> ParameterSet:
    """With its name, and the marker of a variant if it is one."""
    marks = [pytest.mark.wide] if scenario.__name__ in SHARED else []
    return pytest.param(scenario, id=scenario.__name__, marks=marks)


@pytest.mark.servers
@pytest.mark.parametrize("scenario", map(each, SCENARIOS))
def test_it_holds(host: Host, users: Load, scenario: Scenario) -> None:
    scenario(host, users)
