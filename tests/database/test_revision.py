"""A developer writes migrations: any message, no empty file, named constraints, a way back, one line per mistake."""

import ast
import os
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.database.test_lint import lint
from tests.plant import Feature, Revision
from tests.projects import Edit, Project
from tests.sabotage import Body, Line, Value
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.servers
MODELS = """
from fastapi import APIRouter
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from ...platform.db import Base, Key

router = APIRouter()


class Shelf(Base):
    __tablename__ = "shelves"
    id: Mapped[Key]
    code: Mapped[str] = mapped_column(unique=True)


class Book(Base):
    __tablename__ = "books"
    id: Mapped[Key]
    shelf: Mapped[int] = mapped_column(ForeignKey("shelves.id"))
"""
FEATURE = Feature("books", MODELS)
ROUTES = "src/my_service/features/books/routes.py"
INSERT = "INSERT INTO shelves (code) VALUES ('a') RETURNING id"


def at(folder: Path) -> dict[str, str]:
    return {"DATABASE_URL": f"sqlite:///{folder}/x.db"}


def make_revision(project: Project, folder: Path, message: str, *more: str) -> subprocess.CompletedProcess[str]:
    """What a developer types, on the environment of another project."""
    return project.run("make", "revision", "RUN=env", f"m={message}", *more, env=at(folder), check=False)


def written(project: Project) -> list[Path]:
    """The files that are not ours."""
    return [file for file in (project.root / "migrations/versions").glob("*.py") if file.name[:4] != "0001"]


@pytest.fixture(scope="module")
def migrated(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema, to be copied."""
    folder = tmp_path_factory.mktemp("migrated")
    project.cli("migrate", env=at(folder), check=True)
    return folder / "x.db"


@pytest.fixture
def own(project: Project, migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A migrated service on SQLite, to be changed."""
    shutil.copy(migrated, tmp_path)
    monkeypatch.setenv("PATH", str(project.venv / "bin"), prepend=os.pathsep)
    return project.variant(tmp_path / "own")


NASTY = """-x 'C:\\new' "q" \"\"\"t\"\"\" 100 % $HOME $(error x) ${y} `id` ünï\u2013\nline \\"""
MESSAGES = [
    "fix C:\\new",
    '"',
    '"""',
    "\\",
    "a\nb\tc",
    "%(rev)s %",
    "größe \u2013 日本",
    "-x",
    "--down",
    "$HOME $$ $(",
    "`id`",
    "#",
    "'",
]


def says(project: Project, folder: Path, message: str) -> str | None:
    """The docstring of the migration with that message."""
    done = make_revision(project, folder, message, "empty=1")
    assert done.returncode == 0, done.stderr
    (file,) = written(project)
    return ast.get_docstring(ast.parse(file.read_bytes()), clean=False)


def test_any_message_gives_a_file_that_parses(own: Project, tmp_path: Path) -> None:
    assert says(own, tmp_path, NASTY) == " ".join(NASTY.split()) + "."
    assert own.run(str(own.venv / "bin/ruff"), "check", "migrations").returncode == 0


@pytest.mark.wide
@pytest.mark.parametrize("message", MESSAGES)
def test_each_message_gives_a_file_that_parses(own: Project, tmp_path: Path, message: str) -> None:
    assert says(own, tmp_path, message) == " ".join(message.split()) + "."


@pytest.mark.sabotage
def test_a_message_that_is_not_escaped_is_noticed(own: Project, tmp_path: Path) -> None:
    Line("migrations/script.py.mako", '"""$', '"""${message}."""').apply(own.root)
    with pytest.raises((SyntaxError, AssertionError)):
        says(own, tmp_path, '"""')


@pytest.mark.parametrize("message", ["", " \n"])
def test_a_message_is_required(own: Project, tmp_path: Path, message: str) -> None:
    done = make_revision(own, tmp_path, message)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        'migrate: type what it does: make revision m="add a price"',
    )
    assert written(own) == []


