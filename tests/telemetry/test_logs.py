"""The lines of the log: with the ids of their trace, and, where asked for, a second way to the collector."""

import json
from pathlib import Path

import pytest

from tests.projects import Edit, Project
from tests.servers.otlp import Collector, open_collector
from tests.servers.process import ServerError
from tests.telemetry.conftest import Watched, watch

pytestmark = pytest.mark.servers
OTLP = {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_BLRP_SCHEDULE_DELAY": "100"}


def written(watched: Watched) -> list[dict[str, str]]:
    return [json.loads(line) for line in watched.service.log.splitlines()]


def test_every_line_of_a_sampled_request_has_the_ids_of_its_span(watched: Watched) -> None:
    """From the route, the handler of an unhandled error, and the access log."""
    for path in ("/watch/plain/a", "/watch/boom"):
        _, trace_id, _ = watched.ask(path)
        (span,) = [span for span in watched.trace(trace_id) if span.kind == "SERVER"]
        lines = [line for line in written(watched) if line.get("trace_id") == trace_id]
        assert sorted(line["event"] for line in lines) == sorted(
            ["request", "unhandled error" if path.endswith("boom") else "inside"]
        )
        assert {line["span_id"] for line in lines} == {span.span_id}


def test_no_line_goes_to_the_collector_unless_asked_for(watched: Watched) -> None:
    _, trace_id, _ = watched.ask("/watch/plain/a")
    assert watched.trace(trace_id)
    assert watched.collector.lines == []


def sends_each_line_once(project: Project, folder: Path, collector: Collector) -> None:
    with watch(project, folder, collector, **OTLP) as watched:
        _, trace_id, _ = watched.ask("/watch/plain/a")
        _, failed, _ = watched.ask("/watch/boom")
        spans = {span.trace_id: span.span_id for trace in (trace_id, failed) for span in watched.trace(trace)}
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


LOGS = "src/my_service/platform/logs.py"
SDK = "src/my_service/platform/telemetry_sdk.py"


@pytest.mark.parametrize(
    "edit",
    [
        Edit(LOGS, "format_exc_info, _redacted, told", "format_exc_info, told, _redacted"),
        Edit(SDK, "context=_context(line),", "context=None,"),
        Edit(LOGS, 'event.setdefault("span_id", _inner() or exchange.span_id)', "pass"),
        Edit(
            SDK,
            "        logger.emit(",
            "        emit_twice = logger.emit(body=str(line.get('event')))\n        logger.emit(",
        ),
    ],
    ids=["before redaction", "ids of the wrong moment", "no span id", "twice"],
)
def test_a_sabotaged_line_fails_the_proof(kinds: dict[str, Project], tmp_path: Path, edit: Edit) -> None:
    sick = kinds["contrib"].variant(tmp_path / "sick", edit)
    with open_collector() as collector, pytest.raises((AssertionError, KeyError, ServerError, ValueError)):
        sends_each_line_once(sick, tmp_path, collector)


def test_a_failed_export_is_not_exported(kinds: dict[str, Project], tmp_path: Path, collector: Collector) -> None:
    env = {
        **OTLP,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    with watch(kinds["contrib"], tmp_path, collector, **env) as watched:
        watched.ask("/watch/plain/a")
        watched.service.process.wait_until(lambda: "Failed to export span" in watched.service.log, 10)
        collector.wait_until(lambda: len(collector.lines) >= 2)
        assert not [line for line in collector.lines if "export" in line.body.lower()]
