"""The server kit: what it starts is real, ends when told, keeps its data and leaves nothing."""

import base64
import os
import signal
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from botocore.exceptions import ClientError

from tests import commands
from tests.servers import newer, packages
from tests.servers.alertmanager import Alertmanager
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres, Standby, open_postgres
from tests.servers.process import Process, ServerError, alive, descendants, free_port
from tests.servers.prometheus import Prometheus
from tests.servers.s3 import SeaweedFS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def breakable() -> Iterator[Postgres]:
    """A server that the tests of this module stop and break."""
    with open_postgres() as server:
        yield server


@pytest.fixture
def own_postgres(breakable: Postgres) -> Postgres:
    """The same, running again."""
    if not breakable.process.running:
        breakable.start()
    return breakable


def write_note(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE note AS SELECT 'kept' AS text")


def read_note(url: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT text FROM note").fetchone()
    return row and row[0]


def everyone(server: Postgres) -> set[int]:
    return {server.process.pid, *descendants(server.process.pid)}


def test_a_free_port_is_none_that_a_client_gets() -> None:
    lent = Path("/proc/sys/net/ipv4/ip_local_port_range")
    ports = {free_port() for _ in range(200)}
    assert len(ports) > 190  # or workers would meet
    assert max(ports) < int(lent.read_text().split()[0] if lent.exists() else 32_768)
    port = max(ports)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ServerError, match="no free port"):
        free_port(range(port, port + 1))


def test_no_other_process_gets_a_port_whose_server_does_not_listen_yet() -> None:
    port = free_port()

    ask = f"from tests.servers.process import free_port; print(free_port(range({port} + {{}}, {port} + {{}})))"
    assert int(commands.must(sys.executable, "-c", ask.format(1, 50), cwd=ROOT)) > port
    assert "no free port" in commands.run(sys.executable, "-c", ask.format(0, 1), cwd=ROOT).stderr


def test_a_killed_server_refuses_and_has_its_data_after_a_restart(own_postgres: Postgres) -> None:
    url = own_postgres.create_database()
    write_note(url)
    processes = everyone(own_postgres)
    assert len(processes) > 1

    own_postgres.kill()

    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(url)
    assert not [pid for pid in processes if alive(pid)]
    own_postgres.restart()
    assert read_note(url) == "kept"


@pytest.mark.parametrize("immediate", [False, True])
def test_a_stop_ends_every_process_though_a_client_stays(own_postgres: Postgres, immediate: bool) -> None:
    with psycopg.connect(own_postgres.url()):
        processes = everyone(own_postgres)
        own_postgres.stop(immediate)
    assert not [pid for pid in processes if alive(pid)]
    own_postgres.restart()
    assert own_postgres.answers()


def test_a_paused_server_is_silent_until_it_is_resumed(own_postgres: Postgres) -> None:
    own_postgres.pause()
    assert not own_postgres.answers()
    own_postgres.resume()
    assert own_postgres.answers()


def test_each_database_is_new_and_empty(postgres: Postgres, database_url: str) -> None:
    write_note(database_url)
    with psycopg.connect(postgres.create_database()) as connection:
        found = connection.execute("SELECT to_regclass('note')").fetchone()
    assert found == (None,)


def test_a_standby_follows_and_takes_changes_once_promoted(own_postgres: Postgres) -> None:
    url = own_postgres.create_database()
    write_note(url)
    with Standby(own_postgres) as standby:
        there = standby.url(url.rpartition("/")[2])
        assert read_note(there) == "kept"
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            write_note(standby.url())
        own_postgres.kill()
        standby.promote()
        write_note(standby.url())
        assert read_note(standby.url()) == "kept"


def test_a_pooler_shares_its_connections_and_leaves_nothing(postgres: Postgres, database_url: str) -> None:
    with PgBouncer(postgres, 1) as pooler:
        name = database_url.rpartition("/")[2]
        with psycopg.connect(pooler.url(name)) as one, psycopg.connect(pooler.url(name)) as other:
            pids = []
            for connection in (one, other):
                pids.append(connection.execute("SELECT pg_backend_pid()").fetchone())
                connection.commit()
        assert pids[0] == pids[1]
        folder = pooler.log.parent
    assert not pooler.answers()
    assert not folder.exists()


def readable(client: Any, there: dict[str, str]) -> bool:
    try:
        client.get_object(**there)
    except ClientError as error:
        if error.response["Error"]["Code"] != "InternalError":
            raise
        return False
    return True


def test_an_s3_server_keeps_what_is_locked_checks_what_arrives_and_knows_its_clients() -> None:
    with SeaweedFS() as server, server.bucket() as bucket:
        client, there = server.client("writer"), {"Bucket": bucket.name, "Key": "note"}
        until = datetime.now(UTC) + timedelta(days=1)
        lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
        client.put_object(**there, Body=b"kept", ChecksumAlgorithm="SHA256", **lock)
        version = client.head_object(**there)["VersionId"]
        for who in ("writer", "admin"):
            with pytest.raises(ClientError, match="AccessDenied"):
                server.client(who).delete_object(**there, VersionId=version)
        with pytest.raises(ClientError, match="AccessDenied"):
            server.client("reader").put_object(**there, Body=b"")
        with pytest.raises(ClientError, match=r"BadDigest|XAmzContentChecksumMismatch"):
            client.put_object(
                Bucket=bucket.name, Key="other", Body=b"", ChecksumSHA256=base64.b64encode(bytes(32)).decode()
            )
        server.keys["reader"] = server.keys["reader"][0], "wrong"
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            server.client("reader").get_object(**there)

        server.restart()
        server.process.wait_until(lambda: readable(client, there), 60)  # the master answers before its volumes do
        assert client.get_object(**there)["Body"].read() == b"kept"
        processes, folder = {server.process.pid, *descendants(server.process.pid)}, server.home
    assert not [pid for pid in processes if alive(pid)]
    assert not folder.exists()


@pytest.mark.parametrize("kind", [Alertmanager, Prometheus])
def test_a_monitor_answers_and_leaves_nothing(kind: type[Alertmanager | Prometheus]) -> None:
    with kind() as server:
        assert server.answers()
        assert server.home.is_dir()
    assert not server.answers()
    assert not server.home.exists()


@pytest.mark.parametrize("kind", [Alertmanager, Prometheus])
def test_a_monitor_that_refuses_its_configuration_says_why(kind: type[Alertmanager | Prometheus]) -> None:
    with pytest.raises(ServerError, match="no_such_key"), kind({"no_such_key": 1}):
        raise AssertionError("it started")


def test_a_server_ends_with_the_interpreter_that_started_it() -> None:
    code = (
        "from tests.servers.postgres import open_postgres\n"
        "from tests.servers.process import descendants\n"
        "server = open_postgres()\n"
        "server.start()\n"
        "print(server.home, server.process.pid, *descendants(server.process.pid))\n"
        "raise SystemExit(3)\n"
    )
    done = commands.run(sys.executable, "-c", code, cwd=ROOT)
    assert done.returncode == 3, done.stderr
    home, *pids = done.stdout.split()
    assert not Path(home).exists()
    assert not [pid for pid in pids if alive(int(pid))]


def test_a_process_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; echo up; setsid sleep 300 & while :; do sleep 1; done"
    log = tmp_path / "log"
    process = Process(["sh", "-c", stubborn], log=log)
    process.wait_until(lambda: "up" in log.read_text() and len(descendants(process.pid)) > 1, 10)
    family = {process.pid, *descendants(process.pid)}
    process.stop(seconds=0.2)
    assert not [pid for pid in family if alive(pid)]


def test_children_that_outlive_a_stopped_server_are_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = Process(["sh", "-c", "setsid sleep 300 & echo up; wait"], log=log)
    process.wait_until(lambda: "up" in log.read_text() and len(descendants(process.pid)) > 0, 10)
    family = {process.pid, *descendants(process.pid)}
    process.stop()
    assert not [pid for pid in family if alive(pid)]


def test_a_server_that_ends_early_is_reported_with_its_log(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "echo no such volume; exit 4"], log=tmp_path / "log")
    with pytest.raises(ServerError, match="ended with 4\nno such volume"):
        process.wait_until(lambda: False, 10)