NOTHING = (
    "migrate: nothing has changed: import the model in routes.py of its feature; for statements of your own, type: "
)


def refuses_an_empty_file(project: Project, folder: Path) -> bool:
    done = project.cli("migrate", "--new", "again", env=at(folder))
    return (done.returncode, done.stderr.startswith(NOTHING), len(done.stderr.splitlines())) == (1, True, 1)


def test_a_migration_without_changes_is_refused(own: Project, tmp_path: Path) -> None:
    assert refuses_an_empty_file(own, tmp_path)
    assert written(own) == []


@pytest.mark.sabotage
def test_an_empty_migration_is_noticed(own: Project, tmp_path: Path) -> None:
    forgets = 'context.config.attributes.pop("empty")\noriginal(migrations, heads, scripts)'
    sick = own.variant(tmp_path / "sick", Body("migrations.env:use_service_branch", forgets))
    assert not refuses_an_empty_file(sick, tmp_path)


def drops_constraints(project: Project, folder: Path) -> str:
    """Create tables, then drop their constraints: the migration that is generated on SQLite, applied."""
    FEATURE.apply(project.root)
    project.cli("migrate", "--new", "tables", env=at(folder), check=True)
    project.cli("migrate", env=at(folder), check=True)
    before = written(project)
    Edit(ROUTES, "unique=True", "").apply(project.root)
    Edit(ROUTES, 'ForeignKey("shelves.id")', "").apply(project.root)
    Edit(ROUTES, "shelf: Mapped[int]", "shelf: Mapped[int | None]").apply(project.root)
    project.cli("migrate", "--new", "drops", env=at(folder), check=True)
    (after,) = set(written(project)) - set(before)
    project.cli("migrate", env=at(folder), check=True)
    return after.read_text().partition("def downgrade")[0]


def test_dropped_constraints_are_found_on_sqlite_and_dropped_on_both(
    own: Project, server: Postgres, tmp_path: Path
) -> None:
    text = drops_constraints(own, tmp_path)
    assert 'batch_op.f("shelves_code_key")' in text
    assert 'batch_op.f("books_shelf_fkey")' in text
    url = server.create_database()
    own.cli("migrate", env={"DATABASE_URL": url}, check=True)
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid IN ('books'::regclass, 'shelves'::regclass)"
        )
        assert {name for (name,) in found} == {"books_pkey", "shelves_pkey"}


@pytest.mark.sabotage
def test_constraints_without_names_are_not_found(own: Project, tmp_path: Path) -> None:
    sick = own.variant(tmp_path / "sick", Value("db:Base.metadata", "MetaData()"))
    with pytest.raises(AssertionError):
        assert "shelves_code_key" in drops_constraints(sick, tmp_path)


def lints_a_key(project: Project, folder: Path) -> subprocess.CompletedProcess[str]:
    FEATURE.apply(project.root)
    project.cli("migrate", "--new", "tables", env=at(folder), check=True)
    return lint(project)


def test_a_number_that_counts_up_is_a_key_on_both_databases(own: Project, server: Postgres, tmp_path: Path) -> None:
    done = lints_a_key(own, tmp_path)
    assert (done.returncode, "Found 0 issues in 3 files" in done.stdout) == (0, True), done.stdout
    url = server.create_database()
    own.cli("migrate", env={"DATABASE_URL": url}, check=True)
    with psycopg.connect(url) as connection:
        assert connection.execute(INSERT).fetchone() == (1,)
        kind = connection.execute("SELECT data_type FROM information_schema.columns WHERE column_name = 'shelf'")
        assert kind.fetchone() == ("bigint",)


def test_a_plain_number_as_key_is_refused_with_what_to_write(own: Project, tmp_path: Path) -> None:
    plain = own.variant(tmp_path / "plain", FEATURE)
    Edit(ROUTES, "id: Mapped[Key]", "id: Mapped[int] = mapped_column(primary_key=True)").apply(plain.root)
    plain.cli("migrate", "--new", "tables", env=at(tmp_path), check=True)
    (file,) = written(plain)
    done = lint(plain)
    assert done.returncode == 1
    assert str(file.relative_to(plain.root)) in done.stdout
    assert done.stderr.startswith("prefer-identity: write `id: Mapped[Key]` in the model (Key is in platform.db)")


