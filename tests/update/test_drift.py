"""`make update ARGS=--drift`: an answer edited by hand is an error in one line, edited files are listed."""

import subprocess
from pathlib import Path

import pytest

from tests.projects import Edit
from tests.sabotage import Body
from tests.update.command import refused, run
from tests.update.versions import NEW, OLD, commit, duplicate, git

ANSWERS = ".copier-answers.yml"
PLATFORM = "src/my_service/platform"
AGREES = "\nthe files agree with the answers, as of {}\n"


@pytest.fixture
def service(first: Path, tmp_path: Path) -> Path:
    return duplicate(first, tmp_path / "service")


def error(service: Path) -> str:
    """The one line of a drift that is an error."""
    return refused(service, "--drift")


def answer(service: Path, old: str, new: str) -> None:
    Edit(ANSWERS, old, new).apply(service)
    commit(service)


def test_a_fresh_service_agrees(service: Path) -> None:
    assert run(service, "--drift").stdout == AGREES.format(OLD)


def test_files_changed_or_deleted_by_hand_are_listed_and_what_is_yours_is_not(service: Path) -> None:
    (service / f"{PLATFORM}/cors.py").unlink()
    (service / "README.md").write_text("Ours.\n")
    (service / "CHANGELOG.md").unlink()
    Edit("Makefile", "\n", "\n# ours\n").apply(service)
    (service / f"{PLATFORM}/mine.py").write_text('"""Ours."""\n')
    commit(service)
    expected = f"\nDeleted or moved by you:\n  {PLATFORM}/cors.py\n\nChanged by you:\n  Makefile\n{AGREES.format(OLD)}"
    assert run(service, "--drift").stdout == expected


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("cache: redis", "cache: memcached", "set back cache to redis"),
        ("cache: redis", "cache: none", "set back cache to redis"),
        ("python_version: '3.14'", "python_version: '3.13'", "set back python_version to 3.14"),
        (f"_commit: {OLD}", f"_commit: {NEW}", f"set back _commit to {OLD}"),
    ],
    ids=["another", "off", "content", "version"],
)
def test_an_answer_edited_by_hand_is_an_error(service: Path, old: str, new: str, said: str) -> None:
    answer(service, old, new)
    assert said in (line := error(service))
    assert line.endswith(", commit, then type make update ARGS='-d NAME=VALUE'")
    assert git(service, "rev-parse", "--short=12", "HEAD").strip() in line


def test_set_back_and_given_to_make_update_it_agrees(service: Path) -> None:
    answer(service, "cache: redis", "cache: memcached")
    error(service)
    answer(service, "cache: memcached", "cache: redis")
    assert run(service, "--drift").stdout == AGREES.format(OLD)
    run(service, "--vcs-ref", ":current:", "-d", "cache=memcached")
    commit(service)
    assert run(service, "--drift").stdout == AGREES.format(OLD)


def test_files_that_never_came_are_an_error_and_deleted_ones_are_not(service: Path) -> None:
    """An answer edited in the first commit, or in one that also edits files of ours."""
    answer(service, "cache: redis", "cache: memcached")
    tree = git(service, "rev-parse", "HEAD^{tree}").strip()
    git(service, "reset", "--quiet", "--hard", git(service, "commit-tree", tree, "-m", "first").strip())
    line = error(service)
    assert line.startswith(f"{PLATFORM}/cache/memcached.py never was in git, although an answer asks for it: set that")
    (service / f"{PLATFORM}/cache/memcached.py").write_text("\n")
    commit(service)
    (service / f"{PLATFORM}/cache/memcached.py").unlink()
    commit(service)
    assert "memcached.py never was in git" not in run(service, "--drift", check=False).stderr


def test_an_update_that_was_committed_agrees(second: Path, tmp_path: Path) -> None:
    service = commit(duplicate(second, tmp_path / "service"))
    assert run(service, "--drift").stdout == AGREES.format(NEW)
    git(service, "checkout", "--quiet", "HEAD^", "--", f"{PLATFORM}/cors.py")  # one file as before the update
    commit(service)
    assert f"Changed by you:\n  {PLATFORM}/cors.py\n" in run(service, "--drift").stdout


def test_a_shallow_clone_is_refused(service: Path, tmp_path: Path) -> None:
    (service / "more.txt").touch()
    commit(service)
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{service}", shallow], check=True)
    assert "type git fetch --unshallow" in refused(shallow, "--drift")


@pytest.mark.sabotage
def test_a_check_that_finds_no_edited_answer_is_noticed(service: Path) -> None:
    Body("scripts.template_update.drift:by_hand", 'return ""').apply(service)
    answer(service, "cache: redis", "cache: none")
    with pytest.raises(AssertionError):
        error(service)
