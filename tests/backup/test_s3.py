"""Backups in a bucket: what is stored is whole or not there at all, and each fault is one line that says what to do."""

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.projects import Project
from tests.sabotage import Body, Sabotage, Value
from tests.servers import packages
from tests.servers.process import Process
from tests.servers.proxy import PIECE
from tests.servers.s3 import Bucket, SeaweedFS

pytestmark = pytest.mark.servers
MB = 1 << 20
PART = 5 * MB  # the least that S3 accepts
PREFIX = "backups/orders/"
NAME = "20261127T000312Z-3f2a/data.tar.age"
SECONDS = 60.0
# Sizes and waits that a proof need not sit through.
SMALL = Value("ops.backup.s3:PART_BYTES", "5 << 20")
HASTY = Value("ops.backup.s3:READ_SECONDS", "1")
# Runs the emitted store in the service's own interpreter.
PROGRAM = """
import hashlib, io, json, re, sys
from datetime import datetime
from my_service.ops.backup.store import StoreError, open_store

class Made(io.RawIOBase):
    def __init__(self, size):
        self.left, self.hash = size, hashlib.sha256()
    def readable(self):
        return True
    def readinto(self, buffer):
        count = min(len(buffer), self.left, 1 << 20)
        buffer[:count] = self.hash.digest() * (count // 32) + bytes(count % 32)
        self.left -= count
        self.hash.update(buffer[:count])
        return count

def act(store, action, *rest):
    if action == "names":
        return {"names": store.names()}
    if action == "write":
        made = Made(int(rest[1]))
        store.write(rest[0], io.BufferedReader(made))
        return {"sha256": made.hash.hexdigest()}
    if action == "read":
        found = hashlib.sha256()
        with store.read(rest[0]) as source:
            while piece := source.read(1 << 20):
                found.update(piece)
        return {"sha256": found.hexdigest()}
    if action == "delete":
        return store.delete(rest[0]) or {}
    return store.clean(datetime.fromisoformat(rest[0])) or {}

url, lock, actions = sys.argv[1:]
for each in json.loads(actions):
    try:
        said = act(open_store(url, int(lock)), *each)
    except StoreError as error:
        said = {"error": str(error)}
    said["peak"] = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
    print(json.dumps(said))
"""


@dataclass(frozen=True)
class Said:
    """What the store did: `error` is empty, or its line; `peak` is the most memory that it took, in MiB."""

    peak: int
    error: str = ""
    names: list[str] = field(default_factory=list)
    sha256: str = ""

    @classmethod
    def of(cls, log: Path) -> "Said":
        """What the first action has printed."""
        return cls(**json.loads(log.read_text().splitlines()[0]))


