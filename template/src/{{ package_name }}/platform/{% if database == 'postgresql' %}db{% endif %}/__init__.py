"""Connections and transactions: PostgreSQL by psycopg 3, SQLite on a laptop, by the same code.

The database is required, yet the service starts without it: `/readyz` fails until it is there, requests that need it
get 503, and nothing has to be restarted when it comes back.
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
from .capacity import compare
from .faults import fault_of, leave_read_only
from .revisions import at_least, heads
from .spans import trace_statements
from .url import DatabaseUrl, known, url_of

ANSWER = 1.5  # seconds for the database to answer a probe
CONNECT = 3  # seconds to reach a server
PATIENCE = 8  # seconds for a look at the database: past a host or two that are gone
POOL_WAIT = 5  # seconds to wait for a free connection
RECYCLE = 1800  # seconds after which a connection is replaced


class Base(DeclarativeBase):
    """The base of your tables; migrations find them by it."""


class Settings(RoomSettings):
    """Where the data lives."""

    database_url: Annotated[
        DatabaseUrl, RealInProduction("postgresql://app:password@db.internal:5432/orders", embedded=("sqlite",))
    ] = SecretStr("sqlite:///./local.db")
    database_migrator_url: DatabaseUrl | None = None  # the role that may change the schema
    db_instances: Annotated[int, Field(ge=1)] = 1  # hosts or pods that serve at once
    db_pool_extra: Annotated[int, Field(ge=0)] = 10  # connections that a rush may add
    db_pool_size: Annotated[int, Field(ge=1)] = 5  # connections that stay open
    db_pooler: Literal["none", "pgbouncer-transaction"] = "none"
    migrations_dir: Path = Path("migrations")
    web_concurrency: Annotated[int, Field(ge=1)] = 1  # processes of each; uvicorn and gunicorn read it, too

    @field_validator("db_instances", "web_concurrency")
    @classmethod
    def _alone(cls, number: int, info: ValidationInfo) -> int:
        url = info.data.get("database_url")
        if number > 1 and url and url_of(url).get_backend_name() == "sqlite":
            raise ValueError("SQLite serves one process: set DATABASE_URL to PostgreSQL, or this to 1")
        return number


class Pool:
    """The room's share in the state: transactions, and whether the database answers.

    Args:
        engine: SQLAlchemy's.
        settings: Among them the folder that says which schema this code needs.
    """

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self.engine = engine
        self.settings = settings
        self.sessions = async_sessionmaker(engine, expire_on_commit=False)
        self.needed: dict[str, set[str]] = {}
        self.asking: asyncio.Task[set[str]] | None = None
        self.compared = engine.dialect.name == "sqlite" or settings.db_pooler != "none"
        self.read_only = False
        self.reason = ""
        self.url = engine.url
        if engine.url.get_backend_name() == "postgresql":
            event.listen(engine.sync_engine, "do_connect", self._aim)
            event.listen(engine.sync_engine.pool, "checkin", self._end_old)

    def begin(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a transaction: commits at the end, rolls back on an error."""
        return self.sessions.begin()

    async def look(self) -> str:
        """Ask the server, and compare its schema with what this code needs.

        Raises:
            NotReady: It does not answer, or the schema is older than this code.
        """
        try:
            self.needed = self.needed or heads(self.settings.migrations_dir)
            evidence = at_least(self.needed, await self._ask())
        except NotReady as reason:
            if str(reason) != self.reason:  # once, not at every probe
                self.reason = str(reason)
                structlog.get_logger("db").error("not ready", reason=self.reason)
            raise
        if self.reason:
            self.reason = ""
            structlog.get_logger("db").info("ready again", evidence=evidence)
        return evidence

    async def _ask(self) -> set[str]:
        """Wait `ANSWER` seconds: a look that takes longer, as past a host that is gone, is for the next probe."""
        self.asking = self.asking or asyncio.create_task(self._revisions())
        if not (await asyncio.wait({self.asking}, timeout=ANSWER))[0]:
            raise NotReady("the database does not answer (TimeoutError)")
        asked, self.asking = self.asking, None
        return asked.result()

    async def _revisions(self) -> set[str]:
        try:
            async with asyncio.timeout(PATIENCE), self.engine.connect() as connection:
                await self._look_at_mode(connection)
                try:
                    rows = await connection.execute(text("SELECT version_num FROM alembic_version"))
                except (OperationalError, ProgrammingError):
                    raise NotReady("the schema is missing: run `make migrate`") from None
                if not self.compared:
                    self.compared = True
                    processes = self.settings.db_instances * self.settings.web_concurrency
                    await compare(connection, self.connections()[2], processes)
                return {str(row[0]) for row in rows}
        except (TimeoutError, OperationalError, InterfaceError, PoolTimeout) as error:
            if isinstance(error, TimeoutError) and self.connections()[0]:
                await self.engine.dispose()  # the idle ones lead to the same server: each would hang a request
            raise NotReady(f"the database does not answer ({type(error).__name__})") from None

    async def move(self, address: str) -> None:
        """Go over to a new address or login, once it has proved to work; the old connections end with their work.

        Raises:
            Exception: It does not work, and all stays as it was.
        """
        url = url_of(known(SecretStr(address)))
        if "sqlite" in (url.get_backend_name(), self.url.get_backend_name()):
            raise ValueError("a file needs a restart")
        trial = make_engine(url, self.settings)
        try:
            async with trial.connect():
                self.url = url
        finally:
            await trial.dispose()
        async with AsyncExitStack() as stack:  # those that are idle come back at once, and are ended then
            for _ in range(self.connections()[0]):
                await stack.enter_async_context(self.engine.connect())

    def _aim(self, dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        record.info["url"] = self.url
        options.update(dialect.create_connect_args(self.url)[1])

    def _end_old(self, connection: Any, record: Any) -> None:
        if record.info.get("url") != self.url:
            record.invalidate()

    async def _look_at_mode(self, connection: AsyncConnection) -> None:
        """Say once that the server takes no changes, and once that it does again; reading goes on."""
        look = "SELECT 1" if self.engine.dialect.name == "sqlite" else "SHOW transaction_read_only"
        read_only = (await connection.execute(text(look))).scalar_one() == "on"
        if read_only != self.read_only:
            self.read_only = read_only
            log = structlog.get_logger("db")
            log.error("read-only, changes get 503") if read_only else log.info("takes changes again")

    def connections(self) -> tuple[int, int, int]:
        """How many are idle, how many are used, and how many there may be."""
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            return 0, 0, 0
        return pool.checkedin(), pool.checkedout(), self.settings.db_pool_size + self.settings.db_pool_extra

    def metrics(self) -> list[Metric]:
        """After https://opentelemetry.io/docs/specs/semconv/database/database-metrics/."""
        name = {"db.client.connection.pool.name": "db"}
        states = [{**name, "db.client.connection.state": state} for state in ("idle", "used")]
        count = "db.client.connection.count", "{connection}", "Connections of the pool by state."
        most = "db.client.connection.max", "{connection}", "Connections that the pool may have."
        return [
            Metric(*count, lambda: zip(self.connections(), states, strict=False), "up_down_counter"),
            Metric(*most, lambda: [(self.connections()[2], name)], "up_down_counter"),
        ]

    async def close(self) -> None:
        """Give all connections back."""
        if self.asking:
            self.asking.cancel()
        await self.engine.dispose()


def make_engine(url: URL, settings: Settings) -> AsyncEngine:
    """Make an engine whose waits are all bounded."""
    if url.get_backend_name() == "postgresql":
        # A server prepares statements for one client; behind a pooler the next transaction may be another's.
        pooled = {"prepare_threshold": None} if settings.db_pooler != "none" else {}
        engine = create_async_engine(
            url,
            connect_args={"connect_timeout": CONNECT, **pooled},
            max_overflow=settings.db_pool_extra,
            pool_pre_ping=True,
            pool_recycle=RECYCLE,
            pool_size=settings.db_pool_size,
            pool_timeout=POOL_WAIT,
            pool_use_lifo=True,
        )
        event.listen(engine.sync_engine, "handle_error", leave_read_only)
        return engine
    engine = create_async_engine(url)
    event.listen(engine.sync_engine, "connect", _sqlite_connected)
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _sqlite_connected(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy says BEGIN, or savepoints would have no effect
    for pragma in ("journal_mode = WAL", "foreign_keys = ON", "busy_timeout = 5000", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


async def _cannot(request: Request, error: Exception) -> Response:
    if not (fault := fault_of(error)):
        raise error
    return response(*fault, headers={"Retry-After": "5"} if fault[0] == 503 else None)


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Offer transactions, and answer where the database cannot."""
    mine = part(settings, Settings)
    pool, state = Pool(make_engine(url_of(mine.database_url), mine), mine), state_of(app)
    trace_statements(pool.engine.sync_engine)
    state.database = pool
    state.metrics += pool.metrics()
    for kind in (InterfaceError, InternalError, OperationalError, PoolTimeout):
        app.add_exception_handler(kind, _cannot)


@asynccontextmanager
async def lifespan(app: FastAPI, settings: RoomSettings) -> AsyncIterator[None]:
    """Look once, so that the first lines of the log say it if the database is away; close the pool at the end."""
    pool, secrets = cast("Pool | None", state_of(app).database), state_of(app).secrets
    if pool and secrets:
        secrets.on_change("database_url", pool.move)
    with suppress(NotReady):
        await readiness(state_of(app))
    yield
    if pool:
        await pool.close()


async def readiness(state: State) -> str:
    """Whether the database answers with a schema that this code can use."""
    pool = cast("Pool | None", state.database)
    return await pool.look() if pool else ""


ROOM = Room(settings=Settings, install=install, lifespan=lifespan, readiness=readiness)
