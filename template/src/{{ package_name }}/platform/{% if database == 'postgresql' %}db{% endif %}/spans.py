"""Traces each statement of a sampled request as a client span, through SQLAlchemy events; parameters are left out.

By https://opentelemetry.io/docs/specs/semconv/database/database-spans/. The instrumentation package is not used: it
does not support SQLAlchemy 2.1 and adds a second span for each checkout of a connection.
"""

from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext

SPAN = "trace.span"  # key in the `info` of a connection, while a statement runs


def trace_statements(engine: Engine) -> None:
    """Add the listeners; without a recording span they do nothing."""
    tracer = trace.get_tracer(__name__)

    @event.listens_for(engine, "before_cursor_execute")
    def begin(connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
        if not trace.get_current_span().is_recording():
            return
        url, words = connection.info.get("url", engine.url), statement.split(maxsplit=1)
        attributes = {
            "db.namespace": url.database,
            "db.operation.name": words[0].upper() if words else None,
            "db.query.text": statement,
            "db.system.name": engine.dialect.name,
            "server.address": url.host,
            "server.port": url.port,
        }
        given = {name: value for name, value in attributes.items() if value is not None}
        name = f"{given.get('db.operation.name', '')} {url.database or ''}".strip()
        connection.info[SPAN] = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=given)

    @event.listens_for(engine, "after_cursor_execute")
    def end(connection: Connection, *rest: Any) -> None:
        if span := connection.info.pop(SPAN, None):
            span.end()

    @event.listens_for(engine, "handle_error")
    def fail(context: ExceptionContext) -> None:
        error = context.original_exception
        span: Span | None = context.connection.info.pop(SPAN, None) if context.connection else None
        if span:
            span.set_attribute("error.type", getattr(error, "sqlstate", None) or type(error).__qualname__)
            span.set_status(StatusCode.ERROR)
            span.end()
