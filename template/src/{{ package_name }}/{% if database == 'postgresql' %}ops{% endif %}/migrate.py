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
        other = found.setdefault(folder, head)
        if other != head:
            raise CommandError(
                f'{folder} has two heads: write down_revision = "{other}" into {_first(script, head, other)}, '
                f'or "{head}" into {_first(script, other, head)}; change the one that is not released '
                "(docs/database.md, Two heads)"
            )
    return list(found.values())


def _first(script: ScriptDirectory, head: str, other: str) -> str:
    """Return the file with which the way to `head` leaves the way to another head."""
    common = {revision.revision for revision in script.iterate_revisions(other, "base")}
    own = [each for each in script.iterate_revisions(head, "base") if each.revision not in common]
    return Path(own[-1].path).name


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


def _revert(config: Config, connection: Connection) -> str:
    """Revert the latest migration of your branch."""
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_heads()
    connection.rollback()
    for head in current:
        file = Path(script.get_revision(head).path)
        if file.parent.name == "versions":
            print(f"migrate: reverting {file.name}; the data in what it added is lost", file=sys.stderr)
            command.downgrade(config, f"{head}-1")
            return f"{file.name} is reverted"
    return "no migration of yours is applied: nothing to do"


def run(new: str | None = None, *, empty: bool = False, down: bool = False) -> None:
    """Migrate, revert, or write a new migration.

    Args:
        new: The message of a new migration; None to migrate.
        empty: Whether the new migration is for statements of your own.
        down: Whether to revert the latest migration of your branch.

    Raises:
        SystemExit: After one line on stderr: with 1 if the database is down or a migration fails, with 2 if the
            message is empty, or for `down` in staging or production.
    """
    # one printable line, as the docstring of the migration
    message = " ".join("".join(c if c.isprintable() else " " for c in new or "").split())
    if new is not None and not message:
        print('migrate: type what it does: make revision m="add a price"', file=sys.stderr)
        raise SystemExit(2)
    loaded = load(settings_for("db"))
    settings = part(loaded, Settings)
    if down and loaded.environment not in ("local", "test"):
        print("migrate: data would be lost: write a new migration instead, by docs/database.md", file=sys.stderr)
        raise SystemExit(2)
    if settings.db_pooler != "none" and not settings.database_migrator_url:
        print("configuration refused: DATABASE_MIGRATOR_URL: set the URL of the server itself", file=sys.stderr)
        raise SystemExit(EXIT_REFUSED)
    try:
        heads(settings.migrations_dir)
        branches(settings.migrations_dir)
        config = configuration(settings.migrations_dir)
        with connect(settings) as connection:
            config.attributes["connection"] = connection
            if message:
                config.attributes["empty"] = empty
                command.revision(config, message, autogenerate=True)
            elif down:
                print(_revert(config, connection))
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
    elif "Target database is not up to date" in reason:
        reason = "the database lacks migrations: run `make migrate` first"
    if isinstance(error, CommandError | NotReady):
        return reason
    stack = traceback.extract_tb(error.__traceback__)
    file = next((s.filename for s in reversed(stack) if Path(s.filename).parent.name in ("platform", "versions")), None)
    if file and Path(file).parent.parent.resolve() == settings.migrations_dir.resolve():
        return f"{Path(file).name} failed and was rolled back: {type(error).__name__}: {reason}"
    if isinstance(error, InterfaceError | OperationalError):
        return f"{said_of(error)}; check that it is running and that {used} is correct: {reason}"
    return f"{type(error).__name__}: {reason}"
