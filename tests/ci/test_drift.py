"""The weekly job `drift` compares the service with its answers: edited files are listed, an edited answer is red."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ci.repository import Repository
from tests.projects import Change, Edit, Project, export
from tests.servers.act import Run
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.update.versions import commit

pytestmark = pytest.mark.servers
ANSWERS = ".copier-answers.yml"
TAG = "v0.1.0"


@pytest.fixture(scope="module")
def made(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The service as a release in a git repository emits it: that is what its answers say."""
    folder = tmp_path_factory.mktemp("drift")
    (folder / "template").mkdir()
    export(folder / "template")
    commit(folder / "template", TAG)
    service = project.variant(folder / "service")
    file = service.root / ANSWERS
    answers: dict[str, Any] = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**answers, "_src_path": str(folder / "template"), "_commit": TAG}))
    return service


@pytest.fixture
def drift(made: Project, postgres: Postgres, shared_redis: Redis, tmp_path: Path) -> Any:
    """Run the job on a service with changes."""

    def drifted(*changes: Change) -> Run:
        return Repository(made, tmp_path, postgres, shared_redis, changes).run(
            "drift",
            "scheduled",
            workflow="scheduled.yml",
            event="schedule",
            payload={"schedule": "41 4 * * 1"},
            variables={"TEMPLATE_DRIFT": "true"},
        )

    return drifted


def test_edited_files_are_listed(drift: Any) -> None:
    done = drift(Edit("Makefile", "\n", "\n# ours\n"))
    assert done.of("success") == {"drift", "scheduled"}, done.said
    assert "Changed by you:\n  Makefile\n\nthe files agree with the answers, as of v0.1.0\n" in done.logs["drift"]


@pytest.mark.sabotage
def test_an_edited_answer_turns_it_red(drift: Any) -> None:
    done = drift(Edit(ANSWERS, "cache: redis", "cache: memcached"))
    assert done.of("failure") == {"drift", "scheduled"}, done.said
    assert "set back cache to redis" in done.logs["drift"], done.said
