"""A database host as docs/point-in-time.md describes it: a real PostgreSQL and pgBackRest, and someone who types."""

import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import psycopg

from tests.projects import Project
from tests.servers import packages
from tests.servers.postgres import Postgres
from tests.servers.server import Server

DOC = "docs/point-in-time.md"
CONF = "deploy/postgres/pgbackrest.conf"
ARCHIVE = "deploy/postgres/archive.conf"
SECONDS = 120.0
# Paths of the documentation, and where they are below the host's folder.
PLACES = {
    "/etc/pgbackrest": "etc",
    "/etc/postgresql/17/main/conf.d": "conf.d",
    "/var/lib/pgbackrest": "repository",
    "/var/lib/postgresql/17/main": "data",
    "/var/lib/postgresql/17": ".",
    "/var/spool/pgbackrest": "spool",
}
EXAMPLE = "2026-11-27 09:14:00+00"


def steps(project: Project, heading: str) -> dict[int, list[str]]:
    """The commands below a heading, by the number of their step."""
    section = (project.root / DOC).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    parts = re.split(r"^(\d)\. ", section, flags=re.M)[1:]
    texts = zip(map(int, parts[::2]), parts[1::2], strict=True)
    return {number: re.findall(r"^ {8}(\S.*)$", text, re.M) for number, text in texts}


class Host(Postgres):
    """One host. Its server's data directory and the three folders are where the documentation has others."""

    name = "PostgreSQL with pgBackRest"

    def __init__(self, project: Project, **env: str) -> None:
        super().__init__()
        self.project = project
        self._env = env
        self.program = packages.ensure("pgbackrest", "pgbackrest")
        for folder in ("etc/conf.d", "repository", "spool", "conf.d", "lock"):
            (self.home / folder).mkdir(parents=True)
        for path in (self.home, *self.home.glob("*"), self.home / "etc/conf.d"):
            if self.user and path.name != "data":
                shutil.chown(path, self.user)
        with (self.home / "data/postgresql.conf").open("a") as file:  # as Debian's does
            file.write(f"include_dir = '{self.home / 'conf.d'}'\n")

    def environment(self) -> Mapping[str, str]:
        programs = [str(self.programs()), str(self.program.parent), os.environ.get("PATH", os.defpath)]
        return {
            "PATH": os.pathsep.join(programs),
            "PGBACKREST_CONFIG_PATH": str(self.home / "etc"),
            "PGBACKREST_LOCK_PATH": str(self.home / "lock"),
            "PGBACKREST_PG1_PORT": str(self.port),
            "PGBACKREST_PG1_SOCKET_PATH": str(self.home),
            "PGBACKREST_PG1_USER": "postgres",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            **self._env,
        }

    def here(self, text: str) -> str:
        """A text with the host's own paths."""
        for documented, place in PLACES.items():
            text = text.replace(documented, str(self.home / place))
        return text

    def copy(self, file: str, place: str) -> None:
        """Copy an emitted file to a place of the documentation."""
        path = Path(self.here(place))
        path.write_text(self.here((self.project.root / file).read_text()))

    def type(self, *lines: str, **env: str) -> str:
        """Type lines as the user `postgres`: what they print. Of `systemctl` the kit is the stand-in."""
        said = ""
        for line in lines:
            if line.startswith("systemctl "):
                {"start": self.start, "stop": self.stop, "restart": self.restart}[line.split()[1]]()
            else:
                done = self.attempt(line, **env)
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}\n{self.log.read_text()[-2000:]}"
                said += done.stdout
        return said

    def attempt(self, line: str, **env: str) -> subprocess.CompletedProcess[str]:
        """The same for one line that may fail."""
        return subprocess.run(
            ["bash", "-c", self.here(line)],
            cwd=self.home,
            env={**self.environment(), **env},
            user=self.user,
            group=pwd.getpwnam(self.user).pw_gid if self.user else None,
            extra_groups=[] if self.user else None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",  # with another passphrase it quotes what it reads
            check=False,
            timeout=SECONDS,
        )

    def set_up(self, order: tuple[int, ...] = (3, 4, 5)) -> None:
        """Do the steps of *Set up*, from a server that runs to one that archives."""
        told = steps(self.project, "Set up")
        self.copy(CONF, "/etc/pgbackrest/pgbackrest.conf")
        for number in order:
            if number == 5:
                self.copy(ARCHIVE, "/etc/postgresql/17/main/conf.d/archive.conf")
            self.type(*told[number])

    def follow(self, primary: "Host") -> None:
        """Do the steps of *The standby* on this host, with the repository and the passphrase of another one."""
        told = steps(self.project, "The standby")
        primary.type(*told[1])
        for name in ("repository", "etc/conf.d"):  # one repository, and a copy of the passphrase
            (self.home / name).rmdir()
            (self.home / name).symlink_to(primary.home / name)
        self.copy(CONF, "/etc/pgbackrest/pgbackrest.conf")
        self.copy(ARCHIVE, "/etc/postgresql/17/main/conf.d/archive.conf")
        *lines, restore, start = (line.replace("a.internal", f"127.0.0.1 port={primary.port}") for line in told[2])
        self.type(*lines, restore)
        restored = self.home / "data/postgresql.conf"  # which Debian has in /etc
        restored.write_text(restored.read_text().replace(str(primary.home), str(self.home)))
        self.type(start)
        settings = primary.home / "conf.d/archive.conf"
        settings.write_text(settings.read_text().replace("#synchronous_standby_names", "synchronous_standby_names"))
        reload, asked = told[3]
        primary.type(reload)
        wait_for(lambda: primary.type(asked) == "quorum\n")

    def restore(self, moment: str) -> None:
        """Do the steps of *Restore to a point in time* until the server takes changes."""
        told = steps(self.project, "Restore to a point in time")
        lines = [line.replace(EXAMPLE, moment) for number in (2, 3) for line in told[number]]
        asked = lines.pop()
        self.type(*lines)
        wait_for(lambda: self.type(asked) == "f\n")

    def ask(self, query: str) -> list[tuple[object, ...]]:
        """The rows of a query."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str) -> object:
        """The only value of a query."""
        ((found,),) = self.ask(query)
        return found


class PostgresExporter(Server):
    """What Prometheus asks for the figures of a database server."""

    name = "postgres_exporter"

    def __init__(self, database: Postgres) -> None:
        super().__init__()
        self._database = database

    def command(self) -> list[str | Path]:
        program = packages.ensure("prometheus-postgres-exporter", "prometheus-postgres-exporter")
        return [program, f"--web.listen-address={self.address}"]

    def environment(self) -> Mapping[str, str]:
        return {"DATA_SOURCE_NAME": f"{self._database.url()}?sslmode=disable"}

    def answers(self) -> bool:
        try:
            return "pg_up 1" in self._page()
        except httpx.TransportError:
            return False

    def names(self) -> set[str]:
        """The metrics that it has."""
        return set(re.findall(r"^(\w+)", self._page(), re.M))

    def value(self, metric: str) -> float:
        """The value of a metric without labels of its own."""
        found = re.search(rf"^{metric}(?:{{.*}})? (\S+)$", self._page(), re.M)
        assert found, metric
        return float(found[1])

    def _page(self) -> str:
        return httpx.get(f"http://{self.address}/metrics", timeout=10, trust_env=False).text


def wait_for(reached: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Return once it is reached."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.1)
