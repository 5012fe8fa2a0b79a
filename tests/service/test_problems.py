"""Problem documents: bounded, without values, with codes of our own and types that can be opened (RFC 9457)."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from http.client import responses
from pathlib import Path

import httpx
import pytest

from tests.plant import Feature
from tests.projects import Project, Service
from tests.sabotage import Body, Line, Sabotage, Value
from tests.servers.postgres import Postgres
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
VALUE = "v4lue-of-the-service"
FAILING = Feature(
    "failing",
    '''"""Routes that fail."""

from typing import Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel

from ...platform.problems import Conflict, Forbidden, Unauthorized

router = APIRouter(prefix="/failing")
DETAILS: dict[str, Any] = {
    "members": {"left": 3, "type": "mine", "code": "out-of-stock", "detail": "Only 3 are left.", "at": 2**70},
    "list": [{"field": "name"}, float("nan"), "\\ud800"],
    "number": 7,
    "text": "Only text.",
}


class Price(BaseModel):
    amount: int


class Numbers(BaseModel):
    numbers: list[int]


class OutOfStock(Conflict):
    """The warehouse has fewer items than the order.

    More about it.
    """

    code = "out-of-stock"


@router.post("/numbers")
async def numbers(numbers: Numbers) -> int:
    return len(numbers.numbers)


@router.get("/response", response_model=list[Price])
async def respond(value: str) -> Any:
    return [{"amount": 1}, {"amount": value}]


@router.get("/model")
async def validate(value: str) -> int:
    return Price.model_validate({"amount": value}).amount


@router.get("/detail/{name}")
async def detail(name: str) -> None:
    raise HTTPException(409, detail=DETAILS[name])


@router.get("/status/{status}")
async def status(status: int) -> None:
    raise HTTPException(status)


@router.get("/out-of-stock")
async def out_of_stock() -> None:
    raise OutOfStock("Only 3 are left.")


@router.get("/unauthorized")
async def unauthorized() -> None:
    raise Unauthorized("No token.")


@router.get("/basic")
async def basic() -> None:
    raise Unauthorized("No password.", challenge='Basic realm="orders"')


@router.get("/forbidden")
async def forbidden() -> None:
    raise Forbidden("Not yours.")
''',
)


@pytest.fixture(scope="module")
def failing(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service with routes that fail. Do not change it: make a `variant`."""
    return bare_project.variant(tmp_path_factory.mktemp("failing") / "service", FAILING)


@pytest.fixture(scope="module")
def service(failing: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """It runs; tests leave it running."""
    with failing.serve(tmp_path_factory.mktemp("run"), {"LOG_FORMAT": "json"}) as running:
        yield running


def problem(answer: httpx.Response, status: int) -> dict[str, object]:
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, object] = json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["status"] == status
    return found


# --- bounded, without values ------------------------------------------------------------------------------------


def bounded(service: Service) -> None:
    """However many faults a body has, and however long their names are (CWE-400): the first ones, and how many more."""
    body = {f"k{number}": 1 for number in range(75_000)}
    found = problem(service.client.post("/v1/items", json=body), 422)
    assert (len(found["errors"]), found["errors_left_out"]) == (20, 74_981)  # type: ignore[arg-type]
    bodies = {"/failing/numbers": {"numbers": ["x"] * 100_000}, "/v1/items": {"name": "x", "k" * 900_000: 1}}
    for path, large in bodies.items():
        answer = service.client.post(path, json=large)
        assert problem(answer, 422)["errors"]
        assert len(answer.content) < 10_000
    few = problem(service.client.post("/v1/items", json={"x": 1}), 422)
    assert few["errors"] == [
        {"location": "body.name", "message": "Field required", "type": "missing"},
        {"location": "body.x", "message": "Extra inputs are not permitted", "type": "extra_forbidden"},
    ]
    assert "errors_left_out" not in few


def valueless(service: Service) -> None:
    """What does not fit a model of the service is logged by place and type."""
    for path, where in (("response", "response.1.amount (int_parsing)"), ("model", "amount (int_parsing)")):
        since = len(service.log)
        problem(service.client.get(f"/failing/{path}", params={"value": VALUE}), 500)
        service.process.wait_until(lambda since=since: '"event":"request"' in service.log[since:], 5)  # type: ignore[misc]
        assert f"InvalidData: {where}" in service.log[since:]
        assert f"in {'serialize_response' if path == 'response' else 'validate'}" in service.log[since:]  # where it was
        assert VALUE not in service.log[since:]


# --- codes, types and members -----------------------------------------------------------------------------------

