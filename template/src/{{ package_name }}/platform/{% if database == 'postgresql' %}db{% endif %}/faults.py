"""Maps database errors to responses: 503 if the client may retry, 409 for a conflict; logs each trouble once.

The SQLSTATE or its class decides: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

import re
import time
from dataclasses import dataclass

import structlog
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

Fault = tuple[int, str, str]  # status, code and detail of the problem response

UNAVAILABLE = (503, "database-away", "The database is unavailable; try again.")
BUSY = (503, "database-busy", "The database is busy; try again.")
FULL = (503, "database-full", "The database cannot store more at the moment; try again.")
LOGIN = (503, "database-login", "The database refuses this service at the moment; try again.")
TIMEOUT = (504, "database-timeout", "The database took too long for this request.")
READ_ONLY = (503, "database-read-only", "The database is read-only at the moment; try again.")
CONFLICT = (409, "conflict", "The request conflicts with what is stored.")
# By prefix of the code; the first match is used.
FAULTS = {
    "08": UNAVAILABLE,  # connection exceptions
    "23503": CONFLICT,  # foreign keys: something refers to it, or what it refers to does not exist
    "23505": CONFLICT,  # unique constraints
    "23P01": CONFLICT,  # exclusion constraints
    "25006": READ_ONLY,  # a standby, or a primary that was demoted
    "25P03": UNAVAILABLE,  # idle_in_transaction_session_timeout: the server closed the connection
    "28": LOGIN,  # wrong password, no such role, TLS required
    "3D000": UNAVAILABLE,  # no such database
    "40": BUSY,  # deadlocks, serialization failures
    "53100": FULL,
    "53": BUSY,  # no connections or memory left
    "55P03": BUSY,  # lock_timeout
    "57014": TIMEOUT,  # statement_timeout
    "57": UNAVAILABLE,  # starting, stopping, or terminated by an operator
    "SQLITE_BUSY": BUSY,
    "SQLITE_CANTOPEN": UNAVAILABLE,
    "SQLITE_CONSTRAINT_FOREIGNKEY": CONFLICT,
    "SQLITE_CONSTRAINT_PRIMARYKEY": CONFLICT,
    "SQLITE_CONSTRAINT_UNIQUE": CONFLICT,
    "SQLITE_FULL": FULL,
    "SQLITE_LOCKED": BUSY,
    "SQLITE_READONLY": READ_ONLY,
}
# libpq does not return the SQLSTATE of a refused connection; in another language than English these are `database-away`
REFUSALS = {
    r"too many (clients|connections)|connection slots are reserved|no more connections": "53300",
    r"authentication failed|role .* does not exist|not permitted to log in|pg_hba\.conf|no password supplied"
    r"|permission denied for database|SSL was required|SSL required|no such user|login has been failing": "28000",
    r"database .* does not exist": "3D000",
    r"starting up|shutting down|not (yet )?accepting connections|recovery": "57P03",
}
# A right is missing, or what is named does not exist: also in a session whose role was dropped.
NO_ROLE = "42704"  # of `SELECT current_user`
RIGHTS = ("3F000", "42501", NO_ROLE, "42883", "42P01")
QUIET_SECONDS = 10  # without a failed request: then it is over


def code_of(error: BaseException) -> str:
    """The SQLSTATE, SQLite's name of the error, or nothing: there was no response."""
    cause = getattr(error, "orig", None)
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
    return code or next((code for text, code in REFUSALS.items() if re.search(text, str(cause))), "")


def fault_of(error: Exception) -> Fault | None:
    """Find the response for a temporary failure or a conflict; None if the statement itself is wrong."""
    if isinstance(error, PoolTimeout):
        return BUSY
    code = code_of(error)
    for prefix, fault in FAULTS.items():
        if code.startswith(prefix):
            return fault
    lost = not code and isinstance(error, InterfaceError | OperationalError)
    return UNAVAILABLE if lost or getattr(error, "connection_invalidated", False) else None


def reason_of(error: BaseException) -> str:
    """What the server or libpq says, in one line, with the SQLSTATE; it contains no secret."""
    cause = getattr(error, "orig", None)
    if not cause:
        return "no free connection in the pool" if isinstance(error, PoolTimeout) else type(error).__name__
    text = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    code = code_of(error)
    return text.rpartition("FATAL:")[2].strip().removeprefix("connection failed: ") + (f" ({code})" if code else "")


def said_of(error: BaseException) -> str:
    """What the database does, for people: it refuses this login, or any connection, or there was no response."""
    code = code_of(error)
    refused = "the login" if code.startswith("28") or code == NO_ROLE else "connections"
    return f"the database refuses {refused}" if code else "the database does not respond"


def leave_read_only(context: ExceptionContext) -> None:
    """Close a connection to a read-only server: after a failover the next connection finds the new primary."""
    if getattr(context.original_exception, "sqlstate", None) == "25006":
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False  # the others can still read


@dataclass
class _Trouble:
    reason: str
    began: float
    last: float
    probed: bool = False  # found by a probe of `/readyz`, which then also finds its end
    count: int = 0


class Troubles:
    """Logs each kind of trouble when it begins and when it is over, whether requests or probes find it."""

    def __init__(self) -> None:
        self.open: dict[str, _Trouble] = {}

    def __str__(self) -> str:
        return "".join(f"; {code}: {trouble.reason}" for code, trouble in self.open.items())

    def found(self, fault: Fault, reason: str, *, probed: bool = False) -> None:
        """Note a trouble, and log it unless it is known."""
        now, code = time.monotonic(), fault[1]
        self.forget(now, requests_only=True)
        if code not in self.open:
            self.open[code] = _Trouble(reason, now, now)
            log = structlog.get_logger("db")
            (log.warning if fault in (BUSY, TIMEOUT) else log.error)("database trouble", code=code, reason=reason)
        trouble = self.open[code]
        trouble.last, trouble.probed = now, trouble.probed or probed
        trouble.count += not probed

    def forget(self, before: float, *, requests_only: bool = False) -> None:
        """Log which troubles are over.

        Args:
            before: When the probe began that found none of them.
            requests_only: Whether there was no probe.
        """
        for code, trouble in list(self.open.items()):
            quiet = QUIET_SECONDS if requests_only or not trouble.probed else 0
            if trouble.last < before - quiet:
                del self.open[code]
                seconds = round(trouble.last - trouble.began, 1)
                structlog.get_logger("db").info(
                    "database trouble is over", code=code, requests=trouble.count, seconds=seconds
                )
