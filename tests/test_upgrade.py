"""`make upgrade` and `uv.toml`: the date moves before uv resolves, and an old uv is refused in one line."""

import datetime
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.projects import Edit, Project, render

LATE = "2999-01-01"
OLD = Edit("uv.toml", 'exclude-newer = "2026', 'exclude-newer = "2020')
# What `make upgrade` was: it needs what the old date hides.
RESOLVES_FIRST = Edit("Makefile", "$(UV) run --quiet --no-project scripts", "$(RUN) python scripts")


@pytest.fixture
def service(template: Path, tmp_path: Path) -> Project:
    """A service that is not yet installed."""
    return Project(render(template, tmp_path / "service"))


def settings(service: Project) -> dict[str, str]:
    return tomllib.loads((service.root / "uv.toml").read_text())


def upgraded(service: Project, before: str) -> str:
    """The date that the script writes."""
    (service.root / "uv.toml").write_text(f'exclude-newer = "{before}T00:00:00Z"\n')
    service.run("uv", "run", "--no-project", "scripts/upgrade.py")
    return settings(service)["exclude-newer"]


def test_upgrade_moves_the_date_only_forward_and_never_before_what_the_bounds_need(service: Project) -> None:
    tested = settings(service)["exclude-newer"]  # as emitted
    week_ago = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=7)
    assert upgraded(service, "2020-01-01") == max(f"{week_ago}T00:00:00Z", tested)
    assert upgraded(service, LATE) == f"{LATE}T00:00:00Z"
    Edit("scripts/upgrade.py", f'TESTED = "{tested[:10]}"', f'TESTED = "{LATE}"').apply(service.root)
    assert upgraded(service, "2020-01-01") == f"{LATE}T00:00:00Z"  # the bounds are younger than a week


@pytest.mark.wide
def test_make_upgrade_works_with_a_date_that_is_older_than_the_bounds_need(service: Project) -> None:
    OLD.apply(service.root)
    done = service.run("make", "setup", check=False)
    assert done.returncode == 2
    assert "No solution found when resolving dependencies" in done.stderr
    service.run("make", "upgrade")
    assert (service.venv / "bin" / "my-service").is_file()


@pytest.mark.sabotage
def test_a_make_upgrade_that_resolves_first_would_fail(service: Project) -> None:
    for edit in (OLD, RESOLVES_FIRST):
        edit.apply(service.root)
    done = service.run("make", "upgrade", check=False)
    assert done.returncode == 2
    assert "No solution found when resolving dependencies" in done.stderr


def make(service: Project, version: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make` with another release of uv, which uv gets from the package index."""
    return service.run("make", f"UV=uv tool run --quiet --from uv=={version} uv", *arguments, check=False)


@pytest.mark.wide
def test_an_older_uv_is_refused_in_one_line_and_the_oldest_allowed_resolves(service: Project) -> None:
    oldest = settings(service)["required-version"].removeprefix(">=")
    done = make(service, "0.5.31", "setup")
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert said == [f"error: Required uv version `>={oldest}` does not match the running version `0.5.31`"]
    done = make(service, f"{oldest}.0", "setup")
    assert (done.returncode, done.stderr) == (0, "")
    assert (service.venv / "bin" / "my-service").is_file()