CODES = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    408: "request-timeout",
    409: "conflict",
    410: "gone",
    412: "precondition-failed",
    413: "content-too-large",  # Python 3.11: "Request Entity Too Large"
    414: "url-too-long",  # Python 3.11: "Request-URI Too Long"
    415: "unsupported-media-type",
    422: "unprocessable",  # Python 3.11: "Unprocessable Entity", 3.13: "Unprocessable Content"
    429: "too-many-requests",
    431: "headers-too-large",
    500: "internal-error",
    501: "not-implemented",
    503: "unavailable",
    504: "gateway-timeout",
    418: "error",
    499: "error",
}


def named(service: Service) -> None:
    """Neither code nor title nor detail comes from the phrases of the standard library, which change with Python."""
    found = {status: problem(service.client.get(f"/failing/status/{status}"), status) for status in CODES}
    assert {status: each["code"] for status, each in found.items()} == CODES
    assert found[413]["title"] == "Content too large"
    assert [status for status, each in found.items() if each["detail"] in (responses.get(status), "")] == []


def opened(service: Service) -> None:
    """The type of a problem can be opened (RFC 9457, 3.1.1); it is `about:blank` where nothing is known."""
    paths = {
        "/nowhere": "not-found",
        "/failing/out-of-stock": "out-of-stock",
        "/v1/items/01890000-0000-7000-8000-000000000000": "item-not-found",
        "/v1/items?limit=0": "invalid-request",
    }
    for path, code in paths.items():
        found = service.client.get(path).json()
        assert (found["type"], found["code"]) == (f"/problems/{code}", code)
        page = service.client.get(found["type"])
        assert (page.status_code, page.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert page.text.startswith(f"{code} (status {found['status']})\n\n")
    assert service.client.get("/problems/out-of-stock").text.endswith("has fewer items than the order.\n")
    assert service.client.get("/failing/status/418").json()["type"] == "about:blank"
    assert problem(service.client.get("/problems/unknown"), 404)["code"] == "not-found"


def detailed(service: Service) -> None:
    """A detail that is no text becomes members of the document (RFC 9457, 3.2), as JSON and beside what it has."""
    found = problem(service.client.get("/failing/detail/members"), 409)
    assert (found["left"], found["at"], found["type"]) == (3, 2**70, "/problems/out-of-stock")
    assert (found["code"], found["detail"]) == ("out-of-stock", "Only 3 are left.")
    for name, details in (("list", [{"field": "name"}, None, "?"]), ("number", 7)):
        found = problem(service.client.get(f"/failing/detail/{name}"), 409)
        assert (found["details"], found["detail"]) == (details, "The request conflicts with what is stored.")
    text = problem(service.client.get("/failing/detail/text"), 409)
    assert text["detail"] == "Only text."
    assert "details" not in text


def challenged(service: Service) -> None:
    """401 says how to authenticate (RFC 9110, 15.5.2); 403 does not."""
    answers = {name: service.client.get(f"/failing/{name}") for name in ("unauthorized", "basic", "forbidden")}
    assert [answer.status_code for answer in answers.values()] == [401, 401, 403]
    assert answers["unauthorized"].headers["www-authenticate"] == "Bearer"
    assert answers["basic"].headers["www-authenticate"] == 'Basic realm="orders"'
    assert "www-authenticate" not in answers["forbidden"].headers


Proof = Callable[[Service], None]
PROOFS: list[Proof] = [bounded, challenged, detailed, named, opened, valueless]


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.__name__)
def test_an_error_is_a_problem_as_promised(service: Service, proof: Proof) -> None:
    proof(service)


PHRASES = "from http.client import responses\nreturn responses[status].lower().replace(' ', '-')"
REPR = "return response(error.status_code, code_of(error.status_code), str(error.detail))"
# Each service is broken in several places that do not touch each other, because a start costs more than a proof.
SABOTAGES: list[dict[Sabotage, set[Proof]]] = [
    {
        Body("codes:code_of", PHRASES): {named},
        Body("problems:Unauthorized.__init__", "ServiceError.__init__(self, detail)"): {challenged},
        Value("problems:MAX_ERRORS", "10**9"): {bounded},
    },
    {
        Body("problems:install.http_error", REPR): {detailed, named},
        Body("problems:install.explain", 'raise NotFound("")'): {opened},
        Body("problems:install.invalid_data", "raise error"): {valueless},
        Value("problems:MAX_CHARACTERS", "10**9"): {bounded},
    },
]


def fails(proof: Proof, service: Service) -> bool:
    try:
        proof(service)
    except (AssertionError, KeyError, ValueError):
        return True
    return False


@pytest.mark.sabotage
@pytest.mark.parametrize("sabotage", SABOTAGES, ids=["first", "second"])
def test_exactly_the_sabotaged_promises_fail(
    failing: Project, tmp_path: Path, sabotage: dict[Sabotage, set[Proof]]
) -> None:
    sick = failing.variant(tmp_path / "sick", *sabotage)
    with sick.serve(tmp_path / "run", {"LOG_FORMAT": "json"}) as running:
        failed = {proof for proof in PROOFS if fails(proof, running)}
    assert failed == set().union(*sabotage.values())


