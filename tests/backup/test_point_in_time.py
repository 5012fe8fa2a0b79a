"""Point-in-time recovery: the documented commands restore the second before a mistake, and each failure is noticed."""

import json
import re
import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import yaml

from tests.backup.archive import ARCHIVE, CONF, DOC, EXAMPLE, SECONDS, Host, PostgresExporter, steps, wait_for
from tests.projects import Edit, Project, render
from tests.sabotage import Line, Sabotage
from tests.servers import packages
from tests.servers.process import ServerError, reachable
from tests.servers.s3 import REGION, Bucket

pytestmark = pytest.mark.servers
SLUG = "my-service"
PROMOTE = 'psql -c "SELECT pg_promote()"'


@pytest.fixture(scope="session")
def silver(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service with `recovery_tier=silver`, not installed. Do not change it: make a `variant`."""
    return Project(render(template, tmp_path_factory.mktemp("silver") / "service", recovery_tier="silver"))


@pytest.fixture(scope="module")
def archiving(silver: Project) -> Iterator[Host]:
    """A host that was set up as documented, for the tests that leave it as it was."""
    with Host(silver) as made:
        made.set_up()
        yield made


def moment(made: Host, when: str) -> str:
    """A time of the server, as the documentation writes it."""
    return str(made.value(f"SELECT to_char(({when}) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS+00')"))


def recovers(project: Project, **env: str) -> list[str]:
    """What is there after a restore, of a row before the target and one after it."""
    with Host(project, **env) as made:
        made.set_up()
        assert made.value("SELECT failed_count FROM pg_stat_archiver") == 0  # the stanza came first
        made.ask("CREATE TABLE events (name text)")
        made.ask("INSERT INTO events VALUES ('before')")
        time.sleep(1.1)  # pgBackRest counts whole seconds
        target = moment(made, "now()")
        made.ask("INSERT INTO events VALUES ('after')")
        assert made.ask("SELECT name FROM events ORDER BY name DESC") == [("before",), ("after",)]
        made.restore(target)
        found = [str(name) for (name,) in made.ask("SELECT name FROM events ORDER BY name")]
        made.ask("INSERT INTO events VALUES ('since')")
        made.type(*steps(project, "Restore to a point in time")[5])  # archives and checks that, and makes a full copy
        assert (made.home / "before/PG_VERSION").exists()
    return found


def test_the_row_before_the_target_is_there_and_the_row_after_it_is_not(silver: Project) -> None:
    assert recovers(silver) == ["before"]


@pytest.mark.wide
def test_the_repository_may_be_a_bucket(silver: Project, bucket: Bucket, tmp_path: Path) -> None:
    """With the lines that the configuration has for it, and the kit's address and keys instead of a cloud's."""
    key, secret = bucket.server.keys["writer"]
    chosen = [
        Line(CONF, "repo1-type=posix"),
        Line(CONF, "repo1-path=/var/lib/pgbackrest"),
        Line(CONF, "#repo1-type=s3", "repo1-type=s3"),
        Line(CONF, "#repo1-path=", f"repo1-path=/{SLUG}"),
        Line(CONF, "#repo1-s3-bucket=", f"repo1-s3-bucket={bucket.name}"),
        Line(CONF, "#repo1-s3-endpoint=", "repo1-s3-endpoint=localhost"),
        Line(CONF, "#repo1-s3-region=", f"repo1-s3-region={REGION}"),
    ]
    env = {
        "S3_KEY": key,
        "S3_KEY_SECRET": secret,
        "S3_URI_STYLE": "path",
        "STORAGE_PORT": str(bucket.server.tls_port),
    }
    in_bucket = silver.variant(tmp_path / "in_bucket", *chosen)
    with tempfile.TemporaryDirectory(dir=reachable()) as folder:  # the server's user has to read it
        Path(folder).chmod(0o755)
        env["STORAGE_CA_FILE"] = str(shutil.copy(bucket.server.ca, folder))
        assert recovers(in_bucket, **{f"PGBACKREST_REPO1_{name}": value for name, value in env.items()}) == ["before"]
    kept = bucket.keys()
    assert any(name.startswith(f"{SLUG}/archive/") for name in kept)
    assert any(name.startswith(f"{SLUG}/backup/") for name in kept)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sick",
    [
        Line(ARCHIVE, "archive_command", "archive_command = '/bin/true'"),
        Line(ARCHIVE, "archive_command", "archive_command = 'true pgbackrest'"),
    ],
    ids=["a command that does nothing", "one that fools the check of its name"],
)
def test_a_host_that_archives_nothing_fails_the_proof(silver: Project, tmp_path: Path, sick: Sabotage) -> None:
    with pytest.raises(AssertionError, match="pgbackrest"):
        recovers(silver.variant(tmp_path / "sick", sick), PGBACKREST_ARCHIVE_TIMEOUT="5")


@pytest.mark.wide
def test_a_target_that_was_never_archived_is_refused(silver: Project) -> None:
    with Host(silver) as made:
        made.set_up()
        with pytest.raises((AssertionError, ServerError), match="recovery ended before configured") as refused:
            made.restore(moment(made, "now() + interval '1 hour'"))
        assert documented(silver, str(refused.value))
        assert (made.home / "before/PG_VERSION").exists()


@pytest.mark.sabotage
def test_a_restore_without_a_target_fails_the_proof(silver: Project, tmp_path: Path) -> None:
    whole = Edit(DOC, f' --type=time --target="{EXAMPLE}" --target-action=promote', "")
    assert recovers(silver.variant(tmp_path / "sick", whole)) == ["after", "before"]


@pytest.mark.sabotage
def test_an_archive_that_begins_before_its_stanza_fails_the_proof(silver: Project) -> None:
    with Host(silver) as made:
        with pytest.raises(AssertionError, match="unable to load info file"):
            made.set_up((3, 5, 4))
        made.ask("SELECT pg_switch_wal()")
        wait_for(lambda: made.value("SELECT failed_count > 0 FROM pg_stat_archiver") is True)


def test_a_segment_is_sent_sooner_than_promised(silver: Project, gold: Project, archiving: Host) -> None:
    for tier, folder, promised in (("silver", silver.root, 300), ("gold", gold.root, 60)):
        rpo = tomllib.loads((folder / "deploy/recovery.toml").read_text())["targets"]["rpo"]
        assert int(rpo.removesuffix("m")) * 60 == promised
        read = f"postgres -D {archiving.home}/data -C archive_timeout -c config_file={archiving.home}/{tier}.conf"
        (archiving.home / f"{tier}.conf").write_text((folder / ARCHIVE).read_text())
        assert 0 < int(archiving.type(read)) <= promised // 2


def loses_nothing(project: Project) -> bool:
    """Whether a commit waits for the standby, and is there once the primary was killed and the standby promoted."""
    with Host(project) as primary, Host(project) as standby:
        primary.set_up()
        primary.ask("CREATE TABLE events (name text)")
        standby.follow(primary)
        standby.pause()
        write = Thread(target=primary.ask, args=("INSERT INTO events VALUES ('last')",))
        write.start()
        write.join(2)
        waited = write.is_alive()
        standby.resume()
        write.join(SECONDS)
        primary.kill()
        standby.type(PROMOTE)
        standby.type(f"pgbackrest --stanza={SLUG} check")  # it archives from now on
        return waited and standby.ask("SELECT name FROM events") == [("last",)]


@pytest.fixture(scope="module")
def gold(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service with `recovery_tier=gold`, not installed. Do not change it: make a `variant`."""
    return Project(render(template, tmp_path_factory.mktemp("gold") / "service", recovery_tier="gold"))


@pytest.mark.wide
def test_a_commit_waits_for_the_standby_and_is_there_when_it_has_taken_over(gold: Project) -> None:
    assert f"\n    {PROMOTE}\n" in (gold.root / DOC).read_text()
    assert loses_nothing(gold)


@pytest.mark.sabotage
def test_a_commit_that_waits_for_nobody_fails_the_proof(gold: Project, tmp_path: Path) -> None:
    hasty = gold.variant(tmp_path / "sick", Line(ARCHIVE, "archive_timeout", "synchronous_commit = local"))
    assert not loses_nothing(hasty)


def documented(project: Project, said: str) -> bool:
    """Whether the table of the documentation has a line for what pgBackRest says."""
    table = (project.root / DOC).read_text().partition("| It says |")[2]
    return any(words in said for words in re.findall(r"`([^`]+)`", table))


def test_a_wrong_passphrase_is_refused_and_restores_nothing(silver: Project, archiving: Host) -> None:
    line = f"install -d -m 700 elsewhere; pgbackrest --stanza={SLUG} --pg1-path=$PWD/elsewhere restore"
    refused = archiving.attempt(line, PGBACKREST_REPO1_CIPHER_PASS="another")
    assert refused.returncode != 0
    assert documented(silver, refused.stderr)
    assert not list((archiving.home / "elsewhere").iterdir())
    assert archiving.attempt(line).returncode == 0
    assert (archiving.home / "elsewhere/PG_VERSION").exists()
    assert b"PostgreSQL" not in b"".join(
        path.read_bytes() for path in (archiving.home / "repository").rglob("*.info*")
    )  # nothing is readable without it


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """A repository that cannot be reached."""
    hidden = folder.rename(folder.with_name("hidden"))
    try:
        yield
    finally:
        hidden.rename(folder)


def test_a_failing_archive_is_noticed_and_catches_up(archiving: Host) -> None:
    with PostgresExporter(archiving) as exporter:
        assert exporter.value("pg_stat_archiver_archived_count") > 0
        assert exporter.value("pg_stat_archiver_failed_count") == 0
        with away(archiving.home / "repository"):
            archiving.ask("CREATE TABLE unsaved AS SELECT 1")
            archiving.ask("SELECT pg_switch_wal()")
            wait_for(lambda: exporter.value("pg_stat_archiver_failed_count") > 0)
            assert archiving.attempt(f"pgbackrest --stanza={SLUG} check").returncode != 0
        archiving.ask("DROP TABLE unsaved")
        archiving.ask("SELECT pg_switch_wal()")  # wakes the archiver, which tries only once a minute
        wait_for(lambda: archiving.value("SELECT last_archived_time > last_failed_time FROM pg_stat_archiver") is True)
        archiving.type(f"pgbackrest --stanza={SLUG} check")


def test_the_exporter_has_each_metric_that_the_alerts_need(silver: Project, archiving: Host) -> None:
    sources = yaml.safe_load((silver.root / "observability/sources.yaml").read_text())["sources"]
    (wanted,) = [source["metrics"] for source in sources if source["exporter"].startswith("postgres_exporter")]
    assert len(wanted) > 3
    with PostgresExporter(archiving) as exporter:
        assert set(wanted) <= exporter.names()


def line_of(project: Project, word: str) -> str:
    """The line with that word in the crontab of the documentation."""
    section = (project.root / DOC).read_text().partition("\n## Schedule\n")[2].partition("\n## ")[0]
    (found,) = [each[2] for each in re.findall(r"^ {4}((\S+ +){5})(.*)$", section, re.M) if word in each[2]]
    return str(found)


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param("backup/*/*F/**/2838.zst", id="copy"),
        pytest.param("archive/*/*/*/*.zst", id="log", marks=pytest.mark.wide),  # it is read again after 15 s
    ],
)
def test_a_flipped_bit_in_the_repository_is_noticed(silver: Project, archiving: Host, kept: str) -> None:
    verify = line_of(silver, "verify")
    archiving.type(verify)
    with flipped(max((archiving.home / "repository").glob(kept))):
        assert archiving.attempt(verify).returncode != 0
    archiving.type(verify)


