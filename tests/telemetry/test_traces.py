"""What a service process exports of its requests: one server span for each that is sampled, whoever makes it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.projects import Project
from tests.sabotage import Argument, Body, Sabotage, Value
from tests.servers.otlp import Collector, Span, open_collector
from tests.servers.postgres import Postgres
from tests.servers.process import ServerError
from tests.service.conftest import migrated
from tests.telemetry.conftest import Watched, watch

pytestmark = pytest.mark.servers
BROKEN = (AssertionError, KeyError, ServerError, ValueError)
SERVED = [
    ("/watch/plain/a", "/watch/plain/{name}", 200),
    ("/watch/sync", "/watch/sync", 200),
    ("/watch/stream", "/watch/stream", 200),
    ("/watch/boom", "/watch/boom", 500),
    ("/sub/x/1", "/sub/x/{y}", 200),
    ("/tenants/acme/x/1", "/tenants/{tenant}/x/{y}", 200),
    ("/nowhere", None, 404),
    ("/v1/items", "/v1/items", 200),
]


def only(spans: list[Span]) -> Span:
    """The one server span among them."""
    (span,) = [span for span in spans if span.kind == "SERVER"]
    return span


def is_one_server_span(watched: Watched, path: str, route: str | None, status: int) -> None:
    answer, trace_id, caller = watched.ask(path)
    spans = watched.trace(trace_id)
    span = only(spans)
    assert [each for each in spans if each.kind == "INTERNAL"] == []
    assert answer.status_code == status
    assert span.parent_id == caller
    assert (span.attributes.get("http.route"), span.attributes["http.response.status_code"]) == (route, status)
    assert span.name == (f"GET {route}" if route else "GET")
    assert span.attributes["http.request.method"] == "GET"
    assert span.error == (status >= 500)


def has_equal_ids(watched: Watched) -> None:
    """In the span, the answer and the lines of the log."""
    answer = watched.service.client.get("/watch/boom")
    document = answer.json()
    span = only(watched.trace(document["trace_id"]))
    assert answer.headers["x-request-id"] == document["request_id"] == document["trace_id"]
    assert span.parent_id == ""
    # the error's line, written where no span is any more, and the access line
    assert watched.lines(f'"span_id":"{span.span_id}"') == 2


def leaves_no_span_but_keeps_its_id(watched: Watched) -> None:
    """A request whose caller does not sample it, and what it calls."""
    watched.trace(watched.ask("/watch/plain/a")[1])
    before = len(watched.collector.spans)
    answer, trace_id, _ = watched.ask("/watch/boom", sampled=False)
    watched.ask("/watch/call", sampled=False)
    watched.trace(watched.ask("/watch/plain/a")[1])
    assert len(watched.collector.spans) == before + 2  # of the last one, and of what `trace` asks
    assert answer.json()["trace_id"] == trace_id
    assert watched.lines(f'"trace_id":"{trace_id}"') == 2  # error and access line


def are_no_spans(watched: Watched) -> None:
    """Probes, and what they ask."""
    for path in ("/livez", "/readyz"):
        _, probed, _ = watched.ask(path)
        assert watched.trace(watched.ask("/watch/plain/a")[1])
        assert [span for span in watched.collector.spans if span.trace_id == probed] == []


def is_one_client_span(watched: Watched) -> None:
    """A call over HTTP."""
    answer, trace_id, _ = watched.ask("/watch/call")
    spans = watched.trace(trace_id)
    (call,) = [span for span in spans if span.kind == "CLIENT"]
    assert answer.json() == {"status": "404"}  # the collector has no such trace
    assert call.parent_id == only(spans).span_id
    assert call.attributes["url.full"].endswith("/far")


def holds_no_secret(watched: Watched) -> None:
    """The span of a request with secrets in its query and in captured headers, and the call that it makes."""
    headers = {"Authorization": "Bearer hunter2hunter2", "X-Note": "password=hunter2", "X-Harmless": "seen"}
    spans = watched.trace(watched.ask("/watch/call?q=hunter2&password=hunter2", headers=headers)[1])
    assert {span.kind for span in spans} == {"CLIENT", "SERVER"}
    assert "/watch/call" in repr(spans)
    assert "hunter2" not in repr(spans)
    if "x_harmless" in repr(spans):  # contrib captures, FastAPI's own does not
        assert "seen" in repr(spans)


@pytest.mark.parametrize(("path", "route", "status"), SERVED)
def test_a_sampled_request_is_one_server_span(watched: Watched, path: str, route: str | None, status: int) -> None:
    is_one_server_span(watched, path, route, status)


def test_ids_are_equal_in_span_answer_and_log_lines(watched: Watched) -> None:
    has_equal_ids(watched)


def test_a_caller_who_does_not_sample_gets_no_span_and_keeps_the_id(watched: Watched) -> None:
    leaves_no_span_but_keeps_its_id(watched)


def test_probes_are_no_spans_nor_is_what_they_ask(watched: Watched) -> None:
    are_no_spans(watched)


def test_a_call_over_http_is_one_client_span(watched: Watched) -> None:
    is_one_client_span(watched)


def test_queries_and_captured_headers_hold_no_secret(watched: Watched) -> None:
    holds_no_secret(watched)


def test_an_exception_is_told_once_and_without_secrets(watched: Watched) -> None:
    _, trace_id, _ = watched.ask("/watch/boom?token=hunter2")
    span = only(watched.trace(trace_id))
    told = [attributes for name, attributes in span.events if name == "exception"]
    if span.attributes["error.type"] == "RuntimeError":
        assert told == []  # FastAPI's own has the type on the span, and leaves the text to the log
    else:
        assert [event["exception.type"] for event in told] == ["RuntimeError"]
        assert "harmless" in told[0]["exception.message"]
    assert "hunter2" not in repr(watched.collector.spans)
    assert "hunter2" not in watched.service.log


def test_a_websocket_is_one_server_span(watched: Watched) -> None:
    with connect(f"ws://127.0.0.1:{watched.service.port}/watch/socket") as socket:
        for _ in range(3):
            socket.send("x")
            assert socket.recv() == "x"
    spans = watched.collector.server_spans
    watched.collector.wait_until(lambda: any(s.attributes.get("http.route") == "/watch/socket" for s in spans()))
    (span,) = [s for s in spans() if s.attributes.get("http.route") == "/watch/socket"]
    assert [s for s in watched.trace(span.trace_id) if s.kind in ("SERVER", "INTERNAL")] == [span]
    assert span.name == "WEBSOCKET /watch/socket"


def statements(project: Project, folder: Path, database_url: str, collector: Collector) -> list[str]:
    """The names of the client spans of a page of items, read from PostgreSQL."""
    env = migrated(project, database_url)
    with watch(project, folder, collector, **env) as watched:
        watched.service.client.get("/v1/items")  # connects
        _, trace_id, _ = watched.ask("/v1/items")
        spans = watched.trace(trace_id)
        found = [span for span in spans if span.kind == "CLIENT"]
        assert {span.parent_id for span in found} <= {only(spans).span_id}
        assert all("%" in span.attributes["db.query.text"] for span in found)  # the statement, not what was asked for
        return [span.name.split()[0] for span in found]


def test_a_statement_is_one_client_span(
    kind: Project, tmp_path: Path, postgres: Postgres, collector: Collector
) -> None:
    assert statements(kind, tmp_path, postgres.create_database(), collector) == ["SELECT"]


def test_the_resource_says_who_it_was(watched: Watched) -> None:
    resource = only(watched.trace(watched.ask("/watch/plain/a")[1])).resource
    watched.collector.wait_until(lambda: bool(watched.collector.points))
    assert {point.resource["service.instance.id"] for point in watched.collector.points.values()} == {
        resource["service.instance.id"]
    }
    assert resource.items() >= {
        ("service.name", "my-service"),
        ("service.version", "2.0"),
        ("vcs.ref.head.revision", "0123abc"),
        ("deployment.environment.name", "staging"),
        ("k8s.pod.name", "orders-7"),
        ("k8s.namespace.name", "shop"),
        ("team", "blue one"),
    }


DECIDE = """
import random
from importlib import import_module
from pkgutil import walk_packages
from types import SimpleNamespace
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from my_service import platform
from my_service.platform import telemetry

