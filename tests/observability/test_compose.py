"""compose.yaml shows Grafana the dashboards of the service."""

from pathlib import Path, PurePosixPath

import pytest
import yaml

from tests.projects import Edit, Project
from tests.sabotage import Line

COMPOSE = "compose.yaml"


def unseen(project: Project) -> list[str]:
    """Folders that Grafana is told to read dashboards from and that are not mounted, or not there."""
    config = yaml.safe_load((project.root / COMPOSE).read_text())
    service = config["services"]["telemetry"]
    mounted = {target: source for source, target, *_ in (volume.split(":") for volume in service["volumes"])}
    providers = yaml.safe_load(config["configs"]["dashboards"]["content"])["providers"]
    assert PurePosixPath(service["configs"][0]["target"]).suffix == ".yaml"
    wanted = [provider["options"]["path"] for provider in providers]
    return [path for path in wanted if path not in mounted or not list((project.root / mounted[path]).glob("*.json"))]


def test_grafana_finds_the_dashboards(emitted: Project) -> None:
    assert unseen(emitted) == []


@pytest.mark.sabotage
def test_dashboards_that_grafana_does_not_see_are_noticed(emitted: Project, tmp_path: Path) -> None:
    path = "/otel-lgtm/grafana/conf/provisioning/dashboards/service"
    sick = emitted.variant(tmp_path / "sick", Line(COMPOSE, f"path: {path}", f"path: {path}s"))
    assert unseen(sick) == [f"{path}s"]
    empty = emitted.variant(tmp_path / "empty", Edit(COMPOSE, "./observability/dashboards:", "./dashboards:"))
    assert unseen(empty) == [path]
