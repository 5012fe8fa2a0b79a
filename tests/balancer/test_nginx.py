"""The emitted NGINX as its tools see it, and what HAProxy has otherwise."""

import json
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crossplane
import pytest

from tests import commands
from tests.balancer.balancer import AUTHORITY, HOST, INSIDE, Balancer
from tests.balancer.client import Client
from tests.balancer.conftest import RED, Open
from tests.balancer.nginx import MAIN, PROBLEM, SERVICE, NginxBalancer
from tests.balancer.upstream import Upstream
from tests.projects import ROOT, Project, Service
from tests.sabotage import Line

pytestmark = [pytest.mark.servers, pytest.mark.parametrize("kind", ["nginx"], indirect=True)]
# HSTS is sent by the service, with the other security headers; a second one would be wrong.
ACCEPTED = {"hsts_header"}


def test_nginx_accepts_it_without_a_warning(balancer: Balancer) -> None:
    said = balancer.check().splitlines()
    assert len(said) == 2
    assert "syntax is ok" in said[0]
    assert "test is successful" in said[1]


def findings(folder: Path) -> set[str]:
    """What gixy finds in a configuration."""
    done = commands.run(ROOT / ".venv/bin/gixy", "--format", "json", folder / "nginx.conf")
    return {found["plugin"] for found in json.loads(done.stdout)}


def test_gixy_finds_nothing(balancer: Balancer) -> None:
    assert findings(balancer.home / "deploy/nginx") == ACCEPTED


@pytest.mark.sabotage
def test_gixy_finds_a_planted_fault(open_balancer: Open) -> None:
    with open_balancer(own={"conf.d/server-bad.conf": "location /f { return 302 https://$host$uri; }\n"}) as sick:
        assert findings(sick.home / "deploy/nginx") > ACCEPTED


# --- relations between its times and sizes and those of the service


def directives(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """All directives but those of its users' own files, as crossplane reads them."""

    def below(block: list[dict[str, Any]], inside: str = "") -> Iterator[tuple[str, list[str]]]:
        for each in block:
            yield inside + each["directive"], each["args"]
            yield from below(each.get("block", []), "upstream " if each["directive"] == "upstream" else inside)

    read = crossplane.parse(str(folder / "nginx.conf"))
    assert read["status"] == "ok", read["errors"]
    for file in read["config"]:
        if "conf.d" not in file["file"]:
            yield from below(file["parsed"])


def number(text: str) -> int:
    """Seconds or bytes."""
    found = re.fullmatch(r"(\d+)([smk]?)", text)
    assert found, text
    return int(found[1]) * {"s": 1, "": 1, "k": 1024, "m": 1_048_576}[found[2]]


PINGS = "import uvicorn; print(uvicorn.Config(None).ws_ping_interval)"


def wrong(folder: Path, project: Project) -> list[str]:
    """Relations that do not hold."""
    example = (project.root / ".env.example").read_text()
    settings = {name: int(value) for name, value in re.findall(r"^#([A-Z_]+)=(\d+)$", example, re.M)}
    found = dict(directives(folder))
    pings = float(project.run(str(project.venv / "bin/python"), "-c", PINGS).stdout)
    timeout = {name: number(found[name][0]) for name in found if name.endswith(("_timeout", "_size"))}
    relations = {
        "an idle connection ends here before it ends there": timeout["upstream keepalive_timeout"]
        <= settings["KEEP_ALIVE_SECONDS"] - 10,
        "what the service takes passes": timeout["client_max_body_size"] >= settings["MAX_BODY_BYTES"],
        "a ping comes in time": pings <= timeout["proxy_read_timeout"] - 5,
        "a retry begins only after a fast failure": timeout["proxy_connect_timeout"]
        < timeout["proxy_next_upstream_timeout"]
        < timeout["proxy_read_timeout"],
        "an idle client survives a reload": timeout["keepalive_min_timeout"] < timeout["worker_shutdown_timeout"],
    }
    return [name for name, holds in relations.items() if not holds]


def test_times_and_sizes_fit_those_of_the_service(bare_project: Project, emitted: Path) -> None:
    assert wrong(emitted / "deploy/nginx", bare_project) == []


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "change",
    [
        Line(MAIN, "client_max_body_size", "client_max_body_size 512k;"),
        Line(MAIN, "keepalive_timeout", "keepalive_timeout 75s;"),
        Line(MAIN, "worker_shutdown_timeout", "worker_shutdown_timeout 5s;"),
        Line(SERVICE, "proxy_next_upstream_timeout", "proxy_next_upstream_timeout 60s;"),
        Line(SERVICE, "proxy_read_timeout", "proxy_read_timeout 20s;"),
    ],
    ids=lambda change: change.start,
)
def test_a_time_that_does_not_fit_is_noticed(bare_project: Project, open_balancer: Open, change: Line) -> None:
    with open_balancer(changes=(change,)) as sick:
        assert len(wrong(sick.home / "deploy/nginx", bare_project)) == 1


# --- what is NGINX's own


def health(balancer: Balancer) -> None:
    """Another balancer checks by address; others get nothing by it."""
    for port, tls in ((balancer.plain, False), (balancer.port, True)):
        for source, expected in ((INSIDE, 200), ("127.0.0.1", 421)):
            with Client(port, tls=tls, source=source) as client:
                assert client.get("/livez", {"Host": "10.0.0.1"}).status == expected
    with Client(balancer.port, source=INSIDE) as client:
        assert client.get("/readyz", {"Host": "10.0.0.1"}).status == 421


