"""The autoscaler adds pods under load and takes them away again, without losing a request."""

import time
from collections.abc import Iterator

import pytest

from tests.cluster.addons import Addons
from tests.cluster.cluster import wait
from tests.cluster.conftest import New
from tests.cluster.deployment import SLUG, Deployment
from tests.cluster.load import load

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
BEHAVIOR = "/spec/behavior/scaleDown"
# What five minutes of quiet do otherwise: the rest of the autoscaler is as emitted.
HASTY = [
    (f"{BEHAVIOR}/stabilizationWindowSeconds", 15),
    (f"{BEHAVIOR}/policies/0/periodSeconds", 15),
]


@pytest.fixture(scope="module")
def scaled(new: New, addons: Addons) -> Iterator[Deployment]:
    """A service of one to three pods."""
    addons.metrics_server()
    made = new("scaling")
    made.site |= {"replicas-min": "1", "replicas-max": "3"}
    made.patches["HorizontalPodAutoscaler"] = HASTY
    made.patches["Deployment"] = [("/spec/template/spec/containers/0/resources/requests/cpu", "100m")]
    made.apply(RELEASE="first")
    made.wait_for("Initialized")
    yield made
    made.remove()


def test_it_scales_from_one_to_three_and_back_under_load(scaled: Deployment) -> None:
    def pods() -> int:
        found = scaled.cluster.get(f"deployment/{SLUG}-primary", scaled.namespace)
        return int(found["status"].get("readyReplicas", 0))

    def why() -> str:
        return scaled.cluster.try_kubectl("describe", "hpa", "-n", scaled.namespace).stdout + scaled.story()

    assert pods() == 1
    with load(scaled.cluster, scaled.host, clients=1) as users:
        begun = time.monotonic()
        with load(scaled.cluster, scaled.host, clients=12) as many:
            wait(lambda: pods() == 3, "three pods", 240, why)
        grown = time.monotonic()
        wait(lambda: pods() == 1, "one pod again", 300, why)
        shrunk = time.monotonic()
    print(f"scaled up in {grown - begun:.0f} s, down in {shrunk - grown:.0f} s: ", end="")
    print(f"{many.lost_none() + users.lost_none()} requests, 0 lost")