# --- the page ---------------------------------------------------------------------------------------------------


def undocumented(project: Project) -> set[tuple[str, int]]:
    """Codes that either the table or `docs/problems.md` lacks, and codes in the source that the table lacks."""
    code = "from my_service.platform.codes import PROBLEMS; import json; print(json.dumps(PROBLEMS))"
    table = json.loads(project.run(str(project.venv / "bin/python"), "-c", code).stdout)
    known = {(name, int(status), text) for status, codes in table.items() for name, text in codes.items()}
    page = (project.root / "docs/problems.md").read_text()
    named = {
        (name, int(status), text) for name, status, text in re.findall(r"^\| `(.+)` \| (\d+) \| (.+) \|$", page, re.M)
    }
    used = {pair for file in (project.root / "src").rglob("*.py") for pair in _used(ast.parse(file.read_text()))}
    assert len(used) > 5
    return {(name, status) for name, status, _ in known ^ named} | (
        used - {(name, status) for name, status, _ in known}
    )


def _used(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The pairs of a status and a code in calls of `response` and in tables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call | ast.Tuple):
            parts = node.args if isinstance(node, ast.Call) else node.elts
            texts = [part.value for part in parts[:2] if isinstance(part, ast.Constant)]
            if len(texts) == 2 and isinstance(texts[0], int) and re.fullmatch("[a-z]+(-[a-z]+)*", str(texts[1])):
                yield str(texts[1]), texts[0]


def test_every_code_is_documented(project: Project, bare_project: Project) -> None:
    assert undocumented(project) == set()
    assert undocumented(bare_project) == set()


@pytest.mark.sabotage
def test_a_code_that_is_not_documented_is_noticed(project: Project, tmp_path: Path) -> None:
    other = Body("security:too_large", 'return response(413, "much-too-large", "")')
    sick = project.variant(tmp_path / "sick", Line("docs/problems.md", "| `gone`"), other)
    assert undocumented(sick) == {("gone", 410), ("much-too-large", 413)}


# --- what the database refuses ----------------------------------------------------------------------------------

TWICE = Feature(
    "twice",
    '''"""A row that may exist once."""

from uuid import UUID

from fastapi import APIRouter, Request
from sqlalchemy import text

from ...platform.state import state_of

router = APIRouter(prefix="/twice")
INSERT = """INSERT INTO items (id, name, quantity, created_at, updated_at)
VALUES (:id, :name, :quantity, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"""


@router.post("/{id}")
async def insert(request: Request, id: UUID, name: str, quantity: int | None = 0) -> None:
    async with state_of(request.app).database.begin() as session:  # type: ignore[union-attr]
        key = id if session.bind.dialect.name == "postgresql" else id.hex
        await session.execute(text(INSERT), {"id": key, "name": name, "quantity": quantity})


@router.post("/{id}/empty")
async def insert_none(request: Request, id: UUID) -> None:
    await insert(request, id, "x", None)
''',
)
ROW = "/twice/01890000-0000-7000-8000-000000000001"


def conflicting(project: Project, folder: Path, url: str) -> None:
    """A row that exists is a conflict and no failure: 409, without the values; a row that is wrong stays a 500."""
    with project.serve(folder, {**migrated(project, url), "LOG_FORMAT": "json"}) as service:
        assert service.client.post(ROW, params={"name": VALUE}).status_code == 200
        answer = service.client.post(ROW, params={"name": VALUE})
        assert problem(answer, 409)["code"] == "conflict"
        assert VALUE not in answer.text + service.log
        assert '"level":"error"' not in service.log
        assert service.client.post(f"{ROW[:-1]}2/empty").status_code == 500


@pytest.fixture(scope="module")
def twice(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service that may insert a row twice."""
    return project.variant(tmp_path_factory.mktemp("twice") / "service", TWICE)


def test_what_exists_already_is_a_conflict(twice: Project, postgres: Postgres, tmp_path: Path) -> None:
    conflicting(twice, tmp_path / "sqlite", f"sqlite:///{tmp_path}/service.db")
    conflicting(twice, tmp_path / "postgresql", postgres.create_database())


@pytest.mark.sabotage
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_a_conflict_that_is_unknown_is_noticed(twice: Project, postgres: Postgres, tmp_path: Path, store: str) -> None:
    sick = twice.variant(tmp_path / "sick", Value("db.faults:CONFLICT", "None"))
    url = f"sqlite:///{tmp_path}/service.db" if store == "sqlite" else postgres.create_database()
    with pytest.raises(AssertionError):
        conflicting(sick, tmp_path / "run", url)
