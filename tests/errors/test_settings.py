"""Where errors are reported is said once, checked at the start, and costs nothing where it is nowhere."""

from pathlib import Path

import pytest

from tests.projects import Project
from tests.sabotage import Body, Value

pytestmark = pytest.mark.servers
SECRET = "hunter2s3cret"
LOADED = """
import sys
from my_service import main
app = main.app()
print(any(name.partition(".")[0] == "sentry_sdk" for name in sys.modules), app.state.platform.report is not None)
"""


def loaded(project: Project, dsn: str) -> str:
    """Whether the SDK was imported, and whether errors are reported."""
    return project.run(str(project.venv / "bin/python"), "-c", LOADED, env={"SENTRY_DSN": dsn}).stdout.strip()


def test_without_a_dsn_nothing_is_imported(project: Project) -> None:
    assert loaded(project, "http://public@127.0.0.1:1/1") == "True True"
    for dsn in ("", " OFF "):
        assert loaded(project, dsn) == "False False"


@pytest.mark.sabotage
def test_an_import_at_the_top_is_noticed(project: Project, tmp_path: Path) -> None:
    eager = project.variant(tmp_path / "eager", Value("errors:MAX_REPORTS_PER_KIND", '__import__("sentry_sdk") and 10'))
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


# As `serve` does, for one after the other.
LOAD = """
import os, sys
from my_service.platform.settings import load
from my_service.settings import Settings

for dsn in sys.argv[1:]:
    os.environ["SENTRY_DSN"] = dsn
    try:
        load(Settings)
        print("taken", file=sys.stderr)
    except SystemExit as end:
        assert end.code == 78
"""


def refusals(project: Project) -> list[str]:
    """What is said of each malformed DSN."""
    done = project.run(str(project.venv / "bin/python"), "-c", LOAD, *MALFORMED)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_malformed_dsn_is_refused_by_name(project: Project) -> None:
    done = project.cli("serve", env={"PORT": "0", "SENTRY_DSN": MALFORMED[0]})
    assert (done.returncode, SECRET in done.stdout) == (78, False)
    told = refusals(project)
    assert len(told) == len(MALFORMED)
    for line in (*done.stderr.splitlines(), *told):
        assert line.startswith("configuration refused: SENTRY_DSN: ")
        assert "type off, or one like https://public-key@host/project-number" in line
        assert SECRET not in line


@pytest.mark.sabotage
def test_a_dsn_that_is_not_checked_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Body("errors:_dsn", "return value"))
    assert refusals(sick) == ["taken"] * len(MALFORMED)


def test_settings_do_not_show_the_dsn(project: Project) -> None:
    code = "from my_service.settings import Settings; s = Settings(); print(s, s.model_dump_json(), s.port)"
    env = {"SENTRY_DSN": f"https://{SECRET}@acme.test/1", "PORT": "4711"}
    shown = project.run(str(project.venv / "bin/python"), "-c", code, env=env).stdout
    assert "4711" in shown
    assert SECRET not in shown
