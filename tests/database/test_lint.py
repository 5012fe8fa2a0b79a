"""`make check` reads the SQL of each migration: what would block a busy table or break the old release is refused."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.database.conftest import Later, recipe
from tests.database.test_migrate import ADD, COLUMN, INDEX
from tests.projects import Project
from tests.sabotage import Line

BAD = """
op.add_column("items", sa.Column("price", sa.BigInteger, nullable=False))
op.create_index("ix_items_name", "items", ["name"])
op.drop_column("items", "note")
op.alter_column("items", "name", new_column_name="title")
op.alter_column("items", "quantity", type_=sa.BigInteger)
op.create_foreign_key("f", "items", "items", ["id"], ["id"])
"""
RULES = {
    "adding-required-field",
    "require-concurrent-index-creation",
    "ban-drop-column",
    "renaming-column",
    "changing-column-type",
    "adding-foreign-key-constraint",
}
DROP = 'op.drop_column("items", "note")'
ASKS = 'op.get_bind().execute(sa.text("SELECT 1")).scalar_one()'


def lint(project: Project) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(project.venv / "bin"), os.environ["PATH"]])
    return project.run("python", "scripts/lint_migrations.py", env={"PATH": path}, check=False)


def test_a_migration_that_blocks_or_breaks_is_refused(later: Later) -> None:
    done = lint(later(BAD))
    assert done.returncode == 1
    assert {rule for rule in RULES if rule in done.stdout} == RULES
    assert "migrations/versions/0002_later.py" in done.stdout


def test_what_the_guide_shows_is_taken(later: Later, project: Project) -> None:
    done = lint(later(ADD, recipe(project, INDEX), recipe(project, COLUMN)))
    assert (done.returncode, "Found 0 issues in 5 files" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize(("why", "code"), [(" no release since 1.4 reads it", 0), ("", 1)])
def test_a_migration_may_say_why_it_means_it(later: Later, why: str, code: int) -> None:
    made = later(DROP)
    file = made.root / "migrations/versions/0002_later.py"
    file.write_text(f"{file.read_text()}\n\n# squawk-ignore ban-drop-column:{why}\n")
    done = lint(made)
    assert (done.returncode, "ban-drop-column" in done.stdout) == (code, bool(code)), done.stdout + done.stderr


def test_a_migration_that_needs_a_database_to_be_read_is_named(later: Later) -> None:
    done = lint(later(ASKS))
    assert done.returncode == 1
    assert done.stderr.startswith("migrations/versions/0002_later.py needs a database for its SQL (AttributeError: ")
    assert done.stderr.endswith("): see docs/database.md\n")


def test_make_check_lints(project: Project) -> None:
    """The emitted migrations are clean by `.squawk.toml`."""
    assert "lint_migrations" in project.run("make", "-n", "check").stdout
    assert lint(project).returncode == 0


@pytest.mark.sabotage
def test_a_rule_that_the_file_leaves_out_would_be_heard(project: Project, tmp_path: Path) -> None:
    strict = project.variant(tmp_path / "strict", Line(".squawk.toml", '"prefer-text-field"'))
    assert "prefer-text-field" in lint(strict).stdout
