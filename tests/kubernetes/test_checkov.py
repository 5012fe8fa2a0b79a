"""checkov knows the mistakes that others made: it finds none in the rendered overlays but what has its reason here.

It takes 300 MB and a minute, so it runs with `PROOF=full` only: see conftest.py.
"""

import json
from pathlib import Path

import pytest
import yaml

from tests.commands import run
from tests.kubernetes.manifests import K8S, kustomize
from tests.projects import Edit, Project

CHECKOV = "checkov==3.3.30"
WHY = {
    "CKV_K8S_11": "no limit of CPU: throttling would delay the event loop, and requests share what is there",
    "CKV_K8S_35": "the jobs read their secrets from the environment: a command that ends, with a Secret of its own",
}


def failed(project: Project, folder: Path, overlay: str = "production") -> set[str]:
    """The checks that fail, as `CHECK KIND`."""
    file = folder / f"{overlay}.yaml"
    file.write_text(yaml.safe_dump_all(kustomize(project.root / K8S / "overlays" / overlay)))
    options = ["--framework=kubernetes", "--skip-download", "--quiet", "--output=json", "--soft-fail"]
    done = run("uv", "tool", "run", "--quiet", "--from", CHECKOV, "checkov", f"--file={file}", *options)
    found = json.loads(done.stdout)
    assert found["summary"]["passed"] > 100, done.stderr
    return {f"{each['check_id']} {each['resource'].split('.')[0]}" for each in found["results"]["failed_checks"]}


@pytest.mark.parametrize("overlay", ["production", "staging"])
def test_checkov_finds_only_what_has_a_reason(
    deployed: Project, blue_green: Project, tmp_path: Path, overlay: str
) -> None:
    for project in (deployed, blue_green):
        found = failed(project, tmp_path, overlay)
        assert {each.split()[0] for each in found} == WHY.keys()
        assert "CKV_K8S_35 Deployment" not in found


@pytest.mark.sabotage
def test_a_writable_root_is_found(deployed: Project, tmp_path: Path) -> None:
    writable = Edit(f"{K8S}/base/workload.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")
    assert "CKV_K8S_22 Deployment" in failed(deployed.variant(tmp_path / "sick", writable), tmp_path)