(traces,) = [each.name for each in walk_packages(platform.__path__, platform.__name__ + ".") if "traces" in each.name]
KINDS = ["always_off", "always_on", "parentbased_always_off", "parentbased_always_on", "parentbased_traceidratio",
         "traceidratio"]
for kind in KINDS:
    for ratio in (0, 0.1, 0.5, 1):
        theirs = import_module(traces).make(kind, ratio, Resource({}), None, ()).sampler
        ours = telemetry.sampler(kind, ratio)
        differ = 0
        for n in range(400):
            trace_id = random.getrandbits(128) or 1
            request = SimpleNamespace(trace_id=f"{trace_id:032x}", parent_id="", parent_sampled=False)
            context = None
            if n % 3:
                request.parent_id, request.parent_sampled = "00000000000000aa", n % 3 == 1
                parent = SpanContext(trace_id, 0xAA, True, TraceFlags(int(request.parent_sampled)))
                context = set_span_in_context(NonRecordingSpan(parent))
            result = theirs.should_sample(context, trace_id, "x", SpanKind.SERVER)
            differ += result.decision.is_sampled() != ours(request)
        print(kind, ratio, differ)
"""


def decided(service: Project) -> set[str]:
    """How often the door and the SDK decide differently, over all samplers."""
    lines = service.run(str(service.venv / "bin/python"), "-c", DECIDE, check=True).stdout.splitlines()
    assert len(lines) == 24
    return {line.split()[2] for line in lines}


def test_the_door_decides_as_the_sdk_does(kinds: dict[str, Project]) -> None:
    assert decided(kinds["contrib"]) == {"0"}


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("telemetry:sampler", 'return original(kind.removeprefix("parentbased_"), ratio)'),
        Body("telemetry:sampler", "return original(kind, ratio / 2)"),
    ],
    ids=["the caller is not asked", "another share"],
)
def test_a_door_that_decides_otherwise_is_noticed(
    kinds: dict[str, Project], tmp_path: Path, sabotage: Sabotage
) -> None:
    assert decided(kinds["contrib"].variant(tmp_path / "sick", sabotage)) != {"0"}


def plain(watched: Watched) -> None:
    is_one_server_span(watched, "/watch/plain/a", "/watch/plain/{name}", 200)


def mounted(watched: Watched) -> None:
    is_one_server_span(watched, "/sub/x/1", "/sub/x/{y}", 200)


# What is told of the answer before the span ends, as an instrumentation of messages would.
# What an unsampled request calls would begin a trace here.
FORGETS = """
original(current.get())
if not current.get().sampled:
    from opentelemetry.context import Context, attach

    attach(Context())
