"""The emitted service proves itself: its own `make check` is green as emitted, and red where it should be."""

import datetime
import os
from pathlib import Path

import pytest

from tests.projects import Edit, Project, render
from tests.proof import FULL
from tests.test_render import ROWS, Row

MINIMAL: Row = {"database": "none", "error_monitoring": "none", "include_example": False, "license": "proprietary"}
MAXIMAL: Row = {"python_version": "3.12", "license": "mit", "user_email": "team@acme.test"}
# Another pair of rows each day; ROTATION repeats a day's.
DAY = int(os.environ.get("ROTATION", datetime.datetime.now(datetime.UTC).date().toordinal()))
ROTATING = ROWS if FULL else [ROWS[(2 * DAY + i) % len(ROWS)] for i in range(2)]


@pytest.mark.parametrize(
    "answers",
    [MINIMAL, MAXIMAL, *ROTATING],
    ids=lambda row: "-".join(str(value) for value in row.values()),
)
def test_make_check_is_green_as_emitted(template: Path, tmp_path: Path, answers: Row) -> None:
    project = Project(render(template, tmp_path / "service", **answers)).install()
    done = project.run("make", "check")
    assert "Success: no issues found" in done.stdout
    assert " passed" in done.stdout


def test_make_check_is_green_with_default_answers(project: Project) -> None:
    assert " passed" in project.run("make", "check").stdout


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (Edit("src/my_service/main.py", "app = ", "app  = "), "would be reformatted"),
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
            "test_migrations_go_up",
        ),
        (
            Edit(
                "migrations/platform/p0001_idempotency_keys.py",
                'op.drop_table("idempotency_keys")',
                "op.get_bind()",
            ),
            "test_migrations_go_up",
        ),
    ],
    ids=["format", "lint", "types", "promises", "tests", "drift", "downgrade"],
)
def test_make_check_finds_a_planted_fault(project: Project, tmp_path: Path, edit: Edit, says: str) -> None:
    sick = project.variant(tmp_path / "sick", edit)
    path = os.pathsep.join([str(project.venv / "bin"), os.environ["PATH"]])
    done = sick.run("make", "check", "RUN=env", env={"PATH": path}, check=False)
    assert done.returncode != 0
    assert says in done.stdout + done.stderr


def test_a_second_head_in_a_branch_is_refused(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick")
    versions = sick.root / "migrations" / "versions"
    for name in ("a", "b"):
        text = (versions / "0001_items.py").read_text()
        text = (
            text.replace('revision = "0001"', f'revision = "{name}"', 1)
            .replace("down_revision = None", 'down_revision = "0001"')
            .replace('branch_labels = "service"', "branch_labels = None")
        )
        (versions / f"{name}.py").write_text(text)
    done = sick.cli("migrate", env={"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"})
    assert done.returncode == 1
    assert done.stderr.startswith("migrate: CommandError: versions has two heads")
    assert len(done.stderr.splitlines()) == 1


def test_the_first_revision_of_a_service_without_example_begins_its_own_branch(template: Path, tmp_path: Path) -> None:
    project = Project(render(template, tmp_path / "service", include_example=False)).install()
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    project.cli("migrate", env=env, check=True)
    for message in ("first", "second"):
        project.run("make", "revision", f"m={message}", env=env)
        project.cli("migrate", env=env, check=True)
    made = {path.read_text() for path in (project.root / "migrations" / "versions").glob("*.py")}
    assert sum("branch_labels = ('service',)" in text or 'branch_labels = ("service",)' in text for text in made) == 1
    assert "p0001" in project.cli("migrate", env=env).stdout
    assert " passed" in project.run("make", "check").stdout


@pytest.mark.parametrize(("before", "moves"), [("2020-01-01", True), ("2999-01-01", False)])
def test_upgrade_moves_the_date_only_forward(project: Project, tmp_path: Path, before: str, moves: bool) -> None:
    own = project.variant(tmp_path / "own")
    toml = own.root / "uv.toml"
    toml.write_text(f'exclude-newer = "{before}T00:00:00Z"\n')
    own.run(str(own.venv / "bin" / "python"), "scripts/upgrade.py")
    week_ago = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=7)
    assert toml.read_text() == f'exclude-newer = "{week_ago if moves else before}T00:00:00Z"\n'
