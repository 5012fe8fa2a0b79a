"""PgBouncer, the real one, in transaction mode: many clients share few connections to one PostgreSQL."""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from tests.servers import packages
from tests.servers.postgres import Postgres
from tests.servers.process import Process, ServerError, free_port, reachable, unprivileged

START_SECONDS = 30.0
CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}

[pgbouncer]
admin_users = postgres
auth_file = {users}
auth_type = trust
default_pool_size = {size}
listen_addr = 127.0.0.1
listen_port = {port}
max_client_conn = 200
pool_mode = transaction
unix_socket_dir =
"""


class PgBouncer:
    """One pooler in front of `server`, with `size` connections to it for each database; `users` are let in."""

    def __init__(self, server: Postgres, size: int, *users: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pgbouncer-", dir=reachable(), ignore_cleanup_errors=True)
        home = Path(self._folder.name)
        home.chmod(0o755)  # it runs as somebody else
        self.log = home / "server.log"
        self.port = free_port()
        self._configuration = home / "pgbouncer.ini"
        names = home / "users.txt"
        names.write_text("".join(f'"{user}" ""\n' for user in ("postgres", *users)))
        self._configuration.write_text(
            CONFIGURATION.format(port=self.port, server=server.port, size=size, users=names).lstrip()
        )
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def process(self) -> Process:
        """The running pooler."""
        if self._process is None:
            raise ServerError("PgBouncer was not started")
        return self._process

    @property
    def version(self) -> str:
        """What it says that it is."""
        with psycopg.connect(self.url("pgbouncer"), autocommit=True) as console:
            row = console.execute("SHOW VERSION").fetchone()
        return str(row[0]) if row else "unknown"

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """The address of a database through it."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and return once it answers."""
        command = [packages.ensure("pgbouncer", "pgbouncer"), self._configuration]
        self._process = Process(command, log=self.log, user=unprivileged("postgres"))
        self._process.wait_until(self.answers, START_SECONDS)

    def answers(self) -> bool:
        """Whether a client is let through to the server."""
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it at once; its clients lose their connections."""
        self.process.kill()
