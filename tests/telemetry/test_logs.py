"""The lines of the log: with the ids of their trace, and, where asked for, a second way to the collector."""

import json
from pathlib import Path

import pytest

from tests.projects import Project
from tests.sabotage import Body, Sabotage
from tests.servers.otlp import Collector, open_collector
from tests.servers.process import ServerError
from tests.telemetry.conftest import Watched, watch

pytestmark = pytest.mark.servers
OTLP = {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_BLRP_SCHEDULE_DELAY": "100"}


def written(watched: Watched) -> list[dict[str, str]]:
    return [json.loads(line) for line in watched.service.log.splitlines()]


def test_no_line_goes_to_the_collector_unless_asked_for(watched: Watched) -> None:
    _, trace_id, _ = watched.ask("/watch/plain/a")
    assert watched.trace(trace_id)
    assert watched.collector.lines == []


def sends_each_line_once(project: Project, folder: Path, collector: Collector) -> None:
    with watch(project, folder, collector, **OTLP) as watched:
        _, trace_id, _ = watched.ask("/watch/plain/a")
        _, failed, _ = watched.ask("/watch/boom")
        spans = {span.trace_id: span.span_id for trace in (trace_id, failed) for span in watched.trace(trace)}
        # Of the two and of what `trace` asks: lines leave in turn, so those of the first are complete.
        collector.wait_until(lambda: sum(line.body == "request" for line in collector.lines) >= 3)
        mine = [line for line in collector.lines if line.trace_id == trace_id]
        assert sorted(line.body for line in mine) == ["inside", "request"]
        assert {line.span_id for line in mine} == {spans[trace_id]}
        (inside,) = [line for line in mine if line.body == "inside"]
        assert (inside.attributes["harmless"], inside.severity) == ("seen", "INFO")
        (access,) = [line for line in mine if line.body == "request"]
        assert access.attributes["route"] == "/watch/plain/{name}"
        assert access.resource["service.name"] == "my-service"
        (error,) = [line for line in collector.lines if line.severity == "ERROR"]
        assert (error.trace_id, error.span_id) == (failed, spans[failed])
        assert "RuntimeError: harmless" in error.attributes["exception"]
        assert "hunter2" not in repr(collector.lines)


def test_lines_go_to_the_collector_once_with_ids_and_without_secrets(
    kind: Project, tmp_path: Path, collector: Collector
) -> None:
    sends_each_line_once(kind, tmp_path, collector)


TWICE = "async with original(app, settings):\n    state_of(app).lines.extend([*state_of(app).lines])\n    yield"


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("redaction:redact", "return value"),
        Body("telemetry:_context", "return None"),
        Body("telemetry:lifespan", TWICE),
    ],
    ids=["with secrets", "ids of the wrong moment", "twice"],
)
def test_a_sabotaged_line_fails_the_proof(kinds: dict[str, Project], tmp_path: Path, sabotage: Sabotage) -> None:
    sick = kinds["contrib"].variant(tmp_path / "sick", sabotage)
    with open_collector() as collector, pytest.raises((AssertionError, KeyError, ServerError, ValueError)):
        sends_each_line_once(sick, tmp_path, collector)


def has_the_ids_of_its_span(watched: Watched, path: str, said: str) -> None:
    """Each line of a request: that of the route or of the error, and the access line."""
    _, trace_id, _ = watched.ask(path)
    (span,) = [span for span in watched.trace(trace_id) if span.kind == "SERVER"]
    lines = [line for line in written(watched) if line.get("trace_id") == trace_id]
    assert sorted(line["event"] for line in lines) == sorted([said, "request"])
    assert {line.get("span_id") for line in lines} == {span.span_id}


@pytest.mark.parametrize(("path", "said"), [("/watch/plain/a", "inside"), ("/watch/boom", "unhandled error")])
def test_every_line_of_a_sampled_request_has_the_ids_of_its_span(watched: Watched, path: str, said: str) -> None:
    has_the_ids_of_its_span(watched, path, said)


@pytest.mark.sabotage
def test_a_line_without_its_span_is_noticed(kinds: dict[str, Project], tmp_path: Path, collector: Collector) -> None:
    sick = kinds["contrib"].variant(tmp_path / "sick", Body("logs:_add_ids", "pass"))
    with watch(sick, tmp_path, collector) as watched, pytest.raises(AssertionError):
        has_the_ids_of_its_span(watched, "/watch/plain/a", "inside")


def test_a_failed_export_is_not_exported(kinds: dict[str, Project], tmp_path: Path, collector: Collector) -> None:
    env = {
        **OTLP,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1000",
    }
    with watch(kinds["contrib"], tmp_path, collector, **env) as watched:
        watched.ask("/watch/plain/a")
        watched.service.process.wait_until(lambda: "Failed to export span" in watched.service.log, 10)
        collector.wait_until(lambda: len(collector.lines) >= 2)
        assert not [line for line in collector.lines if "export" in line.body.lower()]
