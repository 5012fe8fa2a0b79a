"""What a client can cost with a connection, over raw sockets: framing, sizes, deadlines, the number of connections."""

import json
import re
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.plant import Feature
from tests.projects import Change, Project, Service
from tests.sabotage import Argument, Body, Value
from tests.servers.haproxy import HAProxy
from tests.servers.nginx import Nginx
from tests.servers.process import ServerError
from tests.servers.server import Server

pytestmark = pytest.mark.servers

HOST = b"Host: localhost\r\n"
JSON = HOST + b"Content-Type: application/json\r\n"
WEBSOCKET = b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
VERSION = b"GET /version HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKED = b"POST /v1/items HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\nc\r\n" + b'{"name":"a"}\r\n0\r\n'
DEADLINES = Value("server:RECEIVE_SECONDS", "2"), Value("server:SEND_SECONDS", "2")
ROUTES = Feature(
    "slow",
    '''"""Routes that take long."""

import asyncio
import time

from fastapi import APIRouter, Response

router = APIRouter(prefix="/slow")


@router.get("/waiting")
async def waiting() -> str:
    await asyncio.sleep(2)
    return "done"


@router.get("/blocking")
def blocking() -> str:
    time.sleep(60)
    return "done"


@router.get("/thread")
async def thread() -> str:
    await asyncio.to_thread(time.sleep, 60)
    return "done"


@router.get("/large")
async def large() -> Response:
    return Response(bytes(20_000_000))
''',
)


def talk(port: int, *parts: bytes, seconds: float = 10, gap: float = 0.1, end: bytes = b"") -> tuple[bytes, str]:
    """Send each part after a gap; what came until the text `end`, and how the connection ended."""
    received = b""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(seconds)
        try:
            for number, part in enumerate(parts):
                time.sleep(gap if number else 0)
                client.sendall(part)
            while not (end and end in received):
                if not (piece := client.recv(65_536)):
                    return received, "closed"
                received += piece
        except TimeoutError:
            return received, "open"
        except (ConnectionResetError, BrokenPipeError):
            return received, "closed"
    return received, "answered"


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", received)]


