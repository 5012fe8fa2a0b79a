"""The image of a service that somebody works on: built once per worker as `make image` does, and run confined."""

import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.database.conftest import Database, apply_roles
from tests.plant import Feature
from tests.projects import Project
from tests.servers.engine import Container, Engine, Image, open_engine
from tests.servers.postgres import Postgres
from tests.servers.process import ServerError

DOCKERFILE = "Dockerfile"
SLOW = Feature(
    "slow",
    '''"""A slow route."""

import asyncio

from fastapi import APIRouter

router = APIRouter()


@router.get("/slow")
async def slow() -> dict[str, str]:
    await asyncio.sleep(1.5)
    return {"slow": "done"}
''',
)
# What lies around in a checkout and must not leave it.
PLANTED = (
    ".env",
    "backup.dump",
    "id.pem",
    "src/my_service/.env.production",
    "src/my_service/local.db",
    "src/my_service/tls.key",
)
SECRET = "planted-hunter2"
IGNORED = "src/my_service/features/slow/notes.txt"  # by .gitignore alone
PRODUCTION = {
    "CACHE_URL": "off",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "off",
    "SECRETS_BACKEND": "env",
    "SENTRY_DSN": "off",
    "SHUTDOWN_DRAIN_SECONDS": "1",
    "TRUSTED_HOSTS": "127.0.0.1",
}
Build = Callable[..., Image]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The worker's container engine."""
    if not (opened := open_engine()):
        pytest.skip("building an image needs root, or a Docker that answers")
    with opened:
        yield opened


@pytest.fixture(scope="session")
def source(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout with a slow route, a commit, and secrets."""
    made = project.variant(tmp_path_factory.mktemp("image") / "source", SLOW)
    plant(made)
    with (made.root / ".gitignore").open("a") as file:
        file.write("notes.txt\n")
    who = ("-c", "user.name=x", "-c", "user.email=x@acme.test")
    made.run("git", "init", "--quiet")
    made.run("git", "add", "--all")
    made.run("git", *who, "commit", "--quiet", "--message=first")
    return made


def plant(project: Project) -> None:
    """Put secrets where they lie around."""
    for file in (*PLANTED, IGNORED):
        (project.root / file).write_text(SECRET)


def make(engine: Engine, project: Project, target: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `make image`."""
    given = [f"ENGINE={shlex.join(engine.building)}", f"ARGS={shlex.join([*engine.build_options, *options])}"]
    command = ["make", "--no-print-directory", "image", f"target={target}", *given]
    return project.run(*engine.within(project.root), *command, check=False)


@pytest.fixture(scope="session")
def build(engine: Engine) -> Build:
    """Build a project's image, and return it."""

    def built(project: Project, target: str = "", *options: str) -> Image:
        done = make(engine, project, target, *options)
        if done.returncode:
            raise ServerError(f"make image failed with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return engine.image(f"my-service-{target}" if target else "my-service")

    return built


@pytest.fixture(scope="session")
def image(build: Build, source: Project) -> Image:
    """The image of the service."""
    return build(source)


@pytest.fixture(scope="session")
def ops(build: Build, source: Project, image: Image) -> Image:
    """The image with the tools, built on the layers of the other."""
    return build(source, "ops")


@pytest.fixture(scope="session")
def database(source: Project, ops: Image, postgres: Postgres) -> Database:
    """A database with roles, and with the schema that the image of the tools gives it."""
    made = Database(postgres.create_database())
    apply_roles(source, made.admin)
    done = ops.run(**PRODUCTION, **made.env)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="session")
def container(image: Image, database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """The service in production, ready."""
    with serve(image, tmp_path_factory.mktemp("container"), database) as started:
        yield started


def serve(image: Image, folder: Path, database: Database) -> AbstractContextManager[Container]:
    """Run the service."""
    return image.start(folder, **PRODUCTION, DATABASE_URL=database.url("app"))
