"""Answers switched off and on again take nothing that is yours with them."""

from pathlib import Path

import pytest
import yaml
from copier import VcsRef

from tests.projects import Edit
from tests.update.test_edited import edited
from tests.update.versions import commit, duplicate, files, make_service, ours, release, unmerged, update, yours

pytestmark = pytest.mark.wide  # Copier alone, as bots run it; `make update` is in test_template_update.py

SRC = "src/my_service"


def toggled(service: Path, **answers: object) -> Path:
    """Give other answers without a newer release."""
    update(service, VcsRef.CURRENT, **answers)
    assert unmerged(service) == []
    assert not list(service.rglob("*.rej"))
    recorded = yaml.safe_load((service / ".copier-answers.yml").read_text())
    assert recorded.items() >= answers.items()
    return commit(service)


def test_the_example_switched_off_and_on_leaves_your_files_alone(first: Path, tmp_path: Path) -> None:
    service = edited(duplicate(first, tmp_path / "service"))
    before = files(service)
    toggled(service, include_example=False)
    assert yours(files(service)) == yours(before)
    toggled(service, include_example=True)
    assert files(service) == before


def test_the_database_switched_off_and_on_leaves_your_files_alone(first: Path, releases: Path, tmp_path: Path) -> None:
    service = edited(duplicate(first, tmp_path / "service"))
    before = files(service)
    toggled(service, database="none")
    fresh = ours(files(make_service(releases, tmp_path / "fresh", database="none")))
    assert f"{SRC}/platform/db/__init__.py" not in fresh
    assert ours(files(service)) == {**fresh, "Makefile.local": before["Makefile.local"]}
    assert yours(files(service)) == yours(before)
    toggled(service, database="postgresql")
    assert files(service) == before


@pytest.mark.wide
def test_an_example_switched_on_later_does_not_walk_into_a_living_service(releases: Path, tmp_path: Path) -> None:
    service = make_service(releases, tmp_path / "service", include_example=False)
    before = files(service)
    toggled(service, include_example=True)
    assert files(service).keys() == before.keys()


@pytest.mark.sabotage
def test_an_example_that_updates_know_would_be_deleted_with_its_edits(tmp_path: Path) -> None:
    """Why the example is excluded from updates: the plain way loses what people wrote, without a word."""
    excluded = """  - "{% if _copier_operation == 'update' %}src/*/features/items{% endif %}"\n"""
    template = release(tmp_path / "template", Edit("copier.yml", excluded, ""))
    service = edited(make_service(template, tmp_path / "service"))
    toggled(service, include_example=False)
    assert not (service / f"{SRC}/features/items").exists()
