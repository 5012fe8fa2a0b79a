"""The oldest Copier that copier.yml allows, as a command on this machine's git.

Copier 9.19.0 passes `--end-of-options` to `git checkout`, which git knows since 2.43.1; Debian 12 has 2.39.5. Copier
9.19.1 resolves the revision itself (`_resolve_ref` in copier/_vcs.py says why).
"""

import subprocess
from pathlib import Path

import pytest

from tests.hooks.repository import GIT
from tests.projects import Edit, Project
from tests.test_questions import CONFIG
from tests.update.versions import NEW, OLD, commit, files, ours, unmerged

OLDEST = CONFIG["_min_copier_version"]
MINE = Edit("src/my_service/platform/security.py", "\n\n\ndef ", "\n\nMINE = 1\n\n\ndef ")


def copier(version: str, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one release of Copier, which uv gets from the package index."""
    command = ["uv", "tool", "run", "--quiet", "--from", f"copier=={version}", "copier", *map(str, arguments)]
    return Project(folder).run(*command, env=GIT, check=False)


@pytest.mark.wide
def test_the_oldest_copier_copies_and_updates(releases: Path, second: Path, tmp_path: Path) -> None:
    service = tmp_path / "service"
    done = copier(OLDEST, tmp_path, "copy", "--defaults", "--quiet", f"--vcs-ref={OLD}", releases, service)
    assert (done.returncode, done.stderr) == (0, "")
    MINE.apply(service)
    commit(service)
    done = copier(OLDEST, service, "update", "--defaults", "--quiet", f"--vcs-ref={NEW}")
    assert (done.returncode, done.stderr) == (0, "")
    assert unmerged(service) == []
    MINE.apply(expected := Project(second).variant(tmp_path / "expected").root)
    assert ours(files(service)) == ours(files(expected))


@pytest.mark.wide
def test_an_older_copier_is_refused_in_one_line(releases: Path, tmp_path: Path) -> None:
    done = copier("9.18.2", tmp_path, "copy", "--defaults", "--quiet", releases, tmp_path / "service")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"This template requires Copier version >= {OLDEST}, while your version of Copier is 9.18.2."
    )
    assert not (tmp_path / "service").exists()
