"""The step after a copy makes a repository once, and takes nothing from one that is there."""

from pathlib import Path

import pytest
import yaml

from tests.hooks.repository import GIT, HOOKS, git, run
from tests.projects import ROOT


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A project as Copier leaves it."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "Makefile").write_text("setup:\n\ttouch installed\n")
    return folder


def post_copy(*arguments: str | Path) -> tuple[int, list[str]]:
    return run(HOOKS / "post_copy.py", *arguments)


def test_a_copy_becomes_a_repository_with_what_the_set_up_made(copied: Path) -> None:
    assert post_copy(copied)[0] == 0
    assert git(copied, "ls-files").split() == ["Makefile", "installed"]
    assert git(copied, "rev-list", "--count", "main").strip() == "1"


def test_a_second_run_changes_nothing(copied: Path) -> None:
    post_copy(copied)
    before = git(copied, "rev-parse", "HEAD")
    (copied / "mine").touch()
    assert post_copy(copied)[0] == 0
    assert git(copied, "rev-parse", "HEAD") == before
    assert git(copied, "status", "--porcelain") == "?? mine\n"


def test_the_closing_text_of_a_copy_names_it() -> None:
    """As a command that runs from a checkout; Copier puts the folder in."""
    text = yaml.safe_load((ROOT / "copier.yml").read_text())["_message_after_copy"]
    (line,) = [line.strip() for line in text.splitlines() if "post_copy" in line]
    interpreter, hook, folder = line.split(maxsplit=2)
    assert (interpreter, folder) == ("python3", "{{ _copier_conf.dst_path }}")
    assert (ROOT / hook).samefile(HOOKS / "post_copy.py")


def test_the_commit_is_left_out_on_request(copied: Path) -> None:
    assert post_copy(copied, "--no-commit")[0] == 0
    assert (copied / "installed").exists()
    assert git(copied, "status", "--porcelain") == "?? Makefile\n?? installed\n"


def test_a_larger_repository_gets_no_commit(copied: Path) -> None:
    git(copied.parent, "init", "--quiet", "--initial-branch=main")
    assert post_copy(copied)[0] == 0
    assert not (copied / ".git").exists()
    assert git(copied.parent, "status", "--porcelain") == "?? project/\n"


def test_a_set_up_that_fails_ends_in_one_line_and_no_commit(copied: Path) -> None:
    (copied / "Makefile").write_text("setup:\n\t@exit 3\n")
    code, lines = post_copy(copied)
    assert code == 1
    assert lines[-1] == "post_copy: make setup ended with 2 (its own lines above say why)"
    assert git(copied, "status", "--porcelain") == "?? Makefile\n"


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path) -> None:
    code, (line,) = post_copy(tmp_path)
    assert code == 1
    assert "has no Makefile" in line
    assert not (tmp_path / ".git").exists()


def test_a_committer_without_a_name_is_told_what_to_type(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GIT.keys() - {"GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM"}:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EMAIL", "")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    code, lines = post_copy(copied)
    assert code == 1
    assert lines[-1].startswith("post_copy: git does not know who commits: type git config")
