"""Migrates the database schema: a separate step before a release, never at the start of the service.

There are two branches: `platform` belongs to the template, `service` is yours. If a table is locked, the migration
gives up after a few seconds, so that requests can proceed, and is retried.
"""

import random
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool

from ..platform import settings_for
from ..platform.db.engine import CONNECT
from ..platform.db.faults import code_of, reason_of, said_of
from ..platform.db.revisions import at_least, heads
from ..platform.db.settings import Settings
from ..platform.db.url import url_of
from ..platform.settings import EXIT_REFUSED, load, part
from ..platform.state import NotReady

MAX_ATTEMPTS = 6  # if a table is locked; env.py sets how long each attempt waits
FORMAT = {
    "hooks": "ruff",
    "ruff.type": "exec",
    "ruff.executable": "ruff",
    "ruff.options": "format --quiet REVISION_SCRIPT_FILENAME",
}


def configuration(migrations: Path) -> Config:
    """Build the configuration of Alembic, without a file."""
    config = Config()
    folder = _escaped(migrations)
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", f"{folder}/platform\n{folder}/versions")
    for option, value in FORMAT.items():
        config.set_section_option("post_write_hooks", option, value)
    return config


def _escaped(folder: Path) -> str:
    return str(folder).replace("%", "%%")  # Alembic keeps its options in a ConfigParser


def branches(migrations: Path) -> list[str]:
    """Return the head of each branch in the files.

    Raises:
        CommandError: A branch has more than one head, or a file cannot be read.
    """
    script = ScriptDirectory.from_config(configuration(migrations))
    found: dict[str, str] = {}
    for head in script.get_heads():
        folder = Path(script.get_revision(head).path).parent.name
        if folder in found:
            raise CommandError(f"{folder} has two heads, {found[folder]} and {head}: make one follow the other")
        found[folder] = head
    return list(found.values())


def connect(settings: Settings) -> Connection:
    """Open the connection of the migrator."""
    url = url_of(settings.database_migrator_url or settings.database_url, sync=True)
    postgresql = url.get_backend_name() == "postgresql"
    options = CONNECT if postgresql else {}
    # closing must release the lock of env.py
    engine = create_engine(url, connect_args=options, hide_parameters=True, poolclass=NullPool)
    if not postgresql:

        @event.listens_for(engine, "connect")
        def own_transactions(connection, record):  # type: ignore[no-untyped-def]
            connection.isolation_level = None

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

    return engine.connect()


def _upgrade(config: Config, connection: Connection) -> None:
    for left in reversed(range(MAX_ATTEMPTS)):
        try:
            return command.upgrade(config, "heads")
        except OperationalError as error:
            if not (left and _locked(error)):
                raise
            print("migrate: a table is locked, retrying in a few seconds", file=sys.stderr)
            time.sleep(random.uniform(1, 4))  # noqa: S311 not for security


def _locked(error: Exception) -> bool:
    return code_of(error) in ("40P01", "55P03")  # a deadlock, or lock_timeout


def _migrate(config: Config, connection: Connection, migrations: Path) -> str:
    """Upgrade, unless the schema is newer than this code: a release that is rolled back migrates, too."""
    needed = heads(migrations)
    current = set(MigrationContext.configure(connection).get_current_heads())
    connection.rollback()
    if current - set().union(*needed.values()):
        with suppress(NotReady):
            return f"{at_least(needed, current)}, newer than this code: nothing to do"
    _upgrade(config, connection)
    return f"schema at {', '.join(branches(migrations))}"


def run(new: str = "") -> None:
    """Migrate, or write a new migration.

    Args:
        new: The message of a new migration; empty to migrate.

    Raises:
        SystemExit: With 1, after one line on stderr, if the database is down or a migration fails.
    """
    settings = part(load(settings_for("db")), Settings)
    if settings.db_pooler != "none" and not settings.database_migrator_url:
        print("configuration refused: DATABASE_MIGRATOR_URL: set the URL of the server itself", file=sys.stderr)
        raise SystemExit(EXIT_REFUSED)
    try:
        branches(settings.migrations_dir)
        config = configuration(settings.migrations_dir)
        with connect(settings) as connection:
            config.attributes["connection"] = connection
            if new:
                command.revision(config, new, autogenerate=True)
            else:
                print(_migrate(config, connection, settings.migrations_dir))
    except Exception as error:
        print(f"migrate: {_explain(error, settings)}", file=sys.stderr)
        raise SystemExit(1) from None


def _explain(error: Exception, settings: Settings) -> str:
    reason = reason_of(error) if isinstance(error, DBAPIError) else (str(error).strip().splitlines() or [""])[0]
    used = "DATABASE_MIGRATOR_URL" if settings.database_migrator_url else "DATABASE_URL"
    if _locked(error):
        reason += f" in {MAX_ATTEMPTS} attempts; end the transaction that locks the table (docs/database.md)"
    elif code_of(error) == "42501":
        advice = "run `make roles`" if settings.database_migrator_url else "set DATABASE_MIGRATOR_URL"
        reason += f": the role of {used} may not change the schema; {advice} (docs/database.md)"
    stack = traceback.extract_tb(error.__traceback__)
    file = next((s.filename for s in reversed(stack) if Path(s.filename).parent.name in ("platform", "versions")), None)
    if file and Path(file).parent.parent.resolve() == settings.migrations_dir.resolve():
        return f"{Path(file).name} failed and was rolled back: {type(error).__name__}: {reason}"
    if isinstance(error, InterfaceError | OperationalError):
        return f"{said_of(error)}; check that it is running and that {used} is correct: {reason}"
    return f"{type(error).__name__}: {reason}"
