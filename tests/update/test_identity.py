"""Answers that name the service, given at an update: all that names it follows, or the update says what to type."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from copier import VcsRef

from tests.hooks.repository import GIT
from tests.projects import Edit, Project
from tests.update.test_edited import edited
from tests.update.versions import commit, duplicate, files, git, make_service, ours, release, unmerged, update, yours

OTHERS = {
    "project_name": "Order Desk",
    "project_slug": "order-desk",
    "github_user": "acme",
    "user_name": "Team Orders",
    "license": "mit",
}
PACKAGE = {"package_name": "my_service"}
MAIN = "src/my_service/main.py"


def of(service: Path, file: str) -> str:
    return (service / file).read_text()


def test_a_package_keeps_its_name_and_its_files(first: Path, tmp_path: Path) -> None:
    service = edited(duplicate(first, tmp_path / "service"))
    before = files(service)
    with pytest.raises(ValueError, match="type -d package_name=my_service: the package keeps"):
        update(service, package_name="order_desk")
    assert files(service) == before
    assert git(service, "status", "--porcelain") == ""
    update(service, **PACKAGE)  # the name that it has
    assert yours(files(service)) == yours(before)


def test_a_folder_with_brackets_is_a_service_too(first: Path, tmp_path: Path) -> None:
    """The file of answers is found by a glob."""
    service = duplicate(first, tmp_path / "orders[1]*")
    with pytest.raises(ValueError, match="the package keeps its name"):
        update(service, package_name="order_desk")


@pytest.mark.sabotage
def test_an_update_that_moves_the_package_would_delete_what_is_yours(tmp_path: Path) -> None:
    moves = Edit("includes/validators.jinja", "if fixed and value != fixed", "if false")
    service = edited(make_service(release(tmp_path / "template", moves), tmp_path / "service"))
    update(service, package_name="order_desk")
    assert not (service / MAIN).exists()


def test_all_of_ours_and_the_license_follow_the_answers(first: Path, releases: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    Edit(MAIN, "without=set()", 'without={"api_docs"}').apply(service)
    commit(service)
    update(service, VcsRef.CURRENT, **OTHERS)
    fresh = files(make_service(releases, tmp_path / "fresh", **OTHERS, **PACKAGE))
    assert unmerged(service) == []
    assert ours(files(service)) == ours(fresh)
    assert of(service, "LICENSE").startswith("MIT License\n\nCopyright (c) Team Orders\n")
    project = tomllib.loads(of(service, "pyproject.toml"))["project"]
    assert project["license"] == "MIT"
    assert project["scripts"] == {"order-desk": "my_service.cli:main"}
    assert "summary: The error budget of order-desk" in of(service, "observability/alerts.yaml")
    check = subprocess.run([sys.executable, "scripts/alerts.py", "--check"], cwd=service, check=False)
    assert check.returncode == 0  # slo.yaml, which is yours, names nothing
    assert of(service, "observability/slo.yaml").encode() == fresh["observability/slo.yaml"]
    assert 'without={"api_docs"}' in of(service, MAIN)


@pytest.mark.wide
def test_a_license_of_your_own_is_a_conflict_in_sight(first: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    Edit("LICENSE", "Apache License", "Our License").apply(service)
    commit(service)
    update(service, VcsRef.CURRENT, license="mit")
    assert unmerged(service) == ["LICENSE"]
    assert "Our License" in of(service, "LICENSE")


@pytest.mark.sabotage
def test_a_license_that_updates_ignore_would_contradict_pyproject(tmp_path: Path) -> None:
    ignored = """  - "{% if _copier_operation == 'update' %}LICENSE{% endif %}"\n"""
    template = release(tmp_path / "template", Edit("copier.yml", "_exclude:\n", f"_exclude:\n{ignored}"))
    service = update(make_service(template, tmp_path / "service"), VcsRef.CURRENT, license="mit")
    assert "Apache License" in of(service, "LICENSE")
    assert 'license = "MIT"' in of(service, "pyproject.toml")


@pytest.mark.wide
def test_the_update_says_how_to_find_the_old_name_in_what_is_yours(first: Path, tmp_path: Path) -> None:
    service = Project(duplicate(first, tmp_path / "service"))
    command = [sys.executable, "-m", "copier", "update", "--defaults", "--vcs-ref=:current:"]
    done = service.run(*command, "-d", "project_slug=order-desk", "-d", "github_user=acme", env=GIT)
    advice = [line.strip() for line in done.stderr.splitlines() if line.strip().startswith("git grep")]
    assert len(advice) == 2
    found = [service.run("sh", "-c", line, env=GIT, check=False).stdout for line in advice]
    assert "README.md:" in found[0]
    assert "my-service" in found[0]
    assert "Makefile" not in found[0]  # ours follows
    commit(service.root)
    assert "git grep" not in service.run(*command, env=GIT).stderr  # no name was given
