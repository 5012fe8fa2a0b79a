"""Checks that the database schema is at least the one that this code needs.

"At least", because code is rolled back and schemas are not: an older release must be ready on a newer schema. The
migration files are parsed, not run, because the service does not import Alembic.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..state import NotReady


def heads(migrations: Path) -> dict[str, set[str]]:
    """Read the migration files: for the head of each branch all revisions of that branch.

    Files that Alembic ignores, such as those of editors, are no migrations.

    Raises:
        NotReady: The folder is missing or a migration is broken, so the needed schema is unknown.
    """
    if not migrations.is_dir():
        raise NotReady(f"no folder {migrations}/: run the service in its parent folder, or set MIGRATIONS_DIR")
    found: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    parents: dict[str, str] = {}
    for branch in ("platform", "versions"):
        known = set()
        for file in filter(_is_migration, sorted((migrations / branch).glob("*.py"))):
            revision, down = _read(file)
            if revision in names:
                raise NotReady(f"the migrations {names[revision]} and {file.name} are both {revision!r}")
            known.add(revision)
            names[revision] = file.name
            parents |= dict.fromkeys(down, file.name)
        found |= dict.fromkeys(known, known)
    for revision in parents.keys() - names.keys():
        raise NotReady(f"the migration {parents[revision]} follows {revision!r}, which no file has")
    return {head: known for head, known in found.items() if head not in parents}


def _is_migration(file: Path) -> bool:
    return not file.name.startswith((".", "__init__"))


def _read(file: Path) -> tuple[str, tuple[str, ...]]:
    """Return the revision in a file, and the ones that it follows."""
    try:
        values = dict(_constants(file))
        down = values["down_revision"] or ()
        return values["revision"], (down,) if isinstance(down, str) else tuple(down)
    except KeyError as missing:
        reason = f"it does not define {missing.args[0]}"
    except (OSError, SyntaxError, TypeError, ValueError) as error:
        reason = str(error).replace(str(file), file.name)
    raise NotReady(f"the migration {file.name} cannot be read: {reason}")


def _constants(file: Path) -> Iterator[tuple[str, Any]]:
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id in ("revision", "down_revision"):
                yield target.id, ast.literal_eval(node.value)


def at_least(needed: dict[str, set[str]], current: set[str]) -> str:
    """Compare the revisions of a database with those that this code needs.

    Args:
        needed: From `heads`.
        current: From the table `alembic_version`, one revision per branch.

    Returns:
        The current revisions, as text for people.

    Raises:
        NotReady: A branch is older than this code.
    """
    known = set().union(*needed.values())
    newer = len(current - known)  # revisions that a later release has added
    missing = sorted(needed.keys() - current)
    behind = [head for head in missing if needed[head] & current or newer < len(missing)]
    if behind:
        raise NotReady(f"the schema is older than this code, {', '.join(behind)} is missing: run `make migrate`")
    return f"schema at {', '.join(sorted(current)) or 'nothing'}"
