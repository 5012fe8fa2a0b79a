"""A service that runs takes the component `release`, and leaves it again, without losing a request."""

import re
import time
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import wait
from tests.cluster.conftest import New
from tests.cluster.deployment import SLUG, Deployment
from tests.cluster.load import load

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def plain(new: New) -> Iterator[Deployment]:
    """The overlay for development, which has no releases: a Deployment, its Service and its HTTPRoute."""
    made = new("adoption", overlay="dev")
    made.site |= {"replicas-min": "2", "replicas-max": "2"}
    made.without = ["Canary", "CronJob"]
    made.apply(RELEASE="first")
    wait(lambda: made.ready(), "all pods are ready", 180, made.story)
    yield made
    made.remove()


def test_adopting_the_component_and_leaving_it_loses_no_request(plain: Deployment) -> None:
    with load(plain.cluster, plain.host) as users:
        plain.components("site", "release", "monitoring")
        plain.without = ["CronJob"]
        plain.apply()
        plain.wait_for("Initialized")
        wait(lambda: plain.ready(f"{SLUG}-primary"), "the primary", 120, plain.story)
        adopted = len(users.seen)
        time.sleep(3)
        for line in leaving(plain):
            plain.shell(line)
        wait(lambda: plain.ready(), "all pods are ready", 180, plain.story)
        plain.components("site")
        plain.without = ["Canary", "CronJob"]
        plain.apply()
        gone = time.monotonic()
        wait(lambda: len(users.since(gone)) > 200, "requests afterwards")
    print(f"adopted and left: {users.lost_none()} requests ({adopted} until it was adopted), 0 lost")


def leaving(deployment: Deployment) -> list[str]:
    """The commands of the emitted page below *To leave it*."""
    text = (deployment.project.root / "docs/deploy-kubernetes.md").read_text().partition("**To leave it**")[2]
    block = re.findall(r"^    (.*)$", text.partition("\n## ")[0], re.M)
    lines = [line.partition("   #")[0] for line in "\n".join(block).replace("\\\n", "").splitlines()]
    found = [line for line in lines if line.startswith("kubectl ")]
    assert len(found) == 3, found
    return found
