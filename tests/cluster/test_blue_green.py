"""Blue-green releases under load: all requests at once, watched with the old version at full size."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import wait
from tests.cluster.conftest import New
from tests.cluster.deployment import SLUG, Deployment
from tests.cluster.load import load
from tests.projects import Project, render

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
BACK = 30.0  # seconds until users see the old version again
TURNS = 45  # seconds after its start, the new version turns bad
WATCH = ("offset 11m", "offset 75s")  # of the pods' age, for an interval of ten seconds and no minutes to wait


@pytest.fixture(scope="module")
def blue_green(template: Path, new: New, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The production overlay of that answer, serving its first version."""
    project = Project(render(template, tmp_path_factory.mktemp("answered") / "service", rollout="blue-green"))
    made = new("blue-green", project)
    made.site |= {"replicas-max": "2", "preview-host": "next.blue-green.acme.test"}
    made.patches["Canary"].append(("/spec/analysis/threshold", 1))
    made.edit("components/release/canary.yaml", *WATCH)
    made.start(RELEASE="first")
    yield made
    made.remove()


def test_a_good_release_loses_no_request(blue_green: Deployment, versions: list[str]) -> None:
    with load(blue_green.cluster, blue_green.host) as users:
        blue_green.begin(versions[1], RELEASE="second")
        wait(lambda: blue_green.weight() == 100, "all requests at once", 120, blue_green.story)
        switched = time.monotonic() + 1
        assert blue_green.ready(f"{SLUG}-primary"), "the old version is not at full size"
        assert blue_green.end() == "Succeeded", blue_green.story()
        watched = time.monotonic() - switched
        wait(lambda: len(users.since(switched)) > 100, "requests afterwards")
    assert set(users.releases(switched)) == {"second"}
    print(f"blue-green: {users.lost_none()} requests, 0 lost, {watched:.0f} s from the switch to the end")


def test_a_version_that_turns_bad_is_back_within_half_a_minute(blue_green: Deployment) -> None:
    with load(blue_green.cluster, blue_green.host) as users:
        blue_green.begin(RELEASE="third", FAULT=f"late:{TURNS}")
        wait(lambda: blue_green.weight() == 100, "all requests at once", 120, blue_green.story)
        wait(lambda: users.errors(), "it turns bad", 120, blue_green.story)
        assert blue_green.end() == "Failed", blue_green.story()
        done = time.monotonic() + 1
        wait(lambda: len(users.since(done)) > 100, "requests afterwards")
    wrong = users.errors()
    assert wrong[-1].at - wrong[0].at < BACK
    assert users.errors(done) == []
    assert set(users.releases(done)) == {"second"}
    print(f"turned bad: {len(wrong)} of {len(users.seen)} failed, back after {wrong[-1].at - wrong[0].at:.0f} s")
    blue_green.revert(RELEASE="second")
