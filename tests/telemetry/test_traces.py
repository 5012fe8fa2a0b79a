"""What a service process exports of its requests: one server span for each that is sampled, whoever makes it."""

from pathlib import Path

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.projects import Edit, Project
from tests.servers.otlp import Collector, Span, open_collector
from tests.servers.postgres import Postgres
from tests.servers.process import ServerError
from tests.service.conftest import migrated
from tests.telemetry.conftest import Watched, watch

pytestmark = pytest.mark.servers
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


@pytest.mark.parametrize(("path", "route", "status"), SERVED)
def test_a_sampled_request_is_one_server_span(watched: Watched, path: str, route: str | None, status: int) -> None:
    answer, trace_id, caller = watched.ask(path)
    span = only(watched.trace(trace_id))
    assert answer.status_code == status
    assert span.parent_id == caller
    assert (span.attributes.get("http.route"), span.attributes["http.response.status_code"]) == (route, status)
    assert span.name == (f"GET {route}" if route else "GET")
    assert span.attributes["http.request.method"] == "GET"
    assert span.error == (status >= 500)


def test_ids_are_equal_in_span_answer_and_log_lines(watched: Watched) -> None:
    answer = watched.service.client.get("/watch/boom")
    document = answer.json()
    span = only(watched.trace(document["trace_id"]))
    assert answer.headers["x-request-id"] == document["request_id"] == document["trace_id"]
    assert span.parent_id == ""
    # the error's line, written where no span is any more, and the access line
    assert watched.lines(f'"span_id":"{span.span_id}"') == 2


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


def test_a_caller_who_does_not_sample_gets_no_span_and_keeps_the_id(watched: Watched) -> None:
    answer, trace_id, _ = watched.ask("/watch/boom", sampled=False)
    _, after, _ = watched.ask("/watch/plain/a")
    assert watched.trace(after)
    assert [span for span in watched.collector.spans if span.trace_id == trace_id] == []
    assert answer.json()["trace_id"] == trace_id
    assert watched.lines(f'"trace_id":"{trace_id}"') == 2  # error and access line


def test_probes_are_no_spans_nor_is_what_they_ask(watched: Watched) -> None:
    for path in ("/livez", "/readyz"):
        _, probed, _ = watched.ask(path)
        _, after, _ = watched.ask("/watch/plain/a")
        assert watched.trace(after)
        assert [span for span in watched.collector.spans if span.trace_id == probed] == []


def test_a_call_over_http_is_one_client_span_that_hands_the_trace_on(watched: Watched) -> None:
    before = len(watched.collector.headers)
    answer, trace_id, _ = watched.ask("/watch/call")
    spans = watched.trace(trace_id)
    (call,) = [span for span in spans if span.kind == "CLIENT"]
    assert answer.json() == {"status": "404"}  # the collector has no such trace
    assert call.parent_id == only(spans).span_id
    assert call.attributes["url.full"].endswith("/far")
    assert before <= len(watched.collector.headers)
    assert "hunter2" not in repr(spans)


