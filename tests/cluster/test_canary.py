"""Canary releases under load: a good one loses no request, of a bad one few users see anything, and then nobody."""

import time

import pytest

from tests.cluster.cluster import wait
from tests.cluster.deployment import Deployment
from tests.cluster.load import load

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
WEIGHT = 0.5  # the largest share of the requests that a new version gets


def test_a_good_release_of_an_image_loses_no_request(canary: Deployment, versions: list[str]) -> None:
    with load(canary.cluster, canary.host) as users:
        assert canary.release(versions[1]) == "Succeeded", canary.story()
        done = time.monotonic()
        wait(lambda: len(users.since(done)) > 200, "requests afterwards")
    assert set(users.commits(done)) == {versions[1]}
    assert set(users.commits()) == {versions[0], versions[1]}
    print(f"image: {users.lost_none()} requests, 0 lost, {canary.took():.0f} s")


def test_a_good_release_of_a_configuration_loses_no_request(canary: Deployment) -> None:
    before = canary.config["RELEASE"]
    with load(canary.cluster, canary.host) as users:
        assert canary.release(RELEASE="configured") == "Succeeded", canary.story()
        done = time.monotonic()
        wait(lambda: len(users.since(done)) > 200, "requests afterwards")
    assert set(users.releases(done)) == {"configured"}
    assert set(users.releases()) == {before, "configured"}
    print(f"configuration: {users.lost_none()} requests, 0 lost, {canary.took():.0f} s")


def test_of_a_release_that_fails_few_users_see_anything_and_then_nobody(canary: Deployment) -> None:
    before = canary.config["RELEASE"]
    with load(canary.cluster, canary.host) as users:
        assert canary.release(RELEASE="bad", FAULT="errors") == "Failed", canary.story()
        done = time.monotonic() + 1  # until Envoy has the route
        wait(lambda: len(users.since(done)) > 200, "requests afterwards")
    wrong, all_of_it = users.errors(), [each for each in users.seen if each.at < done]
    assert wrong, "the release was asked for nothing"
    assert {each.status for each in wrong} == {500}
    assert len(wrong) / len(all_of_it) < WEIGHT
    assert users.errors(done) == []
    assert set(users.releases()) == {before}
    assert any("errors" in event and "advancement" in event for event in canary.told), canary.story()
    print(
        f"bad: {len(wrong)} of {len(all_of_it)} requests saw an error, none after the rollback, {canary.took():.0f} s"
    )
    canary.revert(RELEASE=before)


def restarted(canary: Deployment, times: int = 2) -> None:
    """Restart all pods under load, and check that no request is lost."""
    with load(canary.cluster, canary.host) as users:
        for _ in range(times):
            canary.restart()
    print(f"{times} rolling restarts: {users.lost_none()} requests, 0 lost")


def test_a_rolling_restart_loses_no_request(canary: Deployment) -> None:
    restarted(canary)
