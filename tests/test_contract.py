"""The contract as far as it is built: what outside checks call a service by is there under that name, and works."""

import re
import shutil
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.contract import ANSWERED, CHOICES, CONTRACT, DEFAULTS, LATER
from tests.projects import ROOT, Change, Edit, Project, Service, render
from tests.sabotage import Body, Value
from tests.service.conftest import migrated
from tests.test_questions import QUESTIONS
from tests.test_render import values

NO_VERSION = Body(
    "health:install",
    """
    original(app, settings)
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != "/version"]
    """,
)


def deaf(header: str) -> Body:
    """A service that does not get a header of the request."""
    return Body(
        "__init__:Service.__call__",
        f"""
        scope["headers"] = [pair for pair in scope.get("headers", ()) if pair[0] != b"{header}"]
        await original(scope, receive, send)
        """,
    )


def promised(kind: str) -> set[str]:
    return set(CONTRACT[kind].split())


def later(kind: str) -> set[str]:
    return {name for _, of, names in LATER if of == kind for name in names.split()}


def answered(kind: str) -> set[str]:
    return {name for names in ANSWERED for name in names.split()} if kind == "variable" else set()


def built(project: Project) -> dict[str, set[str]]:
    """What there is, by kind: each read where a user meets it."""
    routes = """
from fastapi.routing import iter_route_contexts
from my_service import main
app = main.app()
for route in iter_route_contexts(app.routes):
    print(getattr(route, "path_format", None) or getattr(route, "path", None))
print(*app.openapi()["paths"])
"""
    key = {"READY_PROBE_KEY": "k" * 32}  # without it there is no probe
    return {
        "question": set(yaml.safe_load((project.root / ".copier-answers.yml").read_text())),
        "target": set(re.findall(r"^  ([a-z]+) ", project.run("make", "help").stdout, re.M)),
        "command": set(re.findall(r"^\W*([a-z]+) {2,}", project.cli("--help", check=True).stdout, re.M)),
        "route": set(project.run(str(project.venv / "bin/python"), "-c", routes, env=key).stdout.split()),
        "variable": variables(project.root),
    }


def variables(root: Path) -> set[str]:
    return set(re.findall(r"^#([A-Z_]+)=", (root / ".env.example").read_text(), re.M))


def broken(found: dict[str, set[str]]) -> list[str]:
    """Names that are promised and absent."""
    return sorted(
        f"{kind} {name}" for kind in CONTRACT for name in promised(kind) - later(kind) - answered(kind) - found[kind]
    )


def early(found: dict[str, set[str]]) -> list[str]:
    """Names that still stand in LATER although they are built."""
    return sorted(f"{kind} {name}" for kind in CONTRACT for name in later(kind) & found[kind])


def test_what_is_promised_is_there_or_listed_for_later(project: Project) -> None:
    found = built(project)
    assert min(len(names) for names in found.values()) > 1
    assert broken(found) == []
    assert early(found) == []
    assert [name for _, kind, names in LATER for name in names.split() if name not in promised(kind)] == []


def test_variables_of_other_answers_are_there_with_them(template: Path, tmp_path: Path) -> None:
    for names, answers in ANSWERED.items():
        assert set(names.split()) <= variables(render(template, tmp_path / names, **answers))


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("change", "gone"),
    [
        (Edit(".copier-answers.yml", "github_user:", "github_owner:"), "question github_user"),
        (Edit("Makefile", "fmt: ## ", "fmt: # "), "target fmt"),
        (Edit("src/my_service/cli.py", 'add_parser("migrate"', 'add_parser("upgrade"'), "command migrate"),
        (NO_VERSION, "route /version"),
        (Edit(".env.example", "#GIT_COMMIT=", "#COMMIT="), "variable GIT_COMMIT"),
    ],
)
def test_a_renamed_name_breaks_the_contract(project: Project, tmp_path: Path, change: Change, gone: str) -> None:
    assert broken(built(project.variant(tmp_path / "sick", change))) == [gone]


def test_what_is_built_has_to_leave_the_list(project: Project, tmp_path: Path) -> None:
    ahead = project.variant(
        tmp_path / "ahead",
        Edit(".env.example", "#PORT=", "#USAGE_KEY=\n#PORT="),
        Edit(
            "src/my_service/cli.py",
            "    given = vars(",
            '    commands.add_parser("audit", help="x")\n    given = vars(',
        ),
    )
    assert early(built(ahead)) == ["command audit", "variable USAGE_KEY"]


# --- questions -------------------------------------------------------------------------------------------------


def deviations(questions: dict[str, Any], answers: dict[str, Any]) -> list[str]:
    """Questions whose choices or default are not those of the contract."""
    offered = {name: set(values(q)) for name, q in questions.items() if "choices" in q or q["type"] == "bool"}
    wrong = {name for name in CHOICES if offered.get(name) != set(CHOICES[name])} | (offered.keys() - CHOICES.keys())
    given = {name: answer for name, answer in answers.items() if not name.startswith("_")}
    return sorted(wrong | {name for name in given | DEFAULTS if given.get(name, ...) != DEFAULTS.get(name, ...)})


def test_questions_have_the_choices_and_defaults_of_the_contract(template: Path, tmp_path: Path) -> None:
    answers = yaml.safe_load((render(template, tmp_path / "service") / ".copier-answers.yml").read_text())
    assert deviations(QUESTIONS, answers) == []
    less = {**QUESTIONS, "license": {**QUESTIONS["license"], "choices": ["mit"]}}
    more = {**QUESTIONS, "cache": {"type": "bool"}}
    assert deviations(less, answers) == ["license"]
    assert deviations(more, {**answers, "database": "none"}) == ["cache", "database"]


