"""Starts and stops instances by commands, as `systemctl` does on a host. Usage: unit.py HOME start|stop NAME VERSION"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STOP_SECONDS = 15


def start(home: Path, name: str, version: str) -> None:
    """Start it in a session of its own, and do not wait for it."""
    unit = json.loads((home / "unit.json").read_text())
    port = str(unit["ports"][name])
    (home / f"{name}.started").open("a").write(f"{version}\n")
    with (home / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            [word.format(port=port, version=version) for word in unit["command"]],
            cwd=home,
            env={**unit["env"], "PORT": port, "GIT_COMMIT": version, "TRIAL": version},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (home / f"{name}.pid").write_text(str(child.pid))


def runs(pid: int) -> bool:
    """Whether it has not ended yet; who started it may be gone, or does not wait for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def stop(home: Path, name: str) -> None:
    """Ask it to end, and wait for that."""
    file = home / f"{name}.pid"
    if not file.exists():
        return
    pid = int(file.read_text())
    deadline = time.monotonic() + STOP_SECONDS
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while (
            Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        ):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
    file.unlink()


if __name__ == "__main__":
    folder, action, instance, what = Path(sys.argv[1]), *sys.argv[2:5]
    if action == "start":
        start(folder, instance, what)
    else:
        stop(folder, instance)
