"""Every check can turn red: for each there is a sabotage that turns exactly it red, with the right next step."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.projects import ROOT, Edit, Project, Service
from tests.readiness import test_far
from tests.readiness.conftest import KEY, Found, Prober, Served
from tests.readiness.tls import proxied
from tests.servers.postgres import Postgres
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
SRC = "src/my_service"
RED = {"gap", "unknown"}
ROUTES = f"{SRC}/features/items/routes.py"
LIVES_ON_ITS_DRAIN = "self.leave_at = time.monotonic() + self.drain"


@dataclass(frozen=True)
class Sabotage:
    """How a service is broken, how `ready` is run, and the words of the next step that is expected."""

    step: str
    edits: tuple[Edit, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    well: dict[str, str] = field(default_factory=dict)  # the environment in which the check is green
    status: str = "gap"


IN_PRODUCTION = ("--profile", "production", "--yes")
SABOTAGES: dict[str, list[Sabotage]] = {
    "backups.rows": [
        Sabotage(
            "see where the service writes to",
            (
                Edit(
                    f"{SRC}/features/items/store.py",
                    "idempotency, changed)\n",
                    "idempotency, changed)\n            await session.rollback()\n",
                ),
            ),
        ),
    ],
    "backups.schema": [
        Sabotage(
            "see platform/db/",
            (
                Edit(
                    f"{SRC}/platform/db.py",
                    'return await state.database.look() if state.database else ""',
                    'return "answers"',
                ),
            ),
        ),
    ],
    "caching.private": [
        Sabotage(
            "let platform/http_cache/ say who may keep it",
            (Edit(f"{SRC}/platform/http_cache.py", "elif personal:", "elif False:"),),
        ),
    ],
    "caching.revalidation": [
        Sabotage("give the route an HttpPolicy", (Edit(ROUTES, '@router.get("")\n@kept\n', '@router.get("")\n'),)),
        Sabotage(
            "no proxy remove If-None-Match",
            (Edit(f"{SRC}/platform/http_cache.py", 'name == b"if-none-match"', 'name == b"none"'),),
        ),
    ],
    "errors.problems": [
        Sabotage(
            "answer errors by platform/problems.py",
            (
                Edit(
                    f"{SRC}/platform/problems.py",
                    "return response(error.status_code, code, str(error.detail), headers=headers)",
                    "return Response(str(error.detail), error.status_code, headers)",
                ),
            ),
        ),
    ],
    "errors.raised": [
        Sabotage(
            "answer errors by platform/problems.py",
            (
                Edit(
                    f"{SRC}/platform/problems.py",
                    '"The service failed to answer; the ids find the reason in its logs."',
                    "repr(error)",
                ),
            ),
        ),
        Sabotage("READY_PROBE_KEY=", env={"READY_PROBE_KEY": "another-key-that-has-32-characters!"}),
        Sabotage(
            "let platform/probe.py be as it was",
            (Edit(f"{SRC}/platform/probe.py", "or header in self.taken", ""),),
        ),
    ],
    "observability.traces": [
        Sabotage("look at OTEL_EXPORTER_OTLP_ENDPOINT", env={"OTEL_SDK_DISABLED": "true"}),
    ],
    "scaling.alive": [
        Sabotage(
            "let /livez answer any Host",
            (Edit(f"{SRC}/platform/security.py", 'scope["path"] not in PROBES', 'scope["path"] != "/readyz"'),),
        ),
    ],
    "scaling.drain": [
        Sabotage(
            "see how platform/server.py drains",
            (Edit(f"{SRC}/platform/server.py", LIVES_ON_ITS_DRAIN, "self.leave_at = time.monotonic()"),),
            arguments=("--drill",),
        ),
        Sabotage(
            "see how platform/server.py drains",
            (Edit(f"{SRC}/platform/server.py", "        self.state.draining = True\n", ""),),
            arguments=("--drill",),
        ),
        Sabotage(
            "see how platform/server.py drains",
            (Edit(f"{SRC}/platform/server.py", "GRACE = 20", "GRACE = 0.1"),),
            arguments=("--drill",),
        ),
    ],
    "scaling.ready": [
        Sabotage(
            "mend the part that /readyz names",
            (
                Edit(
                    f"{SRC}/platform/idempotency.py",
                    "async def _sweep(",
                    "async def readiness(state: State) -> str:\n    raise NotReady('away')\n\n\nasync def _sweep(",
                ),
                Edit(f"{SRC}/platform/idempotency.py", "import Json, State", "import Json, NotReady, State"),
            ),
        ),
    ],
    "scaling.serves": [
        Sabotage(
            "look for the marker in the log",
            (Edit(ROUTES, "return await service.page(store, cursor, limit)", "raise RuntimeError"),),
        ),
        Sabotage(
            "raise answer_seconds in ready.toml",
            (
                Edit(
                    ROUTES,
                    "    return await service.page(",
                    "    await asyncio.sleep(6)\n    return await service.page(",
                ),
                Edit(ROUTES, "from typing", "import asyncio\nfrom typing"),
            ),
        ),
    ],
    # proven where there is a backend: tests/vault/test_ready.py
    "secrets.backend": [
        Sabotage("set SECRETS_BACKEND", arguments=IN_PRODUCTION, well={"EXPOSE_DOCS": "false"}),
        Sabotage(
            "let the room secrets stand in main.py",
            (Edit(f"{SRC}/main.py", "without=set()", 'without={"secrets"}'),),
        ),
    ],
    "secrets.silent": [
        Sabotage(
            "rotate it",
            (
                Edit(
                    f"{SRC}/platform/health.py",
                    '"environment": settings.environment,',
                    '"environment": settings.environment, "database": "postgresql://app:pw@db.internal/orders",',
                ),
            ),
        ),
        Sabotage(
            "answer errors by platform/problems.py",
            (Edit(f"{SRC}/platform/problems.py", 'str(e["msg"])', 'f"{e}"'),),
        ),
    ],
    "security.docs": [
        Sabotage(
            "unset EXPOSE_DOCS", env={"EXPOSE_DOCS": "true"}, arguments=IN_PRODUCTION, well={"EXPOSE_DOCS": "false"}
        ),
    ],
    "security.headers": [
        Sabotage(
            "let platform/security.py set it",
            (Edit(f"{SRC}/platform/security.py", '    (b"x-content-type-options", b"nosniff"),\n', ""),),
        ),
        Sabotage(
            "remove the header Server",
            (Edit(f"{SRC}/platform/server.py", "server_header=False", "server_header=True"),),
        ),
    ],
    "security.hosts": [Sabotage("name your own hosts in TRUSTED_HOSTS", env={"TRUSTED_HOSTS": "*"})],
    # green behind TLS: a test of its own below
    "security.transport": [
        Sabotage("look at the address of the clients", arguments=IN_PRODUCTION, well={"EXPOSE_DOCS": "false"}),
    ],
}
# Far ends of their own: proven and sabotaged in test_far.py.
FAR = {"caching.hits", "errors.tracked", "observability.metrics", "secrets.leases"}
LENT = {"secrets.leases"}  # nothing is, without a Vault
CASES = [(check, each) for check, sabotages in SABOTAGES.items() for each in sabotages]


def registered(project: Project) -> set[str]:
    code = "from ready.engine import find\nfor each in find(): print(each.name)"
    return set(project.run(str(project.venv / "bin/python"), "-c", code).stdout.split())


def red(found: Found) -> set[str]:
    return {check for check, status in found.statuses.items() if status in RED and "." in check}


def test_every_check_has_a_sabotage(project: Project, bare_project: Project) -> None:
    assert all(SABOTAGES.values())
    assert registered(project) == SABOTAGES.keys() | FAR
    assert all(hasattr(test_far, f"test_{check.replace('.', '_')}_turns_red") for check in FAR)
    assert registered(bare_project) == registered(project)


def test_every_check_is_explained_where_its_link_leads(project: Project) -> None:
    for check in registered(project):
        area, name = check.split(".")
        page = (ROOT / "docs" / "how-to" / f"{area}.md").read_text()
        assert re.search(rf"^## {name}$", page, re.M), f"docs/how-to/{area}.md has no heading {name}"


@pytest.fixture(scope="module")
def green(
    project: Project, schema: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, ...], set[str]]]:
    """What is red without any sabotage, by the arguments of the run."""
    folder = tmp_path_factory.mktemp("green")
    (folder / "service.db").write_bytes(schema.read_bytes())
    prober = Prober(project.variant(folder / "prober"))
    env = {"DATABASE_URL": f"sqlite:///{folder}/service.db", "EXPOSE_DOCS": "false", **KEY}
    with project.serve(folder, env) as service:
        yield {
            arguments: red(prober.look(service, *arguments, **env)) for arguments in ((), ("--drill",), IN_PRODUCTION)
        }


def test_a_healthy_service_is_green(green: dict[tuple[str, ...], set[str]]) -> None:
    assert green == {
        (): set(),
        ("--drill",): set(),
        IN_PRODUCTION: {"secrets.backend", "security.transport", *FAR} - LENT,
    }


@pytest.mark.parametrize(("check", "sabotage"), CASES, ids=[f"{check}-{n}" for n, (check, _) in enumerate(CASES)])
def test_exactly_the_sabotaged_check_turns_red(
    project: Project,
    served: Served,
    green: dict[tuple[str, ...], set[str]],
    tmp_path: Path,
    check: str,
    sabotage: Sabotage,
) -> None:
    sick = project.variant(tmp_path / "sick", *sabotage.edits)
    with served(sick, **{**sabotage.well, **sabotage.env}) as service:
        found = Prober(sick).look(service, *sabotage.arguments, DATABASE_URL=f"sqlite:///{tmp_path}/service.db")
    assert red(found) == green[sabotage.arguments] | {check}
    outcome = found.outcome(check)
    assert sabotage.step in outcome["step"], outcome
    assert outcome["status"] == sabotage.status
    assert found.code == 1


@pytest.mark.parametrize(
    ("line", "check", "step"),
    [
        ('read = "/v1/items"', "scaling.serves", 'below [probe]: read = "/v1/…"'),
        ("write = {", "backups.rows", "add to ready.toml: [probe.write]"),
    ],
)
def test_without_a_route_to_probe_the_line_to_add_is_named(
    prober: Prober, service: Service, line: str, check: str, step: str
) -> None:
    Edit("ready.toml", line, f"#{line}").apply(prober.project.root)
    found = prober.look(service)
    assert red(found) == {check}
    assert step in found.outcome(check)["step"]


def test_a_schema_that_is_missing_is_named_with_the_command_that_makes_it(
    project: Project, prober: Prober, tmp_path: Path
) -> None:
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.db", **KEY}
    with project.serve(tmp_path / "run", env) as service:
        found = prober.look(service)
    assert red(found) == {"backups.rows", "backups.schema", "scaling.ready", "scaling.serves"}
    assert "run `make migrate`" in found.outcome("backups.schema")["step"]


def test_over_tls_production_is_proven_and_sends_hsts(prober: Prober, served: Served, tmp_path: Path) -> None:
    with served(prober.project, EXPOSE_DOCS="false") as service, proxied(service.port, tmp_path) as (url, authority):
        found = prober.look(url, *IN_PRODUCTION, SSL_CERT_FILE=str(authority))
        assert red(found) == {"secrets.backend", *FAR} - LENT
        assert "6 headers" in found.outcome("security.headers")["seen"]
        assert found.statuses["security.transport"] == "proven"
        untrusted = prober.look(url, *IN_PRODUCTION)
    assert (untrusted.code, untrusted.report) == (2, {})
    assert "CERTIFICATE_VERIFY_FAILED" in untrusted.stderr


def test_a_service_without_a_database_has_nothing_to_back_up(bare_project: Project, tmp_path: Path) -> None:
    with bare_project.serve(tmp_path / "run", KEY) as service:
        found = Prober(bare_project.variant(tmp_path / "prober")).look(service, "--area", "backups")
    assert found.code == 0
    outcome = found.outcome("backups.rows")
    assert (outcome["status"], outcome["seen"]) == (
        "not applicable",
        "because the service was made without a database (database=none)",
    )


def test_the_room_that_raises_may_be_gone(project: Project, served: Served, tmp_path: Path) -> None:
    less = project.variant(tmp_path / "less")
    (less.root / SRC / "platform" / "probe.py").unlink()
    with served(less) as service:
        found = Prober(less).look(service)
    assert red(found) == {"errors.raised"}
    assert "waive" in found.outcome("errors.raised")["step"]


# --- from outside -----------------------------------------------------------------------------------------------


def test_checks_need_no_file_of_the_service(
    project: Project, prober: Prober, postgres: Postgres, tmp_path: Path
) -> None:
    """The service's folder is closed to the run: also to root, who has to give up the right to read everything."""
    own = project.variant(tmp_path / "own" / "service")
    with own.serve(tmp_path / "run", {**migrated(own, postgres.create_database()), **KEY}) as service:
        assert service.client.get("/v1/items").status_code == service.client.get("/readyz").status_code == 200
        as_root = os.getuid() == 0
        drop = [str(shutil.which("setpriv")), "--bounding-set=-dac_override,-dac_read_search"] if as_root else []
        url = f"http://127.0.0.1:{service.port}"
        command = [*drop, str(prober.project.venv / "bin/python"), "-m", "ready", "--url", url, "--json"]
        folder = own.root.parent
        folder.chmod(0)
        try:
            unreadable = subprocess.run([*drop, "ls", str(own.root)], capture_output=True, check=False)
            assert b"Permission denied" in unreadable.stderr
            done = subprocess.run(
                command,
                cwd=prober.project.root,
                env=prober.project.env(KEY),
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            folder.chmod(0o700)
    statuses = re.findall(r'"check": "(\w+\.\w+)",\s+"title": .*\s+"status": "(.*)"', done.stdout)
    assert {check for check, status in statuses if status == "proven"} >= {"backups.rows", "errors.raised"}
    assert {check for check, status in statuses if status in RED} == set()


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
        try:
            found = [prober.look(service) for _ in range(3)]
        finally:
            stop.set()
            for each in threads:
                each.join()
        items = service.client.get("/v1/items").json()["items"]
    assert [red(each) for each in found] == [set()] * 3
    assert len(answers) > 100
    assert set(answers) == {200}
    assert items == []  # the run has removed what it wrote
