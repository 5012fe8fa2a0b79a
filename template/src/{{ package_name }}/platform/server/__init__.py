"""The process: runs uvicorn, and drains before it exits.

After SIGTERM a load balancer still sends requests until its health checks fail. So `/readyz` fails first, the service
continues to serve for `SHUTDOWN_DRAIN_SECONDS`, and only then signals streams to end, stops accepting connections, and
completes the requests in flight.
"""

import gc
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import AfterValidator, Field
from uvicorn.supervisors import ChangeReload

from ..room import Room
from ..routes import example_path
from ..settings import EXIT_REFUSED, RoomSettings, part
from ..state import State, state_of
from ..threads import EXIT_SECONDS
from ..values import Networks, Port
from .connections import Connection, check_all
from .systemd import notify

GRACE_SECONDS = 20  # for requests in flight, after it stops accepting connections
THREAD_SECONDS = 1  # for threads that still run when everything is closed
DEADLINE_SECONDS = 40  # for everything after the drain: the requests in flight, then the rooms and their buffers


def _path(path: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", path):
        raise ValueError("a path starts with a slash and ends without one, for example /api")
    return path


class Settings(RoomSettings):
    """Where the process listens, and how it shuts down."""

    forwarded_allow_ips: Networks = ("127.0.0.1",)
    host: str = ""
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3_600)] = 75  # longer than the idle timeout of load balancers
    max_message_bytes: Annotated[int, Field(gt=0)] = 1_048_576  # of a WebSocket
    port: Port = 8000
    root_path: Annotated[str, AfterValidator(_path)] = ""  # the prefix that a proxy removes
    shutdown_drain_seconds: Annotated[float, Field(ge=0, le=300)] | None = None
    web_concurrency: Annotated[int, Field(ge=1)] = 1  # platforms set it, and uvicorn and gunicorn read it

    @property
    def address(self) -> str:
        """Where the process listens; by default on all addresses, since a container is reached from outside."""
        return self.host or ("127.0.0.1" if self.environment in ("local", "test") else "0.0.0.0")  # noqa: S104 a pod

    @property
    def drain(self) -> float:
        """Seconds to continue serving; default: 10, or 0 in local and test, which have no load balancer."""
        if self.shutdown_drain_seconds is None:
            return 0 if self.environment in ("local", "test") else 10
        return self.shutdown_drain_seconds


