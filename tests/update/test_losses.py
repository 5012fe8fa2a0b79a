"""Each case in which Copier loses work in silence, or seems to: what our rules make of it."""

import subprocess
import sys
from pathlib import Path

import copier
import pytest
from copier import VcsRef

from tests.hooks.repository import run
from tests.projects import Edit
from tests.update.versions import (
    OLD,
    SOURCE,
    commit,
    duplicate,
    files,
    git,
    make_service,
    release,
    unmerged,
    update,
)

SRC = "src/my_service"
ANSWERS = ".copier-answers.yml"
MINE = Edit(f"{SRC}/platform/redaction.py", "\n\n\n", "\n\nMINE = 1\n\n\n")


MUST_EXIST = ("README.md", f"{SRC}/main.py", f"{SRC}/settings.py", "ready.toml", "uv.toml")
DELETABLE = ("CHANGELOG.md", "LICENSE", "tests/rooms/test_platform.py")


@pytest.fixture(scope="module")
def battered(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service that lost files and has a line of its own at the end of `.gitignore`, updated."""
    service = duplicate(first, tmp_path_factory.mktemp("battered") / "service")
    for name in (*MUST_EXIST, *DELETABLE):
        (service / name).unlink()
    Edit(".gitignore", "dist/\n", "dist/\nmine/\n").apply(service)
    return update(commit(service))


def rename(template: Path) -> None:
    (template / SOURCE / "platform/redaction.py").rename(template / SOURCE / "platform/redact.py")


def refused(template: Path) -> list[str]:
    """What the release check says about v0.2.0."""
    code, lines = run(template / "hooks" / "release.py", "0.2.0")
    return lines if code else []


@pytest.mark.wide
def test_a_renamed_file_loses_edits_in_silence_so_no_release_may_rename(tmp_path: Path) -> None:
    template = release(tmp_path / "template", then=rename)
    service = make_service(template, tmp_path / "service")
    MINE.apply(service)
    commit(service)
    update(service)
    assert (service / f"{SRC}/platform/redact.py").is_file()
    assert not (service / f"{SRC}/platform/redaction.py").exists()
    assert unmerged(service) == []
    assert b"MINE" not in b"".join(files(service).values())  # gone, and nobody said so
    assert any("platform/redaction.py was in v0.1.0 and has gone" in line for line in refused(template))


@pytest.mark.wide
def test_a_file_left_at_the_old_place_turns_the_loss_into_a_conflict(tmp_path: Path) -> None:
    def leave(template: Path) -> None:
        rename(template)
        (template / SOURCE / "platform/redaction.py").write_text('"""Moved: see `redact`."""\n')

    template = release(tmp_path / "template", then=leave)
    service = make_service(template, tmp_path / "service")
    MINE.apply(service)
    commit(service)
    update(service)
    assert unmerged(service) == [f"{SRC}/platform/redaction.py"]
    assert "MINE = 1" in (service / f"{SRC}/platform/redaction.py").read_text()


@pytest.mark.wide
def test_an_answer_switched_off_takes_edits_of_our_file_but_never_the_committed_ones(
    first: Path, tmp_path: Path
) -> None:
    service = duplicate(first, tmp_path / "service")
    file = f"{SRC}/platform/db/pool.py"
    edit = Edit(file, "PROBE_SECONDS = 1.5", "PROBE_SECONDS = 0.5")
    edit.apply(service)
    with pytest.raises(Exception, match="dirty"):  # what git has not got cannot be lost
        update(service, VcsRef.CURRENT, database="none")
    commit(service)
    update(service, VcsRef.CURRENT, database="none")
    assert not (service / file).exists()
    assert unmerged(service) == []
    assert f" D {file}" in git(service, "status", "--porcelain").splitlines()  # seen before the commit
    assert edit.new in git(service, "show", f"HEAD:{file}")


@pytest.mark.wide
def test_an_answer_edited_by_hand_changes_no_file_so_the_answers_say_what_to_type(first: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    Edit(ANSWERS, "database: postgresql", "database: none").apply(service)
    commit(service)
    update(service)
    assert (service / f"{SRC}/platform/db/__init__.py").is_file()  # the answers say none, the code says otherwise
    assert (service / ANSWERS).read_text().startswith("# Written by Copier: change answers with `make update ARGS=")


def test_a_deleted_file_stays_deleted_even_when_the_release_changes_it(battered: Path) -> None:
    assert (battered / f"{SRC}/platform/quota.py").is_file()  # the update did its work
    assert [name for name in DELETABLE if (battered / name).exists()] == []


def test_a_file_that_must_exist_comes_back_when_it_is_deleted(battered: Path) -> None:
    assert [name for name in MUST_EXIST if not (battered / name).is_file()] == []


def test_two_additions_at_the_end_of_a_file_are_a_conflict_in_sight(battered: Path) -> None:
    assert unmerged(battered) == [".gitignore"]
    text = (battered / ".gitignore").read_text()
    assert "\nmine/\n" in text
    assert "\nsite/\n" in text
    assert not list(battered.rglob("*.rej"))  # where the template would win and your lines would lie beside


def test_the_formatter_of_the_service_leaves_nothing_to_collide_with(first: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    file = service / f"{SRC}/platform/quota_of_mine.py"
    file.write_text("x = 'a'\n")
    ruff = [sys.executable, "-m", "ruff", "format", "--no-cache", "--quiet", "."]
    subprocess.run(ruff, cwd=service, check=True)
    assert file.read_text() == 'x = "a"\n'  # it formats
    assert git(service, "status", "--porcelain").split() == ["??", f"{SRC}/platform/quota_of_mine.py"]


def test_a_recopy_overwrites_the_example_so_no_target_does_one(first: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    file = f"{SRC}/features/items/service.py"
    edit = Edit(file, '"""Return one item.', '"""Return one item of ours.')
    edit.apply(service)
    Edit(f"{SRC}/main.py", "this file is yours", "this file is mine").apply(service)
    commit(service)
    copier.run_recopy(service, vcs_ref=OLD, defaults=True, unsafe=False, quiet=True, overwrite=True)
    assert git(service, "status", "--porcelain").split() == ["M", file]  # main.py must exist, and was left alone
    assert edit.new in git(service, "show", f"HEAD:{file}")
    assert "recopy" not in (service / "Makefile").read_text()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("_commit: v0.1.0", "_commit: v9.9.9", "Unknown revision: 'v9.9.9'"),
        ("database: postgresql", "database: mysql", "database has no choice mysql: type one of postgresql, none"),
        ("project_slug: my-service", "project_slug: My Service", "type my-shop: lower-case letters"),
        ("_src_path: ", "_src: ", "Template not found"),
    ],
)
def test_answers_that_cannot_be_understood_stop_the_update_before_it_touches_a_file(
    first: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    service = duplicate(first, tmp_path / "service")
    Edit(ANSWERS, old, new).apply(service)
    commit(service)
    with pytest.raises((TypeError, ValueError), match=says):
        update(service)
    assert git(service, "status", "--porcelain") == ""
