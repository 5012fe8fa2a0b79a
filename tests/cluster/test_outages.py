"""What else may be away during a release: it goes on by itself, or the old version serves everything."""

import functools
import json
import time

import pytest

from tests.cluster.addons import Addons
from tests.cluster.beside import Beside
from tests.cluster.cluster import wait
from tests.cluster.deployment import SLUG, Deployment
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
    assert any("Metric query failed" in each for each in canary.events()), canary.story()
    assert set(users.releases(done)) == {before}
    print(f"no Prometheus: {users.lost_none()} requests, 0 lost")
    canary.revert(RELEASE=before)


def test_without_the_database_nothing_restarts_and_nothing_is_promoted(canary: Deployment, beside: Beside) -> None:
    before, restarts = canary.config["RELEASE"], canary.restarts()
    with load(canary.cluster, canary.host, path="/v1/items") as users:
        canary.begin(RELEASE="no-database")
        wait(lambda: canary.weight() >= 1, "the new version gets requests", 120, canary.story)
        beside.postgres.stop()
        wait(lambda: not canary.ready(f"{SLUG}-primary"), "pods are unready")
        time.sleep(2 * AWAY)
        assert canary.phase != "Succeeded"
        assert canary.restarts() == restarts
        beside.postgres.start()
        back = time.monotonic()
        wait(lambda: canary.ready(f"{SLUG}-primary"), "pods are ready again")
        assert canary.end() == "Failed", canary.story()
        done = time.monotonic() + 1
        wait(lambda: len(users.since(done)) > 100, "requests afterwards")
    assert users.errors(done) == []
    assert canary.restarts() == restarts
    first = next(each.at for each in users.since(back) if each.status == 200)
    print(f"database away: it serves {first - back:.0f} s after it is back, no restart")
    canary.revert(RELEASE=before)


def evict(deployment: Deployment, pod: str) -> bool:
    """Evict a pod, as a drain of its node does: whether the budget allowed it."""
    where = f"/api/v1/namespaces/{deployment.namespace}/pods/{pod}/eviction"
    about = {"name": pod, "namespace": deployment.namespace}
    eviction = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": about})
    return deployment.cluster.try_kubectl("create", f"--raw={where}", "-f", "-", text=eviction).returncode == 0


def drained(canary: Deployment) -> None:
    """Evict all pods, as a drain does, and check that the budget held some back and no request is lost."""
    tries: list[bool] = []

    def allowed(pod: str) -> bool:
        tries.append(evict(canary, pod))
        return tries[-1]

    with load(canary.cluster, canary.host) as users:
        for pod in [each["metadata"]["name"] for each in canary.pods()]:
            wait(functools.partial(allowed, pod), f"{pod} may go", 180, canary.story)
        assert False in tries, "the budget let all pods go at once"
        wait(lambda: canary.ready(f"{SLUG}-primary"), "all pods run again", 120, canary.story)
    print(f"evicted: {users.lost_none()} requests, 0 lost, the budget refused {tries.count(False)} times")


def test_a_drain_evicts_one_pod_after_the_other_and_loses_no_request(canary: Deployment) -> None:
    drained(canary)
