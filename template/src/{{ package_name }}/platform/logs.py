"""Writes one line per event to stdout: JSON for machines, columns for a person at a terminal.

Every line of a request has its ids. A log call neither raises nor waits: one `Output` completes and redacts each event,
whatever it contains, and the thread of a `Writer` writes the lines, so a reader that stops or leaves stops no request.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Annotated, Any, Literal, NoReturn

import orjson
import structlog
from fastapi import FastAPI
from opentelemetry import trace
from pydantic import BeforeValidator

from .redaction import redact
from .room import Room
from .settings import RoomSettings, part
from .state import QUIET, Metric, RequestContext, State, current, state_of
from .threads import Writer

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
ERROR_LEVELS = {"critical", "error"}
# uvicorn logs them as errors: the first after each refused WebSocket handshake, the second when a client sends bytes.
UNWANTED = {
    "ASGI callable returned without completing handshake.",
    "Invalid UTF-8 sequence received from client.",
}
METHODS = "critical", "debug", "error", "exception", "fatal", "info", "log", "msg", "warn", "warning"
LEVELS = {"exception": "error", "fatal": "critical", "log": "error", "msg": "info", "warn": "warning"}
JSON_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
# The fields of every record of the standard library; all others come from `extra`.
RECORD_FIELDS = {*vars(logging.makeLogRecord({})), "asctime", "color_message", "message", "taskName"}


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


def _add_ids(line: dict[str, Any]) -> None:
    """Add the ids of the request, and of the current span: a feature may open one around a part of a request."""
    context, span = current.get(), trace.get_current_span().get_span_context()
    if context:
        line |= {"request_id": context.request_id, "trace_id": context.trace_id}
        if context.span_id:
            line["span_id"] = f"{span.span_id:016x}" if span.is_valid else context.span_id
    elif span.is_valid:
        line |= {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}


class Output:
    """Completes and redacts each event, renders it, and passes it to stdout and to the listeners.

    Args:
        settings: Level and format.
        writer: Writes the lines.
        state: Its error reporter gets each error, its listeners get each line, redacted.
    """

    def __init__(self, settings: Settings, writer: Writer, state: State | None) -> None:
        self.level = settings.level
        self.writer = writer
        self.state = state
        colors = bool(sys.stdout and sys.stdout.isatty())
        self.console = structlog.dev.ConsoleRenderer(colors=colors) if settings.console else None
        own = {"exception_formatter": _format_own_frames} if settings.console else {}
        self.format_exception = structlog.processors.ExceptionRenderer(**own)

    def log(self, level: str, event: MutableMapping[str, Any]) -> None:
        """Write an event, whatever it contains; never raises.

        Args:
            level: For example `info`.
            event: What happened, as `event`, and its fields.
        """
        try:
            structlog.contextvars.merge_contextvars(None, level, event)
            if self.state and self.state.report and level in ERROR_LEVELS:
                self.state.report({**event, "level": level})
            self._complete(level, redact(self.format_exception(None, level, {"event": event.get("event"), **event})))
        except Exception as error:
            self._complete(level, {"event": "a log line could not be written", "error": type(error).__name__})

    def _complete(self, level: str, line: dict[str, Any]) -> None:
        line |= {"level": level, "timestamp": datetime.now(UTC)}
        _add_ids(line)
        self.write(line)

    def write(self, line: dict[str, Any]) -> None:
        """Write a complete, redacted line."""
        if self.console:
            line["timestamp"] = line["timestamp"].astimezone().strftime("%H:%M:%S")
            self.writer.put(f"{self.console(None, '', _for_people(line))}\n".encode())
        else:
            self.writer.put(orjson.dumps(line, option=JSON_OPTIONS))
        for listen in self.state.lines if self.state else ():
            with suppress(Exception):
                listen(line)

    def process(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        """Write an event of structlog: its only processor."""
        self.log(method, event)
        raise structlog.DropEvent

    def logger_class(self) -> type[Any]:
        """The class of structlog's loggers, with methods that do not raise if they are called with wrong arguments."""
        base = structlog.make_filtering_bound_logger(self.level)
        methods: dict[str, Callable[..., Any]] = {}
        for name in METHODS:
            log = methods[name] = self._safe(getattr(base, name), name)
            methods[f"a{name}"] = _as_coroutine(log)  # structlog's own would use a thread; this does not block
        return type("Logger", (base,), methods)

    def _safe(self, method: Callable[..., Any], name: str) -> Callable[..., None]:
        def log(logger: Any, /, *args: Any, **fields: Any) -> None:
            try:
                method(logger, *args, **fields)
            except Exception as error:
                text = next(iter(args[name == "log" :]), "")
                context = {"exc_info": name == "exception", **structlog.get_context(logger), **fields}
                self.log(LEVELS.get(name, name), {**context, "event": text, "log_error": type(error).__name__})

        return log


