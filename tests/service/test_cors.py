"""CORS: pages of the named origins read every answer, errors included, and pages of no other origin any."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.plant import Feature
from tests.projects import Project, Service
from tests.sabotage import Argument, Body, Sabotage
from tests.service.conftest import refusals

pytestmark = pytest.mark.servers
APP, OTHER = "https://app.acme.test", "https://evil.acme.test"
ORIGINS = f"{APP}, http://localhost:3000"
BROKEN = Feature(
    "broken",
    '''"""A route with an error in it, and one with a policy."""

from fastapi import APIRouter

from ...platform.http_cache.policy import HttpPolicy

router = APIRouter()


@router.get("/broken")
async def broken() -> None:
    raise RuntimeError("broken")


@router.get("/shared")
@HttpPolicy(s_maxage=60, vary=("Accept-Language",))
async def shared() -> str:
    return "shared"
''',
)
ALLOW = "access-control-allow-origin"
# What a page may get: an answer, a 304, and each kind of error, those of the outermost middleware included.
REQUESTS: dict[str, tuple[int, dict[str, object]]] = {
    "answer": (200, {"url": "/v1/items"}),
    "redirect": (307, {"url": "/v1/items/"}),
    "unknown route": (404, {"url": "/nowhere"}),
    "unknown method": (405, {"method": "PATCH", "url": "/v1/items"}),
    "invalid": (422, {"method": "POST", "url": "/v1/items", "json": {}}),
    "unknown host": (400, {"url": "/v1/items", "headers": {"Host": "evil.test"}}),
    "too large": (413, {"method": "POST", "url": "/v1/items", "content": b"x" * 1_100_000}),
    "unhandled": (500, {"url": "/broken"}),
}


@pytest.fixture(scope="module")
def broken(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service with a route that fails. Do not change it: make a `variant`."""
    return bare_project.variant(tmp_path_factory.mktemp("broken") / "service", BROKEN)


