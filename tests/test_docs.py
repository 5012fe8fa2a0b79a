"""The reference pages say what their sources say: a page that fell behind is named."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects import ROOT, Edit, export


def build(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "docs" / "build.py", *options],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository with pages that are up to date, whatever state our own are in."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT / "docs", folder / "docs")
    build(export(folder))
    return folder


@pytest.fixture
def checkout(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path, dirs_exist_ok=True)


def test_the_pages_of_this_repository_are_up_to_date() -> None:
    done = build(ROOT, "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_changed_question_makes_its_page_stale_until_it_is_built(checkout: Path) -> None:
    Edit("copier.yml", "What is the service called?", "Which name has it?").apply(checkout)
    stale = build(checkout, "--check")
    assert stale.returncode == 1
    assert stale.stderr == "docs/reference/questions.md is out of date: type make docs\n"
    assert build(checkout).stdout == "wrote docs/reference/questions.md\n"
    assert "Which name has it?" in (checkout / "docs" / "reference" / "questions.md").read_text()
    assert build(checkout, "--check").returncode == 0


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("page", "change"),
    [
        ("settings", Edit("template/.env.example.jinja", "LOG_LEVEL=INFO", "LOG_LEVEL=ERROR")),
        ("make", Edit("template/Makefile.jinja", "test: ## ", "test: ## carefully ")),
    ],
)
def test_a_changed_service_changes_its_page_and_no_other(checkout: Path, page: str, change: Edit) -> None:
    change.apply(checkout)
    assert build(checkout).stdout == f"wrote docs/reference/{page}.md\n"


def test_a_page_that_is_missing_is_named(checkout: Path) -> None:
    (checkout / "docs" / "reference" / "make.md").unlink()
    stale = build(checkout, "--check")
    assert stale.returncode == 1
    assert stale.stderr == "docs/reference/make.md is out of date: type make docs\n"
