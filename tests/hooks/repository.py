"""A repository of a test, and a hook that runs as a process."""

import subprocess
import sys
from pathlib import Path

from tests.projects import ROOT

HOOKS = ROOT / "hooks"
# Git's own settings of whoever runs the tests must not decide how they end.
GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}


def git(folder: Path, *arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=folder, text=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "change")


def run(hook: Path, *arguments: str | Path) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, hook, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, [*done.stdout.splitlines(), *done.stderr.splitlines()]
