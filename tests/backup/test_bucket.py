"""The command `backup` on a bucket: the whole way round, and each fault is one line and exit code 1."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.backup.conftest import Backups, Made, renamed
from tests.backup.contents import contents
from tests.sabotage import Argument, Body, Sabotage, Value
from tests.servers.process import Process
from tests.servers.s3 import Bucket, SeaweedFS

pytestmark = pytest.mark.servers
PREFIX = "backups/orders/"
SECONDS = 60.0
# A wait that a proof need not sit through.
HASTY = Value("ops.backup.s3:READ_SECONDS", "1")


def inside(backups: Backups, bucket: Bucket, **env: str) -> Backups:
    """The same command, with its backups in a bucket."""
    return backups.told(BACKUP_URL=bucket.url, **bucket.env, **env)


def locked(bucket: Bucket, name: str) -> timedelta | None:
    """For how long nobody can delete an object."""
    head = bucket.client().head_object(Bucket=bucket.name, Key=PREFIX + name)
    return head["ObjectLockRetainUntilDate"] - datetime.now(UTC) if "ObjectLockMode" in head else None


def goes_round(backups: Backups, bucket: Bucket) -> None:
    """A backup is made, listed, checked and restored; it is locked, and what is added to it later is not."""
    used = inside(backups, bucket, BACKUP_LOCK_DAYS="7")
    backup = used.create()
    assert [each["id"] for each in json.loads(used.must("list", "--json"))] == [backup]
    assert "every row decoded" in used.must("verify")
    assert bucket.keys() == [f"{PREFIX}{backup}/{name}" for name in ("dump.tar.age", "manifest.json", "verified.json")]
    left = [locked(bucket, f"{backup}/{name}") for name in ("dump.tar.age", "manifest.json")]
    assert all(each and timedelta(days=6, hours=23) < each <= timedelta(days=7) for each in left), left
    assert locked(bucket, f"{backup}/verified.json") is None
    name = json.loads(used.must("restore", "--json"))["database"]
    assert contents(renamed(used.url, name)) == contents(used.url)


def test_a_backup_goes_round_through_a_bucket(backups: Backups, bucket: Bucket) -> None:
    goes_round(backups, bucket)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Argument("ops.backup.restore:verify", "lock", "True"),
        Body("ops.backup.s3:Bucket._retention", "return {}"),
    ],
    ids=["all locked", "not locked"],
)
def test_a_lock_on_all_or_on_nothing_is_noticed(make: Made, bucket: Bucket, sabotage: Sabotage) -> None:
    with pytest.raises(AssertionError):
        goes_round(make(sabotage), bucket)


def put(bucket: Bucket, made: datetime, days: int = 0) -> str:
    """What `prune` sees of a backup of that time, locked for some days: its id."""
    backup = f"{made:%Y%m%dT%H%M%SZ}-aaaa"
    until = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": datetime.now(UTC) + timedelta(days=days)}
    for name in ("dump.tar", "manifest.json"):
        key = f"{PREFIX}{backup}/{name}"
        bucket.client().put_object(
            Bucket=bucket.name, Key=key, Body=b"{}", ChecksumAlgorithm="SHA256", **(until if days else {})
        )
    return backup


def prunes(backups: Backups, bucket: Bucket) -> None:
    """Two backups of one day long ago are one too many; a lock of ten days keeps both of nine days ago."""
    now = datetime.now(UTC).replace(hour=12)
    day = timedelta(days=1)
    old = [put(bucket, now - 40 * day - hours * timedelta(hours=1)) for hours in (0, 1)]
    young = [put(bucket, now - 9 * day - hours * timedelta(hours=1), days=1) for hours in (0, 1)]
    for days in range(2, 9):
        put(bucket, now - days * day)
    used = inside(backups, bucket)
    assert used.told(BACKUP_LOCK_DAYS="10").must("prune").splitlines() == [f"deleted {old[1]}"]
    versions = bucket.client().list_object_versions(Bucket=bucket.name, Prefix=PREFIX + old[1])
    assert not versions.get("Versions")
    assert not versions.get("DeleteMarkers")
    line = used.fails("prune")
    assert line.startswith(f"backup: {bucket.url}/{young[1]}/manifest.json is locked until ")
    assert {f"{PREFIX}{each}/manifest.json" for each in (old[0], *young)} <= set(bucket.keys())


def test_prune_deletes_all_versions_and_leaves_what_is_locked(backups: Backups, bucket: Bucket) -> None:
    prunes(backups, bucket)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("ops.backup.prune:prune", "return original(store, now, least, dry_run=dry_run)"),
        Body("ops.backup.s3:Bucket.delete", "self._client.delete_object(**self._target(name))"),
    ],
    ids=["the lock is forgotten", "only a marker"],
)
def test_a_prune_that_forgets_the_lock_or_the_versions_is_noticed(
    make: Made, bucket: Bucket, sabotage: Sabotage
) -> None:
    with pytest.raises(AssertionError):
        prunes(make(sabotage), bucket)


REFUSALS = (
    ({"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, "correct AWS_ACCESS_KEY_ID"),
    ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "correct AWS_SECRET_ACCESS_KEY"),
    ({"BACKUP_URL": "s3://no-such-bucket/orders"}, "create it, or correct BACKUP_URL"),
    ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "check the network, AWS_ENDPOINT_URL and AWS_REGION"),
)


def test_a_bucket_that_cannot_be_read_is_one_line(backups: Backups, bucket: Bucket) -> None:
    for env, line in REFUSALS:
        assert inside(backups, bucket).told(**env).fails("list").endswith(line)
    assert inside(backups, bucket).told(**env).fails("restore").endswith(line)


def test_a_key_that_may_only_read_makes_no_backup_and_restores_one(backups: Backups, bucket: Bucket) -> None:
    used = inside(backups, bucket)
    backup = used.create()
    reader = used.told(**bucket.env_of("reader"))
    assert "access denied" in reader.fails("create")
    reader.must("restore", backup)
    assert len(bucket.keys()) == 2


@contextmanager
def cut(bucket: Bucket) -> Iterator[None]:
    """Every connection is cut as soon as something is said."""
    bucket.network.cutting = True
    yield
    bucket.network.cutting = False


@contextmanager
def hung(bucket: Bucket) -> Iterator[None]:
    """Nobody answers."""
    bucket.network.pause()
    yield
    bucket.network.cut()
    bucket.network.resume()


def makes_none(backups: Backups, bucket: Bucket) -> None:
    """A network that is cut or silent makes no backup, loses none, and is over without a restart."""
    used = inside(backups, bucket)
    first = used.create()
    for fault, line in ((cut, "the connection was cut"), (hung, "no response within 1 s")):
        with fault(bucket):
            assert line in used.fails("create")
            assert line in used.fails("list")
        assert [each["id"] for each in json.loads(used.must("list", "--json"))] == [first]
    second = used.create()
    assert [each["id"] for each in json.loads(used.must("list", "--json"))] == [first, second]


def test_a_network_that_is_cut_or_silent_makes_no_backup(make: Made, bucket: Bucket) -> None:
    makes_none(make(HASTY), bucket)


@pytest.mark.sabotage
def test_an_error_that_is_passed_over_is_noticed(make: Made, bucket: Bucket) -> None:
    swallowed = Body("ops.backup.s3:Bucket.write", "with suppress(StoreError): original(name, source, lock=lock)")
    with pytest.raises(AssertionError):
        makes_none(make(HASTY, swallowed), bucket)


def test_a_run_that_is_killed_in_its_upload_leaves_no_backup(backups: Backups, bucket: Bucket, tmp_path: Path) -> None:
    used = inside(backups, bucket)
    bucket.network.pause()
    env = used.project.env(used.variables)
    process = Process(used.project.command("backup", "create"), log=tmp_path / "log", cwd=used.project.root, env=env)
    process.wait_until(lambda: bucket.network.said > 0, SECONDS)
    process.kill()
    bucket.network.cut()
    bucket.network.resume()
    assert json.loads(used.must("list", "--json")) == []
    backup = used.create()
    assert [each["id"] for each in json.loads(used.must("list", "--json"))] == [backup]


def test_a_full_server_is_one_line_and_what_it_has_stays(backups: Backups) -> None:
    with SeaweedFS(volumes=1) as server, server.bucket() as bucket:
        used = inside(backups, bucket)
        backup = used.create()
        bucket.fill()
        assert "the server fails or is full" in used.fails("create")
        used.must("restore", backup)
