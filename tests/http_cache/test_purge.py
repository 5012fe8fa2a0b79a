"""What a write makes wrong the CDN forgets: Cloudflare's API, recorded on loopback, in good and in bad health.

The stand-in speaks what https://developers.cloudflare.com/api/resources/cache/methods/purge/ describes.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.projects import Project, Service
from tests.sabotage import Body, Sabotage, Value
from tests.servers.process import free_port
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
TOKEN = "a-token-that-no-line-may-show"
PATH = "/client/v4/zones/0a1b2c/purge_cache"
DONE = '{"success": true, "errors": [], "messages": [], "result": {"id": "0a1b2c"}}'
NO = (
    '{"success": false, "errors": [{"code": 10000, "message": "Authentication error"}], "messages": [], "result": null}'
)
# The gate does not wait as long for what will not come, but longer than a slow machine takes for some writes.
IMPATIENT = (Value("http_cache:RETRY_SECONDS", "0.05"), Value("http_cache:REQUEST_SECONDS", "0.75"))
Answer = tuple[int, str, dict[str, str]]


class Cdn:
    """Keeps what it is told, and answers what the test wants; it hangs while `open` is not set."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []  # before the good ones
        self.calls: list[tuple[float, str, dict[str, str], Any]] = []
        self.open = threading.Event()
        self.url = ""
        self.heard: Callable[[], None] = lambda: None

    def take(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        self.calls.append((time.monotonic(), path, headers, json.loads(body)))
        self.heard()
        self.open.wait(5)
        return self.answers.pop(0) if self.answers else (200, DONE, {})

    @property
    def tags(self) -> list[list[str]]:
        return [body["tags"] for _, _, _, body in list(self.calls)]

    def wait(self, calls: int, seconds: float = 3.0) -> None:
        """Until it was called so often, and then a little to see that there is no more."""
        deadline = time.monotonic() + seconds
        while len(self.calls) < calls and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.15)
        assert len(self.calls) == calls, self.tags


@contextmanager
def recording() -> Iterator[Cdn]:
    cdn = Cdn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, text, headers = cdn.take(self.path, dict(self.headers), body)
            try:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())
            except OSError:
                pass  # whoever asked has gone

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        cdn.url = f"http://127.0.0.1:{server.server_port}/client/v4"
        try:
            yield cdn
        finally:
            cdn.open.set()
            server.shutdown()
            thread.join()


@contextmanager
def told(project: Project, folder: Path, url: str) -> Iterator[Service]:
    env = {"CDN_API_URL": url, "CDN_TOKEN": TOKEN, "CDN_ZONE": "0a1b2c", "LOG_FORMAT": "json"}
    with project.serve(folder / "run", {"DATABASE_URL": f"sqlite:///{folder}/service.db", **env}) as service:
        yield service
    assert TOKEN not in service.log
    assert service.process.wait() == 0


@pytest.fixture(scope="module")
def running(keeper: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Cdn]]:
    folder = tmp_path_factory.mktemp("purge")
    impatient = keeper.variant(folder / "service", *IMPATIENT)
    with recording() as cdn, told(impatient, folder, cdn.url) as service:
        migrated(keeper, f"sqlite:///{folder}/service.db")
        yield service, cdn


@pytest.fixture
def service(running: tuple[Service, Cdn]) -> Service:
    return running[0]


@pytest.fixture
def cdn(running: tuple[Service, Cdn]) -> Cdn:
    """Well, and without a memory."""
    cdn = running[1]
    cdn.calls.clear()
    cdn.answers.clear()
    cdn.open.set()
    return cdn


def lines(service: Service, since: int) -> list[dict[str, Any]]:
    """What the room has logged."""
    found = [json.loads(line) for line in service.log[since:].splitlines() if "CDN" in line]
    return [line for line in found if line["event"] == "CDN purge failed"]


