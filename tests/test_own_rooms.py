"""What a user adds has a place of its own, and a name that the platform has as well is one line at the start."""

import json
import re
from pathlib import Path

import pytest

from tests.plant import Feature
from tests.projects import Change, Edit, Project
from tests.sabotage import Body
from tests.servers.process import ServerError, free_port

pytestmark = pytest.mark.servers
PAGE = "docs/rooms.md"
SETTINGS = "src/my_service/settings.py"
ROOM = "src/my_service/rooms/tenants.py"
FIELD = '    """Settings of this service, set by its environment."""\n'


def printed(root: Path) -> dict[str, str]:
    """The files that the page prints, by path."""
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", (root / PAGE).read_text(), re.S)
    assert len(blocks) == 4
    return dict(blocks)


@pytest.fixture(scope="module")
def own(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service with the room of the page. Do not change it: make a `variant`."""
    made = project.variant(tmp_path_factory.mktemp("own") / "service")
    for name, code in printed(made.root).items():
        (made.root / name).parent.mkdir(exist_ok=True)
        (made.root / name).write_text(code)
    return made


def use(project: Project, folder: Path) -> None:
    """One service, in which each hook of the room has its effect, inside those of the platform."""
    scrape = free_port()
    env = {"APP_TENANTS": "acme,shop", "LOG_FORMAT": "json", "OTEL_METRICS_EXPORTER": "prometheus"}
    with project.serve(folder, {**env, "METRICS_PORT": f"{scrape}"}) as service:
        get = service.client.get
        assert [get("/version", headers={"X-Tenant": name}).headers["x-tenant"] for name in ("shop", "evil")] == [
            "shop",
            "unknown",
        ]
        assert get("/readyz").json()["parts"]["rooms.tenants"] == {"ready": True, "evidence": "2 tenants"}
        assert get("/openapi.json").json()["info"]["x-tenants"] == ["acme", "shop"]
        exported = service.client.get(f"http://127.0.0.1:{scrape}/metrics").text
        assert re.search(r'^app_tenant_requests_total\{.*app_tenant="shop".*\} 1\.0$', exported, re.M)
        service.process.stop()
        lines = [json.loads(line) for line in service.log.splitlines()]
    events = [line["event"] for line in lines]
    assert events.index("tenants opened") < events.index("serving") < events.index("tenants closed")
    assert next(line for line in lines if line["event"] == "tenants closed")["requests"] > 3


def test_a_room_that_uses_every_hook_works(own: Project, tmp_path: Path) -> None:
    fields = set(re.findall(r"^    (\w+): ", (own.root / "src/my_service/platform/room.py").read_text(), re.M))
    used = set(re.findall(r"^    (\w+)=\w+,$", (own.root / ROOM).read_text(), re.M))
    assert used == fields - {"dependency", "required"}
    use(own, tmp_path)
    for arguments in (["check", "--no-cache", "src"], ["format", "--check", "src"]):
        own.run(str(own.venv / "bin/ruff"), *arguments)


@pytest.mark.wide
def test_the_room_has_right_types(own: Project, tmp_path: Path) -> None:
    own.run(str(own.venv / "bin/mypy"), f"--cache-dir={tmp_path}", "src/my_service/main.py")


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("__init__:_install", "original(app, {name: rooms[name] for name in rooms if 'rooms.' not in name})"),
        Body("__init__:create_app", "return original(settings, without=without)"),
    ],
    ids=["not installed", "forgotten"],
)
def test_a_room_that_is_left_out_is_noticed(own: Project, tmp_path: Path, sabotage: Change) -> None:
    with pytest.raises((AssertionError, KeyError, ServerError)):
        use(own.variant(tmp_path / "sick", sabotage), tmp_path)


def refused(project: Project, folder: Path, *changes: Change) -> list[str]:
    """What the factory prints before it ends with 78."""
    python = str(project.venv / "bin/python")
    made = project.variant(folder, *changes)
    done = made.run(python, "-c", "from my_service import main; main.app()", check=False)
    assert (done.returncode, done.stdout) == (78, ""), done.stderr
    return done.stderr.splitlines()


ROUTE = """

@router.api_route("{}", methods=["GET", "PUT"])
async def own() -> str:
    return "own"
"""


def feature(*paths: str) -> Feature:
    head = "from fastapi import APIRouter\n\nrouter = APIRouter()\n"
    return Feature("shadow", head + "".join(ROUTE.format(path) for path in paths))


def setting(*fields: str) -> Edit:
    return Edit(SETTINGS, FIELD, "\n    ".join([FIELD, *fields]) + "\n")


DECLARED = "your settings and the platform's declare it differently; name yours APP_"
TAKEN = "the platform has it; give yours another path, for example below /v1"
METRIC = "another room has it; begin the names of yours with app."
ADDED = "    state.metrics.append("
COLLISIONS: dict[str, tuple[list[Change], list[str]]] = {
    # another type, another default, and one in a room
    "settings": (
        [setting('port: str = "8000"', 'host: str = "::"'), Edit(ROOM, "app_tenants: Names", "log_level: Names")],
        [f"HOST: {DECLARED}HOST", f"LOG_LEVEL: {DECLARED}LOG_LEVEL", f"PORT: {DECLARED}PORT"],
    ),
    "routes": (
        [feature("/livez", "/openapi.json", "/problems/{name}", "/version", "/v1/own")],
        [f"route {path}: {TAKEN}" for path in ("/livez", "/openapi.json", "/problems/{}", "/version")],
    ),
    # as the platform spells it, as Prometheus does, one that `telemetry` adds later, and one of another own room
    "metrics": (
        [
            Edit(ROOM, ADDED, f'    state.metrics += [Metric(name, "", "", tenants.read) for name in NAMES]\n{ADDED}'),
            Edit(
                ROOM,
                'log = structlog.get_logger("tenants")\n',
                'log = structlog.get_logger("tenants")\n'
                'NAMES = ["log.lines.dropped", "cache_requests", "process.cpu.time", "app.tenant_requests", "app.x"]\n',
            ),
        ],
        [
            f"metric {name}: {METRIC}"
            for name in ("log.lines.dropped", "cache_requests", "process.cpu.time", "app.tenant.requests")
        ],
    ),
    "settings that were forgotten": (
        [Edit(SETTINGS, "(tenants.Settings, PlatformSettings)", "(PlatformSettings)")],
        ["rooms.tenants: write class Settings(tenants.Settings, PlatformSettings) in settings.py"],
    ),
}


@pytest.mark.parametrize("kind", COLLISIONS)
def test_a_collision_is_one_line(own: Project, tmp_path: Path, kind: str) -> None:
    changes, lines = COLLISIONS[kind]
    assert sorted(refused(own, tmp_path / "sick", *changes)) == sorted(f"configuration refused: {x}" for x in lines)


def test_what_only_looks_like_a_collision_is_taken(own: Project, tmp_path: Path) -> None:
    same = setting("app_port: str = '9000'")
    made = own.variant(
        tmp_path / "own",
        same,
        feature("/{path:path}"),
        Edit("src/my_service/main.py", '"tenants":', '"cache":'),
    )
    with made.serve(tmp_path / "run") as service:
        get = service.client.get
        assert get("/any/thing").json() == "own"
        assert get("/version").json()["name"] == "my-service"
        assert get("/docs").headers["content-type"].startswith("text/html")
        assert get("/docs/assets/swagger-ui.css").headers["content-type"].startswith("text/css")
        assert get("/readyz").json()["parts"].keys() >= {"db", "rooms.cache"}


NONE = "return iter(())"


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("kind", "sabotage"),
    [
        ("settings", Body("collisions:settings", NONE)),
        ("routes", Body("collisions:routes", NONE)),
        ("metrics", Body("collisions:metrics", NONE)),
        ("settings that were forgotten", Body("__init__:_without_settings", NONE)),
    ],
)
def test_a_collision_without_its_check_is_no_line(own: Project, tmp_path: Path, kind: str, sabotage: Change) -> None:
    with pytest.raises(AssertionError):
        refused(own, tmp_path / "sick", *COLLISIONS[kind][0], sabotage)
