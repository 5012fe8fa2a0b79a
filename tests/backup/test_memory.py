"""A backup is never held in memory, whatever its size."""

import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from tests import proof
from tests.backup.conftest import Backups, Made, begin
from tests.sabotage import Body
from tests.servers.postgres import Postgres

pytestmark = [pytest.mark.servers, pytest.mark.wide]
MEGABYTES = proof.count(gate=60, full=200)  # of the dump, which cannot be compressed
LIMIT = 300 if proof.FULL else 150


def random_bytes(server: Postgres) -> str:
    """The address of a database whose dump is as large as its rows."""
    url = server.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pgcrypto")
        query = "CREATE TABLE noise AS SELECT gen_random_bytes(1000) AS data FROM generate_series(1, %s) n"
        connection.execute(query, [MEGABYTES * 1000])
        connection.execute("DROP EXTENSION pgcrypto")
    return url


def most(process: subprocess.Popen[str]) -> float:
    """The most memory that a process itself has taken until its end, in megabytes; its programs do not count."""
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.05)
    _, error = process.communicate()
    assert process.returncode == 0, error
    return peak / 1024


def stays_small(backups: Backups) -> None:
    """Neither `create` nor `restore` take much."""
    for command in ("create", "restore"):
        assert most(begin(backups, command)) < LIMIT
    (data,) = backups.store.glob("*/dump.tar.age")
    assert data.stat().st_size > MEGABYTES * 500_000


def test_memory_does_not_grow_with_the_size(backups: Backups, server: Postgres) -> None:
    stays_small(backups.told(DATABASE_URL=random_bytes(server)))


HELD = "data = source.read(); original(name, __import__('io').BytesIO(data))"


@pytest.mark.sabotage
def test_a_backup_that_is_held_in_memory_is_noticed(make: Made, server: Postgres) -> None:
    sick = make(Body("ops.backup.store:Folder.write", HELD))
    with pytest.raises(AssertionError):
        stays_small(sick.told(DATABASE_URL=random_bytes(server)))
