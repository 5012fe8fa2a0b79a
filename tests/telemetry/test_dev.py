"""`/__dev__` shows a developer the last requests with traces, SQL, logs and errors; elsewhere it does not exist."""

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.pages import faults, phone_faults
from tests.plant import Feature
from tests.projects import ROOT, Project, Service
from tests.sabotage import Body, Line, Sabotage
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
PATHS = {"/__dev__": "GET", "/__dev__/data": "GET", "/__dev__/report": "GET", "/__dev__/error": "POST"}
DEV_HTML = "src/my_service/platform/dev.html"
ROUTE = '''"""A route that tells secrets."""

import structlog
from fastapi import APIRouter

router = APIRouter(prefix="/v1/secrets", tags=["secrets"])


@router.get("")
async def tell(q: str = "", size: int = 0) -> dict[str, str]:
    structlog.get_logger("told").info("harmless marker", password="hunter2", said="token=hunter2", pad="x " * size)
    return {}
'''


@pytest.fixture(scope="module")
def telling(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The service with that route. Do not change it: make a `variant`."""
    return project.variant(tmp_path_factory.mktemp("telling") / "service", Feature("secrets", ROUTE))


@contextmanager
def served(project: Project, folder: Path) -> Iterator[Service]:
    """Serve as a developer does."""
    env = migrated(project, f"sqlite:///{folder}/dev.db")
    with project.serve(folder / "run", {"ENVIRONMENT": "local", **env}) as service:
        yield service


@pytest.fixture(scope="module")
def service(telling: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that the tests of this module share: they leave it running."""
    with served(telling, tmp_path_factory.mktemp("dev")) as started:
        yield started


def requests(service: Service) -> list[dict[str, object]]:
    found: list[dict[str, object]] = service.client.get("/__dev__/data").json()["requests"]
    return found


@contextmanager
def opened(browser: Browser, service: Service, seconds: float = 20) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.set_default_timeout(seconds * 1000)
    page.goto(f"http://127.0.0.1:{service.port}/__dev__")
    yield page
    page.close()


def shows_what_happened(browser: Browser, service: Service, seconds: float = 20) -> None:
    """Press both buttons as a person would and read what appears."""
    with opened(browser, service, seconds) as page:
        page.get_by_role("button", name="Call the example").click()
        called = page.locator("details", has_text="/v1/items").first
        called.locator("summary").click()
        called.locator(".span").nth(2).wait_for()
        assert "GET /v1/items" in called.locator(".span").first.inner_text()
        assert "SELECT items.id" in called.locator(".sql").last.inner_text()
        page.get_by_role("button", name="Raise an error").click()
        raised = page.locator("details", has_text="/__dev__/error").first
        raised.locator("summary").first.click()
        trace = raised.locator("pre", has_text="Traceback").text_content() or ""
        assert trace.rstrip().endswith("RequestedError: requested at /__dev__")
        assert page.locator("summary").first.inner_text().split()[:3] == ["500", "POST", "/__dev__/error"]
        assert called.get_attribute("open") is not None  # looking again does not close what one reads


def shows_what_came_from_the_cache(browser: Browser, service: Service, seconds: float = 20) -> None:
    item = service.client.post("/v1/items", json={"name": "lamp"}).json()
    for _ in range(2):
        service.client.get(f"/v1/items/{item['id']}")
    with opened(browser, service, seconds) as page:
        again = page.locator("details", has_text=item["id"]).first
        again.locator("summary").click()
        again.locator(".span", has_text="cache get item: hit").wait_for()


def test_a_call_shows_its_trace_with_sql_and_an_error_its_traceback(browser: Browser, service: Service) -> None:
    shows_what_happened(browser, service)


def test_it_shows_what_came_from_the_cache(browser: Browser, service: Service) -> None:
    shows_what_came_from_the_cache(browser, service)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("shows", "sabotage"),
    [
        (shows_what_happened, Body("dev:Recorder.export", "pass")),
        (shows_what_happened, Body("dev:Recorder.line", 'if line.get("event") == "request":\n    original(line)')),
        (
            shows_what_came_from_the_cache,
            Body("dev:Recorder.export", 'original([span for span in spans if not span.name.startswith("cache")])'),
        ),
    ],
    ids=["spans", "lines", "cache"],
)
def test_a_page_that_sees_less_is_noticed(
    telling: Project, browser: Browser, tmp_path: Path, shows: Callable[..., None], sabotage: Sabotage
) -> None:
    with (
        served(telling.variant(tmp_path / "sick", sabotage), tmp_path) as service,
        pytest.raises((AssertionError, PlaywrightTimeout)),
    ):
        shows(browser, service, seconds=4)


