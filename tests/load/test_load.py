"""`make load` on the real service: what it sends, and that each limit decides how it ends."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.projects import Edit, Project
from tests.sabotage import Body, Sabotage
from tests.servers.process import free_port
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
SLOW = """
import asyncio
await asyncio.sleep(0.6)
return await original(store, cursor, limit)
"""
FAILING = Body("features.items.service:page", "raise RuntimeError")


def load(project: Project, host: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Type it, for some seconds."""
    typed = " ".join(["--host", host, "--users 8 --spawn-rate 8 --run-time 4s", *options])
    return project.run("make", "load", f"ARGS={typed}", check=False)


def loaded(
    project: Project, folder: Path, *options: str, sabotage: Sabotage | None = None
) -> tuple[int, list[str], str, int]:
    """How a test of a service ends, the lines about limits, the table, and how many rows are left."""
    served = project.variant(folder / "served", *([sabotage] if sabotage else []))
    with served.serve(folder / "run", migrated(served, f"sqlite:///{folder}/service.db")) as service:
        done = load(project, f"http://127.0.0.1:{service.port}", *options)
        left = 0 if sabotage else len(service.client.get("/v1/items").json()["items"])
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("load: ")], done.stderr, left


def passes(project: Project, folder: Path) -> None:
    """A healthy service reads and writes, and keeps no row."""
    code, lines, table, left = loaded(project, folder, "--p95 5")
    assert (code, lines, left) == (0, [], 0), table
    for row in (r"GET +/v1/items", r"POST +/v1/items", r"GET +/v1/items/\{id\}", r"DELETE +/v1/items/\{id\}"):
        assert re.search(row, table), table


def fails_when_slow(project: Project, folder: Path) -> None:
    code, lines, table, _ = loaded(project, folder, "--p95 0.5", sabotage=Body("features.items.service:page", SLOW))
    assert code, table
    (line,) = lines
    assert re.fullmatch(r"load: 95 percent of the responses took up to \d+\.\d\d s, the limit is 0\.5 s", line)


def fails_at_errors(project: Project, folder: Path) -> None:
    code, lines, table, _ = loaded(project, folder, "--p95 5", sabotage=FAILING)
    assert code, table
    (line,) = lines
    assert re.fullmatch(r"load: \d+\.\d% of the requests failed, the limit is 1\.0%", line)


def test_a_healthy_service_passes_and_keeps_no_row(project: Project, tmp_path: Path) -> None:
    passes(project, tmp_path)


def test_a_slow_one_does_not(project: Project, tmp_path: Path) -> None:
    fails_when_slow(project, tmp_path)


def test_one_that_fails_does_not(project: Project, tmp_path: Path) -> None:
    fails_at_errors(project, tmp_path)


def test_a_service_that_is_away_and_a_wrong_file_are_one_line(project: Project, tmp_path: Path) -> None:
    away = load(project, f"http://127.0.0.1:{free_port()}")
    assert away.returncode
    assert "load: 100.0% of the requests failed, the limit is 1.0%" in away.stderr.splitlines()
    wrong = load(project.variant(tmp_path / "wrong", Edit("ready.toml", "[probe]", "[probe")), "http://127.0.0.1:1")
    assert wrong.returncode
    assert [line for line in wrong.stderr.splitlines() if not line.startswith("make")] == [
        "load: ready.toml: Expected ']' at the end of a table declaration (at line 3, column 7)"
    ]


@pytest.mark.sabotage
def test_limits_that_decide_nothing_are_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Body("scripts.load:judge", "environment.process_exit_code = 0"))
    with pytest.raises(AssertionError):
        fails_at_errors(sick, tmp_path)


@pytest.mark.sabotage
def test_rows_that_stay_are_noticed(project: Project, tmp_path: Path) -> None:
    body = 'self.client.post(WRITE["path"], json={"name": "left"})'
    with pytest.raises(AssertionError):
        passes(project.variant(tmp_path / "sick", Body("scripts.load:Client.write", body)), tmp_path)
