"""The API keeps to its own description: schemathesis throws valid and invalid requests at it and finds nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects import ROOT, Service
from tests.proof import count
from tests.sabotage import Body
from tests.service.conftest import Start

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


def test_schemathesis_finds_nothing(service: Service, tmp_path: Path) -> None:
    done = attack(service, tmp_path, count(5, 300))
    assert "No issues found" in done.stdout, done.stdout
    assert done.returncode == 0
    assert "Operations:       5 selected / 5 total" in done.stdout
    assert "unhandled error" not in service.log


# A problem without its code.
NAMELESS = """
answer = original(status, code, detail, errors=errors, headers=headers)
answer.body = answer.body.replace(b'"code":', b'"kode":')
return answer
"""


@pytest.mark.sabotage
def test_schemathesis_finds_a_planted_fault(start: Start, tmp_path: Path) -> None:
    with start("memory", Body("problems:response", NAMELESS)) as service:
        done = attack(service, tmp_path, 5)
    assert done.returncode == 1
    assert "Response violates schema" in done.stdout