def test_a_write_is_told_once_it_is_stored(service: Service, cdn: Cdn) -> None:
    path = f"/v1/items/{service.client.post('/v1/items', json={'name': 'first'}).json()['id']}"
    cdn.wait(1)
    seen = []
    cdn.heard = lambda: seen.append(service.client.get(path).json().get("name"))
    try:
        assert service.client.put(path, json={"name": "second"}).status_code == 200
        cdn.wait(2)
        assert service.client.delete(path).status_code == 204
        cdn.wait(3)
    finally:
        cdn.heard = lambda: None
    assert cdn.tags == [["items"]] * 3
    assert seen == ["second", None]
    _, where, headers, _ = cdn.calls[0]
    assert (where, headers["Authorization"]) == (PATH, f"Bearer {TOKEN}")
    assert headers["Content-Type"] == "application/json"


def test_what_was_not_written_is_not_told(service: Service, cdn: Cdn) -> None:
    client = service.client
    item = client.post("/v1/items", json={"name": "first"}).json()["id"]
    cdn.wait(1)
    path = f"/v1/items/{item}"
    assert client.post("/v1/items", json={}).status_code == 422
    assert client.put(path, json={"name": "x"}, headers={"If-Match": '"x"'}).status_code == 412
    assert client.delete(f"/v1/items/{item[:-1]}{'0' if item[-1] != '0' else '1'}").status_code == 404
    assert client.post("/kept/changed", params={"count": 1, "status": 500}).status_code == 500
    assert [client.get(path).status_code, client.get("/v1/items").status_code] == [200, 200]
    cdn.wait(1)


def test_many_writes_are_few_requests_of_at_most_a_hundred_tags(service: Service, cdn: Cdn) -> None:
    cdn.open.clear()  # all but the first wait for it
    assert service.client.post("/kept/changed", params={"count": 1}).status_code == 200
    service.process.wait_until(lambda: len(cdn.calls) == 1, 3)
    for _ in range(20):
        assert service.client.post("/kept/changed", params={"count": 250}).status_code == 200
    cdn.open.set()
    deadline = time.monotonic() + 3
    wanted = {f"tag-{number}" for number in range(250)}
    while set().union(*cdn.tags) != wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    assert set().union(*cdn.tags) == wanted
    assert sorted(len(tags) for tags in cdn.tags if len(tags) > 1) == [50, 100, 100]


