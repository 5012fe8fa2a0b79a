"""The template and its projects as fixtures: rendered once per test worker, installed once for all of them."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.projects import Project, export, render


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template of this checkout, uncommitted changes included."""
    return export(tmp_path_factory.mktemp("template"))


def shared(name: str, factory: pytest.TempPathFactory, fill: Callable[[Path], object]) -> Path:
    """A folder of all workers: the first that asks for it fills it, and the others wait."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    full = folder.with_name(f"{name}.full")
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not full.exists():
            fill(folder)
            full.touch()
    return folder


@pytest.fixture(scope="session")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service with default answers, installed. Do not change it: make a `variant`."""
    return Project(shared("default", tmp_path_factory, lambda folder: Project(render(template, folder)).install()))


@pytest.fixture(scope="session")
def bare_project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service without a database, installed."""
    return Project(
        shared("bare", tmp_path_factory, lambda folder: Project(render(template, folder, database="none")).install())
    )
