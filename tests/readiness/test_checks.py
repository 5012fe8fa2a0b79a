"""Every check can turn red: for each there is a sabotage that turns exactly it red, with the right next step."""

import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests import commands, proof
from tests.projects import ROOT, Project, Service
from tests.readiness import test_backups, test_cluster, test_delivery, test_far, test_load_balancer, test_releases
from tests.readiness.conftest import KEY, PACKAGE, Found, Prober, Served
from tests.readiness.tls import proxied
from tests.sabotage import Argument, Body, Gone, Line, Sabotage, Value

pytestmark = pytest.mark.servers
CLOSED = {"EXPOSE_DOCS": "false"}
DRILL = ("--drill",)
IN_PRODUCTION = ("--profile", "production", "--yes")


@dataclass(frozen=True)
class Case:
    """How a service is broken, how `ready` is run, and the words of the next step that is expected."""

    step: str
    sabotage: Sabotage | None = None
    env: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


# What `make ready` may not call proven, because nothing checks it yet: the issue that builds a check removes its line.
NOT_BUILT = {"usage"}
AREAS = {"observability", "errors", "secrets", "caching", "recovery", *(each.partition(".")[0] for each in NOT_BUILT)}
SABOTAGES: dict[str, list[Case]] = {
    "backups.rows": [
        Case(
            "check where the service writes to",
            Body(
                "features.items.store:ItemStore.add",
                """
                item = await original(item_id, new)
                await self.remove(item_id)
                return item
                """,
            ),
        ),
    ],
    "backups.schema": [Case("see platform/db", Body("db:readiness", 'return "answers"'))],
    "caching.private": [Case("let platform/http_cache", Value("http_cache:PERSONAL", "()"))],
    "caching.revalidation": [
        Case("give the route an HttpPolicy", Value("features.items.routes:cached", "lambda endpoint: endpoint")),
        Case(
            "let no proxy remove If-None-Match",
            Body(
                "http_cache:HttpCache.__call__",
                """
                asked = scope.get("headers", [])
                scope["headers"] = [header for header in asked if header[0] != b"if-none-match"]
                await original(scope, receive, send)
                """,
            ),
        ),
    ],
    "delivery.pinned": [
        Case(
            "pin it to the 40 digits",
            Line(".github/actions/setup/action.yml", "- uses: astral-sh", "- uses: astral-sh/setup-uv@v10"),
        ),
        Case("type `make setup`", Gone("uv.lock")),
    ],
    "errors.problems": [
        Case(
            "let platform/problems.py handle errors",
            Body(
                "problems:install.http_error",
                """
                answer = await original(request, error)
                answer.headers["content-type"] = "text/plain"
                return answer
                """,
            ),
        ),
    ],
    "errors.raised": [
        Case(
            "let platform/problems.py handle errors",
            Body("problems:install.unexpected", 'return response(500, "internal-error", repr(error))'),
        ),
        Case(
            "restore platform/probe.py as it was",
            Body("probe:ErrorOnRequest.accept", "self.accepted = {}\nreturn original(header)"),
        ),
    ],
    "observability.traces": [
        Case(
            "check OTEL_EXPORTER_OTLP_ENDPOINT",
            Value("ready.checks.observability:ARRIVAL_SECONDS", "3.0"),
            env={"OTEL_SDK_DISABLED": "true"},
        )
    ],
    "recovery.drill": [Case("or restore it", Gone("deploy/recovery.toml"))],
    "recovery.plan": [Case("restore it", Gone("docs/disaster-recovery.md"))],
    "scaling.alive": [Case("let /livez accept any Host", Value("state:PROBES", '{"/readyz"}'))],
    "scaling.drain": [
        Case(
            "see how platform/server drains",
            Body("server:DrainServer.handle_exit", "original(sig, frame)\nself.should_exit = True"),
            arguments=DRILL,
        ),
        Case(
            "see how platform/server drains",
            Body("server:DrainServer.handle_exit", "original(sig, frame)\nself.state.draining = False"),
            arguments=DRILL,
        ),
        Case("see how platform/server drains", Value("server:GRACE_SECONDS", "0.1"), arguments=DRILL),
    ],
    "scaling.ready": [
        Case(
            "fix the part that /readyz names",
            Body(
                "health:install.readyz",
                """
                answer = await original(response)
                response.status_code = 503
                return answer
                """,
            ),
        ),
    ],
    "scaling.request_ids": [
        Case(
            "replace others, as platform/http.py does",
            Body(
                "http:Door.__call__",
                """
                asked = dict(scope.get("headers", [])).get(b"x-request-id", b"-")

                async def forge(message):
                    for n, (name, _) in enumerate(message.get("headers", [])):
                        if name == b"x-request-id":
                            message["headers"][n] = name, asked
                    await send(message)

                await original(scope, receive, forge)
                """,
            ),
        ),
    ],
    "scaling.serves": [
        Case("search the log for the marker", Body("features.items.service:page", "raise RuntimeError")),
        Case(
            "raise answer_seconds in ready.toml",
            Body(
                "features.items.service:page",
                """
                import asyncio
                await asyncio.sleep(5.5)
                return await original(store, cursor, limit)
                """,
            ),
        ),
    ],
    # proven where there is a backend: in test_far.py
    "secrets.backend": [
        Case("do not leave out the room secrets in main.py", Argument("main:app", "without", '{"secrets"}')),
    ],
    "secrets.silent": [
        Case(
            "rotate it",
            Body(
                "health:install.version",
                'return {**await original(request), "database": "postgresql://app:pw@db.internal/orders"}',
            ),
        ),
        Case(
            "let platform/problems.py handle errors",
            Body("problems:install.invalid", 'return response(422, "invalid-request", repr(error.errors()))'),
        ),
    ],
    "security.docs": [Case("unset EXPOSE_DOCS", env={"EXPOSE_DOCS": "true"}, arguments=IN_PRODUCTION)],
    "security.headers": [
        Case("let platform/security.py set it", Value("security:HEADERS", "[]")),
        Case("remove the header Server", Argument("server:serve", "server_header", "True")),
    ],
    "security.hosts": [Case("list your own hosts in TRUSTED_HOSTS", env={"TRUSTED_HOSTS": "*"})],
    # green behind TLS: a test of its own below
    "security.transport": [Case("check the URL that clients use", arguments=IN_PRODUCTION)],
}
# Far ends of their own: proven and sabotaged in test_far.py.
FAR = {"caching.hits", "errors.tracked", "observability.metrics", "secrets.leases"}
# Behind a balancer of their own: in test_load_balancer.py.
BALANCED = {"scaling.balanced", "scaling.clients", "scaling.tls"}
# With a store of their own: in test_backups.py.
STORED = {"backups.restored", "backups.stored"}
# With a forge of their own: in test_delivery.py.
BUILT = {"delivery.tested", "security.scanned"}
# With a record of releases: in test_releases.py.
RELEASED = {"releases.finished", "releases.rollback"}
# On a cluster: in test_cluster.py.
CLUSTERED = {"releases.kubernetes", "scaling.pods"}
LENT = {"secrets.leases"}  # nothing is, without a Vault
# What is red without any sabotage: production has to be asked by HTTPS, keep its secrets elsewhere, name far ends and
# contacts, have restored a backup, and rolled a release back.
UNREADY = (
    {
        "backups.stored",
        "recovery.drill",
        "recovery.plan",
        "secrets.backend",
        "security.transport",
        "observability.traces",
        *BALANCED,
        *BUILT,
        *FAR,
        *RELEASED,
    }
    - LENT
    - {"scaling.tls"}
)
CLAIMED = {"backups.schema", "observability.traces"}  # what a local service only says of itself
CASES = [(check, each) for check, cases in SABOTAGES.items() for each in cases]


