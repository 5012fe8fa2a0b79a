"""The emitted service as a real process, on each of its stores."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests import commands
from tests.projects import Change, Project, Service
from tests.servers.postgres import Postgres

STORES = ("sqlite", "postgresql", "memory")
Start = Callable[..., AbstractContextManager[Service]]


def migrated(project: Project, url: str) -> dict[str, str]:
    """The environment for a database that has the schema."""
    env = {"DATABASE_URL": url}
    done = project.quick("migrate", env=env)
    assert done.returncode == 0, done.stderr
    return env


LOAD = """
import json, os, sys
from my_service.platform.settings import load
from my_service.settings import Settings

for env in json.loads(sys.stdin.read()):
    os.environ.update(env)
    try:
        load(Settings)
        print("served", file=sys.stderr)
    except SystemExit as end:
        assert end.code == 78
    for name in env:
        del os.environ[name]
"""


def refusals(project: Project, tried: Sequence[Mapping[str, str]]) -> list[str]:
    """For each environment the one setting that is refused, in one line and with exit code 78; or `served`."""
    python, env = project.venv / "bin/python", project.env()
    said = commands.run(python, "-c", LOAD, cwd=project.root, env=env, text=json.dumps(tried)).stderr.splitlines()
    assert len(said) == len(tried), said
    return [line.removeprefix("configuration refused: ").split(":")[0] for line in said]


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
