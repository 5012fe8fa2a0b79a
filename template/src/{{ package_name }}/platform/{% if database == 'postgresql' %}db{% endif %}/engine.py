"""Engines on which every wait ends: for a connection, for a response, for a free connection of the pool.

The client must end them itself: TCP's own time-outs do not, if something between client and server still acknowledges.
"""

import asyncio
import os
import re
import socket
from contextlib import suppress
from typing import Any, TypeVar

from psycopg import AsyncConnection, Error
from psycopg.abc import PQGen
from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from .faults import leave_read_only
from .settings import Settings

CONNECT_SECONDS = 3  # to connect to one host
PING_SECONDS = 3  # for the response that shows that an idle connection still works
POOL_WAIT_SECONDS = 5  # to wait for a free connection
RECYCLE_SECONDS = 1800  # after which a connection is replaced
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES: firewalls do not forget idle connections,
# and a host that is gone is noticed. `tcp_user_timeout` is in milliseconds.
CONNECT = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
T = TypeVar("T")


class BoundedConnection(AsyncConnection[Any]):
    """Gives up a server that does not respond, and removes the values of rows from its errors."""

    seconds: float = PING_SECONDS

    async def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """Wait for a response, for at most `seconds`.

        Every statement, commit and rollback waits here. The socket is shut down, which also ends the wait in which
        psycopg, after a cancellation, waits for the server to end the statement.
        """
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self.seconds, self._give_up)
        try:
            return await super().wait(gen, *args, **options)
        except Error as error:
            if text := _without_values(error):
                error.args = (text,)
            elif loop.time() >= timer.when():
                error.args = (f"no response within {self.seconds:g} s",)
            raise
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(self.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)


def _without_values(error: Error) -> str:
    """The server's message without its details: they contain rows (`Failing row contains (…)`), as class 22 does."""
    text = error.diag.message_primary or ""
    return re.sub(r'".*"|: .*', "…", text, flags=re.S) if (error.sqlstate or "").startswith("22") else text


def make_engine(url: URL, settings: Settings) -> AsyncEngine:
    """Create an engine whose waits all have a time-out, and whose errors do not contain parameters."""
    if url.get_backend_name() == "postgresql":
        # A prepared statement belongs to one server connection; a pooler may use another one for the next transaction.
        pooled = {"prepare_threshold": None} if settings.db_pooler != "none" else {}
        engine = create_async_engine(
            url,
            connect_args={**CONNECT, **pooled, "async_creator_fn": BoundedConnection.connect},
            hide_parameters=True,
            max_overflow=settings.db_pool_extra,
            pool_pre_ping=True,
            pool_recycle=RECYCLE_SECONDS,
            pool_size=settings.db_pool_size,
            pool_timeout=POOL_WAIT_SECONDS,
            pool_use_lifo=True,
        )
        event.listen(engine.sync_engine, "handle_error", leave_read_only)
        return engine
    engine = create_async_engine(url, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _sqlite_connected)
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _sqlite_connected(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy sends BEGIN, or savepoints would have no effect
    for pragma in ("journal_mode = WAL", "foreign_keys = ON", "busy_timeout = 5000", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}")
