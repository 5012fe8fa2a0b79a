"""The emitted service as a repository whose CI runs: see `tests/ci/repository.py`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ci.repository import Repository
from tests.projects import Change, Project
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis

Commit = Callable[..., Repository]


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[Redis]:
    """What the jobs of this worker share."""
    with Redis() as server:
        yield server


@pytest.fixture(scope="session")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Keeps what mypy knows of the dependencies, for reading them takes it the longest."""
    return {"MYPY_CACHE_DIR": str(tmp_path_factory.mktemp("mypy"))}


@pytest.fixture
def commit(
    project: Project, postgres: Postgres, shared_redis: Redis, mypy_cache: dict[str, str], tmp_path: Path
) -> Commit:
    """A repository with the service as emitted, and a second commit with changes; `first` leaves that one out."""

    def committed(*changes: Change, first: bool = False) -> Repository:
        return Repository(project, tmp_path, postgres, shared_redis, None if first else changes, mypy_cache)

    return committed