def _as_coroutine(call: Callable[..., None]) -> Callable[..., Any]:
    async def log(*args: Any, **fields: Any) -> None:
        call(*args, **fields)

    return log


def _for_people(line: dict[str, Any]) -> dict[str, Any]:
    """The line with one id, and of a request first what matters most."""
    dropped = {"span_id", "trace_id"} if "request_id" in line else {"span_id"}
    shown = {name: value for name, value in line.items() if name not in dropped}
    if line["event"] == "request" and "route" in line:
        method, path, status, ms, _ = (shown.pop(name) for name in ("method", "path", "status", "ms", "route"))
        shown["event"] = f"{method} {path if path.isprintable() else ascii(path)} {status} {ms} ms"
    return shown


def _format_own_frames(exc_info: tuple[type[BaseException], BaseException, TracebackType | None]) -> str:
    """Format an exception without the frames of installed packages."""
    described = traceback.TracebackException(*exc_info)
    errors = [described]
    for error in errors:
        error.stack[:] = [frame for frame in error.stack if "site-packages" not in frame.filename] or error.stack
        errors += filter(None, (error.__cause__, error.__context__, *(error.exceptions or ())))
    return "".join(described.format()).rstrip()


class _Handler(logging.Handler):
    """Passes the records of the standard library to the output."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.output = output

    def emit(self, record: logging.LogRecord) -> None:
        event = {name: value for name, value in vars(record).items() if name not in RECORD_FIELDS}
        event |= {"logger": record.name, "exc_info": record.exc_info}
        try:
            event["event"] = record.getMessage()
        except Exception as error:  # the arguments do not fit; nobody knows which of them are secret
            event |= {"event": record.msg, "log_error": type(error).__name__}
        self.output.log(record.levelname.lower(), event)

    def flush(self) -> None:
        """Wait for the last lines: `logging.shutdown` calls this."""
        self.output.writer.flush()


def _is_wanted(record: logging.LogRecord) -> bool:
    return str(record.msg) not in UNWANTED


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Send the records of structlog and of the standard library through the same output."""
    state = state_of(app)
    output = state.own[Output] = configure(part(settings, Settings), state)
    about = "log.lines.dropped", "{line}", "Log lines that were lost because stdout was not read, or closed."
    state.metrics.append(Metric(*about, lambda: [(output.writer.dropped, {})], "counter"))


def configure(settings: Settings, state: State | None = None) -> Output:
    """Set up logging for this process; commands without an application use it too.

    Args:
        settings: Level and format.
        state: Its error reporter gets each error, its listeners get each line, redacted.
    """
    root = logging.getLogger()
    writers = [handler.output.writer for handler in root.handlers if isinstance(handler, _Handler)]
    output = Output(settings, writers[0] if writers else Writer(_report_lost), state)
    structlog.configure(
        processors=[output.process],
        wrapper_class=output.logger_class(),
        logger_factory=structlog.ReturnLoggerFactory(),  # the default one needs an open stdout
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Handler(output)], level=settings.level, force=True)
    # the room `server` logs start and stop itself
    logging.getLogger("uvicorn.error").setLevel(max(settings.level, logging.WARNING))
    logging.getLogger("uvicorn.error").addFilter(_is_wanted)
    logging.raiseExceptions = False  # it would print the arguments of a wrong call to stderr, with their secrets
    logging.captureWarnings(settings.environment != "test")  # where pytest collects them
    _log_uncaught()
    return output


def _report_lost(count: int) -> None:
    structlog.get_logger("logs").warning("log lines were lost", count=count)


def _log_uncaught() -> None:
    """Log exceptions that nothing catches, which Python prints unredacted; keep hooks that others have set."""

    def log(text: str, kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
        structlog.get_logger("uncaught").critical(text, exc_info=(kind, error or kind(), where))

    def in_main(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        if issubclass(kind, Exception):
            log("uncaught exception", kind, error, where)
        else:
            sys.__excepthook__(kind, error, where)  # Ctrl-C

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            log("uncaught exception in a thread", args.exc_type, args.exc_value, args.exc_traceback)

    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = in_main
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = in_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda args: log("ignored exception", args.exc_type, args.exc_value, args.exc_traceback)


def finish(context: RequestContext) -> None:
    """Write the access line, and log an unhandled error."""
    path, route, output = context.path, context.route, context.state.own[Output]
    if context.error:
        structlog.get_logger("errors").error("unhandled error", exc_info=context.error)
    if output.level > (logging.DEBUG if path in QUIET else logging.INFO):
        return
    line = {
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
        line["span_id"] = context.span_id
    if bound := structlog.contextvars.get_contextvars():
        line = redact(bound) | line
    output.write(line)


ROOM = Room(settings=Settings, install=install, finish=finish, required=True)
