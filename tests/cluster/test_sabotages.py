"""What breaks the manifests turns the proof of its promise red."""

import time
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import wait
from tests.cluster.conftest import New
from tests.cluster.deployment import SLUG, Deployment
from tests.cluster.test_canary import restarted
from tests.cluster.test_faults import DEADLINE, FAULTS
from tests.cluster.test_outages import drained

pytestmark = [pytest.mark.cluster, pytest.mark.sabotage, pytest.mark.timeout(900)]
READINESS = "/spec/template/spec/containers/0/readinessProbe/httpGet/path"


@pytest.fixture(scope="module")
def broken(new: New) -> Iterator[Deployment]:
    """A service that does not drain, whose budget selects nothing, and that is ready as soon as it lives."""
    made = new("broken")
    made.patches["PodDisruptionBudget"] = [("/spec/selector/matchLabels", {"app": "other"})]
    made.patches["Deployment"] = [*made.patches["Deployment"], (READINESS, "/livez")]
    made.patches["Canary"] = [*made.patches["Canary"], DEADLINE]
    made.apply(RELEASE="first", SHUTDOWN_DRAIN_SECONDS="0")
    made.wait_for("Initialized")
    wait(lambda: made.ready(f"{SLUG}-primary"), "the primary", 120, made.story)
    yield made
    made.remove()


def test_without_a_drain_a_restart_loses_requests(broken: Deployment) -> None:
    with pytest.raises(AssertionError, match="failed"):
        for _ in range(3):
            restarted(broken)


def test_with_a_budget_that_selects_nothing_all_pods_go_at_once(broken: Deployment) -> None:
    with pytest.raises(AssertionError, match="let all pods go at once"):
        drained(broken)
    wait(lambda: broken.ready(f"{SLUG}-primary"), "all pods run again", 120, broken.story)


def test_with_readiness_on_livez_a_version_without_a_database_counts_as_ready(broken: Deployment) -> None:
    fault = FAULTS["never-ready"]
    broken.begin(**fault.config)
    time.sleep(1)
    assert broken.end() == "Failed", broken.story()
    assert any("pre-rollout check smoke failed" in each for each in broken.events()), broken.story()
