"""`/__dev__` shows a developer the last requests with traces, SQL, logs and errors; elsewhere it does not exist."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.pages import faults
from tests.projects import ROOT, Edit, Project, Service
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
DEV = "src/my_service/platform/dev.py"
PATHS = {"/__dev__": "GET", "/__dev__/data": "GET", "/__dev__/report": "GET", "/__dev__/error": "POST"}
ROUTE = '''"""A route that tells secrets."""

import structlog
from fastapi import APIRouter

router = APIRouter(prefix="/v1/secrets", tags=["secrets"])


@router.get("")
async def tell(q: str = "") -> dict[str, str]:
    structlog.get_logger("told").info("harmless marker", password="hunter2", said="token=hunter2")
    return {}
'''
Serve = Callable[..., AbstractContextManager[Service]]


@pytest.fixture
def serve(project: Project, tmp_path: Path) -> Serve:
    """Serve as a developer does."""

    @contextmanager
    def start(of: Project = project, **env: str) -> Iterator[Service]:
        own = migrated(of, f"sqlite:///{tmp_path}/dev.db")
        with of.serve(tmp_path / "run", {"ENVIRONMENT": "local", **own, **env}) as service:
            yield service

    return start


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
        raised.locator("summary").click()
        trace = raised.locator("pre", has_text="Traceback").inner_text()
        assert trace.rstrip().endswith("Requested: asked for at /__dev__")
        assert page.locator("summary").first.inner_text().split()[:3] == ["500", "POST", "/__dev__/error"]
        assert called.get_attribute("open") is not None  # looking again does not close what one reads


def test_a_call_shows_its_trace_with_sql_and_an_error_its_traceback(browser: Browser, serve: Serve) -> None:
    with serve() as service:
        shows_what_happened(browser, service)


@pytest.mark.parametrize(
    "edit",
    [
        Edit(DEV, "    state.spans.append(recorder)\n", ""),
        Edit(DEV, "    state.lines.append(recorder.line)\n", ""),
        Edit(
            "src/my_service/platform/logs.py",
            "_redacted, told, render]",
            "_redacted, render]",
        ),
    ],
    ids=["spans", "lines", "listeners"],
)
def test_a_page_that_sees_less_is_noticed(
    project: Project, browser: Browser, serve: Serve, tmp_path: Path, edit: Edit
) -> None:
    with (
        serve(project.variant(tmp_path / "sick", edit)) as service,
        pytest.raises((AssertionError, PlaywrightTimeout)),
    ):
        shows_what_happened(browser, service, seconds=4)


def test_the_page_is_right_in_both_themes(browser: Browser, serve: Serve) -> None:
    with serve() as service:
        url = f"http://127.0.0.1:{service.port}/__dev__"
        service.client.get("/v1/items")
        for theme in ("light", "dark"):
            assert faults(browser, url, theme, "summary") == []
        policy = service.client.get("/__dev__").headers["content-security-policy"]
    assert re.fullmatch(r"default-src 'none'; connect-src 'self'; script-src 'nonce-[\w-]{22}'; .*", policy)


@pytest.mark.parametrize("environment", ["test", "staging"])
def test_elsewhere_nothing_of_it_exists(serve: Serve, environment: str) -> None:
    with serve() as service:
        assert [service.client.request(how, path).status_code for path, how in PATHS.items()] == [200, 200, 404, 500]
    with serve(ENVIRONMENT=environment) as service:
        answers = [service.client.request(how, path) for path, how in PATHS.items()]
        unknown = service.client.get("/__dev__/nothing")
        assert [answer.status_code for answer in answers] == [404] * 4
        assert {answer.json()["detail"] for answer in answers} == {unknown.json()["detail"]}


def test_a_page_for_everybody_is_noticed(project: Project, serve: Serve, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Edit(DEV, 'if settings.environment != "local":', "if False:"))
    with serve(sick, ENVIRONMENT="staging") as service:
        assert service.client.get("/__dev__/data").status_code == 200


def secrets_shown(project: Project, serve: Serve, folder: Path, *edits: Edit) -> str:
    own = project.variant(folder, *edits)
    feature = own.root / "src/my_service/features/secrets"
    feature.mkdir()
    (feature / "__init__.py").write_text('"""Secrets."""\n')
    (feature / "routes.py").write_text(ROUTE)
    with serve(own) as service:
        service.client.get("/v1/secrets", params={"q": "hunter2"}, headers={"Authorization": "Bearer hunter2hunter2"})
        return service.client.get("/__dev__/data").text


def test_it_shows_no_secret(project: Project, serve: Serve, tmp_path: Path) -> None:
    shown = secrets_shown(project, serve, tmp_path / "well")
    assert "harmless marker" in shown
    assert '"spans":[{' in shown.replace(" ", "")
    assert "hunter2" not in shown
    edit = Edit("src/my_service/platform/logs.py", "event[name] = redact(value, name)", "pass")
    assert "hunter2" in secrets_shown(project, serve, tmp_path / "sick", edit)


def test_it_keeps_a_hundred_requests_and_not_its_own(serve: Serve) -> None:
    with serve() as service:
        for number in range(130):
            service.client.get(f"/v1/nothing/{number}")
            service.client.get("/__dev__/data")
            service.client.get("/readyz")
        found = requests(service)
        assert "/v1/nothing/129" in service.log
        assert "/__dev__/data" not in service.log
    assert [each["path"] for each in found] == [f"/v1/nothing/{number}" for number in range(129, 29, -1)]


def test_no_text_of_a_client_becomes_markup(browser: Browser, serve: Serve) -> None:
    with serve() as service:
        service.client.get("/v1/<img src=x onerror=document.title=1>")
        with opened(browser, service) as page:
            page.locator("summary", has_text="<img src=x").wait_for()
            assert page.title() == "/__dev__"
            assert page.locator("img").count() == 0


def test_it_shows_the_last_readiness_report(project: Project, serve: Serve, browser: Browser, tmp_path: Path) -> None:
    own = project.variant(tmp_path / "own")
    with serve(own) as service:
        assert service.client.get("/__dev__/data").json()["report"] is False
        own.ready("--url", f"http://127.0.0.1:{service.port}")
        with opened(browser, service) as page:
            page.get_by_role("link", name="last report").click()
            assert page.locator("ul.tiles > li").count() == 11
            assert page.evaluate("getComputedStyle(document.querySelector('.tiles')).display") == "grid"
        (own.root / ".ready" / "last.html").unlink()
        assert "type `make ready`" in service.client.get("/__dev__/report").text


def test_the_room_stays_small() -> None:
    text = (ROOT / "template/src/{{ package_name }}/platform/dev.py").read_text()
    assert len(text.splitlines()) <= 250


@pytest.mark.parametrize("known", [True, False])
def test_it_shows_what_came_from_the_cache(
    project: Project, browser: Browser, serve: Serve, tmp_path: Path, known: bool
) -> None:
    edit = Edit("src/my_service/platform/cache/readthrough.py", 'set_attribute("cache.result"', 'set_attribute("other"')
    with serve(project if known else project.variant(tmp_path / "sick", edit)) as service:
        item = service.client.post("/v1/items", json={"name": "lamp"}).json()
        for _ in range(2):
            service.client.get(f"/v1/items/{item['id']}")
        with opened(browser, service) as page:
            again = page.locator("details", has_text=item["id"]).first
            again.locator("summary").click()
            again.locator(".span", has_text="cache get item").wait_for()
            assert again.locator(".span", has_text="cache get item: hit").count() == known
