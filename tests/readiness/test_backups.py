"""What `ready` says of backups: it reads the store, and restores the newest one, by the service's own command."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.backup.conftest import write_manifest
from tests.projects import Edit, Project, Service
from tests.readiness.conftest import Found, Prober, Served
from tests.sabotage import Body, Sabotage

pytestmark = pytest.mark.servers
AREA = ("--area", "backups")


@contextmanager
def backed_up(project: Project, served: Served, folder: Path) -> Iterator[tuple[Service, Prober, dict[str, str]]]:
    """A service on SQLite with a backup, and what `ready` is told about both."""
    store = folder / "store"
    store.mkdir()
    env = {
        "BACKUP_SCRATCH_DIR": str(folder),
        "BACKUP_URL": f"file://{store}",
        "DATABASE_URL": f"sqlite:///{folder}/service.db",
    }
    with served(project) as service:
        made = project.quick("backup", "create", env=env)
        assert made.returncode == 0, made.stderr
        yield service, Prober(project), env


def older(folder: Path, days: int) -> None:
    """Let the only backup be of an earlier time."""
    (file,) = folder.glob("store/*/manifest.json")
    write_manifest(file, snapshot=f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}")


def look(prober: Prober, service: Service, env: dict[str, str], *arguments: str) -> Found:
    return prober.look(service, *AREA, *arguments, **env)


def test_a_young_backup_that_serves_is_proven(project: Project, served: Served, tmp_path: Path) -> None:
    with backed_up(project.variant(tmp_path / "own"), served, tmp_path) as (service, prober, env):
        found = look(prober, service, env, "--drill")
    assert {check: found.statuses[f"backups.{check}"] for check in ("stored", "restored")} == {
        "stored": "proven",
        "restored": "proven",
    }
    assert "the store has 1 backups; the newest, 2" in found.outcome("backups.stored")["seen"]
    assert "was restored, and the service served on it in 0:00:" in found.outcome("backups.restored")["seen"]


def test_backups_stored_turns_red(project: Project, served: Served, tmp_path: Path) -> None:
    with backed_up(project.variant(tmp_path / "own"), served, tmp_path) as (service, prober, env):
        older(tmp_path, days=2)
        found = look(prober, service, env)
        gone = look(prober, service, {**env, "BACKUP_URL": "file:///no/such/folder"})
    assert (found.red, found.outcome("backups.stored")["step"]) == ({"backups.stored"}, "type `backup create`")
    assert "2 days" in found.outcome("backups.stored")["seen"]
    assert "/no/such/folder is no folder" in gone.outcome("backups.stored")["seen"]


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            Edit("ready.toml", "[thresholds]", '[recovery.targets]\nrto = "1s"\n[thresholds]'),
            "RTO (0:00:01) or RPO is missed",
        ),
        (Body("features.items.service:page", "raise RuntimeError"), "/v1/items returned 500 on the restored database"),
    ],
    ids=["RTO", "route"],
)
def test_backups_restored_turns_red(
    project: Project, served: Served, tmp_path: Path, change: Edit | Sabotage, said: str
) -> None:
    with backed_up(project.variant(tmp_path / "own", change), served, tmp_path) as (service, prober, env):
        found = look(prober, service, env, "--drill")
    assert "backups.restored" in found.red
    assert said in found.outcome("backups.restored")["seen"]


def test_production_without_backups_is_a_gap_and_a_developer_needs_none(prober: Prober, service: Service) -> None:
    local = look(prober, service, {})
    assert local.outcome("backups.stored")["seen"] == "because only production needs backups, and BACKUP_URL is not set"
    production = look(prober, service, {}, "--profile", "production")
    assert "backups.stored" in production.red
    assert "BACKUP_URL: set where backups are kept" in production.outcome("backups.stored")["seen"]
