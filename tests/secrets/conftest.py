"""The service with its secrets in files or in a Vault that its own `deploy/vault/` was applied to."""

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.projects import Project, Service
from tests.servers.process import ServerError
from tests.servers.vault import Space
from tests.vault.conftest import SLUG, Deployed, applied_sql

ITEMS = "/v1/items"
SECRET = "hunter2-s3cret"
SECONDS = 30.0


@dataclass
class Side:
    """A Vault with all that the service needs there, and the environment in which the service finds it."""

    vault: Space
    deployed: Deployed
    env: dict[str, str] = field(default_factory=dict)
    handed_out: str = ""  # the secret id that is in its file

    def write(self, **values: Any) -> None:
        """A new version of the secret."""
        kv = self.vault.client().secrets.kv.v2
        kv.create_or_update_secret(path=SLUG, secret=values, mount_point="secret")

    def secret_id(self, **wrap: str) -> str:
        """A secret id, or the token around it."""
        made = self.vault.client().write_data(f"auth/approle/role/{SLUG}/secret-id", data={}, **wrap)
        return str(made["wrap_info"]["token"] if wrap else made["data"]["secret_id"])


def deploy(vault: Space, project: Project, folder: Path, database: str = "", **times: Any) -> Side:
    """Apply `deploy/vault/`, and log in by AppRole.

    Args:
        vault: Where.
        project: Whose folder it is.
        folder: For what belongs to the test.
        database: Its address as its superuser: for users of the engine `database`.
        times: Of the tokens (`token_ttl`, `token_max_ttl`) and of those users (`default_ttl`, `max_ttl`), in seconds.
    """
    shutil.copytree(project.root / "deploy", folder / "deploy")
    side = Side(vault, Deployed(folder))
    token = {name: value for name, value in times.items() if name.startswith("token")}
    side.deployed.set("approle", **token)
    if database:
        users = {name: value for name, value in times.items() if name not in token}
        side.deployed.set("database", connection_url=applied_sql(side.deployed, database), **users)
    done = side.deployed.apply(vault.env, vault.root)
    assert done.returncode == 0, done.stderr
    side.handed_out = side.secret_id()
    (folder / "secret-id").write_text(side.handed_out + "\n")
    side.env = {
        "SECRETS_BACKEND": "vault",
        **vault.env,
        "VAULT_AUTH_METHOD": "approle",
        "VAULT_ROLE_ID": vault.client().read(f"auth/approle/role/{SLUG}/role-id")["data"]["role_id"],
        "VAULT_SECRET_ID_FILE": str(folder / "secret-id"),
        "VAULT_SECRET_PATH": SLUG,
    }
    if database:
        side.env["VAULT_DATABASE_ROLE"] = SLUG
    return side


@contextmanager
def load(service: Service, workers: int = 6) -> Iterator[Counter[int]]:
    """Ask the example without a pause from several clients: how often each status was answered."""
    seen: Counter[int] = Counter()
    over = threading.Event()

    def work() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=20, trust_env=False) as client:
            while not over.is_set():
                try:
                    seen[client.post(ITEMS, json={"name": "busy"}).status_code] += 1
                    seen[client.get(ITEMS).status_code] += 1
                except httpx.TransportError:
                    seen[0] += 1

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def until(true: Callable[[], bool]) -> None:
    """Return once it is true."""
    deadline = time.monotonic() + SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise ServerError(f"not within {SECONDS:g} s")
        time.sleep(0.05)


def users(url: str) -> set[str]:
    """Who has a connection to a database, besides its superuser and Vault."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT usename FROM pg_stat_activity WHERE datname = current_database()").fetchall()
    return {str(row[0]) for row in rows} - {"postgres", "my_service_vault"}


def swap(folder: Path, **files: str) -> None:
    """Write a set of files as kubelet does it: a new folder, and one symlink that is replaced."""
    folder.mkdir(exist_ok=True)
    made = folder / f"..{time.monotonic_ns()}"
    made.mkdir()
    for name, text in files.items():
        (made / name).write_text(text)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    old = (folder / "..data").resolve() if (folder / "..data").exists() else None
    (folder / "..data_tmp").symlink_to(made.name)
    os.replace(folder / "..data_tmp", folder / "..data")
    if old:
        shutil.rmtree(old)
