"""A disk that is full or read-only: `make update` says so in one line, and nothing is half done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hooks.repository import GIT
from tests.sabotage import Body
from tests.update.versions import commit, duplicate

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a disk of its own needs root: sudo make test")
# In a mount namespace of its own: $1 is the service, $2 the disk, $3 what happens to it, $4 what undoes that.
SCRIPT = """
set -e
mount -t tmpfs -o size=64m tmpfs "$2"
cp -a "$1/." "$2"
cd "$2"
update() { "$PYTHON" -m scripts.template_update --no-check "$@"; }
update --dry-run >/dev/null || true  # all objects of git are there: what fails is what writes the files
eval "$3"
update >"$OUT/stdout" 2>"$OUT/stderr" && code=0 || code=$?
echo "$code" >"$OUT/code"
eval "$4"
if ! git diff --quiet HEAD || [ -e .git/template-update.json ]; then update --abort; fi
git status --porcelain >"$OUT/status"
git diff HEAD >>"$OUT/status"
"""
FILL = "dd if=/dev/zero of=.git/full bs=4k status=none || true; truncate -s -{}k .git/full"
LOCK = 'mount --bind "$PWD/{0}" "$PWD/{0}"; mount -o remount,bind,ro "$PWD/{0}"'


def survive(service: Path, folder: Path, happens: str, undone: str) -> str:
    """The line with which an update gave up; nothing is left of it once the cause is gone."""
    disk, out = folder / "disk", folder / "out"
    disk.mkdir()
    out.mkdir()
    command = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", str(service), str(disk), happens, undone]
    env = {**os.environ, **GIT, "PYTHON": sys.executable, "OUT": str(out), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    assert (out / "code").read_text() == "2\n", (out / "stdout").read_text()
    assert (out / "stdout").read_text() == ""
    assert (out / "status").read_text() == ""
    (line,) = (out / "stderr").read_text().splitlines()
    return line


@pytest.mark.parametrize("room", [0, 28], ids=["full", "full while it writes"])
def test_a_full_disk(first: Path, tmp_path: Path, room: int) -> None:
    line = survive(first, tmp_path, FILL.format(room), "rm .git/full")
    assert line.startswith("error: ")


@pytest.mark.parametrize(
    ("place", "said"), [(".git", ""), ("src/my_service/platform", "(everything is as it was before)")]
)
def test_a_folder_that_cannot_be_written(first: Path, tmp_path: Path, place: str, said: str) -> None:
    line = survive(first, tmp_path, LOCK.format(place), f'umount "$PWD/{place}"')
    assert "Read-only file system" in line or "ermission" in line, line
    assert said in line


@pytest.mark.sabotage
def test_an_update_that_takes_nothing_back_is_noticed(first: Path, tmp_path: Path) -> None:
    service = duplicate(first, tmp_path / "service")
    Body("scripts.template_update.apply:abort", "note(service).unlink(missing_ok=True)").apply(service)
    place = "src/my_service/platform/telemetry"
    with pytest.raises(AssertionError):
        survive(commit(service), tmp_path, LOCK.format(place), f'umount "$PWD/{place}"')
