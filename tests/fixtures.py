"""The template and its default project as fixtures: rendered and installed once per test worker."""

from pathlib import Path

import pytest

from tests.projects import Project, export, render


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template of this checkout, uncommitted changes included."""
    return export(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service with default answers, installed. Do not change it: make a `variant`."""
    return Project(render(template, tmp_path_factory.mktemp("default"))).install()


@pytest.fixture(scope="session")
def bare_project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service without a database, installed."""
    folder = render(template, tmp_path_factory.mktemp("bare"), database="none")
    return Project(folder).install()
