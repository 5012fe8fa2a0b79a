"""Database connections and transactions: PostgreSQL through psycopg 3, or SQLite for development, by the same code.

The service starts even if the database is down: until it is available `/readyz` fails and requests that need it get
503. No restart is needed when it recovers.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Annotated, cast

from fastapi import Depends, FastAPI, Request
from fastapi.requests import HTTPConnection
from sqlalchemy import BigInteger, Identity, Integer, MetaData
from sqlalchemy.exc import IntegrityError, InterfaceError, InternalError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, mapped_column
from starlette.responses import Response

from ..problems import response
from ..room import Room
from ..settings import RoomSettings, part
from ..state import NotReady, State, state_of
from .pool import Pool
from .settings import Settings
from .spans import trace_statements


class Base(DeclarativeBase):
    """The base class of your tables; migrations find the tables through it.

    Constraints have the names that PostgreSQL would choose, on SQLite, too: migrations can drop them.
    """

    metadata = MetaData(
        naming_convention={
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "ix": "ix_%(column_0_label)s",
            "pk": "%(table_name)s_pkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
        }
    )


# The key of a table as `id: Mapped[Key]`: a number that the database counts up, and that does not overflow.
Key = Annotated[int, mapped_column(BigInteger().with_variant(Integer(), "sqlite"), Identity(), primary_key=True)]


@asynccontextmanager
async def transaction(app: FastAPI) -> AsyncIterator[AsyncSession]:
    """Open a transaction outside a request: it commits at the end, and rolls back on an error."""
    state, tags = state_of(app), set[str]()
    try:
        async with cast(Pool, state.database).begin() as session:
            session.info[transaction] = tags
            yield session
    finally:  # after the commit, or a reader would cache the old value again; also if the commit's result is unknown
        await state.cache.invalidate(*tags)


def invalidate(session: AsyncSession, *tags: str) -> None:
    """Remove all cached values that have one of the tags, as soon as the transaction has ended."""
    session.info[transaction].update(tags)


async def _session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    async with transaction(connection.app) as session:
        yield session


# One transaction per request, which ends before the response is sent: what the response confirms is stored.
Session = Annotated[AsyncSession, Depends(_session, scope="function")]


async def _on_error(request: Request, error: Exception) -> Response:
    pool = cast(Pool, state_of(request.app).database)
    if not (fault := await pool.fault_of(error)):
        raise error
    return response(*fault, headers={"Retry-After": "5"} if fault[0] == 503 else None)


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Provide transactions, and the responses for database errors."""
    pool, state = Pool(part(settings, Settings)), state_of(app)
    trace_statements(pool.engine.sync_engine)
    state.database = pool
    state.metrics += pool.metrics()
    for kind in (IntegrityError, InterfaceError, InternalError, OperationalError, PoolTimeout, ProgrammingError):
        app.add_exception_handler(kind, _on_error)


@asynccontextmanager
async def lifespan(app: FastAPI, settings: RoomSettings) -> AsyncIterator[None]:
    """Check the database once, so that a failure is logged at the start; close the pool at the end."""
    pool, secrets = cast("Pool | None", state_of(app).database), state_of(app).secrets
    if pool and secrets:
        secrets.on_change("database_url", pool.move)
        pool.renew_login = partial(secrets.renew, "database_url")
    with suppress(NotReady):
        await readiness(state_of(app))
    yield
    if pool:
        await pool.close()


async def readiness(state: State) -> str:
    """Whether the database responds and its schema is one that this code can use."""
    pool = cast("Pool | None", state.database)
    return await pool.check() if pool else ""


ROOM = Room(settings=Settings, install=install, lifespan=lifespan, readiness=readiness, dependency=_session)
