"""Two synthetic releases of the template in a git repository, and services made of the first one."""

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import copier
import pytest

from tests.hooks.repository import GIT, HOOKS
from tests.projects import ROOT, Edit, export

OLD, NEW = "v0.1.0", "v0.2.0"
SOURCE = "template/src/{{ package_name }}"
MIGRATIONS = "template/{% if database == 'postgresql' %}migrations{% endif %}"
NGINX = "template/deploy/{% if load_balancer == 'nginx' %}nginx{% endif %}"
ITEMS = f"{SOURCE}/features/{{% if include_example %}}items{{% endif %}}"
# DESIGN section 4, said a second time: what is yours, whatever copier.yml says.
YOURS = re.compile(
    r"CHANGELOG\.md|CODEOWNERS|LICENSE|README\.md|SECURITY\.md|deploy/host/release\.toml|ready\.toml|uv\.lock|uv\.toml|docs/contacts\.md|tests/features/.+"
    r"|deploy/[^/]+/conf\.d/.+|deploy/haproxy/site\.cfg|observability/slo\.yaml|migrations/versions/.+|deploy/k8s/overlays/.+|src/[^/]+/(main|settings)\.py"
    r"|src/[^/]+/features/[^/]+/.+"
)

# The platform's newest revision in this checkout, and the one that the second release adds.
LAST = max(path.name[:5] for path in (ROOT / MIGRATIONS / "platform").glob("p*.py"))
NEXT = f"p{int(LAST[1:]) + 1:04}"
REVISION = f'''"""How much a client may do."""

import sqlalchemy as sa
from alembic import op

revision = "{NEXT}"
down_revision = "{LAST}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("quotas", sa.Column("client", sa.String(100), primary_key=True))


def downgrade() -> None:
    op.drop_table("quotas")
'''
QUOTA = '''"""How much a client may do in a day."""

from .room import Room
from .settings import RoomSettings


class Settings(RoomSettings):
    """The limit."""

    quota_per_day: int = 1000


ROOM = Room(settings=Settings)
'''
# What the second release adds and changes: ours, and also what is the user's, which must not arrive anywhere.
FILES = {
    f"{SOURCE}/platform/quota.py": QUOTA,
    f"{MIGRATIONS}/platform/{NEXT}_quotas.py": REVISION,
}
CHANGES = (
    Edit(
        f"{SOURCE}/platform/__init__.py",
        '    "idempotency",\n',
        '    "idempotency",\n    # fair shares\n    "quota",\n',
    ),
    Edit("template/.env.example.jinja", "\n# --- security\n", "\n# --- quota\n#QUOTA_PER_DAY=1000\n\n# --- security\n"),
    Edit("template/pyproject.toml.jinja", "    # web\n", '    # web\n    "anyio>=4",\n'),
    Edit(f"{MIGRATIONS}/env.py.jinja", "PLATFORM_TABLES = {", 'PLATFORM_TABLES = {"quotas", '),
    Edit("template/.gitignore", "__pycache__/\ndist/\n", "__pycache__/\ndist/\nsite/\n"),
    Edit("template/tests/rooms/test_platform.py", "evil.test", "wrong.test"),
    Edit("template/README.md.jinja", "## Start", "## First steps"),
    Edit(f"{NGINX}/nginx.conf", "burst=200", "burst=300"),
    Edit(f"{NGINX}/conf.d/peers.conf", "The instances", "The servers"),
    Edit("template/uv.toml", "2026-11-23", "2026-12-24"),
    Edit("template/observability/alerts.yaml.jinja", "for: 5m", "for: 10m"),
    Edit("template/observability/slo.yaml.jinja", "objective: 99.9", "objective: 99.8"),
    Edit("template/docs/contacts.md.jinja", "second line", "manager on duty"),
    Edit("template/CHANGELOG.md", "\n", "\nThe second release says more here.\n"),
    Edit(f"{SOURCE}/main.py", "this file is yours", "this file is yours alone"),
    Edit(f"{SOURCE}/settings.py", "this file is yours", "this file is yours alone"),
    Edit(f"{ITEMS}/service.py", "neither HTTP nor SQL", "no HTTP and no SQL"),
    Edit(
        f"{MIGRATIONS}/{{% if include_example %}}versions{{% endif %}}/0001_items.py",
        "Creates the table",
        "Makes the table",
    ),
    Edit("template/tests/{% if include_example %}features{% endif %}/test_items.py", '"lamp"', '"chair"'),
)


def git(folder: Path, *arguments: str) -> str:
    """Run git without the settings of whoever runs the tests."""
    return subprocess.check_output(["git", *arguments], cwd=folder, env={**os.environ, **GIT}, text=True)


def commit(folder: Path, tag: str = "") -> Path:
    """Commit everything there is; a folder becomes a repository first."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--no-verify", "--message", "change")
    if tag:
        git(folder, "tag", tag)
    return folder


def release(folder: Path, *edits: Edit, then: Callable[[Path], object] = lambda folder: None) -> Path:
    """The template of this checkout as v0.1.0, its successor as v0.2.0; `edits` change both, `then` the second."""
    folder.mkdir()
    export(folder)
    (folder / "hooks").mkdir()
    shutil.copy(HOOKS / "release.py", folder / "hooks")
    (folder / "CHANGELOG.md").write_text("# Changes\n\n## [0.2.0] - 2026-12-24\n")
    for edit in edits:
        edit.apply(folder)
    commit(folder, OLD)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for change in CHANGES:
        change.apply(folder)
    for file in (folder / SOURCE / "platform").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            file.write_text(f"# As of {NEW}.\n{file.read_text()}")
    then(folder)
    return commit(folder, NEW)


def make_service(template: Path, folder: Path, tag: str = OLD, **answers: object) -> Path:
    """A service as `tag` emits it, committed."""
    copier.run_copy(
        str(template), folder, data=answers, vcs_ref=tag, defaults=True, unsafe=False, quiet=True, overwrite=True
    )
    return commit(folder)


def update(service: Path, tag: str | copier.VcsRef = NEW, **answers: object) -> Path:
    """What `copier update` does, without trust and without questions."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        for name, value in GIT.items():
            patch.setenv(name, value)
        copier.run_update(service, data=answers, vcs_ref=tag, defaults=True, unsafe=False, quiet=True, overwrite=True)
    return service


def unmerged(service: Path) -> list[str]:
    """Files with a conflict, as git lists them."""
    return sorted(set(git(service, "diff", "--name-only", "--diff-filter=U").split()))


Files = dict[str, bytes]


def files(service: Path) -> Files:
    """What is in a service, by path; git's own and what Python compiled are left out."""
    own = {".git", "__pycache__"}
    found = (path for path in service.rglob("*") if path.is_file() and own.isdisjoint(path.relative_to(service).parts))
    return {path.relative_to(service).as_posix(): path.read_bytes() for path in found}


def yours(found: Files) -> Files:
    return {name: data for name, data in found.items() if YOURS.fullmatch(name)}


def ours(found: Files) -> Files:
    return {name: data for name, data in found.items() if not YOURS.fullmatch(name)}


def duplicate(service: Path, folder: Path) -> Path:
    """A service to change."""
    return Path(shutil.copytree(service, folder))