"""


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("holds", "sabotage"),
    [
        (plain, Argument("telemetry:instrument", "exclude_spans", "None")),
        (mounted, Body("telemetry:respond", "pass")),
        (has_equal_ids, Body("telemetry:_RequestSpan.on_start", "pass")),
        (leaves_no_span_but_keeps_its_id, Body("telemetry:begin", FORGETS)),
        (are_no_spans, Value("state:QUIET", "set()")),
        (is_one_client_span, Body("telemetry:_trace_calls", "pass")),
        (holds_no_secret, Body("telemetry:Redacting.export", "return self.exporter.export(spans)")),
    ],
    ids=[
        "a span per message",
        "route of a mount",
        "nobody notes the span",
        "calls of unsampled requests begin traces",
        "probes",
        "calls are not traced",
        "no redaction",
    ],
)
def test_a_sabotaged_trace_fails_the_proof(
    kinds: dict[str, Project], tmp_path: Path, holds: Callable[[Watched], None], sabotage: Sabotage
) -> None:
    sick = kinds["contrib"].variant(tmp_path / "sick", sabotage)
    with open_collector() as collector, watch(sick, tmp_path, collector) as watched, pytest.raises(BROKEN):
        holds(watched)


def test_a_crash_before_the_handshake_is_logged_with_ids(watched: Watched) -> None:
    before = watched.lines("before the handshake")
    with pytest.raises(InvalidStatus, match="500"):
        connect(f"ws://127.0.0.1:{watched.service.port}/watch/crash")
    watched.service.process.wait_until(lambda: watched.lines("before the handshake") > before, 5)
    line = next(each for each in watched.service.log.splitlines() if "RuntimeError: before the handshake" in each)
    assert '"trace_id":"' in line
    assert '"span_id":"' in line
    assert watched.lines("ended span") == 0
