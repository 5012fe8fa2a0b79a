"""What a service process exports as metrics: every request once, under the names that alerts are written against."""

import re
import socket
import threading
from collections import Counter
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from websockets.sync.client import connect

from tests.contract import BUCKETS
from tests.projects import Project
from tests.proof import count
from tests.sabotage import Argument, Body, Sabotage, Value
from tests.servers.otlp import Collector, Point, open_collector
from tests.servers.process import ServerError, free_port
from tests.telemetry.conftest import Watched, watch

pytestmark = pytest.mark.servers
DURATION = "http.server.request.duration"
METHOD, ROUTE, STATUS = "http.request.method", "http.route", "http.response.status_code"
POOL = "db.client.connection.pool.name"
# Frozen: name, unit, kind and attributes. Copied by hand, so a change is made twice.
FROZEN = {
    (DURATION, "s", "histogram", frozenset({METHOD, ROUTE, STATUS, "url.scheme"})),
    (DURATION, "s", "histogram", frozenset({METHOD, STATUS, "url.scheme"})),
    (DURATION, "s", "histogram", frozenset({METHOD, ROUTE, STATUS, "url.scheme", "error.type"})),
    ("http.server.active_requests", "{request}", "up_down_sum", frozenset({METHOD, "url.scheme"})),
    ("cache.breaker.open", "", "gauge", frozenset()),
    ("cache.requests", "{request}", "sum", frozenset({"cache.policy", "cache.result"})),
    ("log.lines.dropped", "{line}", "sum", frozenset()),
    ("process.cpu.time", "s", "sum", frozenset({"cpu.mode"})),
    ("process.memory.usage", "By", "up_down_sum", frozenset()),
    ("process.unix.file_descriptor.count", "{file_descriptor}", "up_down_sum", frozenset()),
    ("process.event_loop.lag", "s", "gauge", frozenset()),
    ("db.client.connection.count", "{connection}", "up_down_sum", frozenset({POOL, "db.client.connection.state"})),
    ("db.client.connection.max", "{connection}", "up_down_sum", frozenset({POOL})),
}
SUFFIX = {"s": "_seconds", "By": "_bytes"}


def counted(collector: Collector) -> Counter[tuple[str, str | None, int]]:
    """How many requests the histogram has, by method, route and status."""
    found: Counter[tuple[str, str | None, int]] = Counter()
    for point in collector.named(DURATION):
        found[point.attributes[METHOD], point.attributes.get(ROUTE), point.attributes[STATUS]] += int(point.value)
    return found


