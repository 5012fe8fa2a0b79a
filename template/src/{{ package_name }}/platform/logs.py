"""What happened, one line per event on stdout: JSON for machines, columns for a person at a terminal.

Every line of a request carries its ids. The access line goes straight to orjson and stdout: it is written for each
request, and the bridge from the standard library's logging would cost three times as much.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Annotated, Any, Literal

import orjson
import structlog
from fastapi import FastAPI
from pydantic import BeforeValidator

from .redaction import redact
from .settings import RoomSettings, part
from .state import Exchange, State, current, state_of

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
PROBES = {"/livez", "/readyz"}  # seen every few seconds, of interest only while something is searched
# Values of the platform's own making, in which no secret can be: most of each line.
MADE_HERE = {"bytes", "level", "logger", "method", "ms", "request_id", "route", "status", "timestamp", "trace_id"}
SERIOUS = {"critical", "error"}
access = structlog.get_logger("access")


class Settings(RoomSettings):
    """How much is said, and in which form."""

    log_format: Literal["console", "json"] | None = None  # by default console locally, else json
    log_level: Annotated[Level, BeforeValidator(lambda value: str(value).upper())] = "INFO"


def _ids(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if exchange := current.get():
        event.setdefault("request_id", exchange.request_id)
        event.setdefault("trace_id", exchange.trace_id)
    return event


def _redacted(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name not in MADE_HERE:
            event[name] = redact(value, name)
    return event


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Send structlog's and the standard library's records the same way."""
    configure(part(settings, Settings), state_of(app))


def configure(mine: Settings, state: State | None = None) -> None:
    """Set up logging for this process; commands without an application use it too."""

    def reported(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if state and state.errors and event["level"] in SERIOUS:
            state.errors.logged(event)
        return event

    console = (mine.log_format or ("console" if mine.environment == "local" else "json")) == "console"
    level = logging.getLevelNamesMapping()[mine.log_level]
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
    last: list[structlog.typing.Processor] = [reported, structlog.processors.format_exc_info, _redacted, render]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    _bridge(level, shared, last)


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


def finish(exchange: Exchange) -> None:
    """Write the access line, and the error that nobody had an answer for."""
    path = exchange.scope["path"]
    if exchange.error:
        structlog.get_logger("errors").error("unhandled error", exc_info=exchange.error)
    log = access.debug if path in PROBES else access.info
    log(
        "request",
        method=exchange.scope.get("method", "WEBSOCKET"),
        path=path[:256],
        route=exchange.route,
        status=exchange.status,
        bytes=exchange.sent,
        ms=round(exchange.seconds * 1000, 2),
    )
