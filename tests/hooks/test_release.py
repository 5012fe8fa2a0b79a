"""The release check finds what takes something away from existing services, and nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hooks.repository import HOOKS, commit, git, run

PLATFORM = "template/src/{{ package_name }}/platform/"
ROOM = """
class Room:
    begin: Callable[[Context], None]


def find(name: str, *, near: bool = False) -> Room: ...
"""
TEMPLATE = {
    "CHANGELOG.md": "# Changes\n\n## [0.2.0] - 2026-01-31\n\n## [0.1.0] - 2026-01-01\n",
    "copier.yml": """
_subdirectory: template
_envops: {undefined: jinja2.StrictUndefined}
_skip_if_exists: [notes.md]
package_name: {type: str, default: shop}
name: {type: str, default: shop}
cache: {type: str, default: redis, choices: [redis, none]}
database: {type: str, default: postgresql, choices: {PostgreSQL: postgresql, None: none}}
example: {type: bool, default: true}
colour: {type: str, default: red}
""",
    "template/README.md.jinja": "# {{ name }}\n",
    "template/{{ name }}.txt": "always\n",
    "template/.env.example": "#PORT=8000\n#HOST=\n",
    "template/notes.md": "yours\n",
    PLATFORM + "room.py": ROOM,
    "template/{% if cache == 'redis' %}redis.conf{% endif %}": "maxmemory 1mb\n",
    "template/{% if example and database == 'none' %}memory.py{% endif %}": "",
}


def released(folder: Path) -> tuple[int, list[str]]:
    code, lines = run(folder / "hooks" / "release.py", "0.2.0")
    return code, [line for line in lines if not line.startswith("rendering ")]


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


Sabotage = Callable[[Path], object]


def edit(name: str, old: str, new: str) -> Sabotage:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)


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


def test_a_question_may_be_renamed_if_its_answer_is_kept(repository: Path) -> None:
    new = "color: {type: str, default: '{{ colour | default(\"red\") }}'}"
    edit("copier.yml", "colour: {type: str, default: red}", new)(repository)
    commit(repository)
    assert released(repository) == (0, ["0.2.0 may be tagged"])


def test_what_is_added_is_no_finding(repository: Path) -> None:
    edit(f"{PLATFORM}room.py", "near: bool = False", "near: bool = False, far: int = 0")(repository)
    edit(f"{PLATFORM}room.py", "    begin", "    end: int\n    begin")(repository)
    edit("template/.env.example", "#HOST", "#LOG_LEVEL=\n#HOST")(repository)
    (repository / "template/more.md").touch()
    commit(repository)
    assert released(repository) == (0, ["0.2.0 may be tagged"])


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
        "memory.py is no longer emitted as by v0.1.0 (leave a file there), with ",
    ),
    "a setting renamed": (
        edit("template/.env.example", "PORT", "LISTEN_PORT"),
        "setting PORT is no longer emitted as by v0.1.0 (keep the old name as an alias), with any answers",
    ),
    "a question renamed": (
        edit("copier.yml", "colour: {", "color: {"),
        "question colour was in v0.1.0 and has gone: let the default of its successor begin with {{ colour | default(…",
    ),
    "a file of the user's that becomes ours": (
        edit("copier.yml", "[notes.md]", "[]"),
        "notes.md belonged to the user in v0.1.0 and is overwritten now, with any answers",
    ),
    "a file in a place of the user's": (
        lambda folder: (folder / "template/Makefile.local").touch(),
        "Makefile.local is a place of the user, with any answers",
    ),
    "a hook of another signature": (
        edit(f"{PLATFORM}room.py", "[Context]", "[Context, int]"),
        "platform/room.Room.begin is 'Callable[[Context, int], None]' now, v0.1.0 has 'Callable[[Context], None]'",
    ),
    "a parameter that went": (
        edit(f"{PLATFORM}room.py", ", *, near: bool = False", ""),
        "platform/room.find(near) has gone, v0.1.0 has 'by name bool'",
    ),
    "a parameter that is required": (
        edit(f"{PLATFORM}room.py", ", *, near", ", *, far: int, near"),
        "platform/room.find(far) is 'by name int required' now, v0.1.0 has 'no such parameter'",
    ),
    "a template that does not parse": (
        edit("template/README.md.jinja", "{{ name }}", "{{ name "),
        "README.md.jinja:1 cannot be rendered, with ",
    ),
    "a name that no question has": (
        edit("template/README.md.jinja", "{{ name }}", "{{ nmae }}"),
        "README.md.jinja:1 cannot be rendered, with ",
    ),
    "a tag that exists": (
        lambda folder: (git(folder, "tag", "v0.2.0"), (folder / "later").touch()),
        "v0.2.0 exists: a tag that moves breaks updates; choose the next version",
    ),
    "a migration in a minor version": (
        lambda folder: write(folder / "hooks/migrations/v0.py", "pass\n"),
        "hooks/migrations/v0.py is new, and only a new major version N brings hooks/migrations/vN.py",
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
    assert line.startswith("redis.conf is no longer emitted as by v0.1.0 (leave a file there), with cache=redis")