# --- targets ---------------------------------------------------------------------------------------------------


def unmakeable(project: Project) -> list[str]:
    """Targets that make has no recipe for, or that a file or folder of their name hides."""
    shutil.rmtree(project.root / "ready")
    found = []
    for name in sorted(promised("target") - later("target")):
        (project.root / name).write_text("")
        done = project.run("make", "-n", name, "m=x", check=False)
        if done.returncode or "up to date" in done.stdout or "Nothing to be done" in done.stdout:
            found.append(name)
        (project.root / name).unlink()
    return found


def test_make_knows_each_target_although_a_file_has_its_name(project: Project, tmp_path: Path) -> None:
    assert unmakeable(project.variant(tmp_path / "well")) == []
    sick = project.variant(
        tmp_path / "sick", Edit("Makefile", "fmt: ##", "format: ##"), Edit("Makefile", " setup dev", " dev")
    )
    assert unmakeable(sick) == ["fmt", "setup"]


# --- variables -------------------------------------------------------------------------------------------------


def undocumented(page: str) -> set[str]:
    """Variables of the contract that the reference does not explain."""
    return promised("variable") - later("variable") - set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.M))


def test_the_reference_has_each_variable() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert undocumented(page) == set()
    assert undocumented(page.replace("`LOG_LEVEL`", "`LEVEL`")) == {"LOG_LEVEL"}


# --- exit codes ------------------------------------------------------------------------------------------------


def exits(project: Project, folder: Path) -> dict[int, int]:
    """The exit code of a command that should end with each."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = {"PORT": str(taken.getsockname()[1])}
        done = {
            0: project.cli("migrate", env={"DATABASE_URL": f"sqlite:///{folder}/exits.db"}),
            1: project.cli("serve", env=busy),
            2: project.cli("serve", "--no-such-option"),
            78: project.cli("serve", env={**busy, "ENVIRONMENT": "production"}),
        }
    assert "Traceback" not in "".join(each.stderr for each in done.values())
    return {code: each.returncode for code, each in done.items()}


def test_each_exit_code_comes_from_a_real_command(project: Project, tmp_path: Path) -> None:
    assert exits(project, tmp_path) == {0: 0, 1: 1, 2: 2, 78: 78}


@pytest.mark.sabotage
def test_another_exit_code_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Value("settings:EXIT_REFUSED", "1"))
    assert exits(sick, tmp_path) == {0: 0, 1: 1, 2: 2, 78: 1}


# --- HTTP ------------------------------------------------------------------------------------------------------


def keeps_its_word(service: Service) -> None:
    """Ask a running service for everything that section 5 promises over HTTP."""
    client, anyone = service.client, {"Host": "nobody.test"}
    assert client.get("/livez", headers=anyone).status_code == 200
    ready = client.get("/readyz", headers=anyone)
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert "schema at" in ready.json()["parts"]["db"]["evidence"]
    assert client.get("/version").json().keys() >= {"name", "version", "commit", "environment"}
    assert "text/html" in client.get("/docs").headers["content-type"]
    assert "/v1/items" in client.get("/openapi.json").json()["paths"]
    for path in later("route"):
        assert client.get(path).status_code == 404
    items(client)
    trace = "0af7651916cd43dd8448eb211c80319c"
    ids = {"X-Request-ID": "asked-for", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    lost = client.get("/nowhere", headers=ids)
    assert (lost.status_code, lost.headers["content-type"]) == (404, "application/problem+json")
    assert (lost.headers["x-request-id"], lost.json()["request_id"]) == ("asked-for", "asked-for")
    assert lost.json()["trace_id"] == trace
    assert lost.json().keys() >= {"type", "title", "status", "detail"}


def items(client: httpx.Client) -> None:
    """The life of an item; its creation is retried and happens once."""
    key = {"Idempotency-Key": "contract-1"}
    first, again = (client.post("/v1/items", json={"name": "a"}, headers=key) for _ in range(2))
    assert (first.status_code, again.json()) == (201, first.json())
    path = f"/v1/items/{first.json()['id']}"
    assert [item["id"] for item in client.get("/v1/items").json()["items"]] == [first.json()["id"]]
    assert client.put(path, json={"name": "b"}).json()["name"] == client.get(path).json()["name"] == "b"
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404


@pytest.mark.servers
def test_a_running_service_answers_as_promised(project: Project, tmp_path: Path) -> None:
    with project.serve(tmp_path, migrated(project, f"sqlite:///{tmp_path}/x.db")) as service:
        keeps_its_word(service)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        NO_VERSION,
        deaf("x-request-id"),
        deaf("traceparent"),
        Body("__init__:create_app", 'return original(settings, without={"api_docs", *without})'),
    ],
    ids=["route", "request id", "traceparent", "docs"],
)
def test_a_broken_promise_is_noticed(project: Project, tmp_path: Path, sabotage: Body) -> None:
    sick = project.variant(tmp_path / "sick", sabotage)
    # an instrumentation reads the caller's trace as well: here the door has to do it alone
    env = {"OTEL_SDK_DISABLED": "true", **migrated(sick, f"sqlite:///{tmp_path}/x.db")}
    with sick.serve(tmp_path, env) as service, pytest.raises((AssertionError, KeyError, ValueError)):
        keeps_its_word(service)
