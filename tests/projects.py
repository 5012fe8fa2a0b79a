"""Projects made from this checkout: rendered in this process, installed once, run as real processes."""

import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import copier
import httpx
from plumbum import local

from tests import compiled, shells
from tests.servers.process import Process, free_port

ROOT = Path(__file__).parent.parent
PARTS = ("copier.yml", "includes", "template")
START_SECONDS = 30.0
READY = "import runpy; runpy.run_module('ready', run_name='__main__', alter_sys=True)"
# What mypy found out about the libraries, which takes it half a minute: kept, one for each worker.
CHECKED = ROOT / ".mypy_cache/emitted" / os.environ.get("PYTEST_XDIST_WORKER", "main")
# What a developer's shell may hold and a service under test must not see.
FOREIGN = (
    "CACHE_URL",
    "DATABASE_URL",
    "ENVIRONMENT",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPATH",
    "SENTRY_DSN",
    "TEST_DATABASE_URL",
    "VIRTUAL_ENV",
)


compiled.install()


def export(folder: Path) -> Path:
    """Copy what makes the template into `folder`: without git, so that uncommitted changes count."""
    for part in PARTS:
        source = ROOT / part
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, folder / part)
    return folder


def render(template: Path, folder: Path, **answers: object) -> Path:
    """Make a project, without trust.

    Copier finds no git, as it would ask it about each file in a folder that is no repository.
    """
    assert not (template / ".git").exists()
    with warnings.catch_warnings(), local.env(PATH=""):
        warnings.simplefilter("ignore")
        copier.run_copy(
            str(template),
            folder,
            data=answers,
            defaults=True,
            unsafe=False,
            quiet=True,
            overwrite=True,
        )
    return folder


class Change(Protocol):
    """What a variant of a project has that the project has not: an edit, a sabotage, a planted feature."""

    def apply(self, root: Path) -> None:
        """Change the project in `root`."""


@dataclass(frozen=True)
class Edit:
    """What a user changes in one file: `old` must be there. What breaks a promise of ours is a `Sabotage`."""

    file: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        path = root / self.file
        text = path.read_text()
        assert self.old in text, f"{self.file} has no {self.old!r}"
        path.write_text(text.replace(self.old, self.new, 1))


@dataclass
class Project:
    """An emitted project; `venv` may be another one's whose dependencies are the same."""

    root: Path
    slug: str = "my-service"
    package: str = "my_service"
    venv: Path = field(init=False)

    def __post_init__(self) -> None:
        self.venv = self.root / ".venv"

    def env(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in FOREIGN and name[:5] != "OTEL_"}
        ours = {"MYPY_CACHE_DIR": str(CHECKED), "PYTHONPATH": str(self.root / "src")}
        return {**kept, **ours, **(more or {})}

    def run(
        self, *command: str, env: Mapping[str, str] | None = None, check: bool = True, anew: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, its output kept; one of the project's Python in a fork, but for `anew`."""
        done = None if anew else self._forked(command, self.env(env))
        done = done or subprocess.run(
            command, cwd=self.root, env=self.env(env), capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def _forked(self, command: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[str] | None:
        """What a fork says, where the command is one that a fork can run."""
        python = self.venv / "bin" / "python"
        if command[0] != str(python) or len(command) < 3:
            return None
        if command[1] == "-c" and "sys.modules" not in command[2]:  # which asks what was imported
            return shells.run(python, command[2], command[3:], cwd=self.root, env=env)
        if tuple(command[1:3]) == ("-m", "ready"):
            return shells.run(python, READY, command[3:], cwd=self.root, env=env)
        return None

    def install(self) -> "Project":
        self.run("make", "setup")
        return self

    def cli(
        self, *arguments: str, env: Mapping[str, str] | None = None, check: bool = False, anew: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run the service's own command line."""
        return self.run(*self.command(*arguments), env=env, check=check, anew=anew)

    def quick(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """The same for short commands whose end is not what is tested: without freeing the memory of all imports."""
        python, _, code, *more = self.command(*arguments)
        done = shells.run(Path(python), code, more, cwd=self.root, env=self.env(env), brief=True)
        return done or self.cli(*arguments, env=env)

    def ready(
        self, *arguments: str, env: Mapping[str, str] | None = None, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run the readiness check, as `make ready` does."""
        return self.run(str(self.venv / "bin" / "python"), "-m", "ready", *arguments, env=env, check=check)

    def command(self, *arguments: str) -> Sequence[str]:
        return (
            str(self.venv / "bin" / "python"),
            "-c",
            f"from {self.package}.cli import main; main()",
            *arguments,
        )

    def variant(self, folder: Path, *changes: Change) -> "Project":
        """A copy with changes: it runs its own code on this project's environment."""
        shutil.copytree(self.root, folder, ignore=shutil.ignore_patterns(".venv", "*.db*", ".*_cache"))
        for change in changes:
            change.apply(folder)
        made = Project(folder, self.slug, self.package)
        made.venv = self.venv
        return made

    @contextmanager
    def serve(self, folder: Path, env: Mapping[str, str] | None = None, *, anew: bool = False) -> Iterator["Service"]:
        """Run the service, with its log in `folder`, until it answers `/livez`.

        It is a fork of a process that has imported the libraries; with `anew` a Python of its own, for what Python or
        Linux know of a process since its start.
        """
        folder.mkdir(parents=True, exist_ok=True)
        port, log = free_port(), folder / "service.log"
        chosen, child = self.env({"PORT": str(port), **(env or {})}), None
        if not anew:
            python, _, code, *more = self.command("serve")
            with log.open("ab") as out:
                child = shells.fork(Path(python), code, more, cwd=self.root, env=chosen, out=out, err=out)
        process = Process(self.command("serve"), log=log, cwd=self.root, env=chosen, child=child)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
                service = Service(process, client, port)
                process.wait_until(service.lives, START_SECONDS)
                yield service
        finally:
            process.stop()


@dataclass(frozen=True)
class Service:
    """A running service."""

    process: Process
    client: httpx.Client
    port: int

    def lives(self) -> bool:
        try:
            return self.client.get("/livez").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def log(self) -> str:
        """What it has written so far: a thread of its own writes the lines, some milliseconds after the answer."""
        time.sleep(0.05)
        assert self.process.log
        return self.process.log.read_text()
