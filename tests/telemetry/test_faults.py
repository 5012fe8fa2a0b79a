"""A collector that is away, slow or silent, and clients that send nonsense: requests do not notice."""

import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from bench import measure
from bench.load import load
from tests.projects import Project
from tests.proof import count
from tests.sabotage import Body, Value
from tests.servers.otlp import Collector, open_collector
from tests.servers.process import free_port
from tests.telemetry.conftest import Watched, watch

pytestmark = pytest.mark.servers
FLUSH = 5.0  # seconds for all signals together
MARGIN = 3.0  # seconds for a process to end on a busy machine
SIGNALS = {"OTEL_LOGS_EXPORTER": "otlp"}  # the third besides traces and metrics
PATIENT = {"OTEL_EXPORTER_OTLP_TIMEOUT": "15000"}  # an exporter alone would keep the process from its end so long
FOREVER = float("inf")


@contextmanager
def refused() -> Iterator[Collector]:
    """Nobody listens."""
    yield Collector(port=free_port())


@contextmanager
def slow() -> Iterator[Collector]:
    """Answers late."""
    with open_collector(delay=2.0) as collector:
        yield collector


@contextmanager
def hung() -> Iterator[Collector]:
    """Takes everything and never answers."""
    with open_collector(delay=FOREVER) as collector:
        yield collector


FAULTS = pytest.mark.parametrize("fault", [refused, slow, hung], ids=["refused", "slow", "hung"])


def leaves(project: Project, folder: Path, collector: Collector) -> tuple[int, float]:
    """Serve some requests, then SIGTERM: the exit code and the seconds."""
    with watch(project, folder, collector, **SIGNALS, **PATIENT) as watched:
        for number in range(count(100, 1000)):
            assert watched.service.client.get(f"/watch/plain/{number}").status_code == 200
        time.sleep(0.5)  # exports are under way
        begun = time.monotonic()
        watched.service.process.send(signal.SIGTERM)
        return watched.service.process.wait(), time.monotonic() - begun


@FAULTS
@pytest.mark.timing
def test_no_request_fails_and_the_exit_keeps_its_budget(
    kind: Project, tmp_path: Path, fault: Callable[[], AbstractContextManager[Collector]]
) -> None:
    with fault() as collector:
        code, seconds = leaves(kind, tmp_path, collector)
    assert code == 0
    assert seconds < FLUSH + MARGIN


def test_what_is_held_is_sent_before_the_exit(kind: Project, tmp_path: Path, collector: Collector) -> None:
    slowly = {"OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_METRIC_EXPORT_INTERVAL": "60000", **SIGNALS}
    with watch(kind, tmp_path, collector, **slowly, OTEL_BLRP_SCHEDULE_DELAY="60000") as watched:
        for number in range(20):
            watched.service.client.get(f"/watch/plain/{number}")
        assert collector.exports == 0
        watched.service.process.send(signal.SIGTERM)
        assert watched.service.process.wait() == 0
    assert len(collector.server_spans()) == 20
    assert sum(point.value for point in collector.named("http.server.request.duration")) == 20
    assert sum(line.body == "request" for line in collector.lines) == 20


@pytest.mark.sabotage
@pytest.mark.timing
def test_a_flush_without_a_deadline_would_hold_the_exit(kinds: dict[str, Project], tmp_path: Path) -> None:
    patient = kinds["contrib"].variant(tmp_path / "sick", Value("platform.__init__:FLUSH_SECONDS", "60"))
    with hung() as collector:
        assert leaves(patient, tmp_path, collector)[1] > FLUSH + MARGIN


@pytest.mark.sabotage
def test_no_flush_would_lose_what_is_held(kinds: dict[str, Project], tmp_path: Path, collector: Collector) -> None:
    forgets = "async with original(app, settings):\n    state_of(app).flushes.clear()\n    yield"
    careless = kinds["contrib"].variant(tmp_path / "sick", Body("telemetry:lifespan", forgets))
    with watch(careless, tmp_path, collector, OTEL_BSP_SCHEDULE_DELAY="60000") as watched:
        watched.service.client.get("/watch/plain/a")
        watched.service.process.send(signal.SIGTERM)
        assert watched.service.process.wait() == 0
    assert collector.server_spans() == []


