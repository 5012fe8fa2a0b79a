"""`ready` as a user runs it: the command in a project of its own, against a service in another process."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.projects import Project, Service, render
from tests.sabotage import Line
from tests.service.conftest import migrated

KEY = {"READY_PROBE_KEY": "a-key-of-the-tests-with-32-characters"}
RED = {"gap", "unknown"}
# The package with the checks: where it is, and how its modules are called.
FOLDER = Path("ready")
PACKAGE = "ready"
LOCAL = '''"""Ours."""

import asyncio

from ..engine import Claimed, Gap, NotApplicable, Probe, check
'''
CHECK = '''

@check("{area}", seconds=1, effect="{effect}")
async def {name}(probe: Probe) -> str:
    """{title}"""
    {body}
'''
Served = Callable[..., AbstractContextManager[Service]]


@dataclass(frozen=True)
class Local:
    """A check that a user adds: its body sees `probe`, and its time is a second."""

    body: str
    area: str = "billing"
    name: str = "invoices"
    title: str = "Invoices are sent."
    effect: str = "reads"

    def apply(self, root: Path) -> None:
        """Add it to the project in `root`."""
        file = root / FOLDER / "checks/local_ours.py"
        text = file.read_text() if file.exists() else LOCAL
        given = {"area": self.area, "name": self.name, "title": self.title, "effect": self.effect, "body": self.body}
        file.write_text(text + CHECK.format(**given))


@dataclass(frozen=True)
class Found:
    """One run: how it ended and what it says."""

    code: int
    report: dict[str, Any]
    stderr: str

    @classmethod
    def of(cls, done: subprocess.CompletedProcess[str]) -> "Found":
        """What a run with `--json` found."""
        return cls(done.returncode, json.loads(done.stdout or "{}"), done.stderr)

    @property
    def statuses(self) -> dict[str, str]:
        return {each["check"]: each["status"] for each in self.report["outcomes"]}

    @property
    def red(self) -> set[str]:
        """The checks that are; an area without any has no check to be."""
        return {check for check, status in self.statuses.items() if status in RED and "." in check}

    def outcome(self, check: str) -> dict[str, Any]:
        found: dict[str, Any] = next(each for each in self.report["outcomes"] if each["check"] == check)
        return found


@dataclass(frozen=True)
class Prober:
    """Runs the command in `project`, whose `ready.toml` and `ready/` count."""

    project: Project

    def __post_init__(self) -> None:
        """Be patient: beside other tests a second is no latency. What is slow on purpose takes six."""
        Line("ready.toml", "#answer_seconds", "answer_seconds = 5.0").apply(self.project.root)

    def arguments(self, *arguments: str) -> Sequence[str]:
        """What is typed."""
        return (str(self.project.venv / "bin/python"), "-m", "ready", *arguments)

    def command(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.project.run(*self.arguments(*arguments), env={**KEY, **env}, check=False)

    def python(self, code: str) -> str:
        """What a piece of code prints that has the modules of `ready` at hand."""
        return self.project.run(str(self.project.venv / "bin/python"), "-c", code).stdout

    def look(self, service: Service | str, *arguments: str, **env: str) -> Found:
        url = service if isinstance(service, str) else f"http://127.0.0.1:{service.port}"
        return Found.of(self.command("--url", url, "--json", *arguments, **env))

    def far_end(self, end: str, url: str, token_variable: str = "") -> None:
        """Write a far end into `ready.toml`."""
        token = f'token_variable = "{token_variable}"\n' if token_variable else ""
        self.add(f'\n[far_ends.{end}]\nurl = "{url}"\n{token}')

    def add(self, text: str) -> None:
        """Write more into `ready.toml`."""
        with (self.project.root / "ready.toml").open("a") as file:
            file.write(text)


@pytest.fixture
def prober(project: Project, tmp_path: Path) -> Prober:
    """A copy of the default project that a test may change."""
    return Prober(project.variant(tmp_path / "prober"))


@pytest.fixture(scope="session")
def without_database(project: Project, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service without a database, on what is installed for one that has all."""
    made = Project(render(template, tmp_path_factory.mktemp("without"), database="none"))
    made.venv = project.venv
    return made


@pytest.fixture(scope="module")
def schema(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema, to be copied."""
    file = tmp_path_factory.mktemp("schema") / "service.db"
    migrated(project, f"sqlite:///{file}")
    return file


@pytest.fixture
def served(schema: Path, tmp_path: Path) -> Served:
    """Serve a project on a database of its own."""

    @contextmanager
    def start(project: Project, name: str = "service", **env: str) -> Iterator[Service]:
        file = tmp_path / f"{name}.db"
        file.write_bytes(schema.read_bytes())
        own = {"DATABASE_URL": f"sqlite:///{file}", **KEY, **env}
        with project.serve(tmp_path / f"run-{name}", own) as service:
            yield service

    return start


@pytest.fixture(scope="module")
def service(project: Project, schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A healthy service that tests leave as it is."""
    folder = tmp_path_factory.mktemp("healthy")
    (folder / "service.db").write_bytes(schema.read_bytes())
    with project.serve(folder, {"DATABASE_URL": f"sqlite:///{folder}/service.db", **KEY}) as served:
        yield served
