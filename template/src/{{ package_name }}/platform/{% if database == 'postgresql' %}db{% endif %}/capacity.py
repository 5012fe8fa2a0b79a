"""Warns at the start if all instances together may open more connections than PostgreSQL allows."""

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Connections reserved for superusers are not available, and the database or the role may have its own limit.
# `reserved_connections` exists since PostgreSQL 16.
ALLOWED = text("""
    SELECT least(nullif(datconnlimit, -1), nullif(rolconnlimit, -1), current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0))
    FROM pg_database, pg_roles WHERE datname = current_database() AND rolname = current_user
""")
ADVICE = "too few connections for a release: lower DB_POOL_EXTRA, raise max_connections, or see DB_POOLER"


async def check_capacity(connection: AsyncConnection, pool: int, processes: int) -> None:
    """Warn if a release would run out of connections.

    Args:
        connection: To the server itself; the limit of a pooler can only be read from its console.
        pool: Connections that one process may open.
        processes: Number of processes; during a release there are twice as many.
    """
    wanted = pool * processes * 2
    allowed = (await connection.execute(ALLOWED)).scalar_one()
    if wanted > allowed:
        structlog.get_logger("db").warning(ADVICE, allowed=allowed, wanted=wanted)