def test_health_checks_by_address_are_answered_to_the_inside(balancer: Balancer) -> None:
    health(balancer)


@pytest.mark.sabotage
@pytest.mark.parametrize("start", ["if ($inside", "proxy_pass"])
def test_a_health_check_needs_its_directives(open_balancer: Open, start: str) -> None:
    new = {"if ($inside": "if ($inside = 2) {", "proxy_pass": "return 204;"}[start]
    with (
        open_balancer(changes=(Line("deploy/nginx/health.conf", start, new),)) as sick,
        pytest.raises(RED),
    ):
        health(sick)


def proven(project: Project, balancer: Balancer, area: str) -> set[str]:
    """What the emitted `ready` proves of an area at the public address, asked from the inside."""
    ca = balancer.home / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(ca))
    url = f"https://localhost:{balancer.port}"
    done = project.ready("--url", url, "--area", area, env={"SSL_CERT_FILE": str(ca)})
    return set(re.findall(rf"^proven +{area}\.(\w+)", done.stdout, re.M))


LOCAL = {"conf.d/server-name.conf": "server_name localhost;\n", "conf.d/inside-local.conf": "127.0.0.1 1;\n"}
CHECKS = {"scaling": {"alive", "ready", "request_ids", "serves", "tls"}, "security": {"headers", "hosts"}}


@pytest.fixture(scope="module")
def running(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service; tests leave it running."""
    with bare_project.serve(tmp_path_factory.mktemp("running"), {"TRUSTED_HOSTS": "localhost"}) as service:
        yield service


def test_the_readiness_check_finds_no_gap_through_it(
    bare_project: Project, running: Service, open_balancer: Open
) -> None:
    with open_balancer(running.port, own=LOCAL) as balancer:
        for area, checks in CHECKS.items():
            assert proven(bare_project, balancer, area) >= checks


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("change", "area", "gone"),
    [
        (Line("deploy/nginx/health.conf", "if ($inside", "if ($inside = 1) {"), "scaling", {"alive"}),
        (
            Line(SERVICE, "proxy_set_header X-Forwarded-Proto", "proxy_set_header X-Forwarded-Proto http;"),
            "security",
            {"headers"},
        ),
        (Line(MAIN, "server_tokens"), "security", {"headers"}),
    ],
    ids=["health", "scheme", "version"],
)
def test_the_readiness_check_finds_what_is_wrong_with_it(
    bare_project: Project, running: Service, open_balancer: Open, change: Line, area: str, gone: set[str]
) -> None:
    with open_balancer(running.port, own=LOCAL, changes=(change,)) as sick:
        assert CHECKS[area] - proven(bare_project, sick, area) == gone


def not_sniffed(balancer: Balancer) -> None:
    """What NGINX itself responds is no page, whatever a browser guesses."""
    with Client(balancer.port) as client:
        assert client.get("/livez").all("x-content-type-options") == ["nosniff"]


def test_a_problem_is_not_taken_for_a_page(balancer: Balancer) -> None:
    not_sniffed(balancer)


@pytest.mark.sabotage
def test_without_its_header_a_problem_may_be_taken_for_a_page(open_balancer: Open) -> None:
    with (
        open_balancer(changes=(Line(PROBLEM, "add_header X-Content-Type-Options"),)) as sick,
        pytest.raises(AssertionError),
    ):
        not_sniffed(sick)


def test_each_worker_may_open_enough_files(balancer: NginxBalancer) -> None:
    found = dict(directives(balancer.home / "deploy/nginx"))
    files = int(found["worker_rlimit_nofile"][0])
    assert files >= 2 * int(found["worker_connections"][0])  # one of the client, one to the service, and the cache
    limits = {resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] for pid in balancer.workers()}
    assert files in limits


def test_the_snippets_of_the_page_work(open_balancer: Open, emitted: Path, upstream: Upstream) -> None:
    """docs/load-balancer.md: a larger body, a cached path, and files for a certificate authority."""
    page = (emitted / "docs/load-balancer.md").read_text()
    location = page.partition("```nginx\n")[2].partition("```")[0]
    plain = re.search(r"`(location /\.well-known/[^`]*)`", page)
    cached = re.findall(r"`([^` ]+ 0;)`", page)
    assert location and plain and len(cached) == 2
    own = {
        "conf.d/server-pictures.conf": location,
        "conf.d/plain-acme.conf": plain[1],
        "conf.d/cached-prices.conf": "\n".join(cached),
    }
    with open_balancer(own=own) as balancer, Client(balancer.port) as client:
        assert client.request("POST", "/v1/pictures", body=bytes(3_000_000)).status == 200
        assert upstream.last.all("host") == [HOST]
        with Client(balancer.plain, tls=False) as plainly:
            assert plainly.get("/.well-known/acme-challenge/x").status == 404
        for path, status in (("/v1/prices", "MISS"), ("/v1/prices/1", "MISS"), ("/v1/other", "BYPASS")):
            client.get(path)
            assert balancer.entry(path=path)["cache"] == status
