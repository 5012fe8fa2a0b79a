"""Each promise of a release hangs on a piece of its code, or of the balancer: without it, its scenario fails."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.balancer.conftest import RED
from tests.projects import Change
from tests.rollout import losses, scenarios
from tests.rollout.conftest import KINDS
from tests.rollout.host import Host
from tests.rollout.load import load
from tests.rollout.scenarios import Scenario
from tests.sabotage import Body, Line
from tests.servers.process import ServerError

pytestmark = [pytest.mark.servers, pytest.mark.sabotage]
SABOTAGES: list[tuple[str, Scenario, Change]] = [
    # the verdict
    (
        "nginx",
        scenarios.a_version_that_fails_is_rolled_back_before_50_requests,
        Body("deploy.host.rollout.verdict:_allowed", "return 100.0"),
    ),
    (
        "nginx",
        scenarios.a_version_that_is_slow_is_rolled_back,
        Body("deploy.host.rollout.balancer:Totals.mean_ms", "return 0.0"),
    ),
    (
        "haproxy",
        scenarios.a_version_that_is_another_one_gets_no_request,
        Body("deploy.host.rollout.instances:Health.is_version", "return True"),
    ),
    (
        "haproxy",
        scenarios.a_version_that_dies_is_rolled_back,
        Body("deploy.host.rollout.moves:Moves.back", "pass"),
    ),
    # the machine
    (
        "nginx",
        scenarios.a_full_disk_is_rolled_back,
        Body("deploy.host.rollout.peers:PeersFile.restore", "self.write(self.text(weights))"),
    ),
    (
        "nginx",
        scenarios.a_broken_configuration_is_refused_before_anything_moves,
        Body("deploy.host.rollout.balancer:test", 'return ""'),
    ),
    (
        "haproxy",
        scenarios.after_a_crash_the_weights_are_those_of_the_release,
        Body("deploy.host.rollout.peers:PeersFile.write", "pass"),
    ),
    (
        "haproxy",
        scenarios.after_a_crash_the_weights_are_those_of_the_release,
        Body(
            "deploy.host.rollout.haproxy:Driver.count",
            """
            weights = {row["svname"]: int(row["uweight"] or 0) for row in self._rows().values()}
            self.wanted = {address: weights[name] for address, name in self.peers.names().items()}
            return original()
            """,
        ),
    ),
    # people
    (
        "nginx",
        scenarios.whoever_interrupts_gets_the_stable_version_back,
        Body("deploy.host.rollout.command:_ended", 'return 1, f"{_title(moves.record)} was rolled back: {reason}"'),
    ),
    (
        "haproxy",
        scenarios.two_operators_do_not_meet,
        Body("deploy.host.rollout.state:State.lock", "yield"),
    ),
    (
        "nginx",
        scenarios.a_killed_release_is_resumed,
        Body("deploy.host.rollout.state:Record.ended", "return True"),
    ),
    (
        "nginx",
        scenarios.staff_get_a_version_before_anyone_else,
        Line("deploy/nginx/maps.conf", "include conf.d/staff"),
    ),
    (
        "haproxy",
        scenarios.staff_get_a_version_before_anyone_else,
        Line("deploy/haproxy/haproxy.cfg", "use_backend staff", "use_backend staff if { req.cook(release) -m found }"),
    ),
    # losses: the clients would see them
    (
        "nginx",
        losses.changed_weights_lose_nothing,
        Line("deploy/nginx/nginx.conf", "keepalive_min_timeout"),
    ),
    (
        "nginx",
        losses.a_rolling_restart_loses_nothing,
        Body("deploy.host.rollout.moves:Moves.serve_only", "pass"),
    ),
    (
        "haproxy",
        losses.a_rolling_restart_loses_nothing,
        Body("deploy.host.rollout.moves:Moves.serve_only", "pass"),
    ),
    (
        "haproxy",
        losses.changed_weights_lose_nothing,
        Body("deploy.host.rollout.peers:shares", "return {**dict.fromkeys(new, 0), **dict.fromkeys(old, 0)}"),
    ),
]


@pytest.fixture
def sick(emitted: Callable[[str], Path], tmp_path: Path) -> Callable[[str, Change], Host]:
    """A host whose command or balancer is sabotaged, with small instances."""

    def made(kind: str, change: Change) -> Host:
        copy = tmp_path / "service"
        shutil.copytree(emitted(kind), copy)
        change.apply(copy)
        host = Host(KINDS[kind], copy, tmp_path / "host")
        host.hasten()
        return host

    return made


@pytest.mark.parametrize(
    ("kind", "scenario", "change"), SABOTAGES, ids=lambda each: getattr(each, "__name__", getattr(each, "symbol", None))
)
def test_it_does_not_hold(sick: Callable[[str, Change], Host], kind: str, scenario: Scenario, change: Change) -> None:
    with sick(kind, change).run() as host, load(host.balancer.port) as users, pytest.raises((*RED, ServerError)):
        scenario(host, users)
