"""The synthetic releases and a service of the first one, made once per worker."""

from pathlib import Path

import pytest

from tests.update import versions


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of the template, with v0.1.0 and v0.2.0."""
    return versions.release(tmp_path_factory.mktemp("releases") / "template")


@pytest.fixture(scope="session")
def first(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service of v0.1.0 with default answers. Do not change it: make a `duplicate`."""
    return versions.make_service(releases, tmp_path_factory.mktemp("first") / "service")


@pytest.fixture(scope="session")
def second(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, updated to v0.2.0 and not yet committed. Do not change it: make a `duplicate`."""
    return versions.update(versions.duplicate(first, tmp_path_factory.mktemp("second") / "service"))
