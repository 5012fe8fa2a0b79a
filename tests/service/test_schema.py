"""The API keeps to its own description: `make dast` throws valid and invalid requests at it and finds nothing."""

import subprocess

import pytest

from tests.projects import Project, Service
from tests.proof import count
from tests.sabotage import Body
from tests.service.conftest import STORES, Start

pytestmark = pytest.mark.servers
# One store in the gate: what each of them makes of a request is proven by `test_items` and `test_bad_input`.
MARKS = {"memory": pytest.mark.wide, "sqlite": pytest.mark.wide}
READ_ONLY = ("--include-method=GET", "--phases=coverage,fuzzing")


def attack(project: Project, service: Service, *options: str, examples: int = 5) -> subprocess.CompletedProcess[str]:
    """Type it: all checks of schemathesis, from a fixed seed."""
    typed = " ".join(["--no-color", f"--max-examples={examples}", *options])
    return project.run("make", "dast", f"url=http://127.0.0.1:{service.port}", f"ARGS={typed}", check=False)


@pytest.mark.parametrize("service", [pytest.param(each, marks=MARKS.get(each, ())) for each in STORES], indirect=True)
def test_it_finds_nothing(project: Project, service: Service) -> None:
    done = attack(project, service, examples=count(5, 300))
    assert "No issues found" in done.stdout, done.stdout
    assert done.returncode == 0
    assert "Operations:       5 selected / 5 total" in done.stdout
    assert "unhandled error" not in service.log


def test_a_service_that_is_away_is_named_with_its_address(project: Project) -> None:
    done = project.run("make", "dast", "url=http://127.0.0.1:1", check=False)
    assert done.returncode
    assert "Failed to load specification from http://127.0.0.1:1/openapi.json" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (Body("features.items.service:page", "raise RuntimeError"), "Server error"),
        (
            Body(
                "features.items.routes:list_items",
                """
                from fastapi.responses import JSONResponse
                return JSONResponse({}, 202)
                """,
            ),
            "Undocumented Content-Type",
        ),
    ],
    ids=["500", "undocumented"],
)
def test_it_finds_a_planted_fault(project: Project, start: Start, planted: Body, said: str) -> None:
    with start("memory", planted) as service:
        done = attack(project, service, *READ_ONLY)
    assert done.returncode
    assert said in done.stdout, done.stdout