@pytest.mark.sabotage
def test_a_key_that_is_serial_is_noticed(own: Project, tmp_path: Path) -> None:
    sick = own.variant(tmp_path / "sick", Value("db:Key", "Annotated[int, mapped_column(primary_key=True)]"))
    assert "prefer-identity" in lints_a_key(sick, tmp_path).stdout


def plant_editor_files(root: Path) -> None:
    """What editors, notebooks and Python leave: Emacs locks a file by a link that leads nowhere."""
    folder = root / "migrations/versions"
    for name in ("__init__.py", "0002_x.py~", "#0002_x.py#", ".0002_x.py.swp", "0002_x.py.orig", "README"):
        (folder / name).write_text("x = 'no migration")
    (folder / ".#0002_x.py").symlink_to("somebody@host.1234:1")
    for name in (".ipynb_checkpoints", "__pycache__"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "0002_x-checkpoint.py").write_text("x = 'no migration")


def is_ready(project: Project, folder: Path) -> bool:
    project.cli("migrate", env=at(folder), check=True)
    with project.serve(folder / "run", at(folder)) as service:
        return service.client.get("/readyz").status_code == 200


def test_files_of_editors_are_no_migrations(own: Project, tmp_path: Path) -> None:
    plant_editor_files(own.root)
    assert is_ready(own, tmp_path)
    assert lint(own).returncode == 0


@pytest.mark.sabotage
def test_files_of_editors_that_are_read_are_noticed(own: Project, tmp_path: Path) -> None:
    plant_editor_files(own.root)
    Body("db.revisions:_is_migration", "return True").apply(own.root)
    with pytest.raises(AssertionError, match=r"the migration \.#0002_x\.py cannot be read"):
        is_ready(own, tmp_path)


BROKEN = {
    "x = (": "cannot be read: '(' was never closed",
    "x = 1": "cannot be read: it does not define down_revision",
    "down_revision = '0001'": "cannot be read: it does not define revision",
    "revision = str(2)\ndown_revision = '0001'": "cannot be read: malformed node or string",
    "revision = '2'\ndown_revision = 'nope'": "follows 'nope', which no file has",
    "revision = '0001'\ndown_revision = 'p0001'": "are both '0001'",
    "x = '\udcff'": "cannot be read: ",
    "x = '\0'": "cannot be read: source code string cannot contain null bytes",
}
HEADS = """
import sys
from pathlib import Path
from my_service.platform.db.revisions import heads
from my_service.platform.state import NotReady
for text in eval(sys.stdin.read()):
    Path("migrations/versions/0002_x.py").write_bytes(text.encode(errors="surrogateescape"))
    try:
        print(heads(Path("migrations")))
    except NotReady as error:
        print(error)
"""


def test_a_broken_migration_is_named_in_one_line(own: Project, tmp_path: Path) -> None:
    python, env = str(own.venv / "bin/python"), own.env()
    done = subprocess.run(
        [python, "-c", HEADS], cwd=own.root, env=env, input=repr(list(BROKEN)), capture_output=True, text=True
    )
    said = done.stdout.splitlines()
    assert len(said) == len(BROKEN), done.stderr
    for line, reason in zip(said, BROKEN.values(), strict=True):
        assert "0002_x.py" in line
        assert reason in line
    done = own.cli("migrate", env=at(tmp_path))
    assert (done.returncode, done.stderr) == (1, f"migrate: {said[-1]}\n")
    assert lint(own).stderr == f"{said[-1]}\n"


def goes_back(project: Project, folder: Path) -> str:
    return project.cli("migrate", "--down", env=at(folder)).stderr


