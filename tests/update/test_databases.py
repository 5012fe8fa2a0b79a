"""The database switched on or off, while the example stays as it was made: it starts, or says what to change."""

from pathlib import Path

import pytest

from tests.projects import Project, Service, render
from tests.sabotage import Body
from tests.servers.process import free_port
from tests.service.conftest import migrated
from tests.update.test_toggles import toggled
from tests.update.versions import duplicate, make_service

pytestmark = pytest.mark.servers


def on(service: Path, environment: Project) -> Project:
    """A folder as a project that runs on the environment of another one."""
    made = Project(service)
    made.venv = environment.venv
    return made


def create(service: Service) -> list[str]:
    """Create an item twice with one key, and one without: the ids."""
    key = {"Idempotency-Key": "once"}
    posted = [service.client.post("/v1/items", json={"name": "a"}, headers=each) for each in (key, key, {})]
    assert [answer.status_code for answer in posted] == [201, 201, 201], posted[0].text
    return [answer.json()["id"] for answer in posted]


@pytest.fixture(scope="module")
def later(releases: Path, project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service that was made without a database, and has one now. Do not change it: make a `variant`."""
    folder = tmp_path_factory.mktemp("later") / "service"
    return on(toggled(make_service(releases, folder, database="none"), database="postgresql"), project)


def creates(project: Project, folder: Path) -> None:
    with project.serve(folder, migrated(project, f"sqlite:///{folder}.db")) as service:
        first, again, other = create(service)
        assert first == again != other


def test_a_database_that_is_added_later_needs_nothing_of_the_example(later: Project, tmp_path: Path) -> None:
    creates(later, tmp_path / "run")


@pytest.mark.sabotage
def test_keys_that_need_a_transaction_of_the_example_are_noticed(later: Project, tmp_path: Path) -> None:
    need = Body(
        "idempotency:Keys.once", "session.begin_nested\nreturn await original(session, scope, key, request, make)"
    )
    with pytest.raises(AssertionError):
        creates(later.variant(tmp_path / "sick", need), tmp_path / "run")


@pytest.mark.wide
def test_a_database_that_is_taken_away_is_one_line_and_the_page_says_what_to_do(
    first: Path, template: Path, bare_project: Project, tmp_path: Path
) -> None:
    service = on(duplicate(first, tmp_path / "service"), bare_project)
    toggled(service.root, database="none")
    done = service.cli("serve", env={"PORT": f"{free_port()}"})
    line = "features/items imports sqlalchemy, which is absent; see docs/rooms.md"
    assert (done.returncode, done.stderr) == (78, f"configuration refused: {line}\n")
    page = (service.root / "docs/rooms.md").read_text()
    fresh = render(template, tmp_path / "fresh", database="none")
    for command in ("cp ../fresh/", "rm -r migrations/versions"):
        (typed,) = [text.strip() for text in page.splitlines() if text.strip().startswith(command)]
        service.run(*typed.replace("../fresh", str(fresh)).split())
    with service.serve(tmp_path / "run") as served:
        created, again, other = create(served)
        assert created == again != other