def test_the_page_is_right_in_both_themes(browser: Browser, service: Service) -> None:
    url = f"http://127.0.0.1:{service.port}/__dev__"
    service.client.get("/v1/items")
    for theme in ("light", "dark"):
        assert faults(browser, url, theme, "summary") == []
    policy = service.client.get("/__dev__").headers["content-security-policy"]
    assert re.fullmatch(r"default-src 'none'; connect-src 'self'; script-src 'nonce-[\w-]{22}'; .*", policy)


def there(service: Service) -> list[str]:
    """Paths of the page that are more than an unknown one."""
    unknown = service.client.get("/__dev__/nothing")
    assert unknown.status_code == 404
    return [
        path
        for path, how in PATHS.items()
        if (answer := service.client.request(how, path)).status_code != 404
        or unknown.json()["detail"] not in answer.text
    ]


@pytest.mark.parametrize("environment", ["test", "staging"])
def test_elsewhere_nothing_of_it_exists(project: Project, service: Service, tmp_path: Path, environment: str) -> None:
    assert there(service) == list(PATHS)
    with project.serve(tmp_path, {"ENVIRONMENT": environment, "SHUTDOWN_DRAIN_SECONDS": "0"}) as other:
        assert there(other) == []


@pytest.mark.sabotage
def test_a_page_for_everybody_is_noticed(project: Project, tmp_path: Path) -> None:
    local = 'original(app, settings.model_copy(update={"environment": "local"}))'
    sick = project.variant(tmp_path / "sick", Body("dev:install", local))
    with sick.serve(tmp_path / "run", {"ENVIRONMENT": "staging", "SHUTDOWN_DRAIN_SECONDS": "0"}) as service:
        assert "/__dev__/data" in there(service)


def secrets_shown(service: Service) -> bool:
    service.client.get("/v1/secrets", params={"q": "hunter2"}, headers={"Authorization": "Bearer hunter2hunter2"})
    shown = service.client.get("/__dev__/data").text
    assert "harmless marker" in shown
    assert '"spans":[{' in shown.replace(" ", "")
    return "hunter2" in shown


def test_it_shows_no_secret(service: Service) -> None:
    assert not secrets_shown(service)


@pytest.mark.sabotage
def test_a_secret_that_is_shown_is_noticed(telling: Project, tmp_path: Path) -> None:
    sick = telling.variant(tmp_path / "sick", Body("redaction:redact", "return value"))
    with served(sick, tmp_path) as service:
        assert secrets_shown(service)


def test_it_keeps_a_hundred_requests_and_not_its_own(service: Service) -> None:
    for number in range(130):
        service.client.get(f"/v1/nothing/{number}")
        service.client.get("/__dev__/data", params={"trace": "none"})
        service.client.get("/readyz")
    assert "/v1/nothing/129" in service.log
    assert "/__dev__/data" not in service.log
    assert [each["path"] for each in requests(service)] == [f"/v1/nothing/{number}" for number in range(129, 29, -1)]


def keeps_what_was_asked_for(service: Service) -> None:
    """`make ready` looks for its trace on a service that others call hundreds of times a second."""
    trace_id = secrets.token_hex(16)
    assert service.client.get("/__dev__/data", params={"trace": trace_id}).json() == {}
    service.client.get("/v1/items", headers={"traceparent": f"00-{trace_id}-{'1' * 16}-01"})
    for number in range(220):
        service.client.get(f"/v1/nothing/{number}")
    record = service.client.get("/__dev__/data", params={"trace": trace_id}).json()
    assert record.get("path") == "/v1/items"
    assert len(record["spans"]) == 3  # the request, BEGIN, SELECT


def test_it_keeps_the_trace_that_was_asked_for(service: Service) -> None:
    keeps_what_was_asked_for(service)


@pytest.mark.sabotage
def test_a_page_that_forgets_what_was_asked_for_is_noticed(telling: Project, tmp_path: Path) -> None:
    forgetful = telling.variant(tmp_path / "sick", Body("dev:Recorder.find", "return self.records.get(trace_id, {})"))
    with served(forgetful, tmp_path) as service, pytest.raises(AssertionError):
        keeps_what_was_asked_for(service)


