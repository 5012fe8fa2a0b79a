"""Sends log lines as OpenTelemetry log records, if OTEL_LOGS_EXPORTER is `otlp`.

The imported modules begin with an underscore while Python's log signal is experimental; it has no public names yet.
They are imported only here. https://opentelemetry.io/docs/languages/python/#status-and-releases
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from ..state import Line
from .pacing import Pace

SEVERITY = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
FIELDS = {"event", "level", "span_id", "timestamp", "trace_id"}  # not attributes: a record has fields for them


class _Exporter(OTLPLogExporter):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pace = Pace()

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        return super().export(self.pace.spread(batch, lambda record: record))


def make(resource: Resource, exporter_options: Mapping[str, Any]) -> tuple[Line, Callable[[], None]]:
    """Create the listener that sends log lines, and the function that flushes and stops it.

    Args:
        resource: Identifies the service.
        exporter_options: Arguments of the exporter.
    """
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(_Exporter(**exporter_options)))
    logger = provider.get_logger(__name__)

    def emit(line: Mapping[str, Any]) -> None:
        if str(line.get("logger", "")).startswith("opentelemetry"):
            return  # a failed export must not cause another one
        level = str(line.get("level", "info"))
        logger.emit(
            body=str(line.get("event", "")),
            severity_number=SEVERITY.get(level, SeverityNumber.INFO),
            severity_text=level.upper(),
            attributes={key: _plain(value) for key, value in line.items() if key not in FIELDS and value is not None},
            context=_context(line),
        )

    return emit, provider.shutdown


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _context(line: Mapping[str, Any]) -> Context | None:
    """The access line is written after the span has ended, so its ids come from the line."""
    try:
        ids = int(line["trace_id"], 16), int(line["span_id"], 16)
    except (KeyError, TypeError, ValueError):  # none, or a field of the caller with that name
        return None
    flags = TraceFlags(TraceFlags.SAMPLED)
    return set_span_in_context(NonRecordingSpan(SpanContext(*ids, is_remote=False, trace_flags=flags)))
