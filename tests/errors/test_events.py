"""What a real Sentry-compatible server gets of an error: once, whole, and linked to its trace."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.errors.conftest import TRACE, Since, by_text, parent, reporting
from tests.projects import Project, Service
from tests.sabotage import Body, Sabotage, Value
from tests.servers.bugsink import Bugsink, Sink
from tests.servers.otlp import Collector
from tests.servers.process import ServerError

pytestmark = pytest.mark.servers
BODY = {"local": "x", "cause": "harmless cause", "message": "harmless message"}


def placed(event: dict[str, Any], route: str, method: str = "GET") -> None:
    """The event says what ran, where, and for which request."""
    assert event["release"] == "my-service@0.1.0+4f3c2b1"
    assert event["environment"] == "staging"
    assert event["transaction"] == route
    assert event["contexts"]["trace"]["trace_id"] == TRACE
    assert event["tags"]["request_id"] == TRACE
    assert event["request"]["method"] == method
    assert event["request"]["url"].startswith("http://127.0.0.1:")
    assert "?" not in event["request"]["url"]


def handled(event: dict[str, Any]) -> bool:
    values = event["exception"]["values"]
    assert values[-1]["stacktrace"]["frames"][-1]["in_app"]
    return bool(values[-1]["mechanism"]["handled"])


def check_unhandled(service: Service, sink: Sink) -> None:
    """Sampled or not, in a route, in a thread, in a socket: reported once each, as unhandled."""
    for flags in ("01", "00"):
        assert service.client.post("/fault/raise/a?q=1", json=BODY, headers=parent(flags)).status_code == 500
    assert service.client.get("/fault/thread/a", headers=parent()).status_code == 500
    url = f"ws://127.0.0.1:{service.port}/fault/socket"
    with connect(url, additional_headers=parent()) as socket, pytest.raises(ConnectionClosed):
        socket.recv(timeout=5)
    found = by_text(sink, 4)
    assert len(sink.events()) == 4
    both = [event for event in sink.events() if event.get("transaction") == "/fault/raise/{name}"]
    assert len(both) == 2
    for event in both:
        placed(event, "/fault/raise/{name}", "POST")
        assert [value["value"] for value in event["exception"]["values"]] == ["harmless cause", "harmless message"]
    placed(found["thread a"], "/fault/thread/{name}")
    assert found["in a socket"]["contexts"]["trace"]["trace_id"] == TRACE
    assert found["in a socket"]["request"]["method"] == "WEBSOCKET"
    assert not any(handled(event) for event in (*both, found["thread a"], found["in a socket"]))


def check_logged(service: Service, sink: Sink) -> None:
    """structlog's and the standard library's, with an exception or without, and an answer that is an error."""
    for path in ("stdlib", "caught", "answered", "answered/service", "away", "fine"):
        service.client.get(f"/fault/{path}", headers=parent("00"))
    service.client.post("/fault/log", json={"message": "by hand", "nested": {}, "raw": "", "headers": {}})
    sink.wait(5)
    events = {(event.get("logentry") or {}).get("message", ""): event for event in sink.events()}
    placed(events["stdlib says harmless"], "/fault/stdlib")
    assert events["stdlib says harmless"]["logger"] == "library"
    placed(events["told"], "/fault/caught")
    assert handled(events["told"])
    answered = {e["transaction"]: e for e in sink.events() if e["logentry"]["message"] == "responded with an error"}
    assert answered.keys() == {"/fault/answered", "/fault/answered/service"}
    for route, event in answered.items():
        placed(event, route)
        assert handled(event)
    assert answered["/fault/answered"]["exception"]["values"][-1]["type"] == "HTTPException"
    assert events["by hand"]["transaction"] == "/fault/log"
    assert len(sink.events()) == 5  # nothing of `away` and `fine`


def check_once(service: Service, sink: Sink) -> None:
    """An error that is logged and then raised is reported once."""
    assert service.client.get("/fault/caught?again=true").status_code == 500
    assert service.client.get("/fault/thread/last").status_code == 500
    assert [event["transaction"] for event in sink.wait(2)] == ["/fault/thread/{name}", "/fault/caught"]


def check_own_use(service: Service, sink: Sink) -> None:
    """What a feature reports by the SDK itself is linked and redacted, and its tags stay with their request."""
    for who in ("alice", "nobody"):
        service.client.get(f"/fault/mine/{who}", headers=parent())
    assert service.client.get("/fault/tagged/bob").status_code == 500
    found = by_text(sink, 3)
    assert found["tagged by bob"]["level"] == "fatal"
    assert found["tagged by bob"]["tags"].items() >= {"who": "bob", "region": "eu"}.items()
    placed(found["mine of alice"], "/fault/mine/{who}")
    assert found["mine of alice"]["tags"]["who"] == "alice"
    assert found["mine of alice"]["contexts"]["mine"] == {"password": "[redacted]", "note": "harmless-note"}
    assert found["mine of alice"]["breadcrumbs"]["values"][0]["message"] == "token=[redacted] harmless-crumb"
    assert found["mine of nobody"]["tags"]["region"] == "eu"
    assert "who" not in found["mine of nobody"]["tags"]
    assert "mine" not in found["mine of nobody"]["contexts"]


def check_storm(service: Service, sink: Sink) -> None:
    """A storm sends ten reports, of what is raised and of what is logged, and the log tells the rest once."""
    for number in range(40):
        service.client.get(f"/fault/storm/{number}")
        service.client.get(f"/fault/storm/{number}/logged")
    service.process.send(signal.SIGTERM)
    assert service.process.wait() == 0
    kinds = [event.get("transaction") for event in sink.wait(20)]
    assert kinds.count("/fault/storm/{number}") == 10
    assert kinds.count("/fault/storm/{number}/logged") == 10
    told = [line for line in service.log.splitlines() if "error reports left out" in line]
    assert len(told) == 2
    assert all('"count":30' in line for line in told)


Check = Callable[[Service, Sink], None]
CHECKS: list[Check] = [check_unhandled, check_logged, check_once, check_own_use]


@dataclass(frozen=True)
class Reported:
    """A service that reports, and where to; `begun` is what it had to say before its first request."""

    service: Service
    sink: Sink
    begun: list[dict[str, Any]]


@pytest.fixture(scope="module")
def reported(faulty: Project, bugsink: Bugsink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reported]:
    """One that tests share; its database has no schema, and that is reported."""
    sink, folder = bugsink.create_project(), tmp_path_factory.mktemp("reported")
    with reporting(faulty, folder, sink.dsn, DATABASE_URL=f"sqlite:///{folder}/empty.db") as service:
        yield Reported(service, sink, sink.wait())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_errors_arrive(reported: Reported, check: Check) -> None:
    check(reported.service, Since.now(reported.sink))


def test_a_storm_is_cut_short(faulty: Project, sink: Sink, tmp_path: Path) -> None:
    with reporting(faulty, tmp_path, sink.dsn) as service:
        check_storm(service, sink)


def test_an_error_that_happens_outside_of_requests_is_reported(reported: Reported) -> None:
    (event,) = reported.begun
    assert event["logentry"]["message"] == "database trouble"
    assert "request" not in event


SHARED_SCOPE = """
scope = context.state.own[Reports].scopes.get_isolation_scope()
context.notes[Reports] = _RequestNotes(scope)
"""


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("check", "sabotage"),
    [
        (check_unhandled, Body("errors:Reports.unhandled", "pass")),
        (check_unhandled, Body("errors:Reports.prepare", "return event")),
        (check_unhandled, Body("errors:Reports.__init__", 'original(dsn, "elsewhere", release)')),
        (check_logged, Value("logs:ERROR_LEVELS", '{"critical"}')),
        (check_logged, Value("problems:ServiceError.status", "503")),
        (check_logged, Value("problems:Unavailable.status", "500")),
        (check_once, Body("errors:Reports.unhandled", "_notes_of(current.get()).reported = None\noriginal(error)")),
        (check_own_use, Body("errors:begin", SHARED_SCOPE)),
        (check_storm, Value("errors:MAX_REPORTS_PER_KIND", "10_000")),
        (check_storm, Body("errors:_kind", "return original(body, error) + secrets.token_hex()")),
    ],
    ids=[
        "what nobody answers",
        "no link",
        "another environment",
        "what is logged",
        "what is answered",
        "what is away",
        "twice",
        "scopes",
        "no limit",
        "all errors differ",
    ],
)
def test_a_sabotaged_room_fails_the_proof(
    faulty: Project, sink: Sink, tmp_path: Path, check: Check, sabotage: Sabotage
) -> None:
    with (
        reporting(faulty, tmp_path, sink.dsn, sabotage) as service,
        pytest.raises((AssertionError, ServerError, KeyError)),
    ):
        check(service, sink)


IN_PROCESS = """
import asyncio, sentry_sdk
from my_service import main
app = main.app()

