"""Every room that may go can go, by name or by deletion: the service works on, and no update undoes it."""

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.projects import ROOT, Edit, Project, Service, render
from tests.proof import FULL
from tests.sabotage import Body
from tests.servers.process import ServerError
from tests.update.versions import commit, make_service, release, update

pytestmark = pytest.mark.servers
PLATFORM = "src/my_service/platform"
MAIN = "src/my_service/main.py"


def assigned(file: Path, name: str) -> ast.expr | None:
    """What a module assigns to a name."""
    for line in ast.parse(file.read_text()).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == name:
            return line.value
    return None


def rooms() -> tuple[list[str], set[str]]:
    """`ROOMS` as the template has them, and those that are required: a later room is proven without a line here."""
    platform, required = ROOT / "template/src/{{ package_name }}/platform", set()
    for file in (each for each in platform.rglob("*") if ".py" in each.suffix and each.is_file()):
        declared = assigned(file, "ROOM")
        if isinstance(declared, ast.Call) and any(word.arg == "required" for word in declared.keywords):
            required.add(file.parent.name if file.stem == "__init__" else file.stem)
    names = assigned(platform / "__init__.py", "ROOMS")
    assert names
    return list(ast.literal_eval(names)), required


ROOMS, REQUIRED = rooms()
REMOVABLE = [room for room in ROOMS if room not in REQUIRED]


def leave_out(project: Project, folder: Path, room: str) -> Project:
    """As a user does it: one word in `main.py`; the room's own smoke tests and the features that use it go with it."""
    made = project.variant(folder, Edit(MAIN, "without=set()", f'without={{"{room}"}}'))
    (made.root / f"tests/rooms/test_{room}.py").unlink(missing_ok=True)
    if room == "db":
        shutil.rmtree(made.root / "src/my_service/features/items")
    return made


def users(root: Path, room: str) -> set[Path]:
    """What has to go with a room's file: all that imports it, a feature as a whole, and the room's own smoke tests.

    A feature that keeps its rows in `platform.db`, or says in `platform.http_cache` who may keep what, has nothing to
    do without it, and its table is one that no model has any more.
    """
    found = {root / f"tests/rooms/test_{room}.py"}
    features = root / "src/my_service/features"
    for file in [*root.glob("src/**/*.py"), *root.glob("migrations/*.py"), *root.glob("tests/**/*.py")]:
        if re.search(rf"^from \S*platform\.{re.escape(room)}[. ]", file.read_text(), re.M):
            found |= {file.parent, *root.glob("migrations/versions/*.py")} if features in file.parents else {file}
    return found


def delete(project: Project, folder: Path, room: str) -> Project:
    made = project.variant(folder)
    for path in users(made.root, room):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    unlink(made.root, room)
    return made


def unlink(root: Path, room: str) -> None:
    """Delete the file of a room, or its folder."""
    path = root / PLATFORM / room.replace(".", "/")
    shutil.rmtree(path) if path.is_dir() else path.with_suffix(".py").unlink()


Removal = Callable[[Project, Path, str], Project]
WAYS = pytest.mark.parametrize("remove", [pytest.param(leave_out, marks=pytest.mark.wide), delete])


def stands(service: Service, room: str, example: bool) -> None:
    """What the service owes everybody, whatever room is gone."""
    get = service.client.get
    assert get("/livez").status_code == 200
    ready = get("/readyz")
    assert (ready.status_code, room in ready.json()["parts"]) == (200, False)
    assert get("/docs").status_code == (404 if room == "api_docs" else 200)
    unknown = get("/nowhere")
    assert unknown.status_code == 404
    assert unknown.headers["content-type"] == "application/problem+json"
    if example:
        items = get("/v1/items")
        assert (items.status_code, items.headers["content-type"]) == (200, "application/json")


