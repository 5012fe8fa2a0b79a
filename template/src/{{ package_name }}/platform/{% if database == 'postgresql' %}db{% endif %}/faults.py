"""Maps database errors to responses: 503 if the client may retry, 504 after a time-out, no 500.

The SQLSTATE or its class decides: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import TimeoutError as PoolTimeout

# Status, code and detail of the problem response.
UNAVAILABLE = (503, "database-away", "The database is unavailable; try again.")
BUSY = (503, "database-busy", "The database is busy; try again.")
TIMEOUT = (504, "database-timeout", "The database took too long for this request.")
READ_ONLY = (503, "database-read-only", "The database is read-only at the moment; try again.")
# By prefix of the code; the first match is used.
FAULTS = {
    "08": UNAVAILABLE,  # connection exceptions
    "25006": READ_ONLY,  # a standby, or a primary that was demoted
    "25P03": UNAVAILABLE,  # idle_in_transaction_session_timeout: the server closed the connection
    "40": BUSY,  # deadlocks, serialization failures
    "53": BUSY,  # no connections, memory or disk left
    "55P03": BUSY,  # lock_timeout
    "57014": TIMEOUT,  # statement_timeout
    "57": UNAVAILABLE,  # starting, stopping, or terminated by an operator
    "SQLITE_BUSY": BUSY,
    "SQLITE_CANTOPEN": UNAVAILABLE,
    "SQLITE_LOCKED": BUSY,
}


def fault_of(error: Exception) -> tuple[int, str, str] | None:
    """Find the response for a temporary failure of the database; None if the statement itself is wrong."""
    if isinstance(error, PoolTimeout):
        return BUSY
    cause = getattr(error, "orig", None)
    code = str(getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or "")
    for prefix, fault in FAULTS.items():
        if code.startswith(prefix):
            return fault
    return UNAVAILABLE if not code or getattr(error, "connection_invalidated", False) else None


def leave_read_only(context: ExceptionContext) -> None:
    """Close a connection to a read-only server: after a failover the next connection finds the new primary."""
    if getattr(context.original_exception, "sqlstate", None) == "25006":
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False  # the others can still read
