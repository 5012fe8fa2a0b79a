"""The whole shape of compose.yaml on this machine: its servers, scripts and instances, behind the balancer."""

import re
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from tests.compose import servers
from tests.compose.native import FILE, Native, graph, order
from tests.projects import ROOT, Project, render
from tests.readiness.conftest import KEY, Found, Prober
from tests.sabotage import Line
from tests.servers import packages
from tests.servers.otlp import open_collector
from tests.servers.postgres import Postgres
from tests.servers.process import free_port
from tests.servers.server import Server

pytestmark = pytest.mark.servers
START_SECONDS = 60.0  # until a server is healthy
# Answers whose dependencies the default project has.
OTHER = {"load_balancer": "haproxy", "error_monitoring": "none", "secrets_manager": "none"}
# Who plays each service here, in the words of the table in docs/how-to/compose.md.
PLAYERS = {
    "backup": "the service's own command",
    "balancer": "NGINX or HAProxy",
    "cache": "Valkey or Memcached",
    "certificate": "its own script",
    "database": "PostgreSQL",
    "errors": "Bugsink",
    "errors-setup": "Bugsink's own command",
    "migrate": "the service's own command",
    "s3": "SeaweedFS",
    "service-1": "the service's own command",
    "service-2": "the service's own command",
    "telemetry": "a receiver of the tests",
    "vault": "OpenBao",
    "vault-setup": "its own script",
}
LONG: Mapping[str, Callable[[Native], Server]] = {
    "balancer": servers.Balancer,
    "cache": servers.cache,
    "errors": servers.Tracker,
    "s3": servers.s3,
    "service-1": lambda native: servers.Instance(native, "service-1"),
    "service-2": lambda native: servers.Instance(native, "service-2"),
    "vault": servers.vault,
}