@pytest.fixture(scope="module")
def project(template: Path, project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service with every room, the optional ones included, on the default one's environment."""
    made = Project(render(template, tmp_path_factory.mktemp("every-room") / "service", cdn="cloudflare"))
    made.venv = project.venv
    return made


@pytest.fixture(scope="module")
def database(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the schema, to be copied."""
    file = tmp_path_factory.mktemp("database") / "service.db"
    project.cli("migrate", env={"DATABASE_URL": f"sqlite:///{file}"}, check=True)
    return file


def works_without(project: Project, database: Path, folder: Path, remove: Removal, room: str) -> None:
    made = remove(project, folder / "service", room)
    shutil.copy(database, folder / "service.db")
    with made.serve(folder / "run", {"DATABASE_URL": f"sqlite:///{folder}/service.db"}) as service:
        stands(service, room, example=(made.root / "src/my_service/features/items").exists())
    if FULL:
        assert " passed" in made.run(str(made.venv / "bin/python"), "-m", "pytest", "-q", "tests/rooms").stdout


@WAYS
@pytest.mark.parametrize("room", REMOVABLE)
def test_a_service_works_without_a_room(
    project: Project, database: Path, tmp_path: Path, remove: Removal, room: str
) -> None:
    works_without(project, database, tmp_path, remove, room)


def created(project: Project) -> str:
    """The last line of creating the application."""
    create = "from my_service import main; main.app(); print('created')"
    done = project.run(str(project.venv / "bin/python"), "-c", create, check=False)
    return (done.stdout + done.stderr).splitlines()[-1]


def test_a_room_that_a_route_uses_cannot_be_left_out(project: Project, tmp_path: Path) -> None:
    without = project.variant(tmp_path / "used", Edit(MAIN, "without=set()", 'without={"db"}'))
    assert created(without) == "configuration refused: the room 'db' cannot be left out: /v1/items uses it"
    assert created(leave_out(project, tmp_path / "unused", "db")) == "created"


@pytest.mark.sabotage
def test_a_service_that_asks_no_route_starts_without_its_database(project: Project, tmp_path: Path) -> None:
    unchecked = Body("features:using", "return []")
    without = project.variant(tmp_path / "used", Edit(MAIN, "without=set()", 'without={"db"}'), unchecked)
    assert created(without) == "created"


def test_there_is_nothing_to_migrate_without_the_database_room(project: Project, tmp_path: Path) -> None:
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/service.db"}
    assert "schema at" in leave_out(project, tmp_path / "unused", "db").cli("migrate", env=env).stdout
    alone = project.variant(tmp_path / "alone")
    unlink(alone.root, "db")
    for service in (alone, delete(project, tmp_path / "gone", "db")):
        done = service.cli("migrate", env=env)
        assert (done.returncode, done.stdout) == (0, "not applicable: this service has no database\n")


def test_the_rooms_that_may_go_are_read_from_the_template() -> None:
    assert {"api_docs", "db", "idempotency"} <= set(REMOVABLE)
    assert set(ROOMS) > REQUIRED


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("remove", "sabotage", "shows"),
    [
        (
            delete,
            Body("__init__:create_app", "from . import api_docs\nreturn original(settings, without=without)"),
            "import name 'api_docs'",
        ),
        (leave_out, Body("__init__:create_app", "return original(settings)"), "assert 200 == "),
    ],
    ids=["a hard import", "without is ignored"],
)
def test_a_platform_that_needs_an_optional_room_fails_the_proof(
    project: Project, database: Path, tmp_path: Path, remove: Removal, sabotage: Body, shows: str
) -> None:
    sick = project.variant(tmp_path / "sick", sabotage)
    with pytest.raises((AssertionError, ServerError), match=shows):
        works_without(sick, database, tmp_path, remove, "api_docs")


TRY = """
import sys
from my_service.platform import PlatformSettings, create_app
for name in sys.argv[1:]:
    try:
        create_app(PlatformSettings(), without={name})
        print("taken", file=sys.stderr)
    except SystemExit as end:
        assert end.code == 78
"""


def test_a_name_that_cannot_be_left_out_is_refused_with_why(project: Project) -> None:
    required = sorted(REQUIRED)
    names = ["api_docs", "api_doc", "zzzz", *required]
    said = project.run(str(project.venv / "bin/python"), "-c", TRY, *names).stderr.splitlines()
    assert [line.removeprefix("configuration refused: ") for line in said] == [
        "taken",
        "there is no room 'api_doc'; did you mean 'api_docs'?",
        "there is no room 'zzzz'",
        *(f"the room {room!r} cannot be left out" for room in required),
    ]


def brought_back(template: Path, folder: Path) -> list[str]:
    """The deleted rooms that are there again after an update to a release in which each of them changed."""
    service = make_service(template, folder, cdn="cloudflare")
    paths = [f"{PLATFORM}/{room.replace('.', '/')}" for room in REMOVABLE]
    files = [path + ".py" * (service / f"{path}.py").exists() for path in paths]
    assert all((service / file).exists() for file in files)
    for room in reversed(REMOVABLE):  # what is in a folder, before the folder
        unlink(service, room)
    commit(service)
    update(service)
    assert (service / f"{PLATFORM}/quota.py").is_file()  # the update did its work
    return [file for file in files if (service / file).exists()]


def test_an_update_does_not_bring_a_deleted_room_back(tmp_path: Path) -> None:
    assert brought_back(release(tmp_path / "template"), tmp_path / "service") == []


@pytest.mark.sabotage
def test_a_room_that_must_exist_would_come_back(tmp_path: Path) -> None:
    sabotage = Edit("copier.yml", "  - uv.toml\n", '  - uv.toml\n  - "src/*/platform/*.py"\n')
    assert brought_back(release(tmp_path / "template", sabotage), tmp_path / "service") != []


def test_a_service_without_any_room_that_may_go_starts(template: Path, project: Project, tmp_path: Path) -> None:
    made = Project(render(template, tmp_path / "service", include_example=False, cdn="cloudflare"))
    made.venv = project.venv
    for room in reversed(REMOVABLE):
        unlink(made.root, room)
    with made.serve(tmp_path / "run") as service:
        assert service.client.get("/readyz").json() == {"status": "ready", "parts": {}}
        assert service.client.get("/docs").status_code == 404
