"""A run that is killed at any point: listed backups are whole, the live database is untouched, the next run works."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable

import pytest

from tests import proof
from tests.backup.conftest import Backups, Made, after, begin, databases, renamed, until
from tests.backup.contents import Contents, contents
from tests.database.conftest import Database
from tests.sabotage import Body, Value
from tests.servers.postgres import Postgres
from tests.servers.process import alive, descendants

pytestmark = pytest.mark.servers
Wait = Callable[[subprocess.Popen[str], Backups], None]


@pytest.fixture
def large(database: Database, backups: Backups) -> Backups:
    """The command on a database that takes a second to dump."""
    database.run("CREATE TABLE large AS SELECT n, repeat(md5(n::text), 20) AS t FROM generate_series(1, 30000) n")
    return backups


def step(name: str) -> Wait:
    return lambda process, backups: after(process, name)


def exists(pattern: str) -> Wait:
    """As soon as there is such a file, the command is in that phase."""
    return lambda process, backups: until(
        lambda: list(backups.folder.glob(pattern)) != [] or process.poll() is not None
    )


def later(seconds: float) -> Wait:
    return lambda process, backups: time.sleep(seconds)


CREATE = {
    "count": exists("scratch/*create/lock"),
    "start of the dump": step("count rows"),
    "dump": exists("scratch/*create/*/dump/*.dat.gz"),
    "encryption": step("dump"),
    "upload": exists("store/*/.dump.tar.age"),
    "check": step("store"),
    "manifest": step("check"),
}
RESTORE = {
    "start": exists("scratch/*restore/lock"),
    "download": exists("scratch/*restore/*/dump"),
    "restore": step("download and decrypt"),
    "roles": step("restore"),
    "comparison": step("roles and statistics"),
    "renaming": step("compare"),
}


def kill(backups: Backups, command: str, wait: Wait) -> set[int]:
    """Kill a command, but not what it has started, as the kernel does when memory is short: what goes on."""
    process = begin(backups, command)
    try:
        wait(process, backups)
    finally:
        left = descendants(process.pid)
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):  # what goes on has them, too
            assert pipe
            pipe.close()
    return left


def whole(backups: Backups, live: Contents) -> None:
    """Each listed backup is whole, and the live database is what it was."""
    for each in json.loads(backups.must("list", "--json")):
        backups.must("verify", each["id"])
    assert contents(backups.url) == live


def reap(left: set[int]) -> None:
    """End what a killed run has left, by its id."""
    for pid in left:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def killed_backups(backups: Backups, moments: Iterable[Wait]) -> None:
    """Backups are killed: none is listed that is not whole, and the last run works and cleans up."""
    live, left = contents(backups.url), set[int]()
    try:
        for wait in moments:
            left |= kill(backups, "create", wait)
            whole(backups, live)
        until(lambda: backups("create").returncode == 0)  # the server needs a moment to forget the killed one
        whole(backups, live)
        assert list(backups.scratch.glob("*create/*/")) == []
    finally:
        reap(left)


def killed_restores(backups: Backups, server: Postgres, moments: Iterable[Wait]) -> None:
    """Restores are killed: what they leave is marked as unfinished, or whole; the last one works and cleans up."""
    backups.create()
    live, left, before = contents(backups.url), set[int](), databases(server)
    try:
        for wait in moments:
            left |= kill(backups, "restore", wait)
            whole(backups, live)
        restored = json.loads(backups.must("restore", "--json"))["database"]
        made = set(databases(server)) - set(before)
        for name in made:
            assert name.endswith("_unfinished") or contents(renamed(backups.url, name)) == live
        assert restored in made
        assert list(backups.scratch.glob("*restore/*/")) == []
    finally:
        reap(left)


def test_a_backup_that_is_killed_in_any_phase_is_none_and_the_next_one_works(large: Backups) -> None:
    killed_backups(large, CREATE.values())


def test_a_restore_that_is_killed_in_any_phase_says_so_and_the_next_one_works(large: Backups, server: Postgres) -> None:
    killed_restores(large, server, RESTORE.values())


@pytest.mark.wide
def test_no_moment_is_a_bad_one(large: Backups, server: Postgres) -> None:
    chance = random.Random(17)  # noqa: S311 the same moments each time
    for _ in range(proof.count(gate=1, full=20)):
        killed_backups(large, [later(chance.uniform(0.5, 4))])
        killed_restores(large, server, [later(chance.uniform(1.5, 4))])


MANIFEST_FIRST = """
with workspace(settings.backup_scratch_dir, "create") as folder:
    facts = database.dump(folder, report)
    backup = new_id(datetime.now(UTC))
    manifest = Manifest(**facts.model_dump(), id=backup, finished=datetime.now(UTC), seconds=0, dump="dump.tar.age",
        size=1, sha256="", encrypted=True, release="")
    store.write(f"{backup}/{MANIFEST}", BytesIO(manifests.sealed(manifest)))
    with report.step("check"), sealed(folder / "dump", settings.backup_age_recipient) as stream:
        store.write(manifest.name, stream)
    return manifest
"""


@pytest.mark.sabotage
def test_a_manifest_that_is_not_written_last_is_noticed(large: Backups, make: Made) -> None:
    with pytest.raises(AssertionError):
        killed_backups(make(Body("ops.backup.create:create", MANIFEST_FIRST)), [CREATE["upload"]])


@pytest.mark.sabotage
def test_a_half_restored_database_with_the_name_of_a_whole_one_is_noticed(
    large: Backups, make: Made, server: Postgres
) -> None:
    with pytest.raises(AssertionError):
        killed_restores(make(Value("ops.backup.restore:UNFINISHED", "''")), server, [RESTORE["restore"]])
