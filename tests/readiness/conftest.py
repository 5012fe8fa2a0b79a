"""`ready` as a user runs it: the command in a project of its own, against a service in another process."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.projects import Project, Service
from tests.service.conftest import migrated

KEY = {"READY_PROBE_KEY": "a-key-of-the-tests-with-32-characters"}
Served = Callable[..., AbstractContextManager[Service]]


@dataclass(frozen=True)
class Found:
    """One run: how it ended and what it says."""

    code: int
    report: dict[str, Any]
    stderr: str

    @property
    def statuses(self) -> dict[str, str]:
        return {each["check"]: each["status"] for each in self.report["outcomes"]}

    def outcome(self, check: str) -> dict[str, Any]:
        found: dict[str, Any] = next(each for each in self.report["outcomes"] if each["check"] == check)
        return found


@dataclass(frozen=True)
class Prober:
    """Runs the command in `project`, whose `ready.toml` and `ready/` count."""

    project: Project

    def __post_init__(self) -> None:
        """Be patient: beside other tests a second is no latency. What is slow on purpose takes six."""
        file = self.project.root / "ready.toml"
        file.write_text(file.read_text().replace("#answer_seconds = 1.0", "answer_seconds = 5.0"))

    def command(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.project.ready(*arguments, env={**KEY, **env})

    def look(self, service: Service | str, *arguments: str, **env: str) -> Found:
        url = service if isinstance(service, str) else f"http://127.0.0.1:{service.port}"
        done = self.command("--url", url, "--json", *arguments, **env)
        return Found(done.returncode, json.loads(done.stdout or "{}"), done.stderr)


@pytest.fixture
def prober(project: Project, tmp_path: Path) -> Prober:
    """A copy of the default project that a test may change."""
    return Prober(project.variant(tmp_path / "prober"))


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
