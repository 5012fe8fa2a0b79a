"""Secrets are settings: by their usual names, for every command, below what the environment says."""

import sqlite3
import time
from pathlib import Path

import pytest

from tests.projects import Change, Edit, Project, Service
from tests.sabotage import Body, Value
from tests.secrets.conftest import deploy
from tests.servers.vault import Space
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
SHOW = """
import sys
from my_service import main
app = main.app()
settings, secrets = app.state.platform.settings, app.state.platform.secrets
print(settings.log_level, settings.shutdown_drain_seconds, settings.database_url.get_secret_value())
print("hvac" in sys.modules, secrets is None, sorted(getattr(secrets, "values", {})))
"""


def written(folder: Path, **files: str) -> dict[str, str]:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return {"SECRETS_BACKEND": "files", "SECRETS_DIR": str(folder)}


def shown(project: Project, **env: str) -> list[str]:
    return project.run(str(project.venv / "bin/python"), "-c", SHOW, env=env).stdout.splitlines()


def test_what_is_said_nearer_wins(project: Project, tmp_path: Path) -> None:
    """Variables, then `.env`, then the backend; an empty variable says nothing."""
    own = project.variant(tmp_path / "own")
    (own.root / ".env").write_text("SHUTDOWN_DRAIN_SECONDS=2\n")
    env = written(tmp_path / "s", LOG_LEVEL="ERROR\n", shutdown_drain_seconds="9", database_url="sqlite:///./kept.db")
    assert shown(own, **env, DATABASE_URL="")[0] == "ERROR 2.0 sqlite:///./kept.db"
    assert shown(own, **env, LOG_LEVEL="debug")[0] == "DEBUG 2.0 sqlite:///./kept.db"


@pytest.mark.sabotage
def test_a_backend_that_wins_over_the_environment_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(
        tmp_path / "sick",
        Body(
            "settings:RoomSettings.given",
            'return {"secrets_backend": "files"} | {"secrets_dir": __import__("os").environ["SECRETS_DIR"]}',
        ),
    )
    done = sick.run(
        str(sick.venv / "bin/python"),
        "-c",
        SHOW,
        env=written(tmp_path / "s", log_level="ERROR") | {"LOG_LEVEL": "debug"},
        check=False,
    )
    assert not done.stdout.startswith("DEBUG")


IMPORT = """
from my_service import main
from my_service.settings import Settings
Settings()
print("imported")
"""


def test_an_import_asks_nobody(project: Project, vault: Space, tmp_path: Path) -> None:
    side = deploy(vault, project, tmp_path)
    side.write(log_level="ERROR")
    python, before = str(project.venv / "bin/python"), vault.asked("")
    assert project.run(python, "-c", IMPORT, env=side.env).stdout == "imported\n"
    assert vault.asked("") == before
    assert shown(project, **side.env)[0].startswith("ERROR ")
    assert vault.asked("") > before


@pytest.mark.sabotage
def test_an_import_that_reads_secrets_is_noticed(project: Project, vault: Space, tmp_path: Path) -> None:
    side = deploy(vault, project, tmp_path)
    side.write(log_level="ERROR")
    before = vault.asked("")
    early = Edit("src/my_service/main.py", "def app()", "create_app(load(Settings))\n\n\ndef app()")
    sick = project.variant(tmp_path / "sick", early)
    assert sick.run(str(sick.venv / "bin/python"), "-c", IMPORT, env=side.env).stdout == "imported\n"
    assert vault.asked("") > before


def test_by_default_nothing_of_it_is_imported(project: Project, vault: Space, tmp_path: Path) -> None:
    assert shown(project)[1] == "False False []"
    side = deploy(vault, project, tmp_path)
    side.write(log_level="ERROR")
    assert shown(project, **side.env)[1] == "True False ['log_level']"
    without = project.variant(
        tmp_path / "without", Body("main:app", 'return create_app(load(Settings), without={"secrets"})')
    )
    assert shown(without)[1] == "False True []"


def test_migrate_finds_its_database_there(project: Project, tmp_path: Path) -> None:
    env = written(tmp_path / "s", database_url=f"sqlite:///{tmp_path}/kept.db")
    assert project.cli("migrate", env=env, check=True).stdout.startswith("schema at")
    with sqlite3.connect(tmp_path / "kept.db") as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (0,)


def slowest(service: Service) -> float:
    """Milliseconds of the slowest of many requests within two seconds."""
    worst, end = 0.0, time.monotonic() + 2
    while time.monotonic() < end:
        begun = time.monotonic()
        assert service.client.get("/v1/items").status_code == 200
        worst = max(worst, time.monotonic() - begun)
        time.sleep(0.01)
    return worst * 1000


def delay(project: Project, vault: Space, folder: Path, *changes: Change) -> float:
    """By how much a Vault that is asked all the time and takes five seconds makes the slowest request slower."""
    side = deploy(vault, project, folder)
    side.write(log_level="WARNING", database_url=f"sqlite:///{folder}/x.db")
    migrated(project, f"sqlite:///{folder}/x.db")
    often = (Value("secrets:POLL_SECONDS", "0.1"), Value("secrets:TIMEOUT", "(2, 30)"))
    with project.variant(folder / "made", *often, *changes).serve(folder / "run", side.env) as service:
        service.client.get("/v1/items")  # the first one connects
        usual = min(slowest(service), slowest(service))
        vault.network.delay = 5.0
        time.sleep(0.5)
        worst = min(slowest(service), slowest(service))  # neighbours may delay one; Vault is slow in both
        vault.network.stop()
    print(f"\nslowest request: {usual:.1f} ms, beside a Vault that takes 5 s {worst:.1f} ms")
    return worst - usual


@pytest.mark.timing
def test_a_slow_vault_delays_no_request(project: Project, vault: Space, tmp_path: Path) -> None:
    assert delay(project, vault, tmp_path) < 50
    assert vault.asked("metadata") > 10


@pytest.mark.sabotage
@pytest.mark.timing
def test_a_vault_that_is_asked_on_the_event_loop_would(project: Project, vault: Space, tmp_path: Path) -> None:
    assert delay(project, vault, tmp_path, Body("threads:in_thread", "return call()")) > 2000
