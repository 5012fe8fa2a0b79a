"""The emitted CI runs for real, on real servers: green as emitted, and each fault turns its own job red."""

import os
import shlex
from pathlib import Path

import pytest

from tests.ci.conftest import Commit
from tests.plant import Feature, Revision
from tests.projects import Change, Edit
from tests.proof import FULL
from tests.servers.engine import Engine, open_engine
from tests.servers.process import free_port

pytestmark = pytest.mark.servers
GATES = {"lint", "types", "migrations", "test", "contract"}
# Fewer attacks by `make contract`: what they find is proven with all of them in tests/service.
BRIEF = {} if FULL else {"ARGS": "--max-examples=3"}
CHEAP = {"lint", "types"}
UNSAFE = """
op.create_index("ix_items_name", "items", ["name"])
"""
# Right for each value that its own test would try.
CRASHES = Feature(
    "shares",
    '''"""Shares."""

from fastapi import APIRouter

router = APIRouter()


@router.get("/v1/shares")
async def share(parts: int) -> float:
    """What each of some parts is."""
    return 1 / parts
''',
)
SERVICE = "src/my_service/features/items/service.py"
MUTATIONS: dict[str, tuple[str, tuple[Change, ...], str]] = {
    "a lint error": ("lint", (Edit(SERVICE, "\n\n", "\n\nimport os\n"),), "F401"),
    "a type error": ("types", (Edit(SERVICE, "items = found", "items: list[str] = found"),), "list[str]"),
    "a failing test": ("test", (Edit(SERVICE, "found[:limit]", "found[:1]"),), "test_pages_follow"),
    "a second head": ("migrations", (Revision("pass", "a"), Revision("pass", "b")), "versions has two heads"),
    "an unsafe migration": ("migrations", (Revision(UNSAFE),), "require-concurrent-index-creation"),
    "a breaking change of the API": (
        "contract",
        (Edit("src/my_service/features/items/routes.py", "le=100", "le=50"),),
        "GET /v1/items, query limit: maximum was 100, is 50",
    ),
    "a 500 in an endpoint": ("contract", (CRASHES,), "Server error"),
}


@pytest.mark.timeout(600)  # six jobs that each install the service
def test_it_is_green_in_a_fresh_repository(commit: Commit) -> None:
    done = commit().run(*GATES, "required", env=BRIEF)
    assert done.of("success") == GATES | {"required"}, done.said
    assert all("asked for Python 3.14" in done.logs[job] for job in GATES)


@pytest.mark.wide
def test_the_first_push_is_green_with_nothing_to_compare_and_with_everything_configured(commit: Commit) -> None:
    configured = {name: "something" for name in ("BACKUP_URL", "CODE_SECURITY", "STAGING_URL")}
    repository = commit(first=True)
    done = repository.run("contract", "required", event="push", env=BRIEF, secrets=configured, variables=configured)
    assert done.of("success") == {"contract", "required"}, done.said
    assert "asked for Python 3.14" in done.logs["contract"]
    assert "nothing to compare with" in done.logs["contract"], done.said


@pytest.mark.sabotage
@pytest.mark.parametrize(("job", "changes", "says"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_fault_turns_its_own_job_red(commit: Commit, job: str, changes: tuple[Change, ...], says: str) -> None:
    jobs = GATES if FULL else CHEAP | {job}
    done = commit(*changes).run(*jobs, "required", env=BRIEF)
    assert done.of("failure") == {job, "required"}, done.said
    assert says in done.logs[job], done.said
    assert done.of("skipped") <= {"test", "contract"}  # after migrations that failed


@pytest.mark.wide
def test_the_image_job_is_green(commit: Commit, tmp_path: Path) -> None:
    if not (engine := open_engine()):
        pytest.skip("building an image needs root, or a Docker that answers")
    with engine:
        path = f"{docker(engine, tmp_path)}{os.pathsep}{os.environ['PATH']}"
        done = commit().run("image", env={"PATH": path, "port": str(free_port())})
    assert done.of("success") == {"image"}, done.said


def docker(engine: Engine, folder: Path) -> Path:
    """A folder with the command `docker`, as the runner of GitHub has it: it is the kit's engine."""
    within = shlex.join(engine.within(Path("/HERE"))).replace("/HERE", '"$PWD"')
    build = shlex.join([*engine.building, "build", *engine.build_options])
    confined = [option for option in engine.run_options if option != "--network=host"]  # which is given
    run = shlex.join([*engine.running, "run", *confined])
    lines = [
        "#!/bin/sh",
        "verb=$1; shift",
        'case "$verb" in',
        f'build) exec {within} {build} "$@";;',
        f'run) exec {within} {run} "$@";;',
        f'*) exec {within} {shlex.join(engine.running)} "$verb" "$@";;',
        "esac",
    ]
    home = folder / "bin"
    home.mkdir()
    (home / "docker").write_text("\n".join(lines))
    (home / "docker").chmod(0o755)
    return home
