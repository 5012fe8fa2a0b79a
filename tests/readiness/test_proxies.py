"""Proxies of the environment: this machine is never reached through one, and one that does not work is no gap."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import commands
from tests.projects import Project
from tests.readiness.conftest import Prober
from tests.sabotage import Body
from tests.servers.otlp import open_collector
from tests.servers.process import ServerError, free_port

pytestmark = pytest.mark.servers
AREA = ("--area", "security")
# What desktops and companies set; with socks:// as in https://github.com/clash-verge-rev/clash-verge-rev/issues/6887.
PROXIES = ("http://127.0.0.1:{port}", "socks://127.0.0.1:{port}", "socks5h://me:hunter2@127.0.0.1:{port}", "ftp://a:x")


def proxies(form: str) -> dict[str, str]:
    url = form.format(port=free_port())
    return {name: url for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY")}


@pytest.fixture(scope="module")
def broken() -> Iterator[str]:
    """A proxy that reaches nobody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(502)

        def log_message(self, format: str, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def exported(project: Project, folder: Path, seconds: float) -> bool:
    """Whether a trace reaches a collector on this machine, although the environment names a proxy."""
    with open_collector() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100", **proxies(PROXIES[0])}
        with project.serve(folder, env) as service:
            assert service.client.get("/version").status_code == 200
            try:
                collector.wait_until(lambda: bool(collector.spans), seconds)
            except ServerError:
                return False
    return True


def test_a_collector_on_this_machine_is_reached_without_the_proxy(project: Project, tmp_path: Path) -> None:
    assert exported(project, tmp_path, 10)


@pytest.mark.sabotage
def test_a_proxy_before_this_machine_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Body("settings:prepare_environment", "pass"))
    assert not exported(sick, tmp_path / "run", 3)


SEEN = """
import json, os, sys
from my_service.platform.settings import prepare_environment
from requests.utils import should_bypass_proxies
from urllib.request import proxy_bypass

found = []
for name, value in json.loads(sys.argv[1]):
    os.environ.pop("NO_PROXY", None), os.environ.pop("no_proxy", None)
    if name:
        os.environ[name] = value
    prepare_environment()
    prepare_environment()
    urls = ("http://127.0.0.1:4318/", "http://localhost:4318/", "http://[::1]:4318/", "http://acme.test/", "http://b.test/")
    found.append([bool(should_bypass_proxies(url, None)) for url in urls] + [bool(proxy_bypass("127.0.0.1"))])
print(json.dumps(found))
"""


def test_what_the_environment_excludes_from_proxies_stays_excluded(project: Project) -> None:
    given = '[["", ""], ["NO_PROXY", "acme.test"], ["no_proxy", " acme.test"], ["NO_PROXY", "*"]]'
    env = project.env({"HTTP_PROXY": "http://127.0.0.1:1"})
    found = commands.must(project.venv / "bin/python", "-c", SEEN, given, cwd=project.root, env=env)
    mine = [True, True, True]
    assert found.replace("true", "True").replace("false", "False").strip() == str(
        [[*mine, False, False, True], [*mine, True, False, True], [*mine, True, False, True], [*mine, True, True, True]]
    )


# --- ready ------------------------------------------------------------------------------------------------------


def test_ready_reaches_this_machine_without_the_proxy(prober: Prober, tmp_path: Path) -> None:
    """HOST and PORT are those of `.env`, as for `serve`."""
    with prober.project.serve(tmp_path / "run") as service:
        (prober.project.root / ".env").write_text(f"HOST=0.0.0.0\nPORT={service.port}\n")
        for form in PROXIES[:2]:
            done = prober.command(*AREA, **proxies(form))
            assert (done.returncode, "proven         security.hosts" in done.stdout) == (0, True), done.stderr
        assert prober.command(*AREA, PORT=str(free_port())).returncode == 2


# What is this machine, whatever proxy is set (RFC 6761, section 6.3: names below localhost too), and what is not.
HOSTS = {
    "127.0.0.1": True,
    "127.8.9.10:8000": True,
    "LOCALHOST": True,
    "localhost.:8000": True,
    "orders.localhost": True,
    "[::1]:8000": True,
    "[::ffff:127.0.0.1]": True,
    "0.0.0.0:8000": True,
    "[::]:8000": True,
    "10.0.0.1": False,
    "127.0.0.1.acme.test": False,
    "localhost.acme.test": False,
    "127.0.0.1@acme.test": False,
}
LOCAL = "from ready.client import is_this_machine as local\nprint([local(f'http://{{host}}/') for host in {hosts}])"


def test_every_form_of_this_machine_is_known(prober: Prober) -> None:
    assert prober.python(LOCAL.format(hosts=list(HOSTS))).strip() == str(list(HOSTS.values()))


@pytest.mark.sabotage
def test_a_proxy_between_ready_and_this_machine_is_noticed(prober: Prober, tmp_path: Path) -> None:
    Body("ready.client:open_client", "return httpx2.AsyncClient(base_url=url, **options)").apply(prober.project.root)
    with prober.project.serve(tmp_path / "run") as service:
        url = f"http://127.0.0.1:{service.port}"
        assert prober.command("--url", url, *AREA, **proxies(PROXIES[0])).returncode == 2


def test_a_proxy_that_does_not_work_is_no_gap(prober: Prober, broken: str, tmp_path: Path) -> None:
    prober.far_end("traces", "http://traces.test:3200")
    with prober.project.serve(tmp_path / "run") as service:
        for proxy in (broken, *(form.format(port=free_port()) for form in (PROXIES[0], PROXIES[2]))):
            env = {"all_proxy": proxy} if proxy.startswith("socks") else {"HTTP_PROXY": proxy, "http_proxy": proxy}
            away = prober.command("--url", "http://orders.test", *AREA, **env)
            assert (away.returncode, len(away.stderr.splitlines())) == (2, 1), away.stderr
            assert "hunter2" not in away.stderr
            found = prober.look(service, "--area", "observability", **env)
            assert found.outcome("observability.traces")["status"] == "unknown"
            assert "hunter2" not in str(found)


def test_a_port_that_is_no_number_is_one_line(prober: Prober) -> None:
    done = prober.command(PORT="tcp://10.0.0.1:80")
    assert (done.returncode, done.stderr.startswith("ready: PORT: "), done.stderr.count("\n")) == (2, True, 1)
    (prober.project.root / ".env").write_bytes("PORT=8000\n".encode("utf-16"))
    assert prober.command().stderr == "ready: .env: save it as UTF-8\n"