def test_queries_and_captured_headers_hold_no_secret(kind: Project, tmp_path: Path, collector: Collector) -> None:
    captured = {"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "authorization,x-note,x-harmless"}
    headers = {"Authorization": "Bearer hunter2hunter2", "X-Note": "password=hunter2", "X-Harmless": "seen"}
    with watch(kind, tmp_path, collector, **captured) as watched:
        _, trace_id, _ = watched.ask("/watch/plain/a?q=hunter2&password=hunter2", headers=headers)
        spans = watched.trace(trace_id)
        assert "/watch/plain/a" in repr(spans)
        assert "hunter2" not in repr(spans)
        if "x_harmless" in repr(spans):  # contrib captures, FastAPI's own does not
            assert "seen" in repr(spans)


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


def test_the_resource_says_who_it_was(kind: Project, tmp_path: Path, collector: Collector) -> None:
    env = {
        "GIT_COMMIT": "0123abc",
        "ENVIRONMENT": "staging",
        "K8S_POD_NAME": "orders-7",
        "K8S_NAMESPACE_NAME": "shop",
        "OTEL_RESOURCE_ATTRIBUTES": "team=blue%20one,service.version=2.0",
    }
    with watch(kind, tmp_path, collector, **env) as watched:
        _, trace_id, _ = watched.ask("/watch/plain/a")
        resource = only(watched.trace(trace_id)).resource
        collector.wait_until(lambda: bool(collector.points))
        assert {point.resource["service.instance.id"] for point in collector.points.values()} == {
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
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from my_service.platform import telemetry
from my_service.platform.state import RequestContext
from my_service.platform.telemetry import traces

KINDS = ["always_off", "always_on", "parentbased_always_off", "parentbased_always_on", "parentbased_traceidratio",
         "traceidratio"]
for kind in KINDS:
    for ratio in (0, 0.1, 0.5, 1):
        theirs = traces.make(kind, ratio, Resource({}), None, ()).sampler
        ours = telemetry.sampler(kind, ratio)
        differ = 0
        for n in range(400):
            request = RequestContext({}, None, "", f"{random.getrandbits(128) or 1:032x}", 0.0)
            context = None
            if n % 3:
                request.parent_id, request.parent_sampled = "00000000000000aa", n % 3 == 1
                flags = TraceFlags(int(request.parent_sampled))
                parent = SpanContext(int(request.trace_id, 16), 0xAA, True, flags)
                context = set_span_in_context(NonRecordingSpan(parent))
            result = theirs.should_sample(context, int(request.trace_id, 16), "x", SpanKind.SERVER)
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


@pytest.mark.parametrize(
    "edit",
    [
        Edit("src/my_service/platform/telemetry.py", "if follows and exchange.parent_id:", "if False:"),
        Edit("src/my_service/platform/telemetry.py", "& HALF < bound", ">> 64 < bound"),
    ],
    ids=["the caller is not asked", "other bits"],
)
def test_a_door_that_decides_otherwise_is_noticed(kinds: dict[str, Project], tmp_path: Path, edit: Edit) -> None:
    assert decided(kinds["contrib"].variant(tmp_path / "sick", edit)) != {"0"}


PLATFORM = "src/my_service/platform"
HTTP = f"{PLATFORM}/telemetry_http.py"
ROOM = f"{PLATFORM}/telemetry.py"
TRACES = f"{PLATFORM}/telemetry_traces.py"
# The shortcut before FastAPI's own question: either of the two would do alone.
ASKED = Edit(f"{PLATFORM}/http.py", 'scope["fastapi.telemetry"] = None', "pass")
BROKEN = (AssertionError, KeyError, ServerError, ValueError)


def sound(watched: Watched) -> None:
    """The promises of this file in one pass, for the sabotages."""
    watched.service.client.get("/v1/items")
    for path in ("/watch/plain/a", "/sub/x/1"):
        answer, trace_id, caller = watched.ask(path + "?password=hunter2")
        spans = watched.trace(trace_id)
        assert [span.kind for span in spans] == ["SERVER"]
        assert (only(spans).parent_id, answer.status_code) == (caller, 200)
        assert only(spans).attributes["http.route"].startswith(path[:4])
        assert "{" in only(spans).attributes["http.route"]
        assert "hunter2" not in repr(spans)
    before = len(watched.collector.spans)
    watched.ask("/livez")
    watched.ask("/watch/call", sampled=False)
    _, after, _ = watched.ask("/watch/call")
    assert len(watched.trace(after)) == 2
    assert len(watched.collector.spans) == before + 2
    document = watched.service.client.get("/watch/boom").json()
    assert watched.lines(f'"span_id":"{only(watched.trace(document["trace_id"])).span_id}"') == 2


@pytest.mark.parametrize(
    ("which", "edit", "also"),
    [
        ("contrib", Edit(HTTP, 'exclude_spans=["receive", "send"]', "exclude_spans=None"), None),
        ("contrib", Edit(ROOM, "if not exchange.sampled:", "if False:"), None),
        ("contrib", Edit(f"{PLATFORM}/__init__.py", "exchange.sampled and exchange.state.native_spans", "True"), ASKED),
        ("native", Edit(f"{PLATFORM}/__init__.py", '"operation_spans": False, ', ""), None),
        ("native", Edit(f"{PLATFORM}/__init__.py", "exchange and exchange.sampled and", "exchange and"), ASKED),
        ("contrib", Edit(ROOM, 'exchange.span.set_attribute("http.route", route)', "pass"), None),
        ("contrib", Edit(ROOM, "not in QUIET", "not in ()"), None),
        ("contrib", Edit(TRACES, "Redacting(OTLPSpanExporter(**far))", "OTLPSpanExporter(**far)"), None),
        ("contrib", Edit(TRACES, "if find_spec(library):", "if False:"), None),
        ("contrib", Edit(TRACES, "    provider.add_span_processor(_Note())\n", ""), None),
    ],
    ids=[
        "a span per message",
        "calls of unsampled requests begin traces",
        "two instrumentations",
        "spans of operations",
        "native ignores the door",
        "route of a mount",
        "probes",
        "no redaction",
        "calls are not traced",
        "nobody notes the span",
    ],
)
def test_a_sabotaged_trace_fails_the_proof(
    kinds: dict[str, Project], tmp_path: Path, which: str, edit: Edit, also: Edit | None
) -> None:
    sick = kinds[which].variant(tmp_path / "sick", edit, *([also] if also else []))
    with open_collector() as collector, watch(sick, tmp_path, collector) as watched, pytest.raises(BROKEN):
        sound(watched)


def test_the_proof_for_the_sabotages_holds(watched: Watched) -> None:
    sound(watched)


def test_a_crash_before_the_handshake_is_logged_with_ids(watched: Watched) -> None:
    before = watched.lines("Exception in ASGI application")
    with pytest.raises(WebSocketException):
        connect(f"ws://127.0.0.1:{watched.service.port}/watch/crash")
    watched.service.process.wait_until(lambda: watched.lines("Exception in ASGI application") == before + 1, 5)
    line = next(each for each in watched.service.log.splitlines() if "Exception in ASGI application" in each)
    assert '"trace_id":"' in line
    assert '"span_id":"' in line
