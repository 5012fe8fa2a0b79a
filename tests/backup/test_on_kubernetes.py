"""The database on Kubernetes: CloudNativePG and its plugin take the manifests, by their schemas; nothing runs here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.projects import Edit, Project, render

FOLDER = "deploy/k8s/components/database"
SCHEMAS = json.loads((Path(__file__).parent / "crds.json").read_text())
NAME = "my-service-database"


@pytest.fixture(scope="module", params=["silver", "gold"])
def tier(request: pytest.FixtureRequest, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service of that tier, not installed."""
    return Project(render(template, tmp_path_factory.mktemp("tier") / "service", recovery_tier=request.param))


def manifests(project: Project) -> list[dict[str, Any]]:
    files = sorted((project.root / FOLDER).glob("*.yaml"))
    return [each for file in files for each in yaml.safe_load_all(file.read_text())]


def faults(project: Project) -> Iterator[str]:
    """What a schema does not take, and names that lead nowhere."""
    found = manifests(project)
    names = {(each["kind"], each["metadata"]["name"]) for each in found}
    for each in found:
        yield from (error.message for error in Draft7Validator(SCHEMAS[each["kind"]]).iter_errors(each))
        spec = each["spec"]
        used = [*spec.get("plugins", []), *(cluster["plugin"] for cluster in spec.get("externalClusters", []))]
        for plugin in used:
            store = plugin["parameters"]["barmanObjectName"]
            if ("ObjectStore", store) not in names:
                yield f"no ObjectStore {store}"
        for cluster in (spec.get("cluster", {}).get("name"), *(each["parameters"].get("serverName") for each in used)):
            if cluster and ("Cluster", cluster) not in names:
                yield f"no Cluster {cluster}"
        source = spec.get("bootstrap", {}).get("recovery", {}).get("source")
        if source and source not in {cluster["name"] for cluster in spec.get("externalClusters", [])}:
            yield f"no external cluster {source}"


def test_the_operator_takes_each_manifest(tier: Project) -> None:
    assert [each["kind"] for each in manifests(tier)] == ["ObjectStore", "Cluster", "ScheduledBackup", "Cluster"]
    assert list(faults(tier)) == []


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("cluster", "retentionPolicy", "retention", "('retention' was unexpected)"),
        ("cluster", "14d", "two weeks", "'two weeks' does not match"),
        ("cluster", "isWALArchiver: true", "isWALArchiver: 'yes'", "'yes' is not of type 'boolean'"),
        ("cluster", "method: plugin", "method: pgbackrest", "'pgbackrest' is not one of"),
        ("recover", "{targetTime:", "{target:", "('target' was unexpected)"),
        ("recover", f"serverName: {NAME}", "serverName: other", "no Cluster other"),
        ("recover", "source: lost", "source: found", "no external cluster found"),
    ],
)
def test_a_planted_fault_is_found(tier: Project, tmp_path: Path, file: str, old: str, new: str, fault: str) -> None:
    sick = tier.variant(tmp_path / "sick", Edit(f"{FOLDER}/{file}.yaml", old, new))
    (told,) = faults(sick)
    assert fault in told
