"""What the service answers when PostgreSQL cannot do what a request needs: 503 where it may try again, never a 500.

An SQLSTATE, or its class, says whose turn it is: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import TimeoutError as PoolTimeout

# Status, code and detail of the answer.
AWAY = (503, "database-away", "The database does not answer; try again.")
BUSY = (503, "database-busy", "The database is busy; try again.")
LATE = (504, "database-timeout", "The database took too long for this request.")
READ_ONLY = (503, "database-read-only", "The database takes no changes at the moment; try again.")
# By the beginning of the code; the first that fits.
FAULTS = {
    "08": AWAY,  # connection exceptions
    "25006": READ_ONLY,  # a standby, or a primary that was demoted
    "25P03": AWAY,  # idle in a transaction for too long, so the server hung up
    "40": BUSY,  # deadlocks, serialization failures
    "53": BUSY,  # connections, memory or disk at their end
    "55P03": BUSY,  # lock_timeout
    "57014": LATE,  # statement_timeout
    "57": AWAY,  # stopping, starting, told to by an operator
    "SQLITE_BUSY": BUSY,
    "SQLITE_CANTOPEN": AWAY,
    "SQLITE_LOCKED": BUSY,
}


def fault_of(error: Exception) -> tuple[int, str, str] | None:
    """Tell a database that cannot answer now from a statement that it will never accept (None)."""
    if isinstance(error, PoolTimeout):
        return BUSY
    cause = getattr(error, "orig", None)
    code = str(getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or "")
    for beginning, fault in FAULTS.items():
        if code.startswith(beginning):
            return fault
    return AWAY if not code or getattr(error, "connection_invalidated", False) else None


def leave_read_only(context: ExceptionContext) -> None:
    """Give up a connection whose server takes no changes: after a switchover the next one finds the new primary."""
    if getattr(context.original_exception, "sqlstate", None) == "25006":
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False  # the others still read
