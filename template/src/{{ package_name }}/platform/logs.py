"""What happened, one line per event on stdout: JSON for machines, columns for a person at a terminal.

Every line of a request carries its ids. All lines leave by one `Output`; the access line, written for each request,
goes there directly, because nothing in it has to be looked up.
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
# Values of the platform's own making, in which no secret can be: most of each line.
MADE_HERE = {
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
SERIOUS = {"critical", "error"}
LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


class Settings(RoomSettings):
    """How much is said, and in which form."""

    log_format: Literal["console", "json"] | None = None  # by default console locally, else json
    log_level: Annotated[Level, BeforeValidator(lambda value: str(value).upper())] = "INFO"

    @property
    def console(self) -> bool:
        """Whether a person reads along."""
        return (self.log_format or ("console" if self.environment == "local" else "json")) == "console"

    @property
    def level(self) -> int:
        """The level by its number in the standard library."""
        return logging.getLevelNamesMapping()[self.log_level]


def _ids(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if context := current.get():
        event.setdefault("request_id", context.request_id)
        event.setdefault("trace_id", context.trace_id)
        if context.span_id:
            event.setdefault("span_id", _inner() or context.span_id)
    elif span_id := _inner():
        event.setdefault("trace_id", f"{trace.get_current_span().get_span_context().trace_id:032x}")
        event.setdefault("span_id", span_id)
    return event


def _inner() -> str:
    """The span that the code is in just now, such as a user's own around a part of a request."""
    context = trace.get_current_span().get_span_context()
    return f"{context.span_id:016x}" if context.is_valid else ""


def _stamped(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["timestamp"] = datetime.now(UTC)
    return event


def _redacted(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name not in MADE_HERE:
            event[name] = redact(value, name)
    return event


class Output:
    """The end of every line, complete and without secrets: told to the listeners, rendered, written to stdout.

    Lines of one turn of the event loop leave by one system call.

    Args:
        mine: In which form, and from which level on.
        listeners: Told each line.
    """

    def __init__(self, mine: Settings, listeners: Sequence[Line]) -> None:
        self.level = mine.level
        self.listeners = listeners
        self.console = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()) if mine.console else None
        self.waiting = False

    def write(self, event: MutableMapping[str, Any]) -> None:
        """Write a line."""
        if self.console:
            event["timestamp"] = event["timestamp"].astimezone().strftime("%H:%M:%S")
        for listen in self.listeners:
            listen(event)
        if self.console:
            line = f"{self.console(None, '', event)}\n".encode(errors="replace")
        else:
            line = orjson.dumps(event, default=str, option=LINE)
        sys.stdout.buffer.write(line)
        try:
            if not self.waiting:
                asyncio.get_running_loop().call_soon(self._flush)
                self.waiting = True
        except RuntimeError:  # a thread, or a command
            sys.stdout.buffer.flush()

    def _flush(self) -> None:
        self.waiting = False
        sys.stdout.buffer.flush()

    def process(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        """Write a line as the last processor of structlog."""
        self.write(event)
        raise structlog.DropEvent


class _Handler(logging.Handler):
    """Sends the standard library's records through structlog's processors, of which the last one writes."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(structlog.DropEvent):
            self.format(record)


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Send structlog's and the standard library's records the same way."""
    state = state_of(app)
    state.own[Output] = configure(part(settings, Settings), state)


def configure(mine: Settings, state: State | None = None) -> Output:
    """Set up logging for this process; commands without an application use it too.

    Args:
        mine: How much is said, and in which form.
        state: Its reporter is told each error, its listeners each line, redacted.
    """
    output = Output(mine, state.lines if state else ())
    shared: list[structlog.typing.Processor] = [_ids, structlog.processors.add_log_level, _stamped]

    def reported(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if state and state.errors and event["level"] in SERIOUS:
            state.errors.logged(event)
        return event

    last: list[structlog.typing.Processor] = [reported, structlog.processors.format_exc_info, _redacted, output.process]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(mine.level),
        cache_logger_on_first_use=True,
    )
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=mine.level, force=True)
    # its comings and goings are told by the room `server`
    logging.getLogger("uvicorn.error").setLevel(max(mine.level, logging.WARNING))
    return output


def finish(context: RequestContext) -> None:
    """Write the access line, and the error that nobody had an answer for."""
    path, route, output = context.scope["path"], context.route, context.state.own[Output]
    if context.error:
        structlog.get_logger("errors").error("unhandled error", exc_info=context.error)
    if output.level > (logging.DEBUG if path in QUIET else logging.INFO):
        return
    event = {
        "bytes": context.sent,
        "event": "request",
        "level": "debug" if path in QUIET else "info",
        "method": context.scope.get("method", "WEBSOCKET"),
        "ms": round(context.seconds * 1000, 2),
        "path": path if path == route else redact(path[:256]),  # a template holds nothing of the client's
        "request_id": context.request_id,
        "route": route,
        "status": context.status,
        "timestamp": datetime.now(UTC),
        "trace_id": context.trace_id,
    }
    if context.span_id:
        event["span_id"] = context.span_id
    output.write(event)


ROOM = Room(settings=Settings, install=install, finish=finish, required=True)
