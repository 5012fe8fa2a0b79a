"""Log lines as OpenTelemetry's log records, where OTEL_LOGS_EXPORTER asks for them.

The modules have an underscore as long as Python's log signal is experimental; there are no other names for it, and
they are imported nowhere else. https://opentelemetry.io/docs/languages/python/#status-and-releases
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
from .pacing import Paced

SEVERITY = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
APART = {"event", "level", "span_id", "timestamp", "trace_id"}  # these have fields of their own in a record


class _Exporter(OTLPLogExporter):
    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        return super().export(Paced(batch, lambda record: record))


def make(resource: Resource, far: Mapping[str, Any]) -> tuple[Line, Callable[[], None]]:
    """Make the listener for log lines that sends them, and the call that sends what waits and ends it.

    Args:
        resource: Who sends.
        far: Arguments of the exporter.
    """
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(_Exporter(**far)))
    logger = provider.get_logger(__name__)

    def emit(line: Mapping[str, Any]) -> None:
        if str(line.get("logger", "")).startswith("opentelemetry"):
            return  # that sending failed is not to be sent
        level = str(line.get("level", "info"))
        logger.emit(
            body=str(line.get("event", "")),
            severity_number=SEVERITY.get(level, SeverityNumber.INFO),
            severity_text=level.upper(),
            attributes={name: _plain(value) for name, value in line.items() if name not in APART and value is not None},
            context=_context(line),
        )

    return emit, provider.shutdown


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _context(line: Mapping[str, Any]) -> Context | None:
    """The access line is written when the span is over: the ids are in it."""
    if "span_id" not in line or "trace_id" not in line:
        return None
    ids = int(line["trace_id"], 16), int(line["span_id"], 16)
    flags = TraceFlags(TraceFlags.SAMPLED)
    return set_span_in_context(NonRecordingSpan(SpanContext(*ids, is_remote=False, trace_flags=flags)))
