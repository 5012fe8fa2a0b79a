"""`make update` as a user types it, with the Copier that uv finds: it locks and tests the service, and costs little."""

import resource
import subprocess
from pathlib import Path

import pytest

from tests.hooks.repository import GIT
from tests.projects import Edit, Project
from tests.update.versions import commit, duplicate, files, git

FEWER = Edit("Makefile", "\ncheck: lint types ## ", "\ncheck:  # only that it is called\n\t@echo checked\n\nall: ## ")


def make_update(service: Path, arguments: str = "") -> subprocess.CompletedProcess[str]:
    return Project(service).run("make", "update", f"ARGS={arguments}", env=GIT, check=False)


def test_make_update_locks_and_tests_the_service(first: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    Edit("uv.toml", "2026-11-23", "2026-12-24").apply(service)
    FEWER.apply(service)
    commit(service)
    done = make_update(service)
    assert done.returncode == 0, done.stderr
    assert (service / "uv.lock").is_file()
    assert done.stdout.endswith("\nchecked\n\nType git commit --all. To go back: make update ARGS=--abort\n")


def test_make_update_fails_while_something_is_left_to_do(first: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    Edit(".gitignore", "dist/\n", "dist/\nmine/\n").apply(service)
    before = files(commit(service))
    done = make_update(service, "--no-check")
    assert done.returncode == 2
    assert "  .gitignore: both changed it\n" in done.stdout
    assert "UU .gitignore" in git(service, "status", "--porcelain").splitlines()
    assert make_update(service, "--abort").returncode == 0
    assert files(service) == before


def seconds(*command: str, service: Path) -> float:
    """CPU time of a command and all that it starts, on a service that is clean before and after."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    Project(service).run(*command, env=GIT, check=False)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert git(service, "status", "--porcelain")
    git(service, "reset", "--hard", "--quiet")
    git(service, "clean", "-fdq")
    return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime


@pytest.mark.timing
def test_it_takes_at_most_half_more_than_copier_alone(first: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    ours = ("make", "update", "ARGS=--no-check")
    bare = ("uvx", "--from", "copier>=9.19.1", "copier", "update", "--defaults")
    for command in (ours, bare):  # uv makes its environments
        seconds(*command, service=service)
    ratios: list[float] = []
    while len(ratios) < 3 and not (ratios and min(ratios) <= 1.5):  # once more if in doubt
        ratios.append(seconds(*ours, service=service) / seconds(*bare, service=service))
    print(f"{min(ratios):.2f} times the processor time of copier update")
    assert min(ratios) <= 1.5
