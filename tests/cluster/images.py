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
from tests.servers.engine import Engine, Podman, open_engine
from tests.servers.packages import CACHE
from tests.servers.process import ServerError

HOME = CACHE / "cluster"
REPOSITORY = "ghcr.io/your-org/my-service"  # as the manifests have it
OPS, DATABASE = f"{REPOSITORY}-ops:1", f"{REPOSITORY}-database:1"
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
WITH_SERVER = """
FROM my-service-ops
USER 0
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql-17 && rm -rf /var/lib/apt/lists/*
USER 65532:65532
"""


@dataclass(frozen=True)
class Images:
    """The images of one state of the template: those of the service are called `REPOSITORY:VERSION`.

    Args:
        archive: With all of them, and with `OPS` and `DATABASE`.
        versions: What `/version` shows of them, oldest first.
    """

    archive: Path
    versions: list[str]

    @property
    def names(self) -> list[str]:
        return [*(f"{REPOSITORY}:{version}" for version in self.versions), OPS, DATABASE]


def ensure(versions: int = 3) -> Images:
    """The images, after building them if need be."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        home = HOME / f"images-{_recipe(versions)}"
        if not home.exists():
            olds = list(HOME.glob("images-*"))
            made = Path(tempfile.mkdtemp(prefix="images-new-", dir=HOME))
            _build(made, versions)
            made.rename(home)
            for old in olds:
                shutil.rmtree(old)
    return Images(home / "images.tar", (home / "versions").read_text().split())


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


def _build(folder: Path, count: int) -> None:
    engine = open_engine()
    if not engine:
        raise ServerError("building an image needs root, or a Docker that answers")
    (folder / "template").mkdir()
    project = Project(render(export(folder / "template"), folder / "source"))
    WORK.apply(project.root)
    project.run("uv", "lock", "--quiet")
    project.run("git", "init", "--quiet")
    versions = []
    with engine:
        for version in range(count):
            (project.root / "src/my_service/features/work/__init__.py").write_text(f'"""Version {version}."""\n')
            project.run("git", "add", "--all")
            project.run("git", *WHO, "commit", "--quiet", f"--message=version {version}")
            versions.append(project.run("git", "rev-parse", "HEAD").stdout.strip())
            _image(engine, project, "", f"{REPOSITORY}:{versions[-1]}")
        _image(engine, project, "ops", OPS)
        (folder / "database").mkdir()
        (folder / "database/Dockerfile").write_text(WITH_SERVER)
        built = ("build", *engine.build_options, f"--tag={DATABASE}", ".")
        commands.must(*engine.within(folder / "database"), *engine.building, *built)
        images = Images(folder / "images.tar", versions)
        several = ("--multi-image-archive",) if isinstance(engine, Podman) else ()
        _must(engine, "save", *several, f"--output={images.archive}", *images.names)
    (folder / "versions").write_text("\n".join(versions))
    shutil.rmtree(folder / "source")
    shutil.rmtree(folder / "template")


def _image(engine: Engine, project: Project, target: str, name: str) -> None:
    given = [f"ENGINE={shlex.join(engine.building)}", f"ARGS={shlex.join(engine.build_options)}"]
    command = ["make", "--no-print-directory", "image", f"target={target}", *given]
    project.run(*engine.within(project.root), *command)
    _must(engine, "tag", f"my-service-{target}" if target else "my-service", name)


def _must(engine: Engine, *arguments: str) -> None:
    done = engine.do(*arguments)
    if done.returncode:
        raise ServerError(f"{' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
