"""The process: uvicorn that drains before it exits.

On SIGTERM a balancer still sends requests for as long as its health checks take. So `/readyz` fails first, the service
goes on serving for `SHUTDOWN_DRAIN_SECONDS`, and only then asks streams to end, stops accepting, and ends what is in
flight.
"""

import gc
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import Field
from uvicorn.supervisors import ChangeReload

from .room import Room
from .settings import Names, RoomSettings, part
from .state import State, state_of

KEEP_ALIVE = 75  # seconds; longer than a proxy keeps its idle connections, or it sends into closed ones
GRACE = 20  # seconds for requests in flight, once nothing new is accepted


class Settings(RoomSettings):
    """Where the process listens and how it leaves."""

    forwarded_allow_ips: Names = ("127.0.0.1",)
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    shutdown_drain_seconds: Annotated[float, Field(ge=0, le=300)] | None = None

    @property
    def drain(self) -> float:
        """Seconds to go on serving; nobody waits for a balancer on a laptop."""
        if self.shutdown_drain_seconds is None:
            return 0 if self.environment in ("local", "test") else 10
        return self.shutdown_drain_seconds


class DrainServer(uvicorn.Server):
    """uvicorn's server with a drain between the signal and the exit.

    Args:
        config: uvicorn's own.
        state: Told that the service is draining, so that `/readyz` fails.
        drain: Seconds to go on serving.
    """

    def __init__(self, config: uvicorn.Config, state: State, drain: float) -> None:
        super().__init__(config)
        self.state = state
        self.drain = drain
        self.leave_at = float("inf")
        self.untold = ""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal exits at once.

        It may interrupt the writing of a log line, whose lock would never be given back: so it logs nothing itself.
        """
        name = signal.Signals(sig).name
        if self.state.draining:
            os.write(sys.stderr.fileno(), f"exit at once: {name} came twice\n".encode())
            os._exit(1)
        self.state.draining = True
        self.leave_at = time.monotonic() + self.drain
        self.untold = name

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say where, once the lifespan is open; the garbage collector need not look at what has been made by then."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # or each full collection holds up all requests, for about 100 ms
        for listener in sockets or []:
            _say_serving(listener, self.state.settings.environment)

    async def on_tick(self, counter: int) -> bool:
        """Say that the drain begins, and leave when it is over."""
        if self.untold:
            structlog.get_logger("server").info("draining", seconds=self.drain, signal=self.untold)
            self.untold = ""
        if time.monotonic() >= self.leave_at:
            self.should_exit = self.state.closing.is_set()  # one tick later: streams end by themselves first
            self.state.closing.set()
        return await super().on_tick(counter)


def serve(app: FastAPI, *, reload: str | None = None) -> None:
    """Serve until a signal comes.

    Args:
        app: From `create_app`.
        reload: Where to import what makes it from at each change of the code, as in `orders.main:app`.

    Raises:
        SystemExit: With 1, after one line on stderr, where the address cannot be had or the start fails.
    """
    mine = part(state_of(app).settings, Settings)
    config = uvicorn.Config(
        reload or app,
        access_log=False,
        factory=reload is not None,
        forwarded_allow_ips=list(mine.forwarded_allow_ips),
        log_config=None,
        proxy_headers=True,
        reload=reload is not None,
        reload_dirs=[str(Path(__file__).parents[1])] if reload else None,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=KEEP_ALIVE,
    )
    listener = _listen(mine.host, mine.port)
    if reload:
        _say_serving(listener, mine.environment)
        ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listener]).run()
        return
    server = DrainServer(config, state_of(app), mine.drain)
    try:
        server.run(sockets=[listener])
        structlog.get_logger("server").info("stopped")
    except SystemExit:
        print("the start failed; the lines above say why", file=sys.stderr)
        raise SystemExit(1) from None


def _say_serving(listener: socket.socket, environment: str) -> None:
    """Write the line that a person looks for."""
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    structlog.get_logger("server").info("serving", url=f"http://{address}:{port}", environment=environment)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else "unknown host"
        print(f"cannot listen on {host}:{port}: {reason}; set HOST or PORT to a free address", file=sys.stderr)
        raise SystemExit(1) from None


ROOM = Room(settings=Settings, required=True)
