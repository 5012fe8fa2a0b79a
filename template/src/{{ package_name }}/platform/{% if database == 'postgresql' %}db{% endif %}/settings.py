"""The settings of the database: which one, and how many connections."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from ..settings import RealInProduction, RoomSettings
from .url import DatabaseUrl, url_of


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
    # without a response for so long, a statement's connection is closed; longer than the role's statement_timeout
    db_response_seconds: Annotated[float, Field(gt=0)] = 20
    migrations_dir: Path = Path("migrations")
    web_concurrency: Annotated[int, Field(ge=1)] = 1  # processes per instance; uvicorn and gunicorn read it, too

    @field_validator("db_instances", "web_concurrency")
    @classmethod
    def _one_process_on_sqlite(cls, number: int, info: ValidationInfo) -> int:
        url = info.data.get("database_url")
        if number > 1 and url and url_of(url).get_backend_name() == "sqlite":
            raise ValueError("SQLite supports one process only: set DATABASE_URL to PostgreSQL, or this to 1")
        return number