FAULTS: dict[str, tuple[Answer, str]] = {
    "busy": ((429, NO, {}), "status 429"),
    "failing": ((503, "<html>", {}), "status 503"),
    "garbage": ((200, "<html>", {}), "JSONDecodeError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_tried_again_and_then_logged_once(service: Service, cdn: Cdn, fault: str) -> None:
    answer, why = FAULTS[fault]
    since = len(service.log)
    cdn.answers += [answer] * 3
    assert service.client.post("/kept/changed", params={"count": 1}).status_code == 200
    cdn.wait(4)  # the last one is fine
    assert lines(service, since) == []
    cdn.answers += [answer] * 4
    assert service.client.post("/kept/changed", params={"count": 2}).status_code == 200
    cdn.wait(8)
    (line,) = lines(service, since)
    assert (line["why"], line["attempts"], line["tags"], line["first"]) == (why, 4, 2, "tag-0")
    assert service.client.post("/kept/changed", params={"count": 1}).status_code == 200
    cdn.wait(9)  # it lives on


def test_a_refusal_is_not_repeated(service: Service, cdn: Cdn) -> None:
    since = len(service.log)
    cdn.answers += [(403, NO, {})]
    assert service.client.post("/kept/changed", params={"count": 1}).status_code == 200
    cdn.wait(1)
    assert [line["why"] for line in lines(service, since)] == ["status 403"]


def test_who_is_told_to_wait_waits(service: Service, cdn: Cdn) -> None:
    cdn.answers += [(429, NO, {"Retry-After": "1"})]
    assert service.client.post("/kept/changed", params={"count": 1}).status_code == 200
    cdn.wait(2)
    assert cdn.calls[1][0] - cdn.calls[0][0] > 0.9


def test_a_cdn_that_hangs_costs_no_request(service: Service, cdn: Cdn) -> None:
    since = len(service.log)
    cdn.open.clear()
    for _ in range(3):
        assert service.client.post("/kept/changed", params={"count": 1}).status_code == 200
        assert len(cdn.calls) <= 1  # the write was done before it was given up
    service.process.wait_until(lambda: lines(service, since) != [], 20)
    assert lines(service, since)[0]["why"] == "TimeoutError"


def test_what_waits_at_the_end_is_sent(keeper: Project, tmp_path: Path) -> None:
    with recording() as cdn:
        with told(keeper, tmp_path, cdn.url) as service:
            assert service.client.post("/kept/changed", params={"count": 1}).status_code == 200
            service.process.wait_until(lambda: len(cdn.calls) == 1, 3)  # hangs, and all else waits behind it
            assert service.client.post("/kept/changed", params={"count": 150}).status_code == 200
            threading.Timer(1.5, cdn.open.set).start()
        assert set().union(*cdn.tags) == {f"tag-{number}" for number in range(150)}


def test_a_cdn_that_is_away_does_not_hold_the_process(keeper: Project, tmp_path: Path) -> None:
    with told(keeper, tmp_path, f"http://127.0.0.1:{free_port()}") as service:
        assert service.client.post("/kept/changed", params={"count": 1}).status_code == 200


def test_half_a_configuration_is_refused(keeper: Project) -> None:
    done = keeper.cli("serve", env={"CDN_ZONE": "0a1b2c"})
    assert done.returncode == 78
    assert "set both CDN_ZONE and CDN_TOKEN" in done.stderr


Test = Callable[[Service, Cdn], None]
# It takes a refusal for a hiccup.
STUBBORN = """
    status, body, after = original(tags)
    return 503 if status == 403 else status, body, after
"""
TELLS_ALL = """
    context.status = 200
    original(context, headers)
"""
SABOTAGES: dict[str, dict[Sabotage, Test]] = {
    "careless": {
        Body("http_cache.purge:respond", TELLS_ALL): test_what_was_not_written_is_not_told,
        Body("http_cache:Cloudflare._post", STUBBORN): test_a_refusal_is_not_repeated,
        Value("http_cache:MAX_RETRY_SECONDS", "0.0"): test_who_is_told_to_wait_waits,
        Value("http_cache:MAX_PURGE_TAGS", "1_000"): test_many_writes_are_few_requests_of_at_most_a_hundred_tags,
    },
    "impatient": {
        Body("http_cache:Invalidates.__call__", "return endpoint"): test_a_write_is_told_once_it_is_stored,
        Body("http_cache:Cloudflare.purge", "self._send(list(tags))"): test_a_cdn_that_hangs_costs_no_request,
        Value("http_cache:ATTEMPTS", "1"): partial(test_a_fault_is_tried_again_and_then_logged_once, fault="busy"),
    },
}


@pytest.mark.sabotage
@pytest.mark.parametrize("what", SABOTAGES)
def test_a_sabotaged_room_fails_the_proof(keeper: Project, tmp_path: Path, what: str) -> None:
    sick = keeper.variant(tmp_path / "sick", *IMPATIENT, *SABOTAGES[what])
    with recording() as cdn, told(sick, tmp_path, cdn.url) as service:
        migrated(sick, f"sqlite:///{tmp_path}/service.db")
        for proof in SABOTAGES[what].values():
            cdn.open.set()
            with pytest.raises(AssertionError):
                proof(service, cdn)
            cdn.open.set()
            time.sleep(0.2)
            cdn.calls.clear()
            cdn.answers.clear()
        assert "NameError" not in service.log  # of the sabotage itself


@pytest.mark.sabotage
def test_what_waits_is_lost_where_nobody_closes(keeper: Project, tmp_path: Path) -> None:
    sick = keeper.variant(tmp_path / "sick", Body("http_cache:Cloudflare.close", "return"))
    with pytest.raises(AssertionError):
        test_what_waits_at_the_end_is_sent(sick, tmp_path)
