"""The connections of the service: those for requests, and one only for the checks of `/readyz`."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import QueuePool

from ..state import Metric, NotReady
from .capacity import check_capacity
from .engine import PING_SECONDS, make_engine
from .faults import (
    CONFLICT,
    LOGIN,
    NO_ROLE,
    READ_ONLY,
    RIGHTS,
    UNAVAILABLE,
    Fault,
    Troubles,
    code_of,
    fault_of,
    reason_of,
    said_of,
)
from .revisions import at_least, heads
from .settings import Settings
from .url import check_url, url_of

PROBE_SECONDS = 1.5  # for which a probe of `/readyz` waits for the check
CHECK_SECONDS = 8  # for the whole check: enough to try the next host after one or two that are down
SCHEMA = (503, "database-schema", "")
ROLE = text("SELECT current_setting('transaction_read_only'), current_user")  # fails if the role was dropped


class Failed(NotReady):
    """A check has failed, by the fault that a request would meet."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault


class Pool:
    """Opens transactions and checks the database; features use it as `state.database`.

    Args:
        settings: The settings of this room; the schema that this code needs is read from `migrations_dir`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = url_of(settings.database_url)
        self.engine = make_engine(self.url, settings)
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self.needed: dict[str, set[str]] = {}
        self.checking: asyncio.Task[set[str]] | None = None
        self.troubles = Troubles()
        self.renew_login: Callable[[], None] = lambda: None
        self.probe = self.engine
        self.capacity_checked = True
        if self.url.get_backend_name() == "postgresql":
            self.capacity_checked = settings.db_pooler != "none"
            # requests cannot take the connection of the probe, so a full pool is not taken for a server that is down
            self.probe = make_engine(self.url, settings.model_copy(update={"db_pool_size": 1, "db_pool_extra": 0}))
            for engine in (self.engine, self.probe):
                event.listen(engine.sync_engine, "do_connect", self._use_url)
                event.listen(engine.sync_engine.pool, "checkin", self.end_old)
            event.listen(self.engine.sync_engine.pool, "checkout", self._allow_statements)

    def begin(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a transaction that commits at the end and rolls back on an error."""
        return self.sessions.begin()

    async def check(self) -> str:
        """Query the server, and compare its schema with the one that this code needs.

        Raises:
            NotReady: The database does not respond, or the schema is older than this code.
        """
        began = time.monotonic()
        try:
            self.needed = self.needed or heads(self.settings.migrations_dir)
            evidence = f"answers, {at_least(self.needed, await self._probe())}"
        except NotReady as reason:
            self.found(getattr(reason, "fault", SCHEMA), str(reason), probed=True)
            raise
        self.troubles.forget(began)
        return f"{evidence}{self.troubles}"

    async def _probe(self) -> set[str]:
        """Wait `PROBE_SECONDS`: a check that takes longer, for example if a host is down, serves the next probe."""
        self.checking = self.checking or asyncio.create_task(self._revisions())
        if not (await asyncio.wait({self.checking}, timeout=PROBE_SECONDS))[0]:
            raise Failed(UNAVAILABLE, f"the database does not respond within {PROBE_SECONDS:g} s")
        done, self.checking = self.checking, None
        return done.result()

    async def _revisions(self) -> set[str]:
        try:
            async with asyncio.timeout(CHECK_SECONDS), self.probe.connect() as connection:
                await self._require_writable(connection)
                rows = await connection.execute(text("SELECT version_num FROM alembic_version"))
                if not self.capacity_checked:
                    self.capacity_checked = True
                    processes = self.settings.db_instances * self.settings.web_concurrency
                    await check_capacity(connection, self.connections()[2] + 1, processes)
                return {str(row[0]) for row in rows}
        except (TimeoutError, DBAPIError, PoolTimeout) as error:
            raise await self._failed(error) from None

    async def fault_of(self, error: Exception) -> Fault | None:
        """Find the response for an error of a request, and log it; None if the statement itself is wrong."""
        fault = None
        if code_of(error) not in RIGHTS:
            fault = fault_of(error)
        else:
            try:
                async with self.probe.connect() as connection:
                    await connection.execute(ROLE)
            except (DBAPIError, PoolTimeout) as reason:
                error, fault = reason, (await self._failed(reason)).fault
        if fault and fault is not CONFLICT:
            self.found(fault, reason_of(error))
        return fault

    def found(self, fault: Fault, reason: str, *, probed: bool = False) -> None:
        """Log a trouble, and get a new login if this one is refused."""
        self.troubles.found(fault, reason, probed=probed)
        if fault is LOGIN:
            self.renew_login()

    async def move(self, address: str) -> None:
        """Switch to a new URL or login after a test connection; old connections are closed after their current use.

        Raises:
            Exception: The new URL does not work; the old one stays in use.
        """
        url = url_of(check_url(SecretStr(address)))
        if "sqlite" in (url.get_backend_name(), self.url.get_backend_name()):
            raise ValueError("a change of an SQLite URL needs a restart")
        trial = make_engine(url, self.settings)
        try:
            async with trial.connect():
                self.url = url
        finally:
            await trial.dispose()
        async with AsyncExitStack() as stack:  # check out the idle connections: they are closed when they return
            for engine in (self.engine, self.probe):
                for _ in range(_idle(engine)):
                    await stack.enter_async_context(engine.connect())

    def _use_url(self, dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        record.info["url"] = self.url
        options.update(dialect.create_connect_args(self.url)[1])

    def end_old(self, connection: Any, record: Any) -> None:
        """Close a connection with an earlier URL or login when it returns; called by the pool."""
        if record.info.get("url") != self.url:
            record.invalidate()
        elif connection:
            connection.driver_connection.seconds = PING_SECONDS

    def _allow_statements(self, connection: Any, record: Any, proxy: Any) -> None:
        connection.driver_connection.seconds = self.settings.db_response_seconds

    async def _require_writable(self, connection: AsyncConnection) -> None:
        """Log once that the server is read-only, and once that it is writable again; reads still work."""
        if self.url.get_backend_name() == "sqlite":
            await connection.execute(text("SELECT 1"))
        elif (await connection.execute(ROLE)).scalar_one() == "on":
            self.found(READ_ONLY, "reads work, writes get 503", probed=True)

    def connections(self) -> tuple[int, int, int]:
        """The number of idle connections for requests, of those in use, and the limit."""
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            return 0, 0, 0
        return _idle(self.engine), pool.checkedout(), self.settings.db_pool_size + self.settings.db_pool_extra

    def metrics(self) -> list[Metric]:
        """The metrics of the pool, by https://opentelemetry.io/docs/specs/semconv/database/database-metrics/."""
        name = {"db.client.connection.pool.name": "db"}
        states = [{**name, "db.client.connection.state": state} for state in ("idle", "used")]
        count = "db.client.connection.count", "{connection}", "Connections of the pool by state."
        limit = "db.client.connection.max", "{connection}", "Limit of connections of the pool."
        return [
            Metric(*count, lambda: zip(self.connections(), states, strict=False), "up_down_counter"),
            Metric(*limit, lambda: [(self.connections()[2], name)], "up_down_counter"),
        ]

    async def close(self) -> None:
        """Close all connections."""
        if self.checking:
            self.checking.cancel()
        await self._dispose()

    async def _dispose(self) -> None:
        await self.probe.dispose()
        await self.engine.dispose()

    async def _failed(self, error: Exception) -> Failed:
        if code_of(error) == NO_ROLE:  # open connections of a dropped role stay useless, even if it is created again
            await self._dispose()
        return _described(error)


def _idle(engine: AsyncEngine) -> int:
    return engine.pool.checkedin() if isinstance(engine.pool, QueuePool) else 0


def _described(error: Exception) -> Failed:
    code, reason = code_of(error), reason_of(error)
    if code in ("42P01", "SQLITE_ERROR"):
        return Failed(SCHEMA, "the schema is missing: run `make migrate`")
    if code == "42501":
        return Failed(SCHEMA, f"{reason}: the role lacks a right, see Roles in docs/database.md")
    fault = LOGIN if code == NO_ROLE else fault_of(error) or UNAVAILABLE
    return Failed(fault, f"{said_of(error)}: {reason}")