def raw(port: int, request: bytes) -> bytes:
    """The status line of the answer to a request that no client would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return connection.makefile("rb").readline().split(b" ", 1)[1].strip()


def counts_each_once(watched: Watched) -> None:
    """Requests of all sorts: each is in the histogram once, and nothing else is."""
    before = counted(watched.collector)
    sent: Counter[tuple[str, str | None, int]] = Counter()
    for path, route in (
        ("/watch/plain/{}", "/watch/plain/{name}"),
        ("/watch/stream", "/watch/stream"),
        ("/watch/boom", "/watch/boom"),
        ("/sub/x/{}", "/sub/x/{y}"),
        ("/tenants/t{}/x/{}", "/tenants/{tenant}/x/{y}"),
        ("/v1/items", "/v1/items"),
        ("/docs/assets/{}", None),
        ("/sub/nowhere/{}", None),
    ):
        for number in range(4):
            answer, _, _ = watched.ask(path.format(number, number), sampled=number < 2)
            sent["GET", route, answer.status_code] += 1
    for number in range(count(60, 1000)):
        assert watched.service.client.get(f"/nowhere/{number}").status_code == 404
        sent["GET", None, 404] += 1
    for method in (
        b"PROPFIND",
        b"PURGE",
        b"LOCK",
        b"M-SEARCH",
        b"SUBSCRIBE",
    ):  # the parser refuses what it does not know
        assert raw(watched.service.port, method + b" /watch/plain/a") == b"405 Method Not Allowed"
        sent["_OTHER", "/watch/plain/{name}", 405] += 1
    assert raw(watched.service.port, b"GET /\xff\xfe%00%ff").startswith(b"4")
    for path in ("/livez", "/readyz"):
        assert watched.service.client.get(path).is_success
    with connect(f"ws://127.0.0.1:{watched.service.port}/watch/socket") as peer:
        peer.close()

    def arrived() -> bool:
        return sum((counted(watched.collector) - before).values()) >= sum(sent.values())

    watched.collector.wait_until(arrived)
    found = counted(watched.collector) - before
    refused = found - sent  # of the path that is none, if it came so far
    assert sent - found == Counter()
    assert sum(refused.values()) <= 1
    assert {route for _, route, _ in refused} <= {None}
    assert len(watched.collector.named(DURATION)) < 30


def test_every_request_is_counted_once_and_series_stay_few(watched: Watched) -> None:
    counts_each_once(watched)


def shapes(points: list[Point]) -> set[tuple[str, str, str, frozenset[str]]]:
    return {(point.name, point.unit, point.kind, frozenset(point.attributes)) for point in points}


def test_names_units_and_attributes_are_the_frozen_ones_and_no_others(watched: Watched) -> None:
    for path in ("/watch/plain/a", "/watch/boom", "/nowhere", f"/v1/items/{UUID(int=1)}"):
        watched.ask(path)
    watched.collector.wait_until(lambda: len(shapes(list(watched.collector.points.values()))) >= len(FROZEN))
    assert shapes(list(watched.collector.points.values())) == FROZEN
    assert {point.bounds for point in watched.collector.named(DURATION)} == {BUCKETS}
    errors = {
        point.attributes["error.type"]
        for point in watched.collector.named(DURATION)
        if "error.type" in point.attributes
    }
    assert errors == {"RuntimeError"}
    assert watched.collector.broken == []


def test_an_exemplar_leads_from_the_histogram_to_a_sampled_trace(watched: Watched) -> None:
    _, sampled, _ = watched.ask("/watch/plain/exemplar")
    _, unsampled, _ = watched.ask("/watch/plain/exemplar", sampled=False)
    watched.collector.wait_until(lambda: sampled in watched.collector.exemplars)
    assert unsampled not in watched.collector.exemplars


def test_a_background_task_is_not_waited_for(watched: Watched) -> None:
    watched.ask("/watch/later")  # half a second of work after the answer
    later = [("GET", "/watch/later", 200)]
    watched.collector.wait_until(lambda: all(counted(watched.collector)[key] == 1 for key in later))
    (point,) = [p for p in watched.collector.named(DURATION) if p.attributes.get(ROUTE) == "/watch/later"]
    assert point.total < 0.45


def test_runtime_figures_are_those_of_the_process(watched: Watched) -> None:
    def one(name: str, **attributes: str) -> float:
        (point,) = [p for p in watched.collector.named(name) if p.attributes.items() >= attributes.items()]
        return point.value

    seen: Counter[float] = Counter()
    over = threading.Event()

    def observe() -> None:
        while not over.wait(0.02):
            seen.update(
                p.value for p in watched.collector.named("http.server.active_requests") if p.attributes[METHOD] == "GET"
            )

    thread = threading.Thread(target=observe)
    thread.start()
    watched.ask("/watch/block")  # the loop stands still for 0.6 s
    watched.collector.wait_until(lambda: one("process.event_loop.lag") > 0.3)
    watched.collector.wait_until(lambda: seen[1] > 0 and one("http.server.active_requests", **{METHOD: "GET"}) == 0)
    over.set()
    thread.join()
    proc = Path(f"/proc/{watched.service.process.pid}")
    pages = int((proc / "statm").read_text().split()[1])
    assert one("process.memory.usage") == pytest.approx(pages * 4096, rel=0.2)
    assert one("process.unix.file_descriptor.count") == pytest.approx(len(list((proc / "fd").iterdir())), abs=5)
    assert one("process.cpu.time", **{"cpu.mode": "user"}) > 0.2
    assert one("db.client.connection.max") == 15
    assert one("db.client.connection.count", **{"db.client.connection.state": "used"}) == 0
    assert one("db.client.connection.count", **{"db.client.connection.state": "idle"}) >= 1


def scraped(text: str) -> set[tuple[str, frozenset[str]]]:
    """The name and the labels of each series, without what a histogram adds."""
    found = set()
    for line in text.splitlines():
        if not line.startswith(("#", "target_info")):
            name, labels = re.fullmatch(r"(\w+?)(?:_bucket|_count|_sum|_created)?(?:\{(.*)\})? \S+", line).groups()  # type: ignore[union-attr]
            # A series without a route or an error has an empty label there: to Prometheus that is no label.
            found.add((name, frozenset(re.findall(r'(\w+)="[^"]', labels or "")) - {"le"}))
    return found


def translated(shape: tuple[str, str, str, frozenset[str]]) -> tuple[str, frozenset[str]]:
    """https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/"""
    name, unit, kind, attributes = shape
    shown = name.replace(".", "_") + SUFFIX.get(unit, "") + "_total" * (kind == "sum")
    return re.sub("_count$", "", shown), frozenset(each.replace(".", "_") for each in attributes)


def test_prometheus_sees_the_same_names_on_a_port_of_its_own(
    kinds: dict[str, Project], tmp_path: Path, collector: Collector
) -> None:
    port = free_port()
    with watch(
        kinds["contrib"], tmp_path, collector, OTEL_METRICS_EXPORTER="prometheus", METRICS_PORT=str(port)
    ) as watched:
        for path in ("/watch/plain/a", "/watch/boom", "/nowhere", f"/v1/items/{UUID(int=1)}"):
            watched.ask(path)
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        assert scraped(text) == {translated(shape) for shape in FROZEN}
        assert 'http_server_request_duration_seconds_bucket{error_type="",http_request_method="GET",' in text
        assert 'service_name="my-service"' in text
        assert watched.service.client.get("/metrics").status_code == 404
        collector.wait_until(lambda: len(collector.server_spans()) >= 3)
        assert collector.points == {}


def test_prometheus_needs_no_collector(kinds: dict[str, Project], tmp_path: Path, collector: Collector) -> None:
    env = {
        "OTEL_METRICS_EXPORTER": "prometheus",
        "METRICS_PORT": str(free_port()),
        "CACHE_URL": "off",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "off",
    }
    with watch(kinds["contrib"], tmp_path, collector, **env) as watched:
        watched.ask("/watch/plain/a")
        text = httpx.get(f"http://127.0.0.1:{env['METRICS_PORT']}/metrics", trust_env=False).text
    assert 'http_route="/watch/plain/{name}"' in text
    assert collector.exports == 0


def test_a_port_that_is_taken_costs_the_metrics_not_the_service(
    kinds: dict[str, Project], tmp_path: Path, collector: Collector
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with watch(
            kinds["contrib"], tmp_path, collector, OTEL_METRICS_EXPORTER="prometheus", METRICS_PORT=port
        ) as watched:
            assert watched.ask("/watch/plain/a")[0].is_success
            assert "set METRICS_PORT to a free port" in watched.service.log


def test_without_an_endpoint_no_sdk_is_loaded(project: Project) -> None:
    code = """