@dataclass
class Shape:
    """What runs; `running` are its servers by their name."""

    native: Native
    running: dict[str, Server] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.native.ports['balancer']}"

    @property
    def authority(self) -> str:
        """The file with the certificate."""
        return str(self.native.folder / "volumes/tls/local.pem")

    @property
    def postgres(self) -> Postgres:
        found = self.running["database"]
        assert isinstance(found, Postgres)
        return found

    @property
    def tracker(self) -> servers.Tracker:
        found = self.running["errors"]
        assert isinstance(found, servers.Tracker)
        return found

    def healthy(self, name: str) -> bool:
        """Whether the health check of a service succeeds."""
        pg_isready = self.postgres.programs() / "pg_isready" if name == "database" else ""
        programs = {"bao": self.native.folder / "bin/bao", "pg_isready": pg_isready, "python": sys.executable}
        return self.native.healthy(name, {**programs, "wget": packages.ensure("wget", "wget")})

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client of the balancer."""
        context = ssl.create_default_context(cafile=self.authority)
        with httpx.Client(base_url=self.url, verify=context, trust_env=False, timeout=10) as client:
            yield client


@contextmanager
def up(project: Project, folder: Path) -> Iterator[Shape]:
    """Start everything in the order of the file: each service when those that it waits for are done or serve."""
    native = Native(project, folder, variables=KEY)
    shape = Shape(native)
    with ExitStack() as opened:
        collector = opened.enter_context(open_collector())
        native.ports["telemetry"] = collector.port
        waits = graph(native.services)
        for name in order(waits):
            if name == "database":
                shape.running[name] = opened.enter_context(servers.database(native))
            elif name in LONG:
                shape.running[name] = opened.enter_context(LONG[name](native))
            elif name in ("certificate", "vault-setup"):
                servers.script(native, name)
            elif name == "errors-setup":
                shape.tracker.manage(*native.words(name)[1:])
            elif name == "migrate":
                assert "schema at" in servers.one_shot(native, name)
            else:
                assert name in ("backup", "telemetry")
            if any(each.get(name) == "service_healthy" for each in waits.values()):
                shape.running[name].process.wait_until(partial(shape.healthy, name), START_SECONDS)
        yield shape


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def shape(
    request: pytest.FixtureRequest, project: Project, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shape]:
    """Default answers, and others."""
    chosen = project
    if request.param != "nginx":
        chosen = Project(render(template, tmp_path_factory.mktemp("other") / "service", **OTHER))
        chosen.venv = project.venv
    with up(chosen, tmp_path_factory.mktemp("native")) as running:
        yield running


def look(shape: Shape, folder: Path, *areas: str, **env: str) -> Found:
    """Run `ready` on the address of the balancer, with the stores of the shape."""
    prober = Prober(shape.native.project.variant(folder / "prober"))
    prober.far_end("traces", f"http://127.0.0.1:{shape.native.ports['telemetry']}")
    if "errors" in shape.running:
        tracker = f"http://{shape.running['errors'].address}/api/canonical/0/issues/?project=1"
        prober.far_end("tracker", tracker, "TRACKER_TOKEN")
    chosen = [word for area in areas for word in ("--area", area)]
    return prober.look(shape.url, *chosen, "--yes", SSL_CERT_FILE=shape.authority, **env)


def test_an_item_goes_through_the_balancer_into_the_database_and_the_cache(shape: Shape) -> None:
    with shape.client() as client:
        created = client.post("/v1/items", json={"name": "kettle"})
        assert created.status_code == 201, created.text
        item = created.json()["id"]
        assert client.get(f"/v1/items/{item}").json()["name"] == "kettle"
        with psycopg.connect(shape.postgres.url("my_service")) as admin:
            assert admin.execute("SELECT name FROM items").fetchall() == [("kettle",)]
        assert redis.Redis(port=shape.native.ports["cache"]).dbsize()
        assert client.delete(f"/v1/items/{item}").status_code == 204


def test_both_instances_serve_in_production_and_nothing_can_be_forged(shape: Shape, tmp_path: Path) -> None:
    found = look(shape, tmp_path, "scaling", "security")
    assert found.report["service"]["environment"] == "production"
    assert found.outcome("scaling.balanced")["seen"] == "8 requests were served by 2 instances"
    assert found.red == {"security.scanned"}  # no forge is named
    assert {each for each, status in found.statuses.items() if status == "proven"} >= {
        "scaling.balanced",
        "scaling.clients",
        "scaling.ready",
        "scaling.request_ids",
        "scaling.serves",
        "scaling.tls",
        "security.hosts",
        "security.transport",
    }


def test_an_error_arrives_in_the_tracker_if_there_is_one(shape: Shape, tmp_path: Path) -> None:
    if "errors" not in shape.running:
        assert "SENTRY_DSN" not in shape.native.env("service-1")
        return
    token = shape.tracker.manage("create_auth_token").split()[-1]
    found = look(shape, tmp_path, "errors", TRACKER_TOKEN=token)
    assert found.outcome("errors.tracked")["status"] == "proven", found.outcome("errors.tracked")


def test_the_password_of_the_database_comes_from_the_vault(shape: Shape) -> None:
    names = shape.native.env("service-1").keys()
    assert ("DATABASE_URL" in names) != ("vault" in shape.native.services)


def test_a_backup_goes_to_the_s3_server(shape: Shape) -> None:
    assert " tables, " in servers.one_shot(shape.native, "backup")
    listed = servers.one_shot(shape.native, "backup", "backup", "list", "--json")
    assert len(re.findall('"id"', listed)) == 1, listed


def test_each_health_check_tells_a_server_that_is_there_from_one_that_is_not(shape: Shape) -> None:
    checked = [name for name, each in shape.native.services.items() if "test" in each.get("healthcheck", {})]
    assert {"database", "s3", "service-1", "service-2"} <= set(checked)
    assert [name for name in checked if not shape.healthy(name)] == []
    ports = dict(shape.native.ports)
    try:
        shape.native.ports |= {name: free_port() for name in checked}
        assert [name for name in checked if shape.healthy(name)] == []
    finally:
        shape.native.ports |= ports


def test_the_table_says_what_runs_here_and_what_does_not(project: Project) -> None:
    page = (ROOT / "docs/how-to/compose.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([^|]+?) \| ([^|]+?) \|$", page, re.M)
    assert {name: player for name, player, _ in rows} == PLAYERS
    assert PLAYERS.keys() == Native(project, project.root).services.keys()


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "said"),
    [
        (Line(FILE, "TRUSTED_HOSTS: localhost,127.0.0.1"), "TRUSTED_HOSTS: required in production"),
        (Line(FILE, "CACHE_URL: redis://cache:6379/0", "CACHE_URL: memory://"), "CACHE_URL: not allowed"),
    ],
)
def test_settings_that_production_refuses_are_noticed(
    project: Project, tmp_path: Path, sabotage: Line, said: str
) -> None:
    sick = project.variant(tmp_path / "sick", sabotage)
    native = Native(sick, tmp_path)
    env = {
        **native.env("service-1"),
        "SECRETS_BACKEND": "env",
        "DATABASE_URL": native.env("migrate")["DATABASE_MIGRATOR_URL"],
    }
    done = sick.cli("serve", env=env)
    assert done.returncode == 78
    assert said in done.stderr