async def receive():
    return {"type": "http.request", "body": b""}

async def ask(path):
    answers = []
    async def send(message):
        answers.append(message.get("status"))
    about = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "query_string": b""}
    await app({**about, "path": path, "headers": [(b"host", b"localhost")]}, receive, send)
    assert answers[0] == 200, answers

async def main():
    before = sentry_sdk.get_isolation_scope()
    for _ in range(1_500):  # more than Python goes deep
        await ask("/fault/fine")
    await ask("/fault/mine/alice")
    print(sentry_sdk.get_isolation_scope() is before and not before._tags.keys() - {"region"})

asyncio.run(main())
"""


def rejoined(project: Project, folder: Path, *sabotages: Sabotage, first: str = "") -> str:
    """Whether requests within the process, all in one task, give the scope of their caller back as it was."""
    made = project.variant(folder / "made", *sabotages)
    env = {"ENVIRONMENT": "test", "LOG_LEVEL": "ERROR", "SENTRY_DSN": "http://key@127.0.0.1:9/1"}
    return made.run(str(made.venv / "bin/python"), "-W", "ignore", "-c", first + IN_PROCESS, env=env).stdout.strip()


def test_requests_within_the_process_give_the_scope_of_their_caller_back(faulty: Project, tmp_path: Path) -> None:
    assert rejoined(faulty, tmp_path) == "True"


@pytest.mark.sabotage
def test_a_scope_that_is_kept_is_noticed(faulty: Project, tmp_path: Path) -> None:
    try:
        told = rejoined(faulty, tmp_path, Body("errors:finish", "pass"))
    except AssertionError as error:  # each request went one deeper
        told = str(error)
    assert told == "False" or "RecursionError" in told


OTHER_SDK = "import sentry_sdk\ndel sentry_sdk.Scope.__slots__\n"


def test_an_sdk_that_keeps_its_values_elsewhere_is_forked_at_once(faulty: Project, tmp_path: Path) -> None:
    assert rejoined(faulty, tmp_path, first=OTHER_SDK) == "True"


def linked(
    project: Project, folder: Path, sink: Sink, collector: Collector, *sabotages: Sabotage
) -> tuple[set[str], set[str]]:
    """The span ids of a failing, sampled request: of its report, and of its span in the collector."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with reporting(project, folder, sink.dsn, *sabotages, **env) as service:
        assert service.client.get("/fault/thread/span", headers=parent()).status_code == 500
        event = by_text(sink, 1)["thread span"]
        collector.wait_until(lambda: any(span.trace_id == TRACE for span in collector.server_spans()))
    resource = collector.server_spans()[0].resource
    assert event["release"] == resource["service.version"]
    assert event["environment"] == resource["deployment.environment.name"]
    spans = {span.span_id for span in collector.server_spans() if span.trace_id == TRACE}
    return {event["contexts"]["trace"]["span_id"]}, spans


def test_a_report_names_the_span_and_the_resource_of_the_telemetry(
    faulty: Project, sink: Sink, collector: Collector, tmp_path: Path
) -> None:
    reported, exported = linked(faulty, tmp_path, sink, collector)
    assert reported == exported


MADE_UP = """
told = original(event, hint)
told["contexts"]["trace"]["span_id"] = secrets.token_hex(8)
return told
"""


@pytest.mark.sabotage
def test_a_report_that_makes_up_its_span_is_noticed(
    faulty: Project, sink: Sink, collector: Collector, tmp_path: Path
) -> None:
    sick = Body("errors:Reports.prepare", MADE_UP)
    reported, exported = linked(faulty, tmp_path, sink, collector, sick)
    assert reported != exported
