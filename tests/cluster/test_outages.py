"""What else may be away during a release: it goes on by itself, or the old version serves everything."""

import time

import pytest

from tests.cluster.addons import Addons
from tests.cluster.cluster import wait
from tests.cluster.deployment import Deployment
from tests.cluster.load import load
from tests.cluster.node import Node

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
AWAY = 20.0  # seconds


def test_flagger_and_the_api_server_are_killed_in_mid_release(canary: Deployment, node: Node, addons: Addons) -> None:
    with load(canary.cluster, canary.host) as users:
        canary.begin(RELEASE="survives")
        wait(lambda: canary.weight() >= 1, "the new version gets requests", 120, canary.story)
        node.space.processes["flagger"].kill()
        node.space.processes["kube-apiserver"].kill()
        before = len(users.seen)
        time.sleep(AWAY)
        assert len(users.seen) > before + 100
        node.start_api()
        addons.flagger()
        assert canary.end() == "Succeeded", canary.story()
        done = time.monotonic()
        wait(lambda: len(users.since(done)) > 100, "requests afterwards")
    assert set(users.releases(done)) == {"survives"}
    print(f"killed: {users.lost_none()} requests, 0 lost")


def test_without_prometheus_no_release_is_promoted(canary: Deployment, node: Node, addons: Addons) -> None:
    before = canary.config["RELEASE"]
    with load(canary.cluster, canary.host) as users:
        canary.begin(RELEASE="unmeasured")
        wait(lambda: canary.weight() >= 1, "the new version gets requests", 120, canary.story)
        node.space.processes["prometheus"].kill()
        assert canary.end() == "Failed", canary.story()
        done = time.monotonic() + 1
        wait(lambda: len(users.since(done)) > 100, "requests afterwards")
    addons.prometheus()
    assert any("Metric query failed" in each for each in canary.told), canary.story()
    assert set(users.releases(done)) == {before}
    print(f"no Prometheus: {users.lost_none()} requests, 0 lost")
    canary.revert(RELEASE=before)
