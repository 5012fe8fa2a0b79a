"""Kubernetes 1.37 and each controller take every document of every overlay, by their schemas; nothing runs here."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from covertable import make

from tests.kubernetes.manifests import K8S, OVERLAYS, Document, Manifests, faults, kustomize
from tests.projects import Edit, Project, render
from tests.test_render import FACTORS, Row

RELEVANT = (
    "cache",
    "cdn",
    "database",
    "error_monitoring",
    "include_example",
    "recovery_tier",
    "rollout",
    "secrets_manager",
)
ROWS: list[Row] = make({name: FACTORS[name] for name in RELEVANT}, strength=2)


def overlays(project: Project, folder: Path) -> Iterator[list[Document]]:
    """Each overlay, the production one also with External Secrets, and the files that are applied by themselves."""
    for each in OVERLAYS:
        yield kustomize(project.root / K8S / "overlays" / each)
    if (project.root / K8S / "components/secrets").exists():
        yield kustomize(external(project, folder).root / K8S / "overlays/production")
    yield [yaml.safe_load((project.root / K8S / "argocd.yaml").read_text())]


def external(project: Project, folder: Path) -> Project:
    """With the component that the overlay does not use by itself."""
    old = "components: [../../components]"
    return project.variant(
        folder, Edit(f"{K8S}/overlays/production/kustomization.yaml", old, old[:-1] + ", ../../components/secrets]")
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(str(value) for value in row.values()))
def test_each_document_is_taken(small_template: Path, tmp_path: Path, row: Row) -> None:
    project = Project(render(small_template, tmp_path / "service", **row))
    documents = [each for found in overlays(project, tmp_path / "external") for each in found]
    assert len(documents) > 40
    assert [said for each in documents for said in faults(each)] == []


def misspelt(document: Document) -> Iterator[Document]:
    """A document with a field too many: at its top, and once in each part of its spec."""

    def parts(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            yield value
            for each in value.values():
                yield from parts(each)
        elif isinstance(value, list):
            for each in value:
                yield from parts(each)

    for number, _ in enumerate(parts(document.get("spec"))):
        made = copy.deepcopy(document)
        list(parts(made["spec"]))[number]["planted"] = [{}]
        yield made
    yield {**document, "planted": 1}


def test_a_planted_typo_in_any_kind_is_found(production: Manifests, blue_green: Project, tmp_path: Path) -> None:
    with_secrets = Manifests(kustomize(external(blue_green, tmp_path / "external").root / K8S / "overlays/production"))
    application = yaml.safe_load((blue_green.root / K8S / "argocd.yaml").read_text())
    kinds = {each["kind"]: each for each in [*production.documents, *with_secrets.documents, application]}
    assert {
        "Application",
        "Canary",
        "CronJob",
        "ExternalSecret",
        "MetricTemplate",
        "PrometheusRule",
        "ServiceMonitor",
    } < set(kinds)
    for kind, document in kinds.items():
        planted = list(misspelt(document))
        refused = [bool(faults(each)) for each in planted]
        assert refused[-1], kind
        # maps of labels, quantities and the like take any key
        assert sum(refused) >= min(2, len(planted)), kind


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("base/workload.yaml", "enableServiceLinks", "enableServiceLink", "'enableServiceLink' was unexpected"),
        ("base/workload.yaml", "periodSeconds: 2\n", "periodSeconds: often\n", "'often' is not of type 'integer'"),
        ("components/release/canary.yaml", "stepWeights", "setWeights", "'setWeights' was unexpected"),
        (
            "components/release/canary.yaml",
            "type: pre-rollout",
            "type: before-rollout",
            "'before-rollout' is not one of",
        ),
        ("components/release/metrics.yaml", "query:", "queri:", "'queri' was unexpected"),
        ("components/monitoring/monitor.yaml", "jobLabel", "joblabel", "'joblabel' was unexpected"),
    ],
)
def test_a_typo_in_a_file_reaches_the_schemas(
    deployed: Project, tmp_path: Path, file: str, old: str, new: str, fault: str
) -> None:
    sick = deployed.variant(tmp_path / "sick", Edit(f"{K8S}/{file}", old, new))
    found = [said for each in kustomize(sick.root / K8S / "overlays/production") for said in faults(each)]
    assert found
    assert any(fault in said for said in found)
