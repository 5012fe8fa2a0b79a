"""What happened, one line per event on stdout: JSON for machines, columns for a person at a terminal.

Every line of a request carries its ids. The access line goes straight to orjson and stdout, past structlog, too: it is
written for each request, and nothing in it has to be looked up.
"""

import asyncio
import logging
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

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
access = structlog.get_logger("access")


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


def _redacted(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name not in MADE_HERE:
            event[name] = redact(value, name)
    return event


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Send structlog's and the standard library's records the same way."""
    mine, state = part(settings, Settings), state_of(app)
    configure(mine, state)
    if not mine.console and mine.level <= logging.INFO:
        state.write = _writer(state.lines)


def configure(mine: Settings, state: State | None = None) -> None:
    """Set up logging for this process; commands without an application use it too.

    Args:
        mine: How much is said, and in which form.
        state: Its reporter is told each error, its listeners each line, redacted.
    """
    console, level = mine.console, mine.level
    shared: list[structlog.typing.Processor] = [
        _ids,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
    ]
    if console:
        render: Any = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
        factory: Any = structlog.PrintLoggerFactory()
    else:
        render = structlog.processors.JSONRenderer(lambda event, **_: orjson.dumps(event, default=str))
        factory = structlog.BytesLoggerFactory()

    def reported(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if state and state.errors and event["level"] in SERIOUS:
            state.errors.logged(event)
        return event

    def told(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for listen in state.lines if state else ():
            listen(event)
        return event

    last: list[structlog.typing.Processor] = [reported, structlog.processors.format_exc_info, _redacted, told, render]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    _bridge(level, shared, last)


def _writer(listeners: Sequence[Line]) -> Line:
    """A way to stdout for lines that are complete and hold no secret: one system call for all of a turn of the loop."""
    out, waiting = sys.stdout.buffer, False

    def flush() -> None:
        nonlocal waiting
        waiting = False
        out.flush()

    def write(event: Mapping[str, Any]) -> None:
        nonlocal waiting
        for listen in listeners:
            listen(event)
        out.write(orjson.dumps(event, default=str, option=LINE))
        if not waiting:
            waiting = True
            asyncio.get_running_loop().call_soon(flush)

    return write


def _bridge(level: int, shared: list[structlog.typing.Processor], last: list[structlog.typing.Processor]) -> None:
    named: list[structlog.typing.Processor] = [structlog.stdlib.add_logger_name, *shared]
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta

    def decoded(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        line: Any = event
        for processor in last:
            line = processor(logger, method, line)
        return line.decode() if isinstance(line, bytes) else str(line)

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=named, processors=[meta, decoded]))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # its comings and goings are told by the room `server`
    logging.getLogger("uvicorn.error").setLevel(max(level, logging.WARNING))


def finish(context: RequestContext) -> None:
    """Write the access line, and the error that nobody had an answer for."""
    path = context.scope["path"]
    if context.error:
        structlog.get_logger("errors").error("unhandled error", exc_info=context.error)
    event = {
        "method": context.scope.get("method", "WEBSOCKET"),
        "path": path[:256],
        "route": context.route,
        "status": context.status,
        "bytes": context.sent,
        "ms": round(context.seconds * 1000, 2),
    }
    if path in QUIET:
        access.debug("request", **event)
    elif context.state.write is None:
        access.info("request", **event)
    else:
        if path != event["route"]:  # else nothing in it is the client's
            event["path"] = redact(event["path"])
        event |= {
            "event": "request",
            "level": "info",
            "request_id": context.request_id,
            "timestamp": datetime.now(UTC),
            "trace_id": context.trace_id,
        }
        if context.span_id:
            event["span_id"] = context.span_id
        context.state.write(event)


ROOM = Room(settings=Settings, install=install, finish=finish, required=True)
