"""The emitted service proves itself: its own `make check` is green as emitted, and red where it should be."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plant import Revision
from tests.projects import Change, Edit, Project, render
from tests.proof import DAY, FULL
from tests.sabotage import Body
from tests.test_render import ROWS, Row

MINIMAL: Row = {
    "database": "none",
    "deploy_target": "host",
    "error_monitoring": "none",
    "include_example": False,
    "license": "proprietary",
}
MAXIMAL: Row = {"python_version": "3.12", "license": "mit", "user_email": "team@acme.test"}
# Another pair each day: one of all rows, and one of the extremes.
EXTREMES = [MINIMAL, MAXIMAL]
ROTATING = [*EXTREMES, *ROWS] if FULL else [EXTREMES[DAY % 2], ROWS[DAY % len(ROWS)]]
Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def check() -> Check:
    """`make check` in a project."""

    def checked(project: Project, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return project.run("make", "check", *arguments, env=installed(project), check=check)

    return checked


def installed(project: Project) -> dict[str, str]:
    """With this, `make RUN=env` runs what an environment holds that may be another project's."""
    return {"PATH": os.pathsep.join([str(project.venv / "bin"), os.environ["PATH"]])}


@pytest.mark.wide
@pytest.mark.parametrize(
    "answers",
    ROTATING,
    ids=lambda row: "-".join(str(value) for value in row.values()),
)
def test_make_check_is_green_as_emitted(template: Path, tmp_path: Path, check: Check, answers: Row) -> None:
    done = check(Project(render(template, tmp_path / "service", **answers)).install())
    assert "Success: no issues found" in done.stdout
    assert " passed" in done.stdout


def test_make_check_is_green_with_default_answers(project: Project, check: Check) -> None:
    done = check(project)
    assert "Success: no issues found" in done.stdout
    assert " passed" in done.stdout


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (Edit("src/my_service/main.py", "without=set()", "without = set()"), "would be reformatted"),
        (
            Edit(
                "src/my_service/main.py",
                "from .settings import Settings",
                "import os\nfrom .settings import Settings",
            ),
            "F401",
        ),
        (Edit("src/my_service/main.py", "without=set()", "without=3"), "arg-type"),
        (Edit("observability/slo.yaml", "99.9", "99.95"), "does not follow slo.yaml: type make alerts"),
        (
            Edit("src/my_service/features/items/service.py", "found[:limit]", "found[:1]"),
            "test_pages_follow",
        ),
        (
            Edit("src/my_service/features/items/store.py", "String(100)", "String(100), index=True"),
            "test_migrations_run_up",
        ),
        (Body("migrations.platform:downgrade", "op.get_bind()"), "test_migrations_run_up"),
    ],
    ids=["format", "lint", "types", "promises", "tests", "drift", "downgrade"],
)
def test_make_check_finds_a_planted_fault(
    project: Project, tmp_path: Path, check: Check, change: Change, says: str
) -> None:
    done = check(project.variant(tmp_path / "sick", change), "RUN=env", check=False)
    assert done.returncode != 0
    assert says in done.stdout + done.stderr


def test_a_second_head_in_a_branch_is_refused(project: Project, tmp_path: Path) -> None:
    forked = project.variant(tmp_path / "forked", Revision("pass", "a"), Revision("pass", "b"))
    done = forked.cli("migrate", env={"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"})
    assert done.returncode == 1
    assert done.stderr.startswith("migrate: versions has two heads")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.wide
def test_the_first_revision_of_a_service_without_example_begins_its_own_branch(
    template: Path, project: Project, tmp_path: Path, check: Check
) -> None:
    bare = Project(render(template, tmp_path / "service", include_example=False))
    bare.venv = project.venv
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    bare.cli("migrate", env=env, check=True)
    for message in ("first", "second"):
        bare.run("make", "revision", "RUN=env", "empty=1", f"m={message}", env=env | installed(bare))
        bare.cli("migrate", env=env, check=True)
    made = {path.read_text() for path in (bare.root / "migrations" / "versions").glob("*.py")}
    assert sum("branch_labels = ('service',)" in text or 'branch_labels = ("service",)' in text for text in made) == 1
    assert "p0001" in bare.cli("migrate", env=env).stdout
    assert " passed" in check(bare, "RUN=env").stdout
