"""The release check finds what takes something away from existing services, and nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hooks.repository import HOOKS, commit, git, run

TEMPLATE = {
    "CHANGELOG.md": "# Changes\n\n## [0.2.0] - 2026-01-31\n\n## [0.1.0] - 2026-01-01\n",
    "copier.yml": """
_subdirectory: template
name: {type: str, default: shop}
cache: {type: str, default: redis, choices: [redis, none]}
database: {type: str, default: postgresql, choices: {PostgreSQL: postgresql, None: none}}
example: {type: bool, default: true}
""",
    "template/README.md.jinja": "# {{ name }}\n",
    "template/{{ name }}.txt": "always\n",
    "template/{% if cache == 'redis' %}redis.conf{% endif %}": "maxmemory 1mb\n",
    "template/{% if example and database == 'none' %}memory.py{% endif %}": "",
}


def released(folder: Path) -> tuple[int, list[str]]:
    return run(folder / "hooks" / "release.py", "0.2.0")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small template with the release v0.1.0 and a better README since."""
    for name, text in TEMPLATE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "hooks").mkdir()
    shutil.copy(HOOKS / "release.py", tmp_path / "hooks")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path)
    git(tmp_path, "tag", "v0.1.0")
    edit("template/README.md.jinja", "# ", "# The ")(tmp_path)
    commit(tmp_path)
    return tmp_path


Sabotage = Callable[[Path], None]


def edit(name: str, old: str, new: str) -> Sabotage:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def move(old: str, new: str) -> Sabotage:
    def change(folder: Path) -> None:
        (folder / old).rename(folder / new)

    return change


def test_a_release_that_keeps_every_path_may_be_tagged(repository: Path) -> None:
    assert released(repository) == (0, ["0.2.0 may be tagged"])


def test_the_first_release_has_no_paths_to_keep(repository: Path) -> None:
    git(repository, "tag", "--delete", "v0.1.0")
    code, lines = released(repository)
    assert (code, lines[0]) == (0, "no earlier release: there are no paths to keep")


def test_a_dirty_work_tree_is_named(repository: Path) -> None:
    (repository / "left-over").touch()
    code, (line,) = released(repository)
    assert code == 1
    assert line == "the work tree is not clean: git status names 1, as left-over"


REDIS = "{% if cache == 'redis' %}redis.conf{% endif %}"
SABOTAGES = {
    "no section in the changelog": (
        edit("CHANGELOG.md", "[0.2.0]", "[0.2.1]"),
        "CHANGELOG.md has no section with a date for it, as in ## [0.2.0] - 2026-01-31",
    ),
    "no date in the changelog": (
        edit("CHANGELOG.md", "2026-01-31", "unreleased"),
        "CHANGELOG.md has no section with a date for it, as in ## [0.2.0] - 2026-01-31",
    ),
    "a task": (
        edit("copier.yml", "_subdirectory", "_tasks: ['false']\n_subdirectory"),
        "copier.yml has _tasks: every copy and update would demand --trust, for good",
    ),
    "a migration": (
        edit("copier.yml", "_subdirectory", "_migrations: ['false']\n_subdirectory"),
        "copier.yml has _migrations: every copy and update would demand --trust, for good",
    ),
    "a file renamed": (
        move(f"template/{REDIS}", "template/valkey.conf"),
        f"template/{REDIS} was in v0.1.0 and has gone: restore it, or name it in TOMBSTONES",
    ),
    "a file excluded": (
        edit("copier.yml", "_subdirectory", "_exclude: [memory.py]\n_subdirectory"),
        "memory.py is no longer emitted as by v0.1.0, with ",
    ),
    "a choice withdrawn": (
        edit("copier.yml", "[redis, none]", "[redis]"),
        "answers that v0.1.0 took are refused: ",
    ),
}


@pytest.mark.sabotage
@pytest.mark.parametrize("name", SABOTAGES)
def test_what_breaks_a_release_is_found_and_nothing_else(repository: Path, name: str) -> None:
    sabotage, expected = SABOTAGES[name]
    sabotage(repository)
    commit(repository)
    code, lines = released(repository)
    assert code == 1
    assert {line[: len(expected)] for line in lines} == {expected}


def test_a_tombstone_vouches_for_a_new_name_only_if_the_path_stays(repository: Path) -> None:
    entry = f'{{"template/{REDIS}": "template/redis.conf"}}'
    edit("hooks/release.py", "dict[str, str] = {}", f"dict[str, str] = {entry}")(repository)
    move(f"template/{REDIS}", "template/redis.conf")(repository)
    commit(repository)
    assert released(repository) == (0, ["0.2.0 may be tagged"])
    edit("copier.yml", "_subdirectory", "_exclude: [redis.conf]\n_subdirectory")(repository)
    commit(repository)
    code, (line,) = released(repository)
    assert code == 1
    assert line.startswith("redis.conf is no longer emitted as by v0.1.0, with cache=redis:")