@dataclass(frozen=True)
class Client:
    """The emitted store on a bucket."""

    project: Project
    bucket: Bucket
    lock_days: int = 0
    seconds: float = SECONDS

    def command(self, *actions: tuple[str, ...], url: str = "") -> list[str]:
        program = [str(self.project.venv / "bin/python"), "-c", PROGRAM]
        return [*program, url or self.bucket.url, str(self.lock_days), json.dumps(actions)]

    def run(self, *actions: tuple[str, ...], url: str = "", env: Mapping[str, str] | None = None) -> list[Said]:
        """Do these things in one process, each with a client of its own."""
        done = subprocess.run(
            self.command(*actions, url=url),
            cwd=self.project.root,
            env=self.project.env({**self.bucket.env, **(env or {})}),
            capture_output=True,
            text=True,
            timeout=self.seconds,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        assert self.bucket.env["AWS_SECRET_ACCESS_KEY"] not in done.stdout
        said = [Said(**json.loads(line)) for line in done.stdout.splitlines()]
        assert not any("\n" in each.error for each in said)
        return said

    def __call__(self, *action: str) -> Said:
        """Do one thing."""
        return self.run(action)[0]

    def begin(self, folder: Path, *action: str, until: Callable[[], bool]) -> Process:
        """Begin something, and return when it is so far."""
        env = self.project.env(self.bucket.env)
        process = Process(self.command(action), log=folder / f"{action[0]}.log", cwd=self.project.root, env=env)
        process.wait_until(until, SECONDS)
        return process

    def upload(self, folder: Path) -> Process:
        """Begin to write, and return when the second part is on its way."""
        network = self.bucket.network
        return self.begin(folder, "write", NAME, str(20 * PART), until=lambda: network.said > 1.2 * PART / PIECE)


Made = Callable[..., Client]


@pytest.fixture
def make(project: Project, bucket: Bucket, tmp_path: Path) -> Made:
    """The store, with changes."""

    def made(*changes: Sabotage, lock_days: int = 0) -> Client:
        return Client(project.variant(tmp_path / "changed", SMALL, *changes), bucket, lock_days)

    return made


# --- what is stored --------------------------------------------------------------------------------------------------


def goes_round(client: Client) -> None:
    """Objects of every size come back, are listed below the prefix, and have the SHA-256 of their parts."""
    sizes = {"a/data": 1000, "a/manifest.json": 0, "b/data": 2 * PART, "b/manifest.json": 2 * PART + 1}
    bucket, s3 = client.bucket.name, client.bucket.client()
    written = client.run(*(("write", name, str(size)) for name, size in sizes.items()))
    read = client.run(*(("read", name) for name in sizes))
    assert [each.error for each in [*written, *read]] == [""] * 8
    assert [each.sha256 for each in read] == [each.sha256 for each in written]
    for name, size in sizes.items():
        head = s3.head_object(Bucket=bucket, Key=PREFIX + name, ChecksumMode="ENABLED")
        assert head["ContentLength"] == size
        assert head["ChecksumSHA256"] == checksum(s3.get_object(Bucket=bucket, Key=PREFIX + name)["Body"].read())
    s3.put_object(Bucket=bucket, Key="backups/orders-of-another", Body=b"")
    again = "write", "a/data", "1"
    *before, deleted, missing, after = client.run(
        ("names",), again, ("delete", "a/data"), ("delete", "never-there"), ("names",)
    )
    assert before[0].names == list(sizes)
    assert (deleted.error, missing.error) == ("", "")
    assert after.names == ["a/manifest.json", "b/data", "b/manifest.json"]
    versions = s3.list_object_versions(Bucket=bucket, Prefix=f"{PREFIX}a/data")
    assert not versions.get("Versions")
    assert not versions.get("DeleteMarkers")


def checksum(data: bytes) -> str:
    """As S3 has it for parts: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html."""
    parts = [hashlib.sha256(data[at : at + PART]).digest() for at in range(0, max(len(data), 1), PART)]
    return f"{base64.b64encode(hashlib.sha256(b''.join(parts)).digest()).decode()}-{len(parts)}"


def test_the_same_holds_over_tls(make: Made, bucket: Bucket) -> None:
    env = {"AWS_ENDPOINT_URL": f"https://127.0.0.1:{bucket.server.tls_port}", "AWS_CA_BUNDLE": str(bucket.server.ca)}
    written, read = make(lock_days=1).run(("write", NAME, str(2 * PART)), ("read", NAME), env=env)
    assert (written.error, read.sha256) == ("", written.sha256)


def test_objects_come_back_whole_and_a_deleted_one_leaves_no_version(make: Made) -> None:
    goes_round(make())


UNHASHED = """
data = source.read(PART_BYTES)
if not data and number > 1:
    return {}
sent = self._client.upload_part(**upload, PartNumber=number, Body=io.BytesIO(data))
return {"PartNumber": number, "ETag": sent["ETag"]}
"""


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("ops.backup.s3:Bucket._send", UNHASHED),
        Body("ops.backup.s3:Bucket.delete", "self._client.delete_object(**self._target(name))"),
        Body("ops.backup.s3:Bucket.names", "return original()[:1]"),
    ],
    ids=["no hash", "only a marker", "not all names"],
)
def test_what_is_not_hashed_deleted_or_listed_is_noticed(make: Made, sabotage: Sabotage) -> None:
    with pytest.raises(AssertionError):
        goes_round(make(sabotage))


def peak(project: Project, bucket: Bucket) -> int:
    """The most memory that a large object takes, in MiB; around the proxy, which is slow."""
    env = {"AWS_ENDPOINT_URL": f"http://{bucket.server.address}"}
    written, read = Client(project, bucket).run(("write", NAME, str(300 * MB)), ("read", NAME), env=env)
    assert read.sha256 == written.sha256 != ""
    return read.peak


def test_memory_does_not_grow_with_the_size(project: Project, bucket: Bucket) -> None:
    assert peak(project, bucket) < 150


@pytest.mark.sabotage
def test_an_object_that_is_held_in_memory_is_noticed(project: Project, bucket: Bucket, tmp_path: Path) -> None:
    assert peak(project.variant(tmp_path / "sick", Value("ops.backup.s3:PART_BYTES", "1 << 30")), bucket) > 300


