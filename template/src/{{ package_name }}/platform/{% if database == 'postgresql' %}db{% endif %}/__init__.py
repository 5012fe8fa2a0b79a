"""Database connections and transactions: PostgreSQL through psycopg 3, or SQLite for development, by the same code.

The service starts even if the database is down: until it is available `/readyz` fails and requests that need it get
503. No restart is needed when it recovers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import structlog
from fastapi import FastAPI, Request
from pydantic import Field, SecretStr, ValidationInfo, field_validator
from sqlalchemy import URL, event, text
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import QueuePool
from starlette.responses import Response

from ..problems import response
from ..room import Room
from ..settings import RealInProduction, RoomSettings, part
from ..state import Metric, NotReady, State, state_of
from .capacity import check_capacity
from .faults import fault_of, leave_read_only
from .revisions import at_least, heads
from .spans import trace_statements
from .url import DatabaseUrl, check_url, url_of

PROBE_SECONDS = 1.5  # for which a probe of `/readyz` waits for the check
CONNECT_SECONDS = 3  # to connect to one host
CHECK_SECONDS = 8  # for the whole check: enough to try the next host after one or two that are down
POOL_WAIT_SECONDS = 5  # to wait for a free connection
RECYCLE_SECONDS = 1800  # after which a connection is replaced


class Base(DeclarativeBase):
    """The base class of your tables; migrations find the tables through it."""


class Settings(RoomSettings):
    """Which database is used, and how many connections."""

    database_url: Annotated[
        DatabaseUrl, RealInProduction("postgresql://app:password@db.internal:5432/orders", embedded=("sqlite",))
    ] = SecretStr("sqlite:///./local.db")
    database_migrator_url: DatabaseUrl | None = None  # the role that may change the schema
    db_instances: Annotated[int, Field(ge=1)] = 1  # hosts or pods that run at the same time
    db_pool_extra: Annotated[int, Field(ge=0)] = 10  # more connections, opened under load
    db_pool_size: Annotated[int, Field(ge=1)] = 5  # connections that stay open
    db_pooler: Literal["none", "pgbouncer-transaction"] = "none"
    migrations_dir: Path = Path("migrations")
    web_concurrency: Annotated[int, Field(ge=1)] = 1  # processes per instance; uvicorn and gunicorn read it, too

    @field_validator("db_instances", "web_concurrency")
    @classmethod
    def _one_process_on_sqlite(cls, number: int, info: ValidationInfo) -> int:
        url = info.data.get("database_url")
        if number > 1 and url and url_of(url).get_backend_name() == "sqlite":
            raise ValueError("SQLite supports one process only: set DATABASE_URL to PostgreSQL, or this to 1")
        return number


class Pool:
    """Opens transactions and checks the database; features use it as `state.database`.

    Args:
        engine: The engine of SQLAlchemy.
        settings: The settings of this room; the schema that this code needs is read from `migrations_dir`.
    """

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self.engine = engine
        self.settings = settings
        self.sessions = async_sessionmaker(engine, expire_on_commit=False)
        self.needed: dict[str, set[str]] = {}
        self.checking: asyncio.Task[set[str]] | None = None
        self.capacity_checked = engine.dialect.name == "sqlite" or settings.db_pooler != "none"
        self.read_only = False
        self.reason = ""
        self.url = engine.url
        if engine.url.get_backend_name() == "postgresql":
            event.listen(engine.sync_engine, "do_connect", self._use_url)
            event.listen(engine.sync_engine.pool, "checkin", self._close_old)

    def begin(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a transaction that commits at the end and rolls back on an error."""
        return self.sessions.begin()

    async def check(self) -> str:
        """Query the server, and compare its schema with the one that this code needs.

        Raises:
            NotReady: The database does not respond, or the schema is older than this code.
        """
        try:
            self.needed = self.needed or heads(self.settings.migrations_dir)
            evidence = f"answers, {at_least(self.needed, await self._probe())}"
        except NotReady as reason:
            if str(reason) != self.reason:  # logged once, not at every probe
                self.reason = str(reason)
                structlog.get_logger("db").error("not ready", reason=self.reason)
            raise
        if self.reason:
            self.reason = ""
            structlog.get_logger("db").info("ready again", evidence=evidence)
        return evidence

    async def _probe(self) -> set[str]:
        """Wait `PROBE_SECONDS`: a check that takes longer, for example if a host is down, serves the next probe."""
        self.checking = self.checking or asyncio.create_task(self._revisions())
        if not (await asyncio.wait({self.checking}, timeout=PROBE_SECONDS))[0]:
            raise NotReady("the database does not respond (TimeoutError)")
        done, self.checking = self.checking, None
        return done.result()

    async def _revisions(self) -> set[str]:
        try:
            async with asyncio.timeout(CHECK_SECONDS), self.engine.connect() as connection:
                await self._require_writable(connection)
                try:
                    rows = await connection.execute(text("SELECT version_num FROM alembic_version"))
                except (OperationalError, ProgrammingError):
                    raise NotReady("the schema is missing: run `make migrate`") from None
                if not self.capacity_checked:
                    self.capacity_checked = True
                    processes = self.settings.db_instances * self.settings.web_concurrency
                    await check_capacity(connection, self.connections()[2], processes)
                return {str(row[0]) for row in rows}
        except (TimeoutError, OperationalError, InterfaceError, PoolTimeout) as error:
            if isinstance(error, TimeoutError) and self.connections()[0]:
                await self.engine.dispose()  # idle connections to the same server would make requests hang
            raise NotReady(f"the database does not respond ({type(error).__name__})") from None

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
            for _ in range(self.connections()[0]):
                await stack.enter_async_context(self.engine.connect())

    def _use_url(self, dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        record.info["url"] = self.url
        options.update(dialect.create_connect_args(self.url)[1])

    def _close_old(self, connection: Any, record: Any) -> None:
        if record.info.get("url") != self.url:
            record.invalidate()

    async def _require_writable(self, connection: AsyncConnection) -> None:
        """Log once that the server is read-only, and once that it is writable again; reads still work."""
        query = "SELECT 1" if self.engine.dialect.name == "sqlite" else "SHOW transaction_read_only"
        read_only = (await connection.execute(text(query))).scalar_one() == "on"
        if read_only != self.read_only:
            self.read_only = read_only
            log = structlog.get_logger("db")
            log.error("read-only, writes get 503") if read_only else log.info("writable again")

    def connections(self) -> tuple[int, int, int]:
        """The number of idle connections, of those in use, and the limit."""
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            return 0, 0, 0
        return pool.checkedin(), pool.checkedout(), self.settings.db_pool_size + self.settings.db_pool_extra

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
        await self.engine.dispose()


def make_engine(url: URL, settings: Settings) -> AsyncEngine:
    """Create an engine whose waits all have a time-out."""
    if url.get_backend_name() == "postgresql":
        # A prepared statement belongs to one server connection; a pooler may use another one for the next transaction.
        pooled = {"prepare_threshold": None} if settings.db_pooler != "none" else {}
        engine = create_async_engine(
            url,
            connect_args={"connect_timeout": CONNECT_SECONDS, **pooled},
            max_overflow=settings.db_pool_extra,
            pool_pre_ping=True,
            pool_recycle=RECYCLE_SECONDS,
            pool_size=settings.db_pool_size,
            pool_timeout=POOL_WAIT_SECONDS,
            pool_use_lifo=True,
        )
        event.listen(engine.sync_engine, "handle_error", leave_read_only)
        return engine
    engine = create_async_engine(url)
    event.listen(engine.sync_engine, "connect", _sqlite_connected)
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _sqlite_connected(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy sends BEGIN, or savepoints would have no effect
    for pragma in ("journal_mode = WAL", "foreign_keys = ON", "busy_timeout = 5000", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


async def _on_error(request: Request, error: Exception) -> Response:
    if not (fault := fault_of(error)):
        raise error
    return response(*fault, headers={"Retry-After": "5"} if fault[0] == 503 else None)


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Provide transactions, and the responses for database errors."""
    mine = part(settings, Settings)
    pool, state = Pool(make_engine(url_of(mine.database_url), mine), mine), state_of(app)
    trace_statements(pool.engine.sync_engine)
    state.database = pool
    state.metrics += pool.metrics()
    for kind in (InterfaceError, InternalError, OperationalError, PoolTimeout):
        app.add_exception_handler(kind, _on_error)


@asynccontextmanager
async def lifespan(app: FastAPI, settings: RoomSettings) -> AsyncIterator[None]:
    """Check the database once, so that a failure is logged at the start; close the pool at the end."""
    pool, secrets = cast("Pool | None", state_of(app).database), state_of(app).secrets
    if pool and secrets:
        secrets.on_change("database_url", pool.move)
    with suppress(NotReady):
        await readiness(state_of(app))
    yield
    if pool:
        await pool.close()


async def readiness(state: State) -> str:
    """Whether the database responds and its schema is one that this code can use."""
    pool = cast("Pool | None", state.database)
    return await pool.check() if pool else ""


ROOM = Room(settings=Settings, install=install, lifespan=lifespan, readiness=readiness)
