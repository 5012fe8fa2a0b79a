"""A service that nobody changed becomes what the new release emits, and a second update finds nothing to do."""

from pathlib import Path

import pytest
from copier import VcsRef
from copier.errors import UnsafeTemplateError, UserMessageError

from tests.projects import Edit
from tests.update.versions import (
    NEW,
    NEXT,
    OLD,
    commit,
    duplicate,
    files,
    git,
    make_service,
    ours,
    release,
    update,
    yours,
)

pytestmark = pytest.mark.wide  # Copier alone, as bots run it; `make update` is in test_template_update.py


def test_a_clean_service_equals_a_fresh_one_outside_what_is_yours(
    first: Path, second: Path, releases: Path, tmp_path: Path
) -> None:
    fresh = files(make_service(releases, tmp_path / "fresh", NEW))
    found = files(second)
    assert b"# As of v0.2.0." in found["src/my_service/platform/quota.py"]  # the update did its work
    assert f"migrations/platform/{NEXT}_quotas.py" in found
    assert ours(found) == ours(fresh)
    assert yours(found) == yours(files(first))
    assert yours(found) != yours(fresh)  # the release did change them


def test_a_second_update_finds_nothing_to_do(second: Path, tmp_path: Path) -> None:
    service = duplicate(second, tmp_path / "service")
    assert git(service, "status", "--porcelain") != ""
    commit(service)
    update(service, VcsRef.CURRENT)
    assert git(service, "status", "--porcelain") == ""


@pytest.mark.sabotage
def test_a_file_of_ours_that_updates_skip_fails_the_proof(tmp_path: Path) -> None:
    skipped = """  - "{% if _copier_operation == 'update' %}Makefile{% endif %}"\n"""
    edit = Edit("copier.yml", "_exclude:\n", f"_exclude:\n{skipped}")
    change = Edit("template/Makefile.jinja", "list the targets", "show the targets")
    template = release(tmp_path / "template", edit, then=change.apply)
    fresh = ours(files(make_service(template, tmp_path / "fresh", NEW)))
    found = ours(files(update(make_service(template, tmp_path / "service"))))
    assert {name for name in fresh if fresh[name] != found.get(name)} == {"Makefile"}


def test_a_dirty_tree_is_refused_and_left_alone(first: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    (service / "not-committed.txt").write_text("mine\n")
    before = files(service)
    with pytest.raises(UserMessageError, match="dirty"):
        update(service)
    assert files(service) == before


def test_an_older_release_is_refused(releases: Path, tmp_path: Path) -> None:
    service = make_service(releases, tmp_path / "service", NEW)
    with pytest.raises(UserMessageError, match="downgrading"):
        update(service, OLD)
    assert git(service, "status", "--porcelain") == ""


def test_a_folder_without_git_is_refused(first: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    (service / ".git").rename(tmp_path / "git")
    with pytest.raises(UserMessageError, match="git-tracked"):
        update(service)
    assert files(service) == files(first)


@pytest.mark.sabotage
def test_one_task_would_make_every_update_demand_trust(tmp_path: Path) -> None:
    task = Edit("copier.yml", "_subdirectory:", "_tasks: ['true']\n_subdirectory:")
    template = release(tmp_path / "template", then=task.apply)
    service = make_service(template, tmp_path / "service")
    with pytest.raises(UnsafeTemplateError, match="tasks"):
        update(service)
    assert git(service, "status", "--porcelain") == ""
