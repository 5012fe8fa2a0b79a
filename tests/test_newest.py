"""The newest of every dependency: whether the world has moved. It warns in the gate, and fails with PROOF=full."""

import shutil
import tomllib
import warnings
from pathlib import Path

import pytest

from tests.projects import Project
from tests.proof import FULL
from tests.sabotage import Body

IGNORED = shutil.ignore_patterns(".venv", ".*_cache", "__pycache__")


def versions(project: Project) -> dict[str, str]:
    """What `uv.lock` says."""
    locked = tomllib.loads((project.root / "uv.lock").read_text())["package"]
    return {package["name"]: package["version"] for package in locked}


def modernised(project: Project, folder: Path) -> Project:
    """The same service with the newest of all that its bounds allow, published this very day or not."""
    newest = Project(shutil.copytree(project.root, folder, ignore=IGNORED))
    dated = newest.root / "uv.toml"
    lines = dated.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("exclude-newer")]
    assert len(kept) == len(lines) - 1
    dated.write_text("".join(kept))
    newest.run("uv", "lock", "--quiet", "--upgrade")
    newest.run("uv", "sync", "--quiet")
    return newest


def moved(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is of another version now, one line each."""
    return [
        f"{name} {before.get(name, '-')} -> {after.get(name, '-')}"
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    ]


def complaint(project: Project) -> str:
    """What the smoke tests say if they fail."""
    done = project.run(str(project.venv / "bin/python"), "-m", "pytest", "-q", "-W", "default", check=False)
    return "" if done.returncode == 0 and " passed" in done.stdout else f"{done.stdout}\n{done.stderr}"


def test_a_service_with_the_newest_dependencies_passes_its_smoke_tests(project: Project, tmp_path: Path) -> None:
    try:
        newest = modernised(project, tmp_path / "newest")
        changed, said = moved(versions(project), versions(newest)), complaint(newest)
    except AssertionError as error:  # it cannot be resolved or installed
        changed, said = [], str(error)
    print("moved:", *(changed or ["nothing"]), sep="\n  ")
    if said:
        report = "\n".join(["the newest dependencies break a fresh service:", *changed, said])
        if FULL:
            pytest.fail(report)
        warnings.warn(report, stacklevel=1)


@pytest.mark.sabotage
def test_a_service_that_the_newest_dependencies_break_is_noticed(project: Project, tmp_path: Path) -> None:
    assert complaint(project) == ""
    assert "test_platform.py" in complaint(project.variant(tmp_path / "sick", Body("health:install", "pass")))


def test_what_moved_is_named() -> None:
    assert moved({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}) == ["b 1 -> 2", "c 1 -> -", "d - -> 1"]