# --- Object Lock -----------------------------------------------------------------------------------------------------


def stays(client: Client) -> None:
    """A locked object cannot be deleted, neither by the store nor by an administrator."""
    assert not client("write", NAME, str(2 * PART)).error
    there = {"Bucket": client.bucket.name, "Key": PREFIX + NAME}
    head = client.bucket.client().head_object(**there)
    assert head.get("ObjectLockMode") == "COMPLIANCE"
    left = head["ObjectLockRetainUntilDate"] - datetime.now(UTC)
    assert timedelta(days=2, minutes=58) < left + timedelta(hours=1) < timedelta(days=3, hours=1)
    day = f"{head['ObjectLockRetainUntilDate']:%Y-%m-%d}"
    assert client("delete", NAME).error == f"{client.bucket.url}/{NAME} is locked until {day}: delete it then"
    with pytest.raises(ClientError, match="AccessDenied"):
        client.bucket.client().delete_object(**there, VersionId=head["VersionId"])
    assert client("names").names == [NAME]


def test_a_bucket_without_object_lock_is_said(make: Made, bucket: Bucket) -> None:
    bucket.client().create_bucket(Bucket=f"{bucket.name}-open")
    written, names = make(lock_days=3).run(("write", NAME, "1"), ("names",), url=f"s3://{bucket.name}-open")
    assert "with BACKUP_LOCK_DAYS, the bucket needs Object Lock" in written.error
    assert names.names == []


def test_a_locked_object_stays(make: Made) -> None:
    stays(make(lock_days=3))


@pytest.mark.sabotage
def test_without_the_lock_it_does_not_stay(make: Made) -> None:
    with pytest.raises(AssertionError, match="COMPLIANCE"):
        stays(make(Body("ops.backup.s3:Bucket._retention", "return {}"), lock_days=3))


# --- uploads that do not end -----------------------------------------------------------------------------------------


def leaves_nothing(client: Client, folder: Path) -> None:
    """A run that is killed while it writes leaves nothing that is listed; what it began is aborted later."""
    client.upload(folder).kill()
    assert client("names").names == []
    assert client.bucket.uploads() == [PREFIX + NAME]
    past, future = (f"{datetime.now(UTC) + timedelta(hours=hours)}" for hours in (-1, 1))
    client("clean", past)  # a run may still go on
    assert client.bucket.uploads() == [PREFIX + NAME]
    client("clean", future)
    assert client.bucket.uploads() == []


def test_a_killed_run_lists_nothing_and_its_upload_is_aborted_later(make: Made, tmp_path: Path) -> None:
    leaves_nothing(make(), tmp_path)


IN_PIECES = """
while data := source.read(1 << 20):
    self._client.put_object(**self._target(name), Body=data)
"""


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("ops.backup.s3:Bucket.write", IN_PIECES),
        Body("ops.backup.s3:Bucket.clean", "original(datetime.max.replace(tzinfo=UTC))"),
        Body("ops.backup.s3:Bucket.clean", "pass"),
    ],
    ids=["in pieces", "too early", "never"],
)
def test_half_an_object_or_upload_is_noticed(make: Made, tmp_path: Path, sabotage: Sabotage) -> None:
    with pytest.raises(AssertionError):
        leaves_nothing(make(sabotage), tmp_path)


def gets_through(client: Client, folder: Path) -> None:
    """Connections are cut, once in an upload and once in a download: the object is whole."""
    network = client.bucket.network
    writing = client.upload(folder)
    network.cut()
    assert writing.wait(SECONDS) == 0
    written = Said.of(folder / "write.log")
    assert not written.error
    answered = network.answered
    reading = client.begin(folder, "read", NAME, until=lambda: network.answered > answered + PART / PIECE)
    network.cut()
    assert reading.wait(SECONDS) == 0
    assert Said.of(folder / "read.log").sha256 == written.sha256


def test_a_connection_that_is_cut_is_opened_again(make: Made, tmp_path: Path) -> None:
    gets_through(make(), tmp_path)