import sys
from fastapi.testclient import TestClient
from my_service import main
app = main.app()
with TestClient(app, base_url="http://localhost") as client:
    client.get("/version")
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "requests"))])
from opentelemetry import trace, metrics
print(type(trace.get_tracer_provider()).__name__, type(metrics.get_meter_provider()).__name__)
"""
    env = {"ENVIRONMENT": "test", "LOG_LEVEL": "ERROR"}
    for more in ({}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}):
        done = project.run(str(project.venv / "bin/python"), "-W", "ignore", "-c", code, env=env | more)
        assert done.stdout.splitlines()[-2:] == ["[]", "ProxyTracerProvider _ProxyMeterProvider"]


# Telemetry is told of requests by this: each, once, with the template of its path.
SAMPLED = "if current.get().sampled:\n    original(current.get())"
TWICE = "for _ in range(2):\n    original(current.get())"
BY_PATH = 'current.get().matched = current.get().scope["path"]\noriginal(current.get())'


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("telemetry:finish", SAMPLED),
        Body("telemetry:finish", TWICE),
        Body("telemetry:finish", BY_PATH),
        Value("state:METHODS", 'type("Any", (), {"__contains__": lambda *_: True})()'),
        Value("state:PROBES", '{"/livez"}'),
        Argument("telemetry:start", "views", "[]"),
    ],
    ids=["only what is sampled", "twice", "by path", "any method", "a probe", "a mounted application"],
)
def test_a_sabotaged_count_fails_the_proof(kinds: dict[str, Project], tmp_path: Path, sabotage: Sabotage) -> None:
    sick = kinds["contrib"].variant(tmp_path / "sick", sabotage)
    with (
        open_collector() as collector,
        watch(sick, tmp_path, collector) as watched,
        pytest.raises((AssertionError, ServerError)),
    ):
        counts_each_once(watched)


@pytest.mark.sabotage
def test_a_metric_that_is_gone_is_noticed(kinds: dict[str, Project], tmp_path: Path, collector: Collector) -> None:
    sick = kinds["contrib"].variant(tmp_path / "sick", Body("telemetry:EventLoopLag.read", "yield from ()"))
    with watch(sick, tmp_path, collector) as watched:
        watched.ask("/watch/plain/a")
        collector.wait_until(lambda: "process.cpu.time" in {point.name for point in collector.points.values()})
        assert "process.event_loop.lag" not in {point.name for point in collector.points.values()}
