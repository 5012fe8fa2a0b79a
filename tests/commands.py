"""Runs a command to its end, and keeps what it says."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.servers.process import ServerError

SECONDS = 600.0  # a cold cache and a slow network included


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    text: str = "",
    seconds: float = SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run a command; how it ends is for the caller to judge.

    Args:
        command: The program and its arguments.
        cwd: Where; here by default.
        env: All of its variables; ours by default.
        text: What it reads; nothing by default.
        seconds: How long it may take.

    Raises:
        TimeoutExpired: It took longer, and was killed.
    """
    return subprocess.run(
        command,
        cwd=cwd,
        env=env,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def must(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, text: str = "") -> str:
    """Run what has to succeed: what it prints.

    Raises:
        ServerError: It failed; with all that it said.
    """
    done = run(*command, cwd=cwd, env=env, text=text)
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}".strip()
        raise ServerError(f"{' '.join(map(str, command))} failed with {done.returncode}\n{said}")
    return done.stdout
