"""Images of the service as the emitted Dockerfile makes them: its versions, one after the other, and the tools.

An image is built again if what it is made of has changed; it is kept in `.cache/` as an archive.
"""

import fcntl
import hashlib
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import commands
from tests.plant import Feature
from tests.projects import Project, export, render
from tests.servers.engine import Engine, open_engine
from tests.servers.packages import CACHE
from tests.servers.process import ServerError

HOME = CACHE / "cluster"
REPOSITORY = "ghcr.io/your-org/my-service"  # as the manifests have it
WHO = ("-c", "user.name=x", "-c", "user.email=x@acme.test")
# A route that does what a bad release does, as the variable FAULT says. It is configuration: an image serves all tests.
WORK = Feature(
    "work",
    '''"""A route that answers as told."""

import asyncio
import os
import threading
import time

from fastapi import APIRouter

router = APIRouter(prefix="/v1/work")
fault, _, number = os.environ.get("FAULT", "").partition(":")
begun = time.monotonic()
if fault == "crash":
    threading.Timer(float(number), os._exit, [1]).start()


@router.get("")
async def work() -> dict[str, str]:
    if fault == "slow":
        await asyncio.sleep(float(number))
    if fault == "errors" or (fault == "late" and time.monotonic() - begun > float(number)):
        raise RuntimeError("planted")
    return {"commit": os.environ["GIT_COMMIT"], "release": os.environ.get("RELEASE", "")}
''',
)


# PostgreSQL of the major whose tools are in the image.
DATABASE = """
FROM my-service-ops
USER 0
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql-17 && rm -rf /var/lib/apt/lists/*
USER 65532:65532
"""


@dataclass(frozen=True)
class Images:
    """The archives of one state of the template.

    Args:
        services: By the version that `/version` shows.
        ops: The image with the tools.
        database: The same with a PostgreSQL.

    The image in an archive is called `REPOSITORY:VERSION`, with `-ops` or `-database` after the repository's name.
        root: The project that they were built from.
    """

    services: dict[str, Path]
    ops: Path
    database: Path
    root: Path


def ensure(versions: int = 3) -> Images:
    """The images, after building them if need be."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        home = HOME / f"images-{_recipe(versions)}"
        if not home.exists():
            for old in HOME.glob("images-*"):
                shutil.rmtree(old)
            made = Path(tempfile.mkdtemp(prefix="images-new-", dir=HOME))
            _build(made, versions)
            made.rename(home)
    commits = (home / "versions").read_text().split()
    services = {each: home / f"{each}.tar" for each in commits}
    return Images(services, home / "ops.tar", home / "database.tar", home / "source")


def _recipe(versions: int) -> str:
    """What the images are made of; manifests and pages are not in what a pod runs."""
    made = hashlib.sha256(f"{versions} {WORK.routes}".encode())
    for each in _sources():
        made.update(each.as_posix().encode() + each.read_bytes())
    return made.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    root = Path(__file__).parents[2]
    yield Path(__file__)
    yield root / "copier.yml"
    for folder in (root / "includes", root / "template"):
        for each in sorted(folder.rglob("*")):
            if each.is_file() and "k8s" not in str(each) and "docs" not in each.parts:
                yield each


def _build(folder: Path, versions: int) -> None:
    engine = open_engine()
    if not engine:
        raise ServerError("building an image needs root, or a Docker that answers")
    (folder / "template").mkdir()
    project = Project(render(export(folder / "template"), folder / "source"))
    WORK.apply(project.root)
    project.run("uv", "lock", "--quiet")
    project.run("git", "init", "--quiet")
    commits = []
    with engine:
        for version in range(versions):
            (project.root / "src/my_service/features/work/__init__.py").write_text(f'"""Version {version}."""\n')
            project.run("git", "add", "--all")
            project.run("git", *WHO, "commit", "--quiet", f"--message=version {version}")
            commits.append(project.run("git", "rev-parse", "HEAD").stdout.strip())
            _image(engine, project, "", folder / f"{commits[-1]}.tar")
        _image(engine, project, "ops", folder / "ops.tar")
        (folder / "database").mkdir()
        (folder / "database/Dockerfile").write_text(DATABASE)
        built = ("build", *engine.build_options, "--tag=my-service-database", ".")
        commands.must(*engine.within(folder / "database"), *engine.building, *built)
        _save(engine, "my-service-database", folder / "database.tar")
    (folder / "versions").write_text("\n".join(commits))
    shutil.rmtree(folder / "template")


def _image(engine: Engine, project: Project, target: str, archive: Path) -> None:
    given = [f"ENGINE={shlex.join(engine.building)}", f"ARGS={shlex.join(engine.build_options)}"]
    command = ["make", "--no-print-directory", "image", f"target={target}", *given]
    project.run(*engine.within(project.root), *command)
    _save(engine, f"my-service-{target}" if target else "my-service", archive)


def _save(engine: Engine, name: str, archive: Path) -> None:
    called = f"{REPOSITORY}{name.removeprefix('my-service')}:{archive.stem}"
    for arguments in (("tag", name, called), ("save", f"--output={archive}", called)):
        done = engine.do(*arguments)
        if done.returncode:
            raise ServerError(f"{name} was not saved\n{done.stdout}{done.stderr}")