def test_a_server_that_never_gets_ready_is_reported(tmp_path: Path) -> None:
    process = Process(["sleep", "300"], log=tmp_path / "log")
    with pytest.raises(ServerError, match=r"was not ready after 0\.2 s"):
        process.wait_until(lambda: False, 0.2)
    process.stop(signal.SIGTERM)
    assert not alive(process.pid)


def test_what_fails_is_reported_with_all_that_it_said() -> None:
    assert commands.must("sh", "-c", "cat", text="read") == "read"
    with pytest.raises(ServerError, match=r"failed with 3\nout\n\nerr"):
        commands.must("sh", "-c", "echo out; echo err >&2; exit 3")


def test_a_missing_program_is_an_error_that_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ServerError, match=r"type as root: apt-get install .* no-such-package"):
        packages.ensure("no-such-program", "no-such-package")


@pytest.mark.parametrize("said", ["nginx version: nginx/1.27.3", "nginx version: nginx/1.27.4", "what?"])
def test_a_program_of_the_system_is_taken_if_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    own = tmp_path / "nginx"
    own.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = newer.ensure("nginx")
    assert (found == own) == ("1.27.4" in said)
    assert found == own or newer.version(found) >= (1, 27, 4)


def test_a_program_that_is_too_old_is_an_error_that_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    python = Path(sys.executable)
    packages.update(python, "3.11", "no-such-package")
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(
        ServerError, match=r"python.* 99\.1 or newer \(there is 3\..*apt-get install .* no-such-package"
    ):
        packages.update(python, "99.1", "no-such-package")