@pytest.fixture(scope="module")
def planted(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The service with slow routes and short deadlines."""
    return bare_project.variant(tmp_path_factory.mktemp("planted") / "service", ROUTES, *DEADLINES)


@pytest.fixture(scope="module")
def running(planted: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """It runs; tests leave it running."""
    with planted.serve(tmp_path_factory.mktemp("run"), {"LOG_FORMAT": "json", "KEEP_ALIVE_SECONDS": "2"}) as service:
        yield service


# --- framing

INNER = b"POST /v1/items HTTP/1.1\r\n" + JSON + b'Content-Length: 16\r\n\r\n{"name": "evil"}'
UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    "tls": b"Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
    "several": b"Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
    "websocket": b"Connection: Upgrade\r\n" + WEBSOCKET,
}
FRAMINGS = {
    "length": (b"Content-Length: %d\r\n\r\n" % len(INNER), INNER),
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(INNER), INNER)),
}


def smuggled(port: int, upgrade: str, framing: str) -> list[int]:
    """The statuses of what a server makes of one request, whose body is a request, and of one that follows it."""
    head, body = FRAMINGS[framing]
    begin = b"POST /v1/items HTTP/1.1\r\n" + JSON + UPGRADES[upgrade] + head
    received, _ = talk(port, begin, body, VERSION, end=b'"version"', gap=0.2)
    return statuses(received)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_the_body_of_a_request_with_an_ignored_upgrade_is_its_body(
    running: Service, upgrade: str, framing: str
) -> None:
    """RFC 9110 section 7.8: a server may ignore `Upgrade`; RFC 9112 section 6.3: the length is that of the headers.

    uvicorn with httptools executes the body as a request: https://github.com/Kludex/uvicorn/issues/2722.
    """
    assert smuggled(running.port, upgrade, framing) == [400, 200]


def test_a_client_that_offers_an_upgrade_is_served(running: Service) -> None:
    """As Java's HttpClient, which offers h2c with each first request, also with a body."""
    client = httpx.Client(base_url=f"http://127.0.0.1:{running.port}", trust_env=False)
    with client:
        offer = {
            "Connection": "Upgrade, HTTP2-Settings",
            "Upgrade": "h2c",
            "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA",
        }
        made = client.post("/v1/items", json={"name": "offered"}, headers=offer)
        assert (made.status_code, made.json()["name"]) == (201, "offered")
        assert client.get("/version", headers=offer).status_code == 200


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_ignored_upgrade_changes_nothing_else_of_a_request(running: Service, version: bytes) -> None:
    head = b"GET /version HTTP/" + version + b"\r\n" + HOST + b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n"
    received, end = talk(running.port, head[:60], head[60:] + VERSION)
    assert (statuses(received), end) == ([200], "closed")


@pytest.mark.sabotage
@pytest.mark.parametrize("framing", FRAMINGS)
def test_uvicorns_own_connection_executes_the_body(bare_project: Project, tmp_path: Path, framing: str) -> None:
    sick = bare_project.variant(tmp_path / "sick", Argument("server:serve", "http", '"httptools"'))
    with sick.serve(tmp_path / "run") as service:
        assert smuggled(service.port, "h2c", framing) != [400, 200]


NGINX = """
upstream service {{ server 127.0.0.1:{port}; keepalive 1; }}
server {{
    listen ADDRESS;
    location / {{
        proxy_pass http://service;
        proxy_http_version 1.1;
        proxy_set_header Host localhost;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $http_connection;
    }}
}}
"""
HAPROXY = "http-reuse always\n    http-request set-header Host localhost\n    server one 127.0.0.1:{port}"
BALANCERS: dict[str, Callable[[int], Server]] = {
    "nginx": lambda port: Nginx(NGINX.format(port=port)),
    "haproxy": lambda port: HAProxy(HAPROXY.format(port=port)),
}


def through(balancer: str, port: int) -> tuple[list[str], set[bytes]]:
    """Items that a request in the body of another one has created, and what other clients got meanwhile.

    The body is larger than one read of the service. It begins with empty lines, which a server skips before a request.
    """
    body = b"\r\n" * 200_000 + INNER
    attack = b"POST /v1/items HTTP/1.1\r\n" + JSON + UPGRADES["h2c"] + b"Content-Length: %d\r\n\r\n" % len(body)
    with BALANCERS[balancer](port) as server:
        talk(server.port, attack + body, end=b"HTTP/1.1")
        others = {httpx.get(f"http://{server.address}/version", trust_env=False).content for _ in range(3)}
        items = httpx.get(f"http://{server.address}/v1/items", trust_env=False).json()["items"]
    return [item["name"] for item in items], others


@pytest.mark.parametrize("balancer", BALANCERS)
def test_no_balancer_lets_a_smuggled_request_through(bare_project: Project, tmp_path: Path, balancer: str) -> None:
    with bare_project.serve(tmp_path) as service:
        answer = service.client.get("/version").content
        assert through(balancer, service.port) == ([], {answer})


@pytest.mark.sabotage
def test_uvicorns_own_connection_is_open_behind_nginx(bare_project: Project, tmp_path: Path) -> None:
    """HAProxy refuses such a request itself, with 400."""
    sick = bare_project.variant(tmp_path / "sick", Argument("server:serve", "http", '"httptools"'))
    with sick.serve(tmp_path / "run") as service:
        items, _ = through("nginx", service.port)
        assert items == ["evil"]


def test_trailers_are_no_headers(running: Service) -> None:
    """RFC 9110 section 6.5.1: otherwise a client overrides headers that its proxy has set."""
    received, _ = talk(running.port, CHUNKED + b"X-Request-ID: of-the-trailer\r\n\r\n", VERSION, end=b'"version"')
    assert statuses(received) == [201, 200]
    assert b"of-the-trailer" not in received
    received, _ = talk(running.port, VERSION.replace(HOST, HOST + b"X-Request-ID: of-the-header\r\n"), end=b'"version"')
    assert b"x-request-id: of-the-header" in received


# --- what cannot be read

HANDSHAKE = b"GET / HTTP/1.1\r\n" + HOST + UPGRADES["websocket"]
LONG = b"GET /version HTTP/1.1\r\n" + HOST + b"X-Long: "
UNREADABLE = {
    "no request line": (b"GARBAGE\r\n\r\n", 400, "malformed-request"),
    "a TLS handshake": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed-request"),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed-request"),
    "CONNECT": (b"CONNECT example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "malformed-request"),
    "CONNECT to a path": (b"CONNECT /version HTTP/1.1\r\n" + HOST + b"\r\n", 400, "malformed-request"),
    "a path of other bytes": (b"GET /\xc3\xbc HTTP/1.1\r\n" + HOST + b"\r\n", 400, "malformed-request"),
    "both lengths": (CHUNKED.replace(HOST, HOST + b"Content-Length: 3\r\n"), 400, "malformed-request"),
    # RFC 9110 section 15.5.15
    "a long URL": (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "url-too-long"),
    "a URL without end": (b"GET /" + b"a" * 70_000, 414, "url-too-long"),
    # RFC 6585 section 5
    "many headers": (
        VERSION[:-2] + b"".join(b"x-%d: 1\r\n" % n for n in range(101)) + b"\r\n",
        431,
        "headers-too-large",
    ),
    "large headers": (LONG + b"a" * 66_000 + b"\r\n\r\n", 431, "headers-too-large"),
    "a header without end": (LONG + b"a" * 66_000, 431, "headers-too-large"),
    # the limits of `websockets`, which would neither answer nor close
    "a long line of a handshake": (HANDSHAKE + b"X-Long: " + b"a" * 8_200 + b"\r\n\r\n", 431, "headers-too-large"),
    "a long URL of a handshake": (HANDSHAKE.replace(b"/", b"/" + b"a" * 8_180, 1) + b"\r\n", 431, "headers-too-large"),
    "half a head": (LONG, 408, "request-timeout"),
    "only empty lines": (b"\r\n" * 5, 408, "request-timeout"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_answered_with_a_problem_document(running: Service, name: str) -> None:
    sent, status, code = UNREADABLE[name]
    received, end = talk(running.port, sent)
    assert (statuses(received), end) == ([status], "closed")
    head, _, body = received.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (status, code)
    for header in ("content-type: application/problem+json", "x-content-type-options: nosniff", "connection: close"):
        assert header.encode() in head
    assert f"x-request-id: {problem['request_id']}".encode() in head
    running.process.wait_until(lambda: problem["request_id"] in running.log, 5)
    (line,) = [each for each in map(json.loads, running.log.splitlines()) if each.get("request_id") in problem.values()]
    assert (line["event"], line["status"], line["method"]) == ("request", status, "-")


def test_large_heads_that_balancers_pass_on_are_served(running: Service) -> None:
    received, _ = talk(running.port, LONG + b"a" * 60_000 + b"\r\n\r\n", end=b'"version"')
    assert statuses(received) == [200]
    url = b"GET /version?" + b"a" * 8_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"
    assert statuses(talk(running.port, url, end=b'"version"')[0]) == [200]


def test_a_request_that_cannot_be_read_is_answered_after_those_before_it(running: Service) -> None:
    """uvicorn writes its 400 at once, so that the client takes it for the answer to its first request."""
    received, end = talk(running.port, VERSION + b"GARBAGE\r\n\r\n")
    assert (statuses(received), end) == ([200, 400], "closed")


def test_after_an_unreadable_request_nothing_is_read(running: Service) -> None:
    received, _ = talk(running.port, b"GARBAGE\r\n\r\n" + VERSION)
    assert statuses(received) == [400]


@pytest.mark.parametrize("rest", [b"x-%d: 1\r\n" * 100_000, b"X-Long: " + b"a" * 400_000])
def test_trailers_are_limited(running: Service, rest: bytes) -> None:
    rest = b"".join(b"x-%d: 1\r\n" % number for number in range(100_000)) if b"%d" in rest else rest
    received, end = talk(running.port, CHUNKED, rest, VERSION)
    assert end == "closed"
    assert 200 not in statuses(received)


def memory(service: Service) -> int:
    """In bytes."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024


def test_an_endless_header_costs_no_memory(running: Service) -> None:
    before = memory(running)
    received, end = talk(running.port, LONG, *[b"a" * 1_000_000] * 40, gap=0)
    assert (end, statuses(received) or [431]) == ("closed", [431])  # or a reset, which overtakes the answer
    assert memory(running) - before < 20_000_000


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("name", "sabotage"),
    [
        ("large headers", Value("server:MAX_HEAD_BYTES", "10**9")),
        ("many headers", Value("server:MAX_HEADERS", "10**9")),
        ("a long URL", Value("server:MAX_URL_BYTES", "10**9")),
        ("no request line", Body("server:Connection.stop", "self.send_400_response('')")),
        ("half a head", Body("server:check_all", "pass")),
    ],
)
def test_a_limit_that_is_off_is_noticed(planted: Project, tmp_path: Path, name: str, sabotage: Change) -> None:
    with planted.variant(tmp_path / "sick", sabotage).serve(tmp_path / "run") as service:
        received, end = talk(service.port, UNREADABLE[name][0], seconds=4)
        assert (end, b"problem+json" in received) != ("closed", True)


# --- deadlines

POST = b"POST /v1/items HTTP/1.1\r\n" + JSON + b"Content-Length: 12\r\n\r\n"
SLOW = {
    "nothing": [b""],
    "half a head": [b"GET /ver"],
    "a head, byte by byte": [b"GET / HTTP/1.1\r\n", *[b"a"] * 200],
    "half a body": [POST + b"{"],
    "a body, byte by byte": [POST.replace(b"12", b"1200"), *[b" "] * 200],
    "half a chunk": [CHUNKED[:-10]],
    "half a trailer": [CHUNKED + b"x-a"],
    "half a second request": [VERSION + b"GET /ver"],
}


def lasts(port: int, name: str) -> float:
    """Seconds until the service closes the connection of a slow client; 20 if it does not."""
    began = time.monotonic()
    _, end = talk(port, *SLOW[name], seconds=max(0.1, began + 10 - time.monotonic()))
    return 20 if end == "open" else time.monotonic() - began


@pytest.mark.timing
def test_slow_clients_are_cut_off(running: Service) -> None:
    """CWE-400: each of them would occupy a connection for ever."""
    with ThreadPoolExecutor(len(SLOW)) as pool:
        seconds = dict(zip(SLOW, pool.map(lambda name: lasts(running.port, name), SLOW), strict=True))
    assert {name: took for name, took in seconds.items() if not 0.9 < took < 9} == {}


@pytest.mark.timing
def test_a_body_that_makes_progress_is_not_cut_off(running: Service) -> None:
    parts = [b'{"name":"slow"', *[b" " * 1_100] * 7, b"}"]
    received, _ = talk(running.port, POST.replace(b"12", b"7715"), *parts, gap=0.4, end=b'"name"')
    assert statuses(received) == [201]


def unread(service: Service) -> str:
    """What becomes of a client that does not read its response for four seconds."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", service.port))
        client.sendall(b"GET /slow/large HTTP/1.1\r\n" + HOST + b"\r\n")
        time.sleep(4)
        client.settimeout(5)
        size = 0
        try:
            while size < 20_000_000 and (piece := client.recv(1_000_000)):
                size += len(piece)
        except ConnectionResetError:
            pass
        return "whole" if size >= 20_000_000 else "cut"


@pytest.mark.timing
def test_a_client_that_does_not_read_is_cut_off(running: Service) -> None:
    assert unread(running) == "cut"


@pytest.mark.sabotage
def test_connections_that_nobody_checks_stay(planted: Project, tmp_path: Path) -> None:
    sick = planted.variant(tmp_path / "sick", Body("server:check_all", "pass"))
    with sick.serve(tmp_path / "run") as service, ThreadPoolExecutor() as pool:
        never = pool.submit(unread, service)
        assert set(pool.map(lambda name: lasts(service.port, name), ["nothing", "half a head", "half a body"])) == {20}
        assert never.result() == "whole"


def test_idle_connections_are_kept_as_long_as_the_setting_says(running: Service) -> None:
    began = time.monotonic()
    received, end = talk(running.port, VERSION)
    assert (statuses(received), end) == ([200], "closed")
    assert 1.8 < time.monotonic() - began < 9


@pytest.mark.sabotage
def test_a_keep_alive_that_ignores_its_setting_is_noticed(bare_project: Project, tmp_path: Path) -> None:
    sick = bare_project.variant(tmp_path / "sick", Argument("server:serve", "timeout_keep_alive", "75"))
    with sick.serve(tmp_path / "run", {"KEEP_ALIVE_SECONDS": "2"}) as service:
        assert talk(service.port, VERSION, seconds=5)[1] == "open"


# --- the number of connections

FILES = 256


@contextmanager
def few_files() -> Iterator[None]:
    """What starts meanwhile may open `FILES` files, as after `ulimit -n 256`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def survives(project: Project, folder: Path) -> list[int]:
    """What probes see while 400 clients occupy connections, and what a client gets that was there before them."""
    with ExitStack() as stack:
        with few_files():
            service = stack.enter_context(project.serve(folder, anew=True))
        slow = stack.enter_context(ThreadPoolExecutor(1)).submit(
            httpx.get, f"http://127.0.0.1:{service.port}/slow/waiting", timeout=20, trust_env=False
        )
        time.sleep(0.3)
        for first in [b"", b"GET / HT", VERSION, POST + b"{"] * 100:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            client.sendall(first)
        found = []
        for _ in range(3):
            received, _ = talk(service.port, b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n", seconds=5, end=b"alive")
            found += statuses(received)
        return [*found, slow.result().status_code]


@pytest.fixture(scope="module")
def patient(planted: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """It closes no connection for being slow."""
    return planted.variant(tmp_path_factory.mktemp("patient") / "service", Body("server:check_all", "pass"))


def test_idle_connections_do_not_take_the_probes_away(patient: Project, tmp_path: Path) -> None:
    assert survives(patient, tmp_path) == [200, 200, 200, 200]


@pytest.mark.sabotage
def test_idle_connections_without_a_limit_take_the_probes_away(patient: Project, tmp_path: Path) -> None:
    sick = patient.variant(tmp_path / "sick", Value("server:Connection.limit", "10**9"))
    assert survives(sick, tmp_path / "run") != [200, 200, 200, 200]


# --- one process, and its end


@pytest.mark.parametrize(("value", "advice"), [("4", "serve runs one process"), ("many", "WEB_CONCURRENCY")])
def test_more_processes_are_refused(bare_project: Project, value: str, advice: str) -> None:
    done = bare_project.cli("serve", env={"WEB_CONCURRENCY": value})
    assert (done.returncode, len(done.stderr.splitlines()), "Traceback" in done.stderr) == (78, 1, False)
    assert advice in done.stderr


def cut(project: Project, folder: Path) -> list[dict[str, object]]:
    """The log of a service with routes that outlast the shutdown, whose clients get problem documents."""
    with project.serve(folder, {"LOG_FORMAT": "json"}) as service, ThreadPoolExecutor() as pool:
        base = f"http://127.0.0.1:{service.port}/slow"
        answers = [
            pool.submit(httpx.get, f"{base}/{route}", timeout=30, trust_env=False) for route in ("blocking", "thread")
        ]
        time.sleep(0.5)
        service.process.send(signal.SIGTERM)
        assert service.process.wait(15) == 0
        lines = [json.loads(line) for line in service.log.splitlines()]
        logged = {line["request_id"]: line["status"] for line in lines if line["event"] == "request"}
        for answer in (each.result() for each in answers):
            assert answer.status_code == 503
            assert answer.json()["code"] == "shutting-down"
            assert logged[answer.json()["request_id"]] == 503
        return lines


@pytest.fixture(scope="module")
def impatient(planted: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """It waits one second for requests in flight."""
    return planted.variant(tmp_path_factory.mktemp("impatient") / "service", Value("server:GRACE_SECONDS", "1"))


def test_requests_that_outlast_the_shutdown_are_answered_and_cut(impatient: Project, tmp_path: Path) -> None:
    assert cut(impatient, tmp_path)[-1]["event"] == "stopped although threads still run"


@pytest.mark.sabotage
def test_a_process_that_waits_for_its_threads_is_noticed(impatient: Project, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="did not end"):
        cut(impatient.variant(tmp_path / "sick", Body("server:_end", "pass")), tmp_path / "run")


@pytest.mark.sabotage
def test_requests_that_are_cut_without_an_answer_are_noticed(impatient: Project, tmp_path: Path) -> None:
    deaf = """
    from dataclasses import replace
    self.state = replace(self.state, closing=asyncio.Event())
    await original(scope, receive, send)
    """
    with pytest.raises(AssertionError, match="500"):
        cut(impatient.variant(tmp_path / "sick", Body("http:Door.__call__", deaf)), tmp_path / "run")
