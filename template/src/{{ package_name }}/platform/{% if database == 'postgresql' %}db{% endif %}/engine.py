"""Engines on which every wait ends: for a connection, for a response, for a free connection of the pool.

The client must end them itself: TCP's own time-outs do not, if something between client and server still acknowledges.
"""

from typing import Any

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
    "client_encoding": "utf8",  # a database in SQL_ASCII would otherwise answer with bytes
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


def make_engine(url: URL, settings: Settings) -> AsyncEngine:
    """Create an engine whose waits all have a time-out, and whose errors do not contain parameters."""
    if url.get_backend_name() == "postgresql":
        from .connection import BoundedConnection  # psycopg takes 9 MiB, which SQLite does not need

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