def cpu(watched: Watched, seconds: float) -> float:
    """CPU seconds of the service for one request under load, all of them sampled."""
    before = measure.cpu_seconds(watched.service.process.pid)
    seen = load("127.0.0.1", watched.service.port, "/watch/sync", connections=4, seconds=seconds)
    assert seen.errors == 0
    return (measure.cpu_seconds(watched.service.process.pid) - before) / seen.requests


@pytest.mark.timing
def test_a_collector_that_is_away_costs_no_cpu(kinds: dict[str, Project], tmp_path: Path, collector: Collector) -> None:
    """Interleaved, so that all have the same neighbours; at the default rate of a production."""
    rate = {"OTEL_TRACES_SAMPLER_ARG": "0.1", "OTEL_METRIC_EXPORT_INTERVAL": "5000", "OTEL_BSP_SCHEDULE_DELAY": "1000"}
    folders = {name: tmp_path / name for name in ("well", "refused", "hung")}
    for folder in folders.values():
        folder.mkdir()
    project = kinds["contrib"]
    with (
        refused() as nobody,
        hung() as silent,
        watch(project, folders["well"], collector, **rate) as well,
        watch(project, folders["refused"], nobody, **rate) as without,
        watch(project, folders["hung"], silent, **rate) as waiting,
    ):
        sides = {"well": well, "refused": without, "hung": waiting}
        for side in sides.values():
            cpu(side, 0.5)
        rounds = [{name: cpu(side, 1.0) for name, side in sides.items()} for _ in range(count(7, 15))]
    for name in ("refused", "hung"):
        assert statistics.median(each[name] / each["well"] for each in rounds) < 1.15


NONSENSE = [
    b"traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
    b"traceparent: ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"traceparent: 00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
    b"traceparent: 00-" + b"f" * 10_000,
    b"traceparent: \xff\xfe\xfd",
    b"traceparent:",
    b"tracestate: " + b"a=b," * 2_500,
    b"baggage: " + b"a=b," * 2_500,
    b"x-request-id: " + b"x" * 10_000,
    b"x-request-id: \xff\xfe",
    b"user-agent: " + b"u" * 10_000,
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: " + b"\xff=," * 3_000,
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nbaggage: " + b"\xff=%ff," * 1_500,
]


def bare(port: int, path: bytes, header: bytes = b"x-none: 1") -> bytes:
    """The whole answer to a request that no client would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(
            b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + header + b"\r\n\r\n"
        )
        return connection.makefile("rb").read()


@pytest.mark.parametrize("header", NONSENSE, ids=lambda header: repr(header[:40]))
def test_a_malformed_header_is_a_new_trace_and_no_error(watched: Watched, header: bytes) -> None:
    answer = bare(watched.service.port, b"/watch/plain/a", header)
    assert answer.startswith(b"HTTP/1.1 200")
    (request_id,) = [line for line in answer.split(b"\r\n") if line.lower().startswith(b"x-request-id")]
    assert len(request_id) < 150
    assert "Traceback" not in watched.service.log


@pytest.mark.parametrize(
    "path", [b"/%00%01%fe", b"/" + b"%ff" * 2_500, b"/watch/plain/%F0%9F%92%A9", b"/watch/plain/" + b"a" * 8_000]
)
def test_a_binary_path_is_served_and_traced(watched: Watched, path: bytes) -> None:
    before = len(watched.collector.server_spans())
    status = bare(watched.service.port, path)[9:12]
    assert status == (b"200" if b"plain" in path else b"404")
    watched.collector.wait_until(lambda: len(watched.collector.server_spans()) > before)
    assert watched.collector.broken == []
    assert "Traceback" not in watched.service.log


def test_attributes_of_spans_are_bounded(watched: Watched) -> None:
    _, trace_id, _ = watched.ask("/watch/plain/" + "a" * 8_000, headers={"User-Agent": "u" * 10_000})
    (span,) = [span for span in watched.trace(trace_id) if span.kind == "SERVER"]
    assert max(len(str(value)) for value in span.attributes.values()) <= 4_096
