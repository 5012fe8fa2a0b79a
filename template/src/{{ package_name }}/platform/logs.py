"""Writes one line per event to stdout: JSON for machines, columns for a person at a terminal.

Every line of a request has its ids. One `Output` writes all lines; the access line of each request skips structlog's
processors, because it has all its fields already.
"""

import asyncio
import logging
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NoReturn

import orjson
import structlog
from fastapi import FastAPI
from opentelemetry import trace
from pydantic import BeforeValidator

from .redaction import redact
from .room import Room
from .settings import RoomSettings, part
from .state import QUIET, Line, RequestContext, State, current, state_of

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
# Fields that the platform sets itself, so they contain no secret; redaction skips them.
SAFE_FIELDS = {
    "bytes",
    "level",
    "logger",
    "method",
    "ms",
    "request_id",
    "route",
    "span_id",
    "status",
    "timestamp",
    "trace_id",
}
ERROR_LEVELS = {"critical", "error"}
# uvicorn logs them as errors: the first after each refused WebSocket handshake, the second when a client sends bytes.
UNWANTED = {
    "ASGI callable returned without completing handshake.",
    "Invalid UTF-8 sequence received from client.",
}
JSON_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


class Settings(RoomSettings):
    """The level and the format of the log."""

    log_format: Literal["console", "json"] | None = None  # default: console locally, otherwise json
    log_level: Annotated[Level, BeforeValidator(lambda value: str(value).upper())] = "INFO"

    @property
    def console(self) -> bool:
        """Whether lines are formatted for a person."""
        return (self.log_format or ("console" if self.environment == "local" else "json")) == "console"

    @property
    def level(self) -> int:
        """The level as a number of the standard library."""
        return logging.getLevelNamesMapping()[self.log_level]


def _add_ids(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if context := current.get():
        event.setdefault("request_id", context.request_id)
        event.setdefault("trace_id", context.trace_id)
        if context.span_id:
            event.setdefault("span_id", _current_span_id() or context.span_id)
    elif span_id := _current_span_id():
        event.setdefault("trace_id", f"{trace.get_current_span().get_span_context().trace_id:032x}")
        event.setdefault("span_id", span_id)
    return event


def _current_span_id() -> str:
    """The id of the current span, for example of one that a feature opens around a part of a request."""
    context = trace.get_current_span().get_span_context()
    return f"{context.span_id:016x}" if context.is_valid else ""


def _add_timestamp(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["timestamp"] = datetime.now(UTC)
    return event


def _redact(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name not in SAFE_FIELDS:
            event[name] = redact(value, name)
    return event


class Output:
    """Passes each complete, redacted line to the listeners, renders it and writes it to stdout.

    The lines of one event loop iteration are written by one system call.

    Args:
        settings: Level and format.
        listeners: Called with each line.
    """

    def __init__(self, settings: Settings, listeners: Sequence[Line]) -> None:
        self.level = settings.level
        self.listeners = listeners
        self.console = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()) if settings.console else None
        self.flush_scheduled = False

    def write(self, event: MutableMapping[str, Any]) -> None:
        """Write a line."""
        if self.console:
            event["timestamp"] = event["timestamp"].astimezone().strftime("%H:%M:%S")
        for listen in self.listeners:
            listen(event)
        if self.console:
            line = f"{self.console(None, '', event)}\n".encode(errors="replace")
        else:
            line = orjson.dumps(event, default=str, option=JSON_OPTIONS)
        sys.stdout.buffer.write(line)
        try:
            if not self.flush_scheduled:
                asyncio.get_running_loop().call_soon(self._flush)
                self.flush_scheduled = True
        except RuntimeError:  # no event loop: a thread, or a command
            sys.stdout.buffer.flush()

    def _flush(self) -> None:
        self.flush_scheduled = False
        sys.stdout.buffer.flush()

    def process(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        """Write a line: the last processor of structlog."""
        self.write(event)
        raise structlog.DropEvent


class _Handler(logging.Handler):
    """Sends the standard library's records through structlog's processors, the last of which writes them."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(structlog.DropEvent):
            self.format(record)


def _is_wanted(record: logging.LogRecord) -> bool:
    return record.msg not in UNWANTED


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Send the records of structlog and of the standard library through the same processors."""
    state = state_of(app)
    state.own[Output] = configure(part(settings, Settings), state)


def configure(settings: Settings, state: State | None = None) -> Output:
    """Set up logging for this process; commands without an application use it too.

    Args:
        settings: Level and format.
        state: Its error reporter gets each error, its listeners get each line, redacted.
    """
    output = Output(settings, state.lines if state else ())
    shared: list[structlog.typing.Processor] = [_add_ids, structlog.processors.add_log_level, _add_timestamp]

    def report(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if state and state.errors and event["level"] in ERROR_LEVELS:
            state.errors.logged(event)
        return event

    last: list[structlog.typing.Processor] = [report, structlog.processors.format_exc_info, _redact, output.process]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        cache_logger_on_first_use=True,
    )
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.level, force=True)
    # the room `server` logs start and stop itself
    logging.getLogger("uvicorn.error").setLevel(max(settings.level, logging.WARNING))
    logging.getLogger("uvicorn.error").addFilter(_is_wanted)
    return output


def finish(context: RequestContext) -> None:
    """Write the access line, and log an unhandled error."""
    path, route, output = context.path, context.route, context.state.own[Output]
    if context.error:
        structlog.get_logger("errors").error("unhandled error", exc_info=context.error)
    if output.level > (logging.DEBUG if path in QUIET else logging.INFO):
        return
    event = {
        "timestamp": datetime.now(UTC),
        "level": "debug" if path in QUIET else "info",
        "event": "request",
        "method": context.scope.get("method", "WEBSOCKET"),
        "path": path if path == route else redact(path[:256]),  # a template has no data of the client
        "route": route,
        "status": context.status,
        "bytes": context.sent,
        "ms": round(context.seconds * 1000, 2),
        "request_id": context.request_id,
        "trace_id": context.trace_id,
    }
    if context.span_id:
        event["span_id"] = context.span_id
    output.write(event)


ROOM = Room(settings=Settings, install=install, finish=finish, required=True)