@pytest.fixture(scope="module")
def service(broken: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """It allows two origins, with cookies; tests leave it running."""
    env = {"CORS_ORIGINS": ORIGINS, "CORS_CREDENTIALS": "true"}
    with broken.serve(tmp_path_factory.mktemp("run"), env) as running:
        yield running


def ask(service: Service, name: str, origin: str | None) -> httpx.Response:
    status, request = REQUESTS[name]
    headers = {**(request.get("headers") or {}), **({"Origin": origin} if origin else {})}  # type: ignore[dict-item]
    answer = service.client.request(**{"method": "GET", **request, "headers": headers})  # type: ignore[arg-type]
    assert answer.status_code == status
    return answer


def preflight(service: Service, origin: str, method: str = "PUT") -> httpx.Response:
    wanted = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,if-match"}
    return service.client.options("/v1/items", headers={"Origin": origin, **wanted})


def every_answer(service: Service) -> None:
    """Every answer, errors included, can be read by a page of an allowed origin, with our headers."""
    for name in REQUESTS:
        headers = ask(service, name, APP).headers
        assert (headers.get_list(ALLOW), headers["access-control-allow-credentials"]) == ([APP], "true"), name
        assert "Origin" in headers["vary"]
        assert {"ETag", "X-Request-ID"} <= set(headers["access-control-expose-headers"].split(", "))
    first = service.client.get("/shared", headers={"Origin": APP})
    assert first.headers.get_list("vary") == ["Accept-Language, Origin"]
    again = service.client.get("/shared", headers={"Origin": APP, "If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.headers[ALLOW]) == (304, APP)


def no_other(service: Service) -> None:
    """A page of another origin reads nothing; shared caches keep one copy per origin (Fetch, 3.2.5)."""
    assert ask(service, "answer", "http://localhost:3000").headers[ALLOW] == "http://localhost:3000"
    for origin in (OTHER, None, "null", APP + ":8443", APP.upper(), "http://app.acme.test", APP + ".evil.test"):
        for name in REQUESTS:
            headers = ask(service, name, origin).headers
            assert ALLOW not in headers
            assert "Origin" in headers["vary"]


def preflights(service: Service) -> None:
    """A page asks before it sends; who may not is told so in a problem document."""
    answer = preflight(service, APP)
    assert (answer.status_code, answer.headers.get_list(ALLOW)) == (200, [APP])
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,if-match"
    refused = preflight(service, OTHER)
    assert (refused.status_code, refused.json()["code"]) == (400, "cors-refused")
    assert ALLOW not in refused.headers
    assert preflight(service, APP, "BREW").status_code == 400
    assert service.client.options("/v1/items", headers={"Origin": APP}).status_code == 405  # no preflight


Proof = Callable[[Service], None]
PROOFS: list[Proof] = [every_answer, no_other, preflights]


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.__name__)
def test_pages_of_the_named_origins_and_of_no_other(service: Service, proof: Proof) -> None:
    proof(service)


def test_any_origin_without_cookies_or_none(broken: Project, tmp_path: Path) -> None:
    with broken.serve(tmp_path / "any", {"CORS_ORIGINS": "*"}) as service:
        headers = ask(service, "unhandled", OTHER).headers
        assert headers[ALLOW] == "*"
        assert "access-control-allow-credentials" not in headers
        assert preflight(service, OTHER).headers[ALLOW] == "*"
    with broken.serve(tmp_path / "none") as service:
        headers = ask(service, "answer", APP).headers
        assert ALLOW not in headers
        assert "vary" not in headers
        assert preflight(service, APP).status_code == 405


# Origins that no browser sends: https://html.spec.whatwg.org/multipage/browsers.html#ascii-serialisation-of-an-origin
NEVER = [
    "app.acme.test",
    "https://",
    "https://*.acme.test",
    "https://App.acme.test",
    "https://app.acme.test/",
    "https://app.acme.test/x",
    "https://app.acme.test:080",
    "https://app.acme.test:443",
    "https://app.acme.test:99999",
    "http://app.acme.test:80",
    "https://user@app.acme.test",
    "https://äpp.acme.test",
    "*,https://app.acme.test",
    "null",
]


def test_an_origin_that_can_match_nothing_is_refused(broken: Project) -> None:
    tried = [{"CORS_ORIGINS": value} for value in NEVER]
    assert refusals(broken, tried) == ["CORS_ORIGINS"] * len(NEVER)
    assert refusals(broken, [{"CORS_ORIGINS": "*", "CORS_CREDENTIALS": "true"}]) == ["CORS_CREDENTIALS"]
    good = ["capacitor://localhost", "http://[::1]:3000", "http://a.acme.test:443,https://b.acme.test", "*", ""]
    good += ["https://a.acme.test https://b.acme.test", '["https://app.acme.test"]']  # lists, as in every setting
    assert refusals(broken, [{"CORS_ORIGINS": value} for value in good]) == ["served"] * len(good)


@pytest.mark.sabotage
def test_an_origin_that_is_not_checked_is_noticed(broken: Project, tmp_path: Path) -> None:
    anything = Body("cors:_origins", "return origins")
    careless = Body("cors:Settings._not_with_any_origin", "return allowed")
    env = {"CORS_ORIGINS": "*", "CORS_CREDENTIALS": "true"}
    with broken.variant(tmp_path / "sick", anything, careless).serve(tmp_path / "run", env) as service:
        assert service.process.running  # it starts, where it must not


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "broken_promises"),
    [
        (
            Body("cors:respond", "original(context, headers) if context.status < 400 else None"),
            {every_answer, no_other},
        ),
        (Argument("cors:install", "allow_origins", '("*",)'), {every_answer, no_other, preflights}),
        (Body("cors:Preflights.__call__", "await self.app(scope, receive, send)"), {preflights}),
    ],
    ids=["no errors", "anybody", "no preflight"],
)
def test_exactly_the_sabotaged_promises_fail(
    broken: Project, tmp_path: Path, sabotage: Sabotage, broken_promises: set[Proof]
) -> None:
    env, failed = {"CORS_ORIGINS": ORIGINS, "CORS_CREDENTIALS": "true"}, set()
    with broken.variant(tmp_path / "sick", sabotage).serve(tmp_path / "run", env) as running:
        for proof in PROOFS:
            try:
                proof(running)
            except (AssertionError, KeyError, ValueError):
                failed.add(proof)
    assert failed == broken_promises