@pytest.mark.sabotage
def test_without_a_second_attempt_it_does_not_get_through(make: Made, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the connection was cut"):
        gets_through(make(Value("ops.backup.s3:MAX_ATTEMPTS", "1")), tmp_path)


def test_a_network_that_stays_away_in_an_upload_is_one_line_and_lists_nothing(make: Made, tmp_path: Path) -> None:
    client = make()
    process = client.upload(tmp_path)
    client.bucket.network.stop()
    assert process.wait(SECONDS) == 0
    assert Said.of(tmp_path / "write.log").error == (
        f"{client.bucket.url}/{NAME}: cannot connect: check the network, AWS_ENDPOINT_URL and AWS_REGION"
    )
    client.bucket.network.start()
    assert client("names").names == []


def test_a_failed_upload_is_aborted_at_once(make: Made) -> None:
    client = make(Body("ops.backup.s3:Bucket._send", "raise exceptions.SSLError(endpoint_url='', error='')"))
    assert "certificate" in client("write", NAME, "1").error
    assert (client("names").names, client.bucket.uploads()) == ([], [])


# --- a server that refuses -------------------------------------------------------------------------------------------


def hangs(client: Client) -> None:
    """A server that is silent: the store gives up."""
    client.bucket.network.pause()
    for said in client.run(("names",), ("write", NAME, str(PART)), ("read", NAME)):
        assert "no response within 1 s in 3 attempts" in said.error


def test_a_server_that_hangs_is_given_up(make: Made) -> None:
    hangs(make(HASTY))


@pytest.mark.sabotage
def test_without_a_time_out_it_waits_for_ever(make: Made) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        hangs(replace(make(Value("ops.backup.s3:READ_SECONDS", "600")), seconds=20))


REFUSALS = {
    "unknown key": ({"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, "correct AWS_ACCESS_KEY_ID"),
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "correct AWS_SECRET_ACCESS_KEY"),
    "no key": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}, "set AWS_"),
    "refused": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "cannot connect"),
    "not TLS": ({"AWS_ENDPOINT_URL": "https://127.0.0.1:PORT"}, "certificate"),
    "no URL": ({"AWS_ENDPOINT_URL": "here"}, "AWS_ENDPOINT_URL: use a URL"),
    "no profile": ({"AWS_PROFILE": "nobody"}, "AWS: The config profile (nobody) could not be found"),
}


def refuses(client: Client, env: dict[str, str], line: str) -> None:
    given = {name: value.replace("PORT", str(client.bucket.network.port)) for name, value in env.items()}
    for said in client.run(("names",), ("write", NAME, "1"), env=given):
        assert line in said.error


@pytest.mark.parametrize(("env", "line"), REFUSALS.values(), ids=REFUSALS)
def test_a_wrong_variable_is_one_line_that_says_which(make: Made, env: dict[str, str], line: str) -> None:
    refuses(make(), env, line)


@pytest.mark.sabotage
def test_a_refusal_that_says_nothing_is_noticed(make: Made) -> None:
    with pytest.raises(AssertionError):
        refuses(make(Value("ops.backup.s3:ADVICE", "{}")), *REFUSALS["wrong secret"])


def test_a_missing_bucket_or_object_is_said(make: Made) -> None:
    client = make()
    for said in client.run(("names",), ("read", NAME), url="s3://no-such-bucket/backups"):
        assert said.error.startswith("s3://no-such-bucket/backups/")
        assert said.error.endswith(": there is no such bucket: create it, or correct BACKUP_URL")
    assert client("read", NAME).error == f"{client.bucket.url}/{NAME}: there is no such object"


def test_a_key_without_permission_reads_and_cannot_spoil(make: Made, bucket: Bucket) -> None:
    client = make()
    first = client("write", NAME, "1000")
    actions = ("write", NAME, "1"), ("delete", NAME), ("read", NAME)
    written, deleted, read = client.run(*actions, env=bucket.env_of("reader"))
    assert "access denied: " in written.error
    assert "access denied: " in deleted.error
    assert read.sha256 == first.sha256


def test_a_wrong_clock_is_said(make: Made) -> None:
    packages.ensure("faketime", "faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    env = {"LD_PRELOAD": str(library), "FAKETIME": "+2h", "NO_FAKE_STAT": "1"}
    assert "type timedatectl" in make().run(("names",), env=env)[0].error


def test_a_full_server_is_said_and_keeps_what_it_has(project: Project) -> None:
    with SeaweedFS(volumes=1) as server, server.bucket() as bucket:
        client = Client(project, bucket)
        first = client("write", "first", str(MB))
        bucket.fill()
        second, names, read = client.run(("write", "second", str(MB)), ("names",), ("read", "first"))
        assert "the server fails or is full" in second.error
        assert names.names == ["first"]
        assert read.sha256 == first.sha256