def keeps_little_of_one_trace(service: Service) -> None:
    """A client may send one `traceparent` with each request: W3C Trace Context forbids nothing of the kind."""
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}
    for _ in range(260):
        assert service.client.get("/v1/secrets", params={"size": 20_000}, headers=headers).status_code == 200
    service.client.get("/v1/items")
    record = service.client.get("/__dev__/data", params={"trace": trace_id}).json()
    assert record["status"] == 200
    assert 1 <= len(record["lines"]) <= 200
    assert 1 <= len(record["spans"]) <= 200
    assert max(len(line["pad"]) for line in record["lines"]) <= 16_001


def test_it_keeps_a_bounded_part_of_one_trace(service: Service) -> None:
    keeps_little_of_one_trace(service)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [Body("dev:_add", "parts.append(part)"), Body("dev:_cut", "return {name: str(fields[name]) for name in fields}")],
    ids=["parts", "characters"],
)
def test_a_page_that_keeps_all_of_one_trace_is_noticed(telling: Project, tmp_path: Path, sabotage: Sabotage) -> None:
    with served(telling.variant(tmp_path / "sick", sabotage), tmp_path) as service, pytest.raises(AssertionError):
        keeps_little_of_one_trace(service)


def fits_a_phone(browser: Browser, service: Service) -> None:
    service.client.get("/v1/items")
    service.client.get(f"/v1/items/{'x' * 300}")
    service.client.post("/__dev__/error")
    with opened(browser, service) as page:
        for path in ("/v1/items", "/__dev__/error"):
            page.locator("details", has_text=path).last.locator("summary").first.click()
        page.locator("details[open] .sql").first.wait_for()
        assert phone_faults(page) == []
        bars = [bar.bounding_box() for bar in page.locator("details[open] .bar").all()]
        assert bars
        assert all(bar and bar["x"] >= 0 and bar["width"] >= 60 and bar["x"] + bar["width"] <= 390 for bar in bars)
        raised = page.locator("details", has_text="/__dev__/error").first
        trace = raised.locator("pre", has_text="Traceback")
        assert not trace.is_visible()
        raised.locator("summary", has_text="RequestedError").click()
        trace.wait_for()
        assert phone_faults(page) == []


def test_the_page_fits_a_phone_and_folds_tracebacks(browser: Browser, service: Service) -> None:
    fits_a_phone(browser, service)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Line(DEV_HTML, ".span {", ".span { grid-template-columns: 30rem 5rem 4.5rem }"),
        Line(DEV_HTML, ".request {", ".request { grid-template-columns: .7rem 2rem 4rem 1rem 1fr }"),
        Line(DEV_HTML, "pre {", "pre { white-space: pre }"),
        Line(DEV_HTML, "return [line].concat", 'return [line, make("pre", "", exception || "")];'),
    ],
    ids=["wide", "letters", "sql", "unfolded"],
)
def test_a_page_that_leaves_the_screen_is_noticed(
    telling: Project, browser: Browser, tmp_path: Path, sabotage: Sabotage
) -> None:
    with (
        served(telling.variant(tmp_path / "sick", sabotage), tmp_path) as service,
        pytest.raises((AssertionError, PlaywrightTimeout)),
    ):
        fits_a_phone(browser, service)


def test_no_text_of_a_client_becomes_markup(browser: Browser, service: Service) -> None:
    service.client.get("/v1/<img src=x onerror=document.title=1>")
    with opened(browser, service) as page:
        page.locator("summary", has_text="<img src=x").wait_for()
        assert page.title() == "/__dev__"
        assert page.locator("img").count() == 0


def test_it_shows_the_last_readiness_report(telling: Project, service: Service, browser: Browser) -> None:
    assert service.client.get("/__dev__/data").json()["report"] is False
    telling.ready("--url", f"http://127.0.0.1:{service.port}")
    with opened(browser, service) as page:
        page.get_by_role("link", name="last report").click()
        assert page.locator("ul.tiles > li").count() == 11
        assert page.evaluate("getComputedStyle(document.querySelector('.tiles')).display") == "grid"
    (telling.root / ".ready" / "last.html").unlink()
    assert "run `make ready`" in service.client.get("/__dev__/report").text


def test_the_room_stays_small() -> None:
    text = (ROOT / "template/src/{{ package_name }}/platform/dev.py").read_text()
    assert len(text.splitlines()) <= 250
