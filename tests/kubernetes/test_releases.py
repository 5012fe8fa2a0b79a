"""What a release is measured by, on series that the real service exported: who is promoted, who is not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.manifests import K8S, Manifests, kustomize
from tests.kubernetes.releases import PHASES, Stage, failed, staged
from tests.kubernetes.test_smoke import command, run
from tests.projects import Edit, Project

pytestmark = pytest.mark.servers
METRICS = f"{K8S}/components/release/metrics.yaml"
# What stops a release in each phase; without anything it goes on, and is promoted in the end.
CANARY = {
    "no requests": {"traffic?", "errors?", "errors-compared?", "latency?"},
    "well": set(),
    "few requests": {"traffic"},
    "new version fails": {"errors", "errors-compared"},
    "new version is slow": {"latency"},
    "both fail and are slow": {"errors"},
    "all requests switched": set(),
    "new version restarted": {"restarts"},
}


@pytest.fixture(scope="module")
def stage(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(project, tmp_path_factory.mktemp("stage")) as made:
        yield made


def test_a_release_is_judged_by_what_happens(
    stage: Stage, production: Manifests, production_blue_green: Manifests
) -> None:
    assert {phase: failed(stage, production, phase) for phase in PHASES} == CANARY
    alone = {phase: wrong - {"errors-compared", "errors-compared?"} for phase, wrong in CANARY.items()}
    alone["few requests"] = set()
    assert {phase: failed(stage, production_blue_green, phase) for phase in PHASES} == alone


def test_the_watch_of_blue_green_opens_when_the_pods_are_old_enough(
    stage: Stage, production_blue_green: Manifests
) -> None:
    stage.end("no requests")
    text = command(production_blue_green, "watch")
    there = ("http://prometheus.monitoring:9090", f"http://{stage.prometheus.address}")
    assert run(text, there) != 0
    assert run(text, there, ("offset 11m", "offset 1s")) == 0
    assert run(text, there, ("offset 11m", "offset 1s"), ("namespace='my-service'", "namespace='other'")) != 0


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("old", "new", "phase", "wrong"),
    [
        (" or vector(0))\n", ")\n", "well", {"errors?"}),
        ("{5}", ".*", "few requests", set()),
    ],
    ids=["no errors, no value", "any pod"],
)
def test_a_wrong_query_judges_otherwise(
    stage: Stage, deployed: Project, tmp_path: Path, old: str, new: str, phase: str, wrong: set[str]
) -> None:
    sick = deployed.variant(tmp_path / "sick", Edit(METRICS, old, new))
    assert failed(stage, Manifests(kustomize(sick.root / K8S / "overlays/production")), phase) == wrong
