"""`.gitattributes`: LF in every checkout, whatever git is set to, so that an update sees only what changed."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.hooks.repository import GIT
from tests.projects import ROOT, Edit
from tests.update.versions import commit, duplicate, files, git, unmerged, update

# What git for Windows is set to unless its user changes it (git-config, core.autocrlf).
WINDOWS = GIT | {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.autocrlf", "GIT_CONFIG_VALUE_0": "true"}
MINE = Edit("src/my_service/platform/security.py", "\n\n\ndef ", "\n\nMINE = 1\n\n\ndef ")
PICTURE = bytes(range(256)) + b"\r\n\n"


def checkout(repository: Path, folder: Path) -> Path:
    """Clone as a developer on Windows does."""
    command = ["git", "clone", "--quiet", str(repository), str(folder)]
    subprocess.run(command, check=True, env={**os.environ, **WINDOWS})
    return folder


def with_crlf(folder: Path) -> list[str]:
    return [name for name, data in files(folder).items() if b"\r\n" in data and name != "docs/logo.png"]


def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WINDOWS.items():
        monkeypatch.setenv(name, value)


def test_a_checkout_on_windows_has_lf_and_takes_an_update(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = duplicate(first, tmp_path / "origin")
    MINE.apply(origin)
    (origin / "docs/logo.png").write_bytes(PICTURE)
    commit(origin)
    service = checkout(origin, tmp_path / "service")
    assert len(files(service)) > 100
    assert with_crlf(service) == []
    assert files(service)["docs/logo.png"] == PICTURE
    windows(monkeypatch)
    update(service)
    assert unmerged(service) == []
    assert with_crlf(service) == []
    security = (service / MINE.file).read_text()
    assert security.startswith("# As of v0.2.0.\n")
    assert "\nMINE = 1\n" in security
    assert files(service)["docs/logo.png"] == PICTURE
    changed = git(service, "diff", "--name-only").splitlines()
    assert "README.md" not in changed  # yours, and as it was


@pytest.mark.sabotage
def test_without_it_a_checkout_on_windows_has_crlf(first: Path, tmp_path: Path) -> None:
    origin = duplicate(first, tmp_path / "origin")
    (origin / ".gitattributes").unlink()
    commit(origin)
    found = with_crlf(checkout(origin, tmp_path / "service"))
    assert {"Makefile", "README.md", "src/my_service/main.py"} <= set(found)


def test_the_template_itself_is_checked_out_with_lf(tmp_path: Path) -> None:
    """Copier writes what its clone holds: with CRLF there, a new service has it."""
    origin = tmp_path / "origin"
    (origin / "template").mkdir(parents=True)
    for name in (".gitattributes", "copier.yml", "template/Makefile.jinja"):
        (origin / name).write_bytes((ROOT / name).read_bytes())
    commit(origin)
    assert with_crlf(checkout(origin, tmp_path / "clone")) == []
    (origin / ".gitattributes").unlink()
    commit(origin)
    assert with_crlf(checkout(origin, tmp_path / "other")) == ["copier.yml", "template/Makefile.jinja"]
