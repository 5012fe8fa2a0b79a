"""compose.yaml is one by the Compose specification, and shows the dashboards on this machine alone."""

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
import yaml

from tests.projects import Edit, Project
from tests.sabotage import Line

COMPOSE = "compose.yaml"


def complaints(project: Project) -> str:
    """What the schema that check-jsonschema brings (compose-spec) says against it."""
    schema = "vendor.compose-spec"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(project.root / COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout if done.returncode else ""


def test_the_schema_takes_it(emitted: Project) -> None:
    assert complaints(emitted) == ""


@pytest.mark.sabotage
def test_the_schema_refuses_an_unknown_key(emitted: Project, tmp_path: Path) -> None:
    sick = emitted.variant(tmp_path / "sick", Edit(COMPOSE, "    ports:", "    prots:"))
    assert "'prots' was unexpected" in complaints(sick)


def open_to_others(project: Project) -> list[str]:
    services = yaml.safe_load((project.root / COMPOSE).read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    return [port for port in ports if not port.startswith("127.0.0.1:")]


def test_it_listens_on_loopback_only(emitted: Project) -> None:
    assert open_to_others(emitted) == []


@pytest.mark.sabotage
def test_an_open_port_is_found(emitted: Project, tmp_path: Path) -> None:
    sick = emitted.variant(tmp_path / "sick", Line(COMPOSE, '- "127.0.0.1:3000:3000"', '- "3000:3000"'))
    assert open_to_others(sick) == ["3000:3000"]


def test_each_image_has_a_version(emitted: Project) -> None:
    services = yaml.safe_load((emitted.root / COMPOSE).read_text())["services"]
    assert all(service["image"].rpartition(":")[2][0].isdigit() for service in services.values())


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