@contextmanager
def flipped(file: Path) -> Iterator[None]:
    """One bit of a file is another."""
    data = file.read_bytes()
    half = len(data) // 2
    file.write_bytes(data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :])
    try:
        yield
    finally:
        file.write_bytes(data)


@pytest.mark.wide
def test_a_damaged_copy_is_not_restored(silver: Project, archiving: Host) -> None:
    with flipped(max((archiving.home / "repository").glob("backup/*/*F/**/2838.zst"))):
        done = archiving.attempt(f"install -d -m 700 bad; pgbackrest --stanza={SLUG} --pg1-path=$PWD/bad restore")
        assert done.returncode != 0
        assert documented(silver, done.stderr)


def kept_after(made: Host, days: int) -> int:
    """How many full copies are left when time has passed."""
    faketime = packages.ensure("faketime", "faketime")
    made.type(f"{faketime} '+{days} days' pgbackrest --stanza={SLUG} expire")
    info = json.loads(made.type(f"pgbackrest --stanza={SLUG} --output=json info"))
    return sum(copy["type"] == "full" for copy in info[0]["backup"])


def retained(made: Host) -> tuple[int, int]:
    """Of two full copies, how many are left after 12 days and after 16."""
    made.type(line_of(made.project, "--type=full"), line_of(made.project, "--type=diff"))
    return kept_after(made, 12), kept_after(made, 16)


def test_a_copy_is_deleted_after_two_weeks_if_there_is_a_newer_one(archiving: Host) -> None:
    assert retained(archiving) == (2, 1)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("days", "left"),
    [("repo1-retention-full=1", (1, 1)), ("", (2, 2))],
    ids=["a day", "for ever"],
)
def test_another_retention_fails_the_proof(silver: Project, tmp_path: Path, days: str, left: tuple[int, int]) -> None:
    with Host(silver.variant(tmp_path / "sick", Line(CONF, "repo1-retention-full=", days))) as made:
        made.set_up()
        assert retained(made) == left