def registered(prober: Prober) -> set[str]:
    return set(prober.python(f"from {PACKAGE}.engine import find\nfor each in find(): print(each.name)").split())


def test_every_check_has_a_sabotage_and_a_page_where_its_link_leads(prober: Prober, without_database: Project) -> None:
    found = registered(prober)
    assert all(SABOTAGES.values())
    assert found == SABOTAGES.keys() | BALANCED | BUILT | CLUSTERED | FAR | RELEASED | STORED
    assert {check.partition(".")[0] for check in found} | NOT_BUILT >= AREAS
    assert not found & NOT_BUILT
    elsewhere = (
        (BALANCED, test_load_balancer),
        (BUILT, test_delivery),
        (CLUSTERED, test_cluster),
        (FAR, test_far),
        (RELEASED, test_releases),
        (STORED, test_backups),
    )
    for checks, module in elsewhere:
        assert all(hasattr(module, f"test_{check.replace('.', '_')}_turns_red") for check in checks)
    assert registered(Prober(without_database.variant(prober.project.root.parent / "without"))) == found
    for check in found:
        area, name = check.split(".")
        page = (ROOT / "docs" / "how-to" / f"{area}.md").read_text()
        assert re.search(rf"^## {name}$", page, re.M), f"docs/how-to/{area}.md has no heading {name}"


