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

    Raises:
        NotReady: The folder is missing, so the needed schema is unknown.
    """
    if not migrations.is_dir():
        raise NotReady(f"no folder {migrations}/: run the service in its parent folder, or set MIGRATIONS_DIR")
    found: dict[str, set[str]] = {}
    for branch in ("platform", "versions"):
        known: set[str] = set()
        parents: set[str] = set()
        for file in (migrations / branch).glob("*.py"):
            values = dict(_constants(file))
            known.add(values["revision"])
            down = values["down_revision"]
            parents |= {down} if isinstance(down, str) else set(down or ())
        found |= dict.fromkeys(known - parents, known)
    return found


def _constants(file: Path) -> Iterator[tuple[str, Any]]:
    for node in ast.parse(file.read_text()).body:
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
