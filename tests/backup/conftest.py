"""A database to back up, where its backups go, and the command that makes and restores them."""

import hashlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests import commands
from tests.database.conftest import Database, copy, make_model
from tests.projects import Project
from tests.servers import packages
from tests.servers.postgres import Postgres, clients

PASSWORD = "hush-4711"  # the server trusts the loopback interface; it must not be seen anywhere
STEP = re.compile(r"backup: [a-z ]+:( [\d.]+ MB,)? [\d.]+ s")
SECONDS = 30.0
LIST = "SELECT datname FROM pg_database WHERE datname <> 'postgres' ORDER BY 1"


@dataclass(frozen=True)
class Key:
    """A key pair of age."""

    recipient: str
    file: Path

    @classmethod
    def make(cls, file: Path) -> "Key":
        """Make one, as docs/backups.md says."""
        commands.must(packages.ensure("age-keygen", "age"), "-o", file)
        found = re.search(r"public key: (age1\w+)", file.read_text())
        assert found
        return cls(found[1], file)


@dataclass(frozen=True)
class Backups:
    """The command `backup` of a project, on one database and one folder."""

    project: Project
    url: str
    folder: Path
    key: Key
    programs: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the command."""
        for folder in (self.store, self.scratch):
            folder.mkdir(parents=True, exist_ok=True)
        return {
            "DATABASE_URL": self.url,
            "BACKUP_URL": f"file://{self.store}",
            "BACKUP_SCRATCH_DIR": str(self.scratch),
            "BACKUP_PG_BIN": str(self.programs),
            "BACKUP_AGE_RECIPIENT": self.key.recipient,
            "BACKUP_AGE_IDENTITY_FILE": str(self.key.file),
            **self.env,
        }

    def told(self, **env: str) -> "Backups":
        """The same with more variables."""
        return replace(self, env={**self.env, **env})

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end; it never shows a secret."""
        done = self.project.quick("backup", *arguments, env=self.variables)
        for secret in (PASSWORD, "AGE-SECRET-KEY-1", "Traceback"):
            assert secret not in done.stdout + done.stderr, done.stdout + done.stderr
        return done

    def must(self, *arguments: str) -> str:
        """Run what has to succeed: what it prints."""
        done = self(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *arguments: str) -> str:
        """Run what has to fail: the one line that it says, beside one per finished step."""
        done = self(*arguments)
        lines = [line for line in done.stderr.splitlines() if not STEP.fullmatch(line)]
        assert (done.returncode, done.stdout, len(lines)) == (1, "", 1), (done.stdout, done.stderr)
        assert lines[0].startswith("backup: ")
        return lines[0]

    def create(self) -> str:
        """Make a backup: its id."""
        return self.must("create").partition(":")[0]

    def object(self, backup: str, name: str = "dump.tar.age") -> Path:
        """A file of a backup."""
        return self.store / backup / name


def begin(backups: Backups, *arguments: str) -> subprocess.Popen[str]:
    """Start the command as a process of its own."""
    return subprocess.Popen(
        backups.project.command("backup", *arguments),
        cwd=backups.project.root,
        env=backups.project.env(backups.variables),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def after(process: subprocess.Popen[str], step: str) -> None:
    """Return when a step of the command has ended."""
    assert process.stderr
    said = ""
    for line in process.stderr:
        if line.startswith(f"backup: {step}:"):
            return
        said += line
    raise AssertionError(f"it ended before {step}: {said}")


def until(true: Callable[[], bool]) -> None:
    """Return when it is true, which must be soon."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def write_manifest(file: Path, **changes: object) -> None:
    """Change a manifest, as a run would have written it."""
    found = {**json.loads(file.read_text()), **changes}
    del found["digest"]
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps({**found, "digest": digest}))


def with_password(url: str) -> str:
    """The same address with a password, which must not show up anywhere."""
    return re.sub(r"//([^:@/]+)@", rf"//\1:{PASSWORD}@", url)


def databases(server: Postgres) -> list[str]:
    """The names of all databases."""
    with psycopg.connect(server.url()) as connection:
        return [name for (name,) in connection.execute(LIST)]


def drop(server: Postgres, *names: str) -> None:
    """Drop databases, whoever is connected."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for name in names:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def renamed(url: str, name: str) -> str:
    """The address of another database of the same server."""
    return f"{url.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """The worker's server for this folder, of Debian, with programs that the service accepts."""
    clients()
    with Postgres() as opened:
        yield opened


@pytest.fixture(scope="session")
def model(project: Project, server: Postgres) -> Database:
    """A database with roles and schema, to be copied."""
    return make_model(project, server)


@pytest.fixture
def database(project: Project, server: Postgres, model: Database) -> Iterator[Database]:
    """A database of its own for a test, with roles, schema and some rows; what is restored from it is dropped."""
    before = databases(server)
    made = copy(project, server, model)
    made.run(
        "INSERT INTO items SELECT gen_random_uuid(), 'item ' || n, repeat('x', 100), n, now(), now()"
        " FROM generate_series(1, 1000) n"
    )
    yield made
    drop(server, *(name for name in databases(server) if name not in before))


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    """The key pair of all tests."""
    return Key.make(tmp_path_factory.mktemp("key") / "key.txt")


Made = Callable[..., Backups]


@pytest.fixture
def make(project: Project, server: Postgres, database: Database, key: Key, tmp_path: Path) -> Made:
    """The command on the test's database, of a project with changes."""

    def made(*changes: object) -> Backups:
        changed = project.variant(tmp_path / f"sick-{len(list(tmp_path.iterdir()))}", *changes) if changes else project  # type: ignore[arg-type]
        return Backups(changed, with_password(database.admin), tmp_path / "backups", key, server.programs())

    return made


@pytest.fixture
def backups(make: Made) -> Backups:
    """The command on the test's database."""
    return make()
