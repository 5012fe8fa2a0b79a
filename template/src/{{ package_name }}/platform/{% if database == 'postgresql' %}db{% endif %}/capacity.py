"""Whether PostgreSQL has room for what all instances may open: better known at a start than in a rush."""

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# What the server keeps for superusers is not for us, and the database or the role may have a limit of its own.
# `reserved_connections` came with PostgreSQL 16.
ALLOWED = text("""
    SELECT least(nullif(datconnlimit, -1), nullif(rolconnlimit, -1), current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0))
    FROM pg_database, pg_roles WHERE datname = current_database() AND rolname = current_user
""")
ADVICE = "too few connections for a release: lower DB_POOL_EXTRA, raise max_connections, or see DB_POOLER"


async def compare(connection: AsyncConnection, pool: int, processes: int) -> None:
    """Warn where a release would run out of connections.

    Args:
        connection: To the server itself: what a pooler in between allows, only its own console tells.
        pool: Connections that one process may open.
        processes: How many serve at once; while a release replaces them there are twice as many.
    """
    wanted = pool * processes * 2
    allowed = (await connection.execute(ALLOWED)).scalar_one()
    if wanted > allowed:
        structlog.get_logger("db").warning(ADVICE, allowed=allowed, wanted=wanted)
