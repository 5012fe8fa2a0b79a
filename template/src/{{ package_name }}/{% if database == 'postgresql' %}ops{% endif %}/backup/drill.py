"""The drill: restores a backup into a scratch database, starts the service on it, and measures RTO and RPO."""

import os
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import httpx2
from pydantic import BaseModel
from sqlalchemy import URL

from .database import Database
from .errors import BackupError
from .manifest import Manifest, dumps
from .plan import OWN, Plan
from .report import Report
from .restore import new_name, restore
from .settings import Settings
from .store import Store

EVIDENCE = Path("dr/evidence")
INDEX = "README.md"
HEAD = """# Drills

What `backup drill` has measured. RTO: until the service served again. RPO: the age of the backup. The time to notice,
to decide, and to change DNS is not included.

| Drill | Backup | RTO | RPO | Targets | Result |
|---|---|---|---|---|---|
"""
MIGRATE_SECONDS = 3600
START_SECONDS = 60  # until the service is ready
# The instance of the drill talks to the restored database alone: it must not fill the caches of production, nor alert.
ALONE = {
    "CACHE_URL": "off",
    "HOST": "127.0.0.1",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "off",
    "OTEL_METRICS_EXPORTER": "none",
    "SENTRY_DSN": "off",
    "SHUTDOWN_DRAIN_SECONDS": "0",
    "TRUSTED_HOSTS": "127.0.0.1",
    "USAGE_KEY": "off",
}


class Evidence(BaseModel):
    """What a drill has measured; times are in seconds."""

    started: datetime
    backup: str
    rto_seconds: float
    rpo_seconds: float
    targets: dict[str, float]
    passed: bool
    phases: dict[str, float]
    rows: int
    release: str


def drill(
    database: Database,
    store: Store,
    manifest: Manifest,
    roles: dict[str, URL],
    settings: Settings,
    plan: Plan,
    report: Report,
) -> Evidence:
    """Restore a backup into a scratch database, start the service on it, and measure.

    Args:
        database: Where the scratch database is made; it is dropped at the end.
        store: Where the backup is, and a copy of the evidence goes.
        manifest: Of the backup.
        roles: The URLs of the service's roles, by variable; the database in them is replaced.
        settings: Those of backups.
        plan: RTO and RPO.
        report: Gets the phases.

    Returns:
        What was measured; `passed` says whether RTO and RPO are kept.

    Raises:
        BackupError: The backup cannot be restored, or the service does not serve on it.
    """
    started, began = datetime.now(UTC), time.monotonic()
    name = new_name(database.name, "drill")
    try:
        facts = restore(database, store, manifest, name, settings, report, "drill")
        env = _environment(roles, database.url(name).database)
        with report.step("migrate"):
            _migrate(env)
        with _serving(env, report) as client, report.step("query"):
            _query(client)
        took = time.monotonic() - began
    finally:
        database.drop(name)
    age = started - manifest.snapshot
    evidence = Evidence(
        started=started,
        backup=manifest.id,
        rto_seconds=round(took, 3),
        rpo_seconds=round(age.total_seconds(), 3),
        targets={
            "rto_seconds": plan.targets.rto.total_seconds(),
            "rpo_seconds": plan.backups.rpo.total_seconds(),
        },
        passed=timedelta(seconds=took) <= plan.targets.rto and age <= plan.backups.rpo,
        phases=report.seconds,
        rows=sum(facts.tables.values()),
        release=settings.git_commit,
    )
    _save(evidence, store)
    return evidence


def _environment(roles: dict[str, URL], database: str | None) -> dict[str, str]:
    """The variables of the service on the restored database; it chooses the drivers itself."""
    urls = {name: url.set(drivername=url.get_backend_name(), database=database) for name, url in roles.items()}
    return {**os.environ, **ALONE, **{name: url.render_as_string(hide_password=False) for name, url in urls.items()}}


def _command(name: str) -> list[str]:
    return [sys.executable, "-c", f"from {__name__.partition('.')[0]}.cli import main; main()", name]


def _migrate(env: dict[str, str]) -> None:
    """The backup may be older than the code."""
    command = _command("migrate")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=MIGRATE_SECONDS)  # noqa: S603
    if done.returncode:
        said = (done.stderr.splitlines() or ["no reason"])[-1]
        raise BackupError(f"the restored database cannot be migrated: {said}")


@contextmanager
def _serving(env: dict[str, str], report: Report) -> Iterator[httpx2.Client]:
    """Run the service's own command, until it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env, quiet = {**env, "PORT": str(port)}, subprocess.DEVNULL
    process = subprocess.Popen(_command("serve"), env=env, stdout=quiet, stderr=quiet)  # noqa: S603 our own
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
            with report.step("start the service"):
                _until_ready(client, process)
            yield client
    finally:
        process.terminate()
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_ready(client: httpx2.Client, process: subprocess.Popen[bytes]) -> None:
    deadline, said = time.monotonic() + START_SECONDS, "no response"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BackupError(
                f"on the restored database the service exited with {process.returncode}: try `serve` with it"
            )
        try:
            response = client.get("/readyz")
        except httpx2.TransportError:
            pass  # it does not listen yet
        else:
            if response.status_code == httpx2.codes.OK:
                return
            said = f"/readyz says {response.text[:200]}"
        time.sleep(0.1)
    raise BackupError(f"the service is not ready on the restored database after {START_SECONDS} s: {said}")


def _query(client: httpx2.Client) -> None:
    """Call the route of `ready.toml` that does real work."""
    path = (tomllib.loads(OWN.read_text()) if OWN.exists() else {}).get("probe", {}).get("read")
    if not path:
        raise BackupError('ready.toml names no route: add read = "/v1/…" below [probe]')
    response = client.get(path)
    if not response.is_success:
        raise BackupError(f"{path} returned {response.status_code} on the restored database")


def _save(evidence: Evidence, store: Store) -> None:
    """Store the evidence with the backup and in a local folder: for `status`, and for people."""
    stamp = f"{evidence.started:%Y%m%dT%H%M%SZ}"
    store.write(f"{evidence.backup}/drill-{stamp}.json", BytesIO(dumps(evidence)), lock=False)
    try:
        EVIDENCE.mkdir(parents=True, exist_ok=True)
        (EVIDENCE / f"{stamp}.json").write_bytes(dumps(evidence))
        index = EVIDENCE / INDEX
        text = index.read_text() if index.exists() else HEAD
        rto, rpo = (timedelta(seconds=round(each)) for each in (evidence.rto_seconds, evidence.rpo_seconds))
        targets = "/".join(str(timedelta(seconds=each)) for each in evidence.targets.values())
        result = "passed" if evidence.passed else "**missed**"
        index.write_text(f"{text}| {stamp} | {evidence.backup} | {rto} | {rpo} | {targets} | {result} |\n")
    except OSError as error:
        raise BackupError(f"{EVIDENCE}: {error.strerror}: run this in the project's folder") from None
