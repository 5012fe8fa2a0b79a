"""Where errors are reported is said once, checked at the start, and costs nothing where it is nowhere."""

from pathlib import Path

import pytest

from tests.errors.conftest import ERRORS
from tests.projects import Edit, Project

pytestmark = pytest.mark.servers
SECRET = "hunter2s3cret"
LOADED = """
import sys
from my_service import main
app = main.app()
print(any(name.partition(".")[0] == "sentry_sdk" for name in sys.modules), app.state.platform.errors is not None)
"""


def loaded(project: Project, dsn: str) -> str:
    """Whether the SDK was imported, and whether errors are reported."""
    return project.run(str(project.venv / "bin/python"), "-c", LOADED, env={"SENTRY_DSN": dsn}).stdout.strip()


@pytest.mark.parametrize("dsn", ["", "off", " OFF "])
def test_without_a_dsn_nothing_is_imported(project: Project, dsn: str) -> None:
    assert loaded(project, "http://public@127.0.0.1:1/1") == "True True"
    assert loaded(project, dsn) == "False False"


def test_an_import_at_the_top_is_noticed(project: Project, tmp_path: Path) -> None:
    eager = project.variant(
        tmp_path / "eager", Edit(ERRORS, "import structlog\n", "import sentry_sdk\nimport structlog\n")
    )
    assert loaded(eager, "off") == "True False"


MALFORMED = [
    SECRET,
    f"https://{SECRET}",
    f"https://acme.test/{SECRET}",
    f"https://{SECRET}@acme.test",
    f"https://{SECRET}@acme.test/orders",
    f"https://{SECRET}@acme.test:{SECRET}/1",
    f"ftp://{SECRET}@acme.test/1",
    f"https://{SECRET}@/1",
    f"https://{SECRET}@[::1/1",
]


@pytest.mark.parametrize("dsn", MALFORMED)
def test_a_malformed_dsn_is_refused_by_name(project: Project, dsn: str) -> None:
    done = project.cli("serve", env={"PORT": "0", "SENTRY_DSN": dsn})
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert line.startswith("configuration refused: SENTRY_DSN: ")
    assert "type off, or one like https://public-key@host/project-number" in line
    assert SECRET not in done.stdout + done.stderr


def test_a_dsn_that_is_not_checked_fails_later(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Edit(ERRORS, "        AfterValidator(_dsn),\n", ""))
    done = sick.cli("serve", env={"PORT": "0", "SENTRY_DSN": MALFORMED[0]})
    assert done.returncode != 78


def test_settings_do_not_show_the_dsn(project: Project) -> None:
    code = "from my_service.settings import Settings; s = Settings(); print(s, s.model_dump_json(), s.port)"
    env = {"SENTRY_DSN": f"https://{SECRET}@acme.test/1", "PORT": "4711"}
    shown = project.run(str(project.venv / "bin/python"), "-c", code, env=env).stdout
    assert "4711" in shown
    assert SECRET not in shown
