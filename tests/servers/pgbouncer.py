"""PgBouncer, the real one, in transaction mode: many clients share few connections to one PostgreSQL."""

from pathlib import Path

import psycopg

from tests.servers import packages
from tests.servers.postgres import Postgres
from tests.servers.server import Server

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


class PgBouncer(Server):
    """One pooler in front of `server`, with `size` connections to it for each database; `users` are let in."""

    name = "PgBouncer"
    account = "postgres"

    def __init__(self, server: Postgres, size: int, *users: str) -> None:
        super().__init__()
        self._configuration = self.home / "pgbouncer.ini"
        names = self.home / "users.txt"
        names.write_text("".join(f'"{user}" ""\n' for user in ("postgres", *users)))
        self._configuration.write_text(
            CONFIGURATION.format(port=self.port, server=server.port, size=size, users=names).lstrip()
        )

    @property
    def version(self) -> str:
        """What it says that it is."""
        with psycopg.connect(self.url("pgbouncer"), autocommit=True) as console:
            row = console.execute("SHOW VERSION").fetchone()
        return str(row[0]) if row else "unknown"

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """The address of a database through it."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str | Path]:
        return [packages.ensure("pgbouncer", "pgbouncer"), self._configuration]

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
