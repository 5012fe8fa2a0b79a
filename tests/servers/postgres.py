"""PostgreSQL, the real one, on a loopback port; its data outlives a kill and a restart."""

import functools
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from tests.servers import packages
from tests.servers.process import Process, ServerError, free_port, reachable, unprivileged

START_SECONDS = 60.0
IMAGE = "postgres:17"


class Postgres:
    """One server. `settings` are those of postgresql.conf, such as `{"wal_level": "logical"}`."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        # A commit reaches the kernel, not the disk: enough to outlive a kill, and much faster.
        self._settings = {"fsync": "off", **(settings or {})}
        self._folder = tempfile.TemporaryDirectory(prefix="postgres-", dir=reachable(), ignore_cleanup_errors=True)
        self.home = Path(self._folder.name)
        self.log = self.home / "server.log"
        self.port = free_port()
        self._user = unprivileged("postgres")
        self._process: Process | None = None
        self._prepare()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def process(self) -> Process:
        """The running server."""
        if self._process is None:
            raise ServerError("PostgreSQL was not started")
        return self._process

    @property
    def version(self) -> str:
        """What the server says that it is, such as `15.18 (Debian 15.18-0+deb12u1)`."""
        with psycopg.connect(self.url()) as connection:
            return connection.info.parameter_status("server_version") or "unknown"

    def url(self, database: str = "postgres") -> str:
        """The address of a database for its superuser, whom the loopback interface trusts."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """The address of a new, empty database."""
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def start(self) -> None:
        """Start, and return once it answers."""
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        self._process = Process([*self._command(), *settings], log=self.log, user=self._user)
        self._process.wait_until(self.answers, START_SECONDS)

    def answers(self) -> bool:
        """Whether a client is let in."""
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, immediate: bool = False) -> None:
        """Stop without waiting for clients; `immediate` leaves recovery to the next start."""
        self.process.stop(signal.SIGQUIT if immediate else signal.SIGINT)

    def kill(self) -> None:
        """End all of its processes at once."""
        self.process.kill()

    def restart(self) -> None:
        """Start again, on the same port and with the same data; stop first if it runs."""
        if self.process.running:
            self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: clients connect and hear nothing."""
        self.process.pause()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self.process.resume()

    def close(self) -> None:
        """Stop it for good and remove its data."""
        if self._process and self._process.running:
            self.stop(immediate=True)
        self._folder.cleanup()

    def promote(self) -> None:
        """Let a standby become a primary, and return once it takes changes."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def _prepare(self) -> None:
        program, *options = self._maker()
        path = packages.ensure("initdb", "postgresql").with_name(program)  # on PATH, Debian has a wrapper
        if self._user:
            shutil.chown(self.home, self._user)
        made = subprocess.run(
            [path, f"--pgdata={self.home / 'data'}", "--no-sync", *options],
            cwd=self.home,
            user=self._user,
            extra_groups=[] if self._user else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise ServerError(f"{program} failed\n{made.stderr}")

    def _maker(self) -> list[str]:
        return ["initdb", "--auth=trust", "--encoding=UTF8", "--no-locale", "--username=postgres"]

    def _command(self) -> list[str]:
        return [
            str(packages.ensure("initdb", "postgresql").with_name("postgres")),
            "-D",
            str(self.home / "data"),
            "--listen_addresses=127.0.0.1",
            f"--port={self.port}",
            f"--unix_socket_directories={self.home}",
        ]


class Standby(Postgres):
    """A second server that follows `primary` by streaming replication, until it is promoted."""

    def __init__(self, primary: Postgres) -> None:
        self._primary = primary
        super().__init__()

    def _maker(self) -> list[str]:
        return ["pg_basebackup", f"--dbname={self._primary.url()}", "--checkpoint=fast", "--write-recovery-conf"]


class ContainerPostgres(Postgres):
    """The same server from an image, for machines that have a container engine and no package."""

    def kill(self) -> None:
        self._docker("kill", self.home.name)
        self.process.wait()
        super().kill()

    def pause(self) -> None:
        self._docker("pause", self.home.name)

    def resume(self) -> None:
        self._docker("unpause", self.home.name)

    def close(self) -> None:
        super().close()
        self._docker("volume", "rm", "--force", self.home.name)

    def _prepare(self) -> None:
        # The engine's client runs as ourselves and passes our signals on.
        self._user = None

    def _command(self) -> list[str]:
        name = self.home.name
        command = [
            "docker",
            "run",
            "--rm",
            f"--name={name}",
            f"--publish=127.0.0.1:{self.port}:5432",
        ]
        data = f"--volume={name}:/var/lib/postgresql/data"
        return [*command, data, "--env=POSTGRES_HOST_AUTH_METHOD=trust", IMAGE]

    @staticmethod
    def _docker(*arguments: str) -> None:
        subprocess.run(["docker", *arguments], check=True, capture_output=True)


def open_postgres(settings: Mapping[str, str] | None = None) -> Postgres:
    """A server of the package that is here, else of a container engine, else of a new package."""
    in_container = packages.find("initdb") is None and _docker_answers()
    return (ContainerPostgres if in_container else Postgres)(settings)


@functools.cache
def _docker_answers() -> bool:
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], check=False, capture_output=True).returncode == 0
