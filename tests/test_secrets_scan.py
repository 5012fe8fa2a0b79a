"""The emitted rules of gitleaks find each kind of secret that the service has, and nothing in a fresh service."""

import base64
import hashlib
import json
import secrets
import uuid
from pathlib import Path

import pytest

from tests import commands
from tests.projects import Project
from tests.sabotage import Gone
from tests.servers import wheels

pytestmark = pytest.mark.servers  # a program from a wheel
PASSWORD = "kV9-" + secrets.token_hex(6)
# The same in each run: a random one is now and then too regular for a scanner.
TOKEN = base64.b64encode(hashlib.sha512(b"planted").digest() * 2, b"aZ").decode().rstrip("=")[:95]
HEX = "0123456789abcdef" * 2
BASE32 = base64.b32encode(hashlib.sha512(b"planted").digest()).decode()[:16]
# By a name of our own: the rule, and a line as it would slip into a commit. Put together here, so that no scanner of
# ours finds it in this file.
OURS = {
    "database": ("connection-string-password", f"DATABASE_URL=postgresql+psycopg://app:{PASSWORD}@db.internal/orders"),
    "cache": ("connection-string-password", f"CACHE_URL=rediss://:{PASSWORD}@cache.internal:6379/0"),
    "Sentry": ("sentry-dsn", f"SENTRY_DSN=https://{HEX}@errors.internal/42"),
    "secret id": ("vault-secret-id", f'{{"secret_id": "{uuid.uuid4()}"}}'),
}
DEFAULT = {
    "AWS": ("aws-access-token", f"AWS_ACCESS_KEY_ID=AKIA{BASE32}"),
    "private key": ("private-key", f"-----BEGIN {'PRIVATE'} KEY-----\n{TOKEN}\n{TOKEN}\n-----END {'PRIVATE'} KEY-----"),
    "Vault": ("vault-service-token", f"VAULT_TOKEN=hvs.{TOKEN}"),
    "OpenBao": ("vault-service-token", f"VAULT_TOKEN=s.{TOKEN[:24]}"),
    "GitHub": ("github-pat", f"GITHUB_TOKEN=ghp_{TOKEN[:36]}"),
}


def findings(folder: Path) -> set[tuple[str, str]]:
    """What is found, by rule and file, as `gitleaks dir .` finds it with the rules that lie there."""
    report = ("--report-format=json", "--report-path=-", "--no-banner", "--redact")
    done = commands.run(wheels.ensure("gitleaks"), "dir", *report, ".", cwd=folder)
    assert done.returncode in (0, 1), done.stderr
    found = {(each["RuleID"], each["File"]) for each in json.loads(done.stdout)}
    assert bool(found) == bool(done.returncode)  # the exit code is what CI sees
    return found


def planted(project: Project, folder: Path, kinds: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Which file each kind of secret is in, once they are in the project."""
    named = {kind: f"deploy/{kind.replace(' ', '-')}.txt" for kind in kinds}
    for kind, (_, line) in kinds.items():
        (folder / named[kind]).write_text(f"{line}\n")
    return named


def test_a_fresh_service_has_no_finding(project: Project) -> None:
    assert (project.root / "uv.lock").exists()
    assert findings(project.root) == set()


def test_each_kind_of_secret_is_found(project: Project, tmp_path: Path) -> None:
    careless = project.variant(tmp_path / "careless")
    kinds = {**OURS, **DEFAULT}
    named = planted(careless, careless.root, kinds)
    found = findings(careless.root)
    assert {(kinds[kind][0], file) for kind, file in named.items()} <= found
    assert {file for _, file in found} == set(named.values())


@pytest.mark.sabotage
def test_without_our_rules_what_only_this_service_has_slips_through(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Gone(".gitleaks.toml"))
    named = planted(sick, sick.root, {**OURS, **DEFAULT})
    found = {file for _, file in findings(sick.root)}
    assert {named[kind] for kind in DEFAULT} <= found
    assert {named[kind] for kind in ("database", "cache", "Sentry")} & found == set()
