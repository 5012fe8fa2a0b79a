"""Every example of the emitted `docs/features.md`, planted in one service: clean, typed, and it does what it says."""

import http.server
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.projects import Project, Service
from tests.sabotage import Body
from tests.servers.process import free_port
from tests.test_emitted import installed

pytestmark = pytest.mark.servers
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECONDS = 30.0


def printed(page: Path) -> dict[str, str]:
    """The files that a page prints, by path."""
    return dict(re.findall(r"```python\n# (\S+)\n(.*?)```", page.read_text(), re.S))


def plant(project: Project, folder: Path) -> Project:
    """A variant with every file of the page, and with the migration that the page has made."""
    made = project.variant(folder)
    for name, code in printed(project.root / "docs/features.md").items():
        path = made.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        if path.name == "routes.py":
            (path.parent / "__init__.py").write_text('"""A feature."""\n')
    return made


@dataclass
class Planted:
    """The service with the examples, the other service that it calls, and the folder of its secrets."""

    project: Project
    service: Service
    secrets: Path
    metrics: int
    traces: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def planted(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("features")
    made, secrets, traces = plant(project, folder / "service"), folder / "secrets", list[str]()
    secrets.mkdir()
    (secrets / "app_rates_key").write_text("four")

    class Rates(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            traces.append(self.headers["traceparent"])
            self.send_response(200 if self.path == "/rates/chf" else 503)
            self.end_headers()
            self.wfile.write(b"1.5")

        def log_message(self, format: str, *arguments: object) -> None: ...

    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Rates)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    env = {
        "DATABASE_URL": f"sqlite:///{folder}/service.db",
        "APP_DISCOUNT": "25",
        "METRICS_PORT": str(free_port()),
        "OTEL_METRICS_EXPORTER": "prometheus",
        "APP_RATES_URL": f"http://127.0.0.1:{other.server_address[1]}",
        "SECRETS_BACKEND": "files",
        "SECRETS_DIR": str(secrets),
    }
    made.cli("migrate", env=env, check=True)
    made.cli("migrate", "--new", "prices have a table", env=env | installed(made), check=True)
    made.cli("migrate", env=env, check=True)
    with made.serve(folder / "run", env) as service:
        yield Planted(made, service, secrets, int(env["METRICS_PORT"]), traces)
    other.shutdown()
    other.server_close()


def test_the_examples_are_clean_and_typed(planted: Planted) -> None:
    bin, root = planted.project.venv / "bin", planted.project.root
    paths = [*printed(root / "docs/features.md")]
    assert len(paths) == 11
    assert "already formatted" in planted.project.run(f"{bin}/ruff", "format", "--no-cache", "--check", *paths).stdout
    assert "All checks passed" in planted.project.run(f"{bin}/ruff", "check", "--no-cache", *paths).stdout
    assert "Success" in planted.project.run(f"{bin}/mypy", *paths).stdout


def test_a_table_a_background_task_and_a_cached_read(planted: Planted) -> None:
    client = planted.service.client
    assert client.get("/v1/prices/lamp").status_code == 404
    assert client.put("/v1/prices/lamp?cents=1200").status_code == 204
    assert client.get("/v1/catalog/lamp").json() == 1200
    assert client.post("/v1/raises?cents=5").status_code == 202
    deadline = time.monotonic() + SECONDS
    while client.get("/v1/prices/lamp").json() != 1205:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.get("/v1/catalog/lamp").json() == 1200  # the background task invalidated nothing
    assert client.put("/v1/prices/lamp?cents=1300").status_code == 204
    assert client.get("/v1/catalog/lamp").json() == 1300


def test_a_setting_a_cache_policy_and_a_tag(planted: Planted) -> None:
    client = planted.service.client
    assert client.get("/v1/discount").json() == 25
    assert client.get("/v1/holidays").headers["cache-control"] == "public, max-age=3600"
    assert client.get("/v1/tenants/acme").json() == "acme"


def test_an_outgoing_call_carries_the_trace_and_fails_clearly(planted: Planted) -> None:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    assert planted.service.client.get("/v1/rates/chf", headers=headers).json() == 1.5
    assert planted.traces[-1].split("-")[1] == TRACE
    assert planted.service.client.get("/v1/rates/xxx").json()["code"] == "unavailable"


def test_a_metric_is_exported(planted: Planted) -> None:
    assert planted.service.client.post("/v1/votes/yes").status_code == 204
    exported = httpx.get(f"http://127.0.0.1:{planted.metrics}/metrics", trust_env=False).text
    assert re.search(r'^app_votes_total\{.*choice="yes".*\} 1\.0$', exported, re.M)


def test_a_rotated_secret_is_used_without_a_restart(planted: Planted) -> None:
    client, deadline = planted.service.client, time.monotonic() + SECONDS
    assert client.get("/v1/key-length").json() == len("four")
    (planted.secrets / "app_rates_key").write_text("longer")
    while client.get("/v1/key-length").json() != len("longer"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_test_with_a_database_passes(planted: Planted) -> None:
    python = str(planted.project.venv / "bin/python")
    done = planted.project.run(python, "-m", "pytest", "-q", "tests/features/test_prices.py")
    assert "1 passed" in done.stdout


@pytest.mark.sabotage
def test_a_write_that_invalidates_nothing_leaves_the_old_value(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Body("db:invalidate", "pass"))
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/service.db"}
    sick.cli("migrate", env=env, check=True)
    with sick.serve(tmp_path / "run", env) as service:
        path = f"/v1/items/{service.client.post('/v1/items', json={'name': 'old'}).json()['id']}"
        assert service.client.get(path).json()["name"] == "old"
        service.client.put(path, json={"name": "new"})
        assert service.client.get(path).json()["name"] == "old"
