"""A service's side of a Vault server: its `deploy/vault/`, applied by its own script."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.projects import render

SLUG = "my-service"
VAULTS_PASSWORD = "of-the-role-of-vault"


@dataclass(frozen=True)
class Deployed:
    """A rendered project, of which only `deploy/vault/` counts."""

    root: Path
    slug: str = SLUG

    @property
    def folder(self) -> Path:
        return self.root / "deploy" / "vault"

    def set(self, section: str, **values: Any) -> None:
        """Write into `vault.toml` what a user would."""
        file = self.folder / "vault.toml"
        head, found, rest = file.read_text().partition(f"[{section}]\n")
        assert found
        lines, blank, others = rest.partition("\n\n")
        kept = [line for line in lines.split("\n") if line.partition(" = ")[0] not in values]
        made = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        file.write_text(head + found + "\n".join([*made, *kept]) + blank + others)

    def apply(self, env: Mapping[str, str], token: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run the script as an administrator does; `env` says where the server is."""
        return subprocess.run(
            [sys.executable, self.folder / "apply.py"],
            env={**env, "VAULT_TOKEN": token, "VAULT_DATABASE_PASSWORD": VAULTS_PASSWORD, **more},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def rendered(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(template, tmp_path_factory.mktemp("deploy"))


def copied(rendered: Path, folder: Path) -> Path:
    """What a team keeps below `deploy/`, to be changed."""
    shutil.copytree(rendered / "deploy", folder / "deploy")
    return folder


@pytest.fixture
def deployed(rendered: Path, tmp_path: Path) -> Deployed:
    """A copy that a test may change."""
    return Deployed(copied(rendered, tmp_path))


def applied_sql(deployed: Deployed, url: str) -> str:
    """Run roles.sql and role.sql in a database: its address as `vault.toml` has it."""
    with psycopg.connect(url, autocommit=True) as connection:
        for file in ("../postgres/roles.sql", "role.sql"):
            connection.execute((deployed.folder / file).read_bytes())
        role = f"{deployed.slug.replace('-', '_')}_vault"
        connection.execute(f"ALTER ROLE {role} PASSWORD '{VAULTS_PASSWORD}'".encode())
    parts = urlsplit(url)
    return url.replace(parts.netloc, f"{{{{username}}}}:{{{{password}}}}@{parts.hostname}:{parts.port or 5432}")