@pytest.fixture(scope="module")
def closed(project: Project, schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A healthy service that does not describe itself, and the address of its database."""
    folder = tmp_path_factory.mktemp("closed")
    (folder / "service.db").write_bytes(schema.read_bytes())
    url = f"sqlite:///{folder}/service.db"
    with project.serve(folder, {"DATABASE_URL": url, **CLOSED, **KEY}) as service:
        yield service, url


def test_a_healthy_service_is_green(prober: Prober, service: Service, closed: tuple[Service, str]) -> None:
    drilled = prober.look(service, *DRILL, DATABASE_URL=closed[1])
    production = prober.look(closed[0], *IN_PRODUCTION)
    assert (drilled.red, production.red) == (set(), UNREADY)
    proven = {check for found in (drilled, production) for check in found.statuses if found.statuses[check] == "proven"}
    assert proven == SABOTAGES.keys() - UNREADY - CLAIMED
    assert {check for check in CLAIMED if drilled.statuses[check] == "claimed"} == CLAIMED
    assert all(drilled.outcome(check)["seen"].startswith("the service says: ") for check in CLAIMED)
    assert "set SECRETS_BACKEND" in production.outcome("secrets.backend")["step"]


@pytest.mark.sabotage
@pytest.mark.parametrize(("check", "case"), CASES, ids=[f"{check}-{n}" for n, (check, _) in enumerate(CASES)])
def test_exactly_the_sabotaged_check_turns_red(
    project: Project, served: Served, tmp_path: Path, check: str, case: Case
) -> None:
    sick = project.variant(tmp_path / "sick", *([case.sabotage] if case.sabotage else []))
    in_production = case.arguments == IN_PRODUCTION
    with served(sick, **(CLOSED if in_production else {}) | case.env) as service:
        found = Prober(sick).look(service, *case.arguments, DATABASE_URL=f"sqlite:///{tmp_path}/service.db")
    assert found.red == (UNREADY if in_production else set()) | {check}
    outcome = found.outcome(check)
    assert case.step in outcome["step"], outcome
    assert (outcome["status"], found.code) == ("gap", 1)


def test_without_a_route_to_probe_the_line_to_add_is_named(prober: Prober, service: Service) -> None:
    for line in ("read = ", "write = "):
        Line("ready.toml", line).apply(prober.project.root)
    found = prober.look(service)
    assert found.red == {"backups.rows", "scaling.serves"}
    assert "below [probe]: write = { path" in found.outcome("backups.rows")["step"]
    assert 'below [probe]: read = "/v1/…"' in found.outcome("scaling.serves")["step"]


def test_a_schema_that_is_missing_is_named_with_the_command_that_makes_it(
    project: Project, prober: Prober, tmp_path: Path
) -> None:
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.db", **KEY}
    with project.serve(tmp_path / "run", env) as service:
        found = prober.look(service)
    assert found.red == {"backups.rows", "backups.schema", "scaling.ready", "scaling.serves"}
    assert "run `make migrate`" in found.outcome("backups.schema")["step"]


def test_over_tls_production_is_proven_and_sends_hsts(
    prober: Prober, closed: tuple[Service, str], tmp_path: Path
) -> None:
    with proxied(closed[0].port, tmp_path) as (url, authority):
        found = prober.look(url, *IN_PRODUCTION, SSL_CERT_FILE=str(authority))
        assert found.red == UNREADY - {"security.transport"}
        assert "6 headers" in found.outcome("security.headers")["seen"]
        assert found.statuses["security.transport"] == "proven"
        untrusted = prober.look(url, *IN_PRODUCTION)
    assert (untrusted.code, untrusted.report) == (2, {})
    assert "CERTIFICATE_VERIFY_FAILED" in untrusted.stderr


def test_a_service_without_a_database_has_nothing_to_back_up(
    without_database: Project, service: Service, tmp_path: Path
) -> None:
    found = Prober(without_database.variant(tmp_path / "prober")).look(service, "--area", "backups")
    assert found.code == 0
    outcome = found.outcome("backups.rows")
    assert (outcome["status"], outcome["seen"]) == (
        "not applicable",
        "because this project has no database: it has no room db",
    )


def test_the_room_that_raises_may_be_gone(prober: Prober, service: Service) -> None:
    Gone("src/my_service/platform/probe.py").apply(prober.project.root)
    found = prober.look(service)
    assert found.red == {"errors.raised"}
    assert "waive" in found.outcome("errors.raised")["step"]


# --- from outside -----------------------------------------------------------------------------------------------


def test_checks_need_no_file_of_the_service(project: Project, prober: Prober, served: Served, tmp_path: Path) -> None:
    """The service's folder is closed to the run: also to root, who has to give up the right to read everything."""
    own = project.variant(tmp_path / "own" / "service")
    with served(own) as service:
        assert service.client.get("/v1/items").status_code == service.client.get("/readyz").status_code == 200
        as_root = os.getuid() == 0
        drop = [str(shutil.which("setpriv")), "--bounding-set=-dac_override,-dac_read_search"] if as_root else []
        url = f"http://127.0.0.1:{service.port}"
        folder = own.root.parent
        folder.chmod(0)
        try:
            assert "Permission denied" in commands.run(*drop, "ls", str(own.root)).stderr
            done = prober.project.run(*drop, *prober.arguments("--url", url, "--json"), env=KEY, check=False)
        finally:
            folder.chmod(0o700)
    found = Found.of(done)
    assert {check for check, status in found.statuses.items() if status == "proven"} >= {
        "backups.rows",
        "errors.raised",
    }
    assert found.red == set()


def test_a_load_beside_a_safe_run_loses_no_request(prober: Prober, served: Served) -> None:
    with served(prober.project) as service:
        answers: list[int] = []
        stop = threading.Event()

        def load() -> None:
            with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", trust_env=False, timeout=10) as client:
                while not stop.is_set():
                    answers.append(client.get("/v1/items").status_code)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for each in threads:
            each.start()
        runs: list[Found] = []
        try:
            runs += [prober.look(service) for _ in range(proof.count(gate=1, full=5))]
        finally:
            stop.set()
            for each in threads:
                each.join()
        items = service.client.get("/v1/items").json()["items"]
    assert [each.red for each in runs] == [set()] * len(runs)
    assert len(answers) > 50
    assert set(answers) == {200}
    assert items == []  # the run has removed what it wrote
