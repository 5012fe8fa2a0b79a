"""`make update` as a user types it, with the Copier that uv finds: fine, in conflict, refused."""

import subprocess
from pathlib import Path

from tests.hooks.repository import GIT
from tests.projects import Edit, Project
from tests.update.versions import commit, duplicate, files, git


def make_update(service: Path) -> subprocess.CompletedProcess[str]:
    return Project(service).run("make", "update", env=GIT, check=False)


def test_make_update_brings_the_newest_release(first: Path, second: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    done = make_update(service)
    assert done.returncode == 0, done.stderr
    assert "make setup check" in done.stderr  # what to type next
    assert files(service) == files(second)


def test_make_update_fails_while_conflicts_are_left(first: Path, tmp_path: Path) -> None:
    """Copier itself exits with 0 there."""
    service = duplicate(first, tmp_path / "service")
    Edit(".gitignore", "dist/\n", "dist/\nmine/\n").apply(service)
    commit(service)
    done = make_update(service)
    assert done.returncode == 2
    assert "conflicts remain: see git status" in done.stderr
    assert "UU .gitignore" in git(service, "status", "--porcelain").splitlines()
    assert not list(service.rglob("*.rej"))

    # The check says it, not Copier: without the check there is nothing to be seen.
    Edit("Makefile", "$(UV)x --from 'copier>=9.19.1' copier update --defaults", "true").apply(service)
    assert make_update(service).returncode == 2
    Edit("Makefile", '@test -z "$$(git ls-files --unmerged)"', "@true").apply(service)
    assert make_update(service).returncode == 0


def test_make_update_says_why_it_refuses_and_changes_nothing(first: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    Edit("README.md", "## Start", "## Mine").apply(service)
    before = files(service)
    done = make_update(service)
    assert done.returncode == 2
    assert "Destination repository is dirty" in done.stderr
    assert files(service) == before