def test_the_latest_migration_of_the_developer_is_reverted(own: Project, tmp_path: Path) -> None:
    Revision('op.create_table("orders", sa.Column("id", sa.Uuid))').apply(own.root)
    file = own.root / "migrations/versions/0002_later.py"
    file.write_text(file.read_text().replace("    pass", '    op.drop_table("orders")'))
    own.cli("migrate", env=at(tmp_path), check=True)
    refused = own.cli("migrate", "--down", env=at(tmp_path) | {"ENVIRONMENT": "staging"})
    assert (refused.returncode, refused.stderr[:28]) == (2, "migrate: data would be lost:")
    assert goes_back(own, tmp_path) == "migrate: reverting 0002_later.py; the data in what it added is lost\n"
    assert "0002" in own.cli("migrate", env=at(tmp_path), check=True).stdout  # it can be applied again
    assert [goes_back(own, tmp_path)[19:23] for _ in range(2)] == ["0002", "0001"]
    done = own.cli("migrate", "--down", env=at(tmp_path), check=True)
    assert done.stdout == "no migration of yours is applied: nothing to do\n"


@pytest.mark.sabotage
def test_a_migration_that_is_not_reverted_is_noticed(own: Project, tmp_path: Path) -> None:
    sick = own.variant(tmp_path / "sick", Body("ops.migrate:_revert", 'return ""'))
    with pytest.raises(AssertionError):
        assert goes_back(sick, tmp_path) == "migrate: reverting 0001_items.py; the data in what it added is lost\n"


RELEASED = "\n\n# squawk-baseline: released with 1.4\n"
DROP = 'op.drop_column("items", "note")'


def lint_with_baseline(project: Project) -> subprocess.CompletedProcess[str]:
    """Three migrations with the same fault: the second one is the baseline."""
    for number in (2, 3, 4):
        Revision(DROP, f"000{number}", f"000{number - 1}").apply(project.root)
    file = project.root / "migrations/versions/0003_later.py"
    file.write_text(file.read_text() + RELEASED)
    return lint(project)


def test_released_migrations_are_not_linted_again(own: Project) -> None:
    done = lint_with_baseline(own)
    assert done.returncode == 1
    assert "migrations/versions/0004_later.py" in done.stdout
    assert [number for number in "23" if f"000{number}_later" in done.stdout] == []
    (own.root / "migrations/versions/0004_later.py").unlink()
    assert lint(own).returncode == 0


@pytest.mark.sabotage
def test_a_baseline_that_is_ignored_is_noticed(own: Project) -> None:
    Value("scripts.lint_migrations:BASELINE", 're.compile("never")').apply(own.root)
    assert "0002_later.py" in lint_with_baseline(own).stdout


def follows_its_advice(project: Project, folder: Path) -> None:
    """Two branches of Git are merged, one with two migrations: do what is printed."""
    for name, after in (("a1", "0001"), ("a2", "a1"), ("b1", "0001")):
        Revision("pass", name, after).apply(project.root)
    done = project.cli("migrate", env=at(folder))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    told = 'write down_revision = "a2" into b1_later.py, or "b1" into a1_later.py; change the one that is not released'
    assert f"migrate: versions has two heads: {told} (docs/database.md, Two heads)\n" == done.stderr
    Edit("migrations/versions/a1_later.py", 'down_revision = "0001"', 'down_revision = "b1"').apply(project.root)
    assert "a2" in project.cli("migrate", env=at(folder), check=True).stdout


def test_two_heads_are_explained_by_what_to_write(own: Project, tmp_path: Path) -> None:
    assert "### Two heads" in (own.root / "docs/database.md").read_text()
    follows_its_advice(own, tmp_path)


@pytest.mark.sabotage
def test_wrong_advice_about_two_heads_is_noticed(own: Project, tmp_path: Path) -> None:
    Body("ops.migrate:_first", "return f'{head}_later.py'").apply(own.root)
    with pytest.raises(AssertionError):
        follows_its_advice(own, tmp_path)
