"""Behind NGINX that removes a prefix: links, redirects, problem types and the documentation have it (`ROOT_PATH`)."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser
from playwright.sync_api import Error as PageError

from tests.plant import Feature
from tests.projects import Project, Service
from tests.sabotage import Body, Sabotage, Value
from tests.servers.nginx import Nginx
from tests.service.conftest import refusals

pytestmark = pytest.mark.servers
# As docs/http.md has it: FastAPI documents the same as "Behind a Proxy".
PREFIX = """
server {
    listen ADDRESS;
    location /api/ {
        proxy_pass http://127.0.0.1:PORT/;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Proto $scheme;
    }
}
"""
FEATURE = '''"""Routes below a prefix, and one for those who are logged in."""

import os
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.security import OAuth2AuthorizationCodeBearer

router = APIRouter(prefix="/below")
PROVIDER = os.environ.get("PROVIDER", "http://localhost:1")
login = OAuth2AuthorizationCodeBearer(f"{PROVIDER}/authorize", f"{PROVIDER}/token")


@router.get("/slash/")
async def slash() -> str:
    return "slash"


@router.get("/me")
async def me(token: Annotated[str, Depends(login)]) -> str:
    return token
'''


@pytest.fixture(scope="module")
def below(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service with a login. Do not change it: make a `variant`."""
    return bare_project.variant(tmp_path_factory.mktemp("below") / "service", Feature("below", FEATURE))


class Provider(BaseHTTPRequestHandler):
    """An identity provider: redirects back with a code at once, and gives a token to pages of other origins."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.asked.append(self.path)
        self.send_response(302)
        self.send_header("Location", f"{query['redirect_uri'][0]}?code=c0de&state={query['state'][0]}")
        self.end_headers()

    def do_OPTIONS(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(f"{self.path} {sent}")
        self.answer(json.dumps({"access_token": "t0ken", "token_type": "bearer"}).encode())

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", "*, Authorization")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """Its URL: another origin than the service's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def behind(project: Project, folder: Path, provider: str) -> Iterator[tuple[str, Service]]:
    """The URL of the service behind NGINX."""
    env = {"LOG_FORMAT": "json", "PROVIDER": provider, "ROOT_PATH": "/api"}
    with project.serve(folder, env) as service, Nginx(PREFIX.replace("PORT", str(service.port))) as nginx:
        yield f"{nginx.url}/api", service


@pytest.fixture(scope="module")
def served(below: Project, provider: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    """It runs; tests leave it running."""
    with behind(below, tmp_path_factory.mktemp("run"), provider) as running:
        yield running


def links(url: str, service: Service) -> None:
    """Redirects, problem types and the API's description have the prefix; each can be opened."""
    with httpx.Client(trust_env=False) as client:
        redirected = client.get(f"{url}/below/slash?a=1")
        assert (redirected.status_code, redirected.headers["location"]) == (307, f"{url}/below/slash/?a=1")
        assert client.get(redirected.headers["location"]).json() == "slash"
        origin = url.removesuffix("/api")
        for path in ("/nowhere", "/v1/items?limit=0", "/docs/assets/none.js"):
            kind = client.get(url + path).json()["type"]
            assert kind.startswith("/api/problems/")
            assert client.get(origin + kind).status_code == 200
        schema = client.get(f"{url}/openapi.json").json()
        assert schema["servers"] == [{"url": "/api"}]
        assert {"/v1/items", "/below/me"} <= schema["paths"].keys()


def probes(url: str, service: Service) -> None:
    """Probes pass without the prefix and with any host, and are as quiet as without it; log lines name the route."""
    since = len(service.log)
    assert service.client.get("/livez", headers={"Host": "10.0.0.7"}).status_code == 200
    assert service.client.get("/readyz", headers={"Host": "10.0.0.7"}).status_code == 200
    assert service.client.get("/v1/items", headers={"Host": "10.0.0.7"}).status_code == 400
    assert httpx.get(f"{url}/v1/items", trust_env=False).status_code == 200
    line = '"path":"/v1/items","route":"/v1/items","status":200'
    service.process.wait_until(lambda: line in service.log[since:], 5)
    assert "/livez" not in service.log[since:]


@pytest.mark.parametrize("proof", [links, probes])
def test_behind_a_prefix(served: tuple[str, Service], proof: Callable[[str, Service], None]) -> None:
    proof(*served)


def logged_in(browser: Browser, url: str) -> None:
    """A person logs in on the documentation page, by the code flow of OAuth 2, and calls a route with the token."""
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.set_default_timeout(6000)
    try:
        page.goto(f"{url}/docs")
        page.locator("button.authorize").first.click()
        page.locator("#client_id_authorizationCode").first.fill("docs")
        page.locator(".auth-btn-wrapper .authorize").first.click()
        page.locator(".auth-btn-wrapper", has_text="Logout").wait_for()
        page.locator(".auth-btn-wrapper .btn-done").first.click()
        page.locator("#operations-default-me_below_me_get").click()
        page.locator("button.execute").click()
        page.locator(".live-responses-table .response-col_description", has_text="t0ken").first.wait_for()
    finally:
        page.close()
    assert said == []
    assert any(
        f"redirect_uri={url}/docs/oauth2-redirect" in asked.replace("%3A", ":").replace("%2F", "/")
        for asked in Provider.asked
    )
    assert any("code=c0de" in asked and "code_verifier=" in asked for asked in Provider.asked)


def test_a_login_on_the_documentation_page_behind_a_prefix(served: tuple[str, Service], browser: Browser) -> None:
    logged_in(browser, served[0])


def test_a_prefix_that_can_match_nothing_is_refused(bare_project: Project) -> None:
    wrong = ["api", "/", "/api/", "//api", "/a?b", "https://acme.test/api"]
    assert refusals(bare_project, [{"ROOT_PATH": path} for path in wrong]) == ["ROOT_PATH"] * len(wrong)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "proof"),
    [
        (
            Body("server:serve", "object.__setattr__(app.state.platform.settings, 'root_path', '')\noriginal(app)"),
            links,
        ),
        (Value("state:QUIET", "set()"), probes),
    ],
    ids=["no prefix", "loud probes"],
)
def test_a_sabotaged_prefix_is_noticed(
    below: Project, provider: str, tmp_path: Path, sabotage: Sabotage, proof: Callable[[str, Service], None]
) -> None:
    sick = below.variant(tmp_path / "sick", sabotage)
    with behind(sick, tmp_path / "run", provider) as running, pytest.raises((AssertionError, KeyError)):
        proof(*running)


# As a service does it whose documentation page sets no policy for its popups.
NO_OPENER = """
headers[:] = [header for header in headers if header[0] != b"cross-origin-opener-policy"]
original(context, headers)
"""


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Value("api_docs:REDIRECT_CSP", "\"default-src 'self'\""),
        Body("api_docs:_token_origins", "return []"),
        Body("security:respond", NO_OPENER),
    ],
    ids=["no script", "no token", "no opener"],
)
def test_a_login_that_cannot_work_is_noticed(
    below: Project, provider: str, browser: Browser, tmp_path: Path, sabotage: Sabotage
) -> None:
    sick = below.variant(tmp_path / "sick", sabotage)
    with behind(sick, tmp_path / "run", provider) as (url, _), pytest.raises((AssertionError, PageError)):
        logged_in(browser, url)