class DrainServer(uvicorn.Server):
    """uvicorn's server with a drain between the signal and the exit.

    Args:
        config: The configuration of uvicorn.
        state: Its `draining` is set, so that `/readyz` fails.
        drain: Seconds to continue serving.
    """

    def __init__(self, config: uvicorn.Config, state: State, drain: float) -> None:
        super().__init__(config)
        self.state = state
        self.drain = drain
        self.drain_until = float("inf")
        self.signal_to_log = ""
        self.signalled = threading.Event()
        self.end = threading.Timer(THREAD_SECONDS, _end)
        self.end.daemon = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start to drain; a second signal exits at once.

        It must not log: the signal may interrupt the logger while it has its lock, and logging would deadlock.
        """
        name = signal.Signals(sig).name
        if self.state.draining and name == "SIGHUP":  # systemd and terminals send it in addition to another signal
            return
        if self.state.draining:
            os.write(sys.stderr.fileno(), f"exiting at once: second signal ({name})\n".encode())
            os._exit(1)
        self.state.draining = True
        self.drain_until = time.monotonic() + self.drain
        self.signal_to_log = name
        self.signalled.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Log the address once the lifespan is open; exclude the objects created so far from garbage collection."""
        threading.Thread(target=self.end_at_deadline, daemon=True).start()
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # otherwise each full collection blocks all requests for about 100 ms
        gc.enable()
        for listener in sockets or []:
            _log_address(listener, self.state.settings.environment)
        if self.started:
            notify("READY=1")

    async def on_tick(self, counter: int) -> bool:
        """Log the start of the drain, and exit when it is over; check the connections once per second."""
        if counter % 10 == 0:
            check_all(self.server_state.connections)
            notify("WATCHDOG=1")
        if self.signal_to_log:
            structlog.get_logger("server").info("draining", seconds=self.drain, signal=self.signal_to_log)
            notify("STOPPING=1")
            self.signal_to_log = ""
        if time.monotonic() >= self.drain_until:
            self.should_exit = self.state.closing.is_set()  # one tick later, so that streams end by themselves first
            self.state.closing.set()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down, and end the process even if threads continue to run: a `def` route cannot be cancelled."""
        await super().shutdown(sockets)
        self.end.start()

    def end_at_deadline(self) -> None:
        """End the process if the shutdown takes too long: an event loop that is blocked cannot do it."""
        self.signalled.wait()
        time.sleep(self.drain + DEADLINE_SECONDS)
        last = threading.Thread(target=_log_late, daemon=True)  # what blocks may also have the lock of a logger
        last.start()
        last.join(EXIT_SECONDS)
        os._exit(1)


def _log_late() -> None:
    structlog.get_logger("server").error("ended at the deadline of the shutdown", seconds=DEADLINE_SECONDS)
    logging.shutdown()  # writes the last lines


def _end() -> None:
    """End the process without the threads that still run."""
    threads = [each.name for each in threading.enumerate() if not each.daemon and each != threading.main_thread()]
    structlog.get_logger("server").warning("stopped although threads still run", threads=threads)
    logging.shutdown()  # writes the last lines
    os._exit(0)


def serve(app: FastAPI, *, reload: str | None = None) -> None:
    """Serve until a signal arrives.

    Args:
        app: From `create_app`.
        reload: Restart after each code change; the import path of the factory, for example `orders.main:app`.

    Raises:
        SystemExit: After one line on stderr: with 1 if the address is not available or the start fails, with 78 if
            `WEB_CONCURRENCY` asks for more processes.
    """
    settings = part(state_of(app).settings, Settings)
    if settings.web_concurrency > 1:
        advice = "unset it, and run one instance per CPU core behind the load balancer"
        print(f"WEB_CONCURRENCY={settings.web_concurrency}: serve runs one process; {advice}", file=sys.stderr)
        raise SystemExit(EXIT_REFUSED)
    config = uvicorn.Config(
        reload or app,
        access_log=False,
        factory=reload is not None,
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        http=Connection,
        log_config=None,
        proxy_headers=True,
        reload=reload is not None,
        reload_dirs=[str(Path(__file__).parents[2])] if reload else None,
        # a new feature is a new folder: files that are written at once with it can escape the watcher
        reload_includes=["features/*"] if reload else None,
        reload_excludes=["__pycache__"] if reload else None,
        root_path=settings.root_path,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=settings.keep_alive_seconds,
        workers=1,  # uvicorn would read WEB_CONCURRENCY
        ws_max_size=settings.max_message_bytes,
    )
    listener = _listen(settings.address, settings.port)
    if reload:
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it logs each change, also of files without code
        if settings.environment == "local":
            print(_first_steps(app, listener), flush=True)
        else:
            _log_address(listener, settings.environment)
        reloader = ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listener])
        _on_hangup(reloader.signal_handler)
        reloader.run()
        return
    server = DrainServer(config, state_of(app), settings.drain)
    _on_hangup(server.handle_exit)
    try:
        server.run(sockets=[listener])
        server.end.cancel()
        structlog.get_logger("server").info("stopped")
    except SystemExit:
        print("the start failed; see the lines above", file=sys.stderr)
        raise SystemExit(1) from None


def _on_hangup(handler: Callable[[int, FrameType | None], None]) -> None:
    """Handle SIGHUP like SIGTERM, because settings are read at the start only; `nohup` still ignores it."""
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup and signal.getsignal(hangup) == signal.SIG_DFL:
        signal.signal(hangup, handler)


def _log_address(listener: socket.socket, environment: str) -> None:
    structlog.get_logger("server").info("serving", url=_url(listener), environment=environment)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _first_steps(app: FastAPI, listener: socket.socket) -> str:
    """What a developer can open and type now."""
    url, paths = _url(listener), {getattr(route, "path", "") for route in app.routes}
    lines = [f"Serving {url}, restarted after each change. Ctrl-C stops it."]
    lines += [f"  {url}/docs     try the API"] * ("/docs" in paths)
    lines += [f"  {url}/__dev__  the latest requests: traces, SQL, logs, errors"] * ("/__dev__" in paths)
    return "\n".join(["", *lines, f"  curl {url}{example_path(app) or '/version'}", ""])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else "unknown host"
        print(f"cannot listen on {host}:{port}: {reason}; set HOST or PORT to a free address", file=sys.stderr)
        raise SystemExit(1) from None


ROOM = Room(settings=Settings, required=True)
