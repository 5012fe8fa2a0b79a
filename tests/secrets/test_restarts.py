"""A service that is killed starts again: with its secret id, or with a new wrapped one, by the docs' own commands."""

import os
import re
import subprocess
from pathlib import Path

import hvac
import pytest

from tests.projects import Project
from tests.secrets.conftest import ITEMS, Side, deploy
from tests.servers import wheels
from tests.servers.vault import Space
from tests.service.conftest import migrated
from tests.vault.conftest import SLUG

pytestmark = pytest.mark.servers


@pytest.fixture
def side(vault: Space, project: Project, tmp_path: Path) -> Side:
    made = deploy(vault, project, tmp_path)
    url = f"sqlite:///{tmp_path}/x.db"
    made.write(database_url=url)
    migrated(project, url)
    return made


def documented(project: Project, start: str) -> str:
    """The indented block of `docs/secrets.md` that begins so."""
    text = (project.root / "docs" / "secrets.md").read_text()
    found = re.search(rf"^ {{4}}{re.escape(start)}.*\n(?: {{4}}.*\n)*", text, re.M)
    assert found, start
    return found[0]


def started(project: Project, side: Side, folder: Path, **env: str) -> None:
    """Start it, use it, and kill it with SIGKILL."""
    with project.serve(folder, {**side.env, **env}) as service:
        assert service.client.get(ITEMS).status_code == 200
        service.process.kill()


def test_a_service_with_a_secret_id_starts_again_after_it_was_killed(
    project: Project, side: Side, tmp_path: Path
) -> None:
    for _ in range(2):
        started(project, side, tmp_path / "run")


def agent(project: Project, side: Side, folder: Path) -> None:
    """The `ExecStartPre` of the docs, run with a token of the host that has the policy of the docs."""
    admin = side.vault.client()
    admin.sys.create_or_update_acl_policy("host", documented(project, 'path "auth/approle/role/'))
    token = admin.auth.token.create(policies=["host"], ttl="5m")["auth"]["client_token"]
    line = documented(project, "ExecStartPre=+").strip().removeprefix("ExecStartPre=+/bin/sh -c ").strip("'")
    (folder / "bin").mkdir(exist_ok=True)
    if not (folder / "bin/vault").exists():
        (folder / "bin/vault").symlink_to(wheels.ensure("bao"))
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(folder), **side.vault.env, "VAULT_TOKEN": token}
    subprocess.run(["/bin/sh", "-c", line.replace(f"/run/{SLUG}", str(folder))], env=env, check=True)
    with pytest.raises(hvac.exceptions.VaultError):  # not without a wrapping
        side.vault.client(token).write_data(f"auth/approle/role/{SLUG}/secret-id", data={})


def test_a_wrapped_secret_id_survives_a_kill_if_each_start_gets_a_new_one(
    project: Project, side: Side, tmp_path: Path
) -> None:
    wrapped = {"VAULT_SECRET_ID_WRAPPED": "true"}
    for _ in range(2):
        agent(project, side, tmp_path)
        started(project, side, tmp_path / "run", **wrapped)
    done = project.cli("serve", env={"PORT": "0", **side.env, **wrapped})
    assert done.returncode == 78
    assert done.stderr.startswith(
        "configuration refused: VAULT_SECRET_ID_FILE: its wrapping token is used up or expired."
    )
    assert done.stderr.count("\n") == 1
