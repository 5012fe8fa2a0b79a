"""The API keeps to its own description: schemathesis throws valid and invalid requests at it and finds nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects import ROOT, Edit, Service
from tests.proof import count
from tests.service.conftest import STORES, Start

pytestmark = pytest.mark.servers


def attack(service: Service, folder: Path, examples: int) -> subprocess.CompletedProcess[str]:
    """Run schemathesis with all its checks, from a fixed seed."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"http://127.0.0.1:{service.port}/openapi.json",
        "--checks=all",
        f"--max-examples={examples}",
        "--no-color",
        "--seed=1",
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.service.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env={**os.environ, **hooks}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("store", STORES)
def test_schemathesis_finds_nothing(start: Start, tmp_path: Path, store: str) -> None:
    with start(store) as service:
        done = attack(service, tmp_path, count(15, 300))
        assert "No issues found" in done.stdout, done.stdout
        assert done.returncode == 0
        assert "Operations:       5 selected / 5 total" in done.stdout
        assert "unhandled error" not in service.log


PROBLEMS = "src/my_service/platform/problems.py"


@pytest.mark.parametrize(
    ("edit", "finding"),
    [
        (Edit(PROBLEMS, '        "code": code,\n', ""), "Response violates schema"),
        (Edit(PROBLEMS, '_methods(app, headers.get("Allow", ""))', '"GET"'), "Allow header mismatch"),
    ],
    ids=["a problem without its code", "an Allow without methods"],
)
def test_schemathesis_finds_a_planted_fault(start: Start, tmp_path: Path, edit: Edit, finding: str) -> None:
    with start("postgresql", lambda project: project.variant(tmp_path / "sick", edit)) as service:
        done = attack(service, tmp_path, 15)
    assert done.returncode == 1
    assert finding in done.stdout
