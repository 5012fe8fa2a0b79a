"""`make update` as a process, in the environment of the tests instead of one that uv makes."""

import os
import subprocess
import sys
from pathlib import Path

from tests.hooks.repository import GIT
from tests.update.versions import files, git

CHECKLESS = "--no-check"  # the lock and the tests of the service are proven once, by `make update`


def run(service: Path, *arguments: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a service; it leaves out `make setup check`."""
    command = [sys.executable, "-m", "scripts.template_update", CHECKLESS, *arguments]
    done = subprocess.run(
        command,
        cwd=service,
        env={**os.environ, **GIT, **env},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def refused(service: Path, *arguments: str, **env: str) -> str:
    """The one line with which it refuses; the tree is as before."""
    before, status = files(service), git(service, "status", "--porcelain")
    done = run(service, *arguments, check=False, **env)
    assert (done.returncode, done.stdout) == (2, "")
    assert (files(service), git(service, "status", "--porcelain")) == (before, status)
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")
