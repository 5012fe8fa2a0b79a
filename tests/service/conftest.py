"""The emitted service as a real process, on each of its stores."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.projects import Change, Project, Service
from tests.servers.postgres import Postgres

STORES = ("sqlite", "postgresql", "memory")
Start = Callable[..., AbstractContextManager[Service]]


def migrated(project: Project, url: str) -> dict[str, str]:
    """The environment for a database that has the schema."""
    env = {"DATABASE_URL": url}
    project.cli("migrate", env=env, check=True)
    return env


@pytest.fixture
def start(project: Project, bare_project: Project, postgres: Postgres, tmp_path: Path) -> Start:
    """Start the service on one of the stores, perhaps changed."""

    @contextmanager
    def started(store: str, *changes: Change, **env: str) -> Iterator[Service]:
        chosen = bare_project if store == "memory" else project
        if changes:
            chosen = chosen.variant(tmp_path / "changed", *changes)
        if store == "postgresql":
            env |= migrated(chosen, postgres.create_database())
        elif store == "sqlite":
            env |= migrated(chosen, f"sqlite:///{tmp_path}/service.db")
        with chosen.serve(tmp_path / "run", env) as service:
            yield service

    return started


@pytest.fixture(scope="session", params=STORES)
def service(
    request: pytest.FixtureRequest,
    project: Project,
    bare_project: Project,
    postgres: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """A running service on each of the stores in turn; tests leave it running."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "memory":
        with bare_project.serve(folder) as served:
            yield served
        return
    urls = {"sqlite": f"sqlite:///{folder}/service.db", "postgresql": postgres.create_database()}
    with project.serve(folder, migrated(project, urls[request.param])) as served:
        yield served
