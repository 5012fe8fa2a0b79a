"""Secrets that were planted at the source are searched for in everything that the process emits."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.errors.test_faults import answering
from tests.plant import Feature
from tests.projects import Project
from tests.sabotage import Body, Sabotage, Value, package
from tests.secrets.conftest import ITEMS, SECRET, Side, deploy
from tests.servers.otlp import Collector
from tests.servers.vault import Space
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
OWN = """

class Settings(Settings):
    api_key: SecretStr = SecretStr("")
"""


@dataclass(frozen=True)
class Setting:
    """A secret setting of the service's own."""

    def apply(self, root: Path) -> None:
        file = package(root) / "settings.py"
        file.write_text(f"from pydantic import SecretStr\n{file.read_text()}{OWN}")


# Shows what a careless feature could show: all that is reachable, as text.
CARELESS = '''"""Careless."""

import structlog
from fastapi import APIRouter, Request

router = APIRouter(prefix="/careless")


@router.get("/shown")
async def shown(request: Request) -> dict[str, str]:
    state = request.app.state.platform
    backend = state.secrets.backend
    found = {"settings": state.settings, "state": state, "store": state.secrets, "backend": backend}
    structlog.get_logger("careless").info("harmless", **found, snapshot=repr(backend.read()))
    return {name: f"{value} {value!r}" for name, value in found.items()} | {"snapshot": f"{backend.read()!r}"}


@router.get("/raised")
async def raised(request: Request) -> None:
    state = request.app.state.platform
    local = state.settings.api_key.get_secret_value()
    token = state.secrets.backend.client.token
    raise RuntimeError(f"harmless {state.settings.database_url.get_secret_value()} {token}")
    print(local)
'''


@pytest.fixture(scope="module")
def careless(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("careless") / "service"
    return project.variant(folder, Setting(), Feature("careless", CARELESS))


@pytest.fixture
def side(vault: Space, project: Project, tmp_path: Path) -> Side:
    return deploy(vault, project, tmp_path)


def emitted(project: Project, side: Side, database: str, folder: Path, collector: Collector) -> dict[str, str]:
    """Everything that leaves the process, by where it leaves, after a look that something does."""
    url = database.replace("//postgres@", f"//postgres:{SECRET}-url@", 1)
    with answering(200) as sentry:
        dsn = sentry.dsn.replace("public", f"{SECRET}-dsn")
        side.write(database_url=url, api_key=f"{SECRET}-key", sentry_dsn=dsn)
        env = {
            **side.env,
            "ENVIRONMENT": "staging",
            "EXPOSE_DOCS": "true",
            "LOG_LEVEL": "DEBUG",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "SHUTDOWN_DRAIN_SECONDS": "0",
        }
        migrated(project, database)
        with project.serve(folder / "run", env, anew=True) as service:
            assert service.client.get(ITEMS).status_code == 200
            assert service.client.get("/careless/raised").status_code == 500
            paths = ("/careless/shown", "/docs", "/openapi.json", "/readyz", "/version")
            answers = {path: service.client.get(path) for path in paths}
            assert [answer.status_code for answer in answers.values()] == [200] * 5
            proc = Path(f"/proc/{service.process.pid}")
            found = {name: (proc / name).read_text(errors="replace") for name in ("cmdline", "comm", "environ")}
            found |= {path: answer.text for path, answer in answers.items()}
            collector.wait_until(lambda: any("harmless" in str(line) for line in collector.lines))
            collector.wait_until(lambda: any(span.name == "GET /careless/raised" for span in collector.spans))
        found["log"] = service.log
        found["spans"] = str(collector.spans)
        found["lines"] = str(collector.lines)
        found["metrics"] = str(list(collector.points.values()))
        found["reports"] = b"".join(sentry.bodies).decode()
    assert [name for name in ("log", "spans", "lines", "reports") if "harmless" not in found[name]] == []
    assert "Settings(" in found["/careless/shown"]
    return found


def leaks(found: dict[str, str], side: Side) -> set[str]:
    """Where a secret, the secret id or a token came out."""
    hidden = [SECRET, side.handed_out, *side.vault.tokens()]
    return {name for name, text in found.items() if any(each in text for each in hidden)}


def test_nothing_of_a_secret_leaves_the_process(
    careless: Project, side: Side, database_url: str, tmp_path: Path, collector: Collector
) -> None:
    found = emitted(careless, side, database_url, tmp_path, collector)
    assert len(found) == 13
    assert leaks(found, side) == set()


SHOWS = "return value if isinstance(value, (dict, list, str)) else str(value)"


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "where"),
    [
        (Value("secrets:Snapshot.values", "field()"), {"/careless/shown"}),
        (Body("redaction:redact", SHOWS), {"log", "spans", "lines", "reports"}),
    ],
    ids=["snapshot", "redaction"],
)
def test_a_sabotaged_process_leaks_exactly_there(
    careless: Project,
    side: Side,
    database_url: str,
    tmp_path: Path,
    collector: Collector,
    sabotage: Sabotage,
    where: set[str],
) -> None:
    sick = careless.variant(tmp_path / "sick", sabotage)
    assert leaks(emitted(sick, side, database_url, tmp_path, collector), side) == where


# --- what is said before there is a log -----------------------------------------------------------------------------

REFUSED = """
import os, pathlib, traceback
from pydantic import ValidationError
from my_service.settings import Settings
try:
    Settings(**{file.name: file.read_text() for file in pathlib.Path(os.environ["SECRETS_DIR"]).iterdir()})
except ValidationError as error:
    print(error, repr(error), error.errors(), error.json(), error.__context__, error.__cause__)
    traceback.print_exc()
"""
CRASH = Body("main:app", "loaded = load(Settings)\n1 / 0\nreturn create_app(loaded)")


def said(project: Project, folder: Path, *changes: Sabotage) -> dict[str, str]:
    """What validation errors and a crash at the start show of secrets that are in files."""
    made = project.variant(folder / "made", *changes)
    wrong, right = folder / "wrong", folder / "right"
    for each, files in {
        wrong: {"port": SECRET, "log_level": SECRET},
        right: {"sentry_dsn": f"http://{SECRET}@a/1"},
    }.items():
        each.mkdir()
        for name, text in files.items():
            (each / name).write_text(text)
    env = {"SECRETS_BACKEND": "files", "SECRETS_DIR": str(wrong), "PORT": ""}
    python = str(made.venv / "bin/python")
    by_hand, by_load = made.run(python, "-c", REFUSED, env=env), made.cli("serve", env=env)
    crashed = made.variant(folder / "crashed", CRASH).cli("serve", env={**env, "SECRETS_DIR": str(right)})
    assert by_load.returncode == 78
    assert "configuration refused: PORT: Input should be a valid integer" in by_load.stderr
    assert "int_parsing" in by_hand.stdout
    assert "ZeroDivisionError" in crashed.stderr
    return {
        "errors": by_hand.stdout + by_hand.stderr,
        "load": by_load.stdout + by_load.stderr,
        "crash": crashed.stdout + crashed.stderr,
    }


def test_validation_errors_and_a_crash_show_no_value(project: Project, tmp_path: Path) -> None:
    assert [name for name, text in said(project, tmp_path).items() if SECRET in text] == []


@pytest.mark.sabotage
def test_errors_as_pydantic_makes_them_would(project: Project, tmp_path: Path) -> None:
    kept = Body("settings:RoomSettings.__init__", "super().__init__(**values)")
    assert [name for name, text in said(project, tmp_path, kept).items() if SECRET in text] == ["errors"]
