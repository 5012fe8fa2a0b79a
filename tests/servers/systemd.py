"""A host of a test's own: a real systemd is the first process in it, and what it changes goes with it.

It is made of namespaces: its own processes, mounts and control groups. `/etc`, `/mnt`, `/opt` and `/var` are this
machine's until something is written, which stays in memory. `/run` and `/tmp` are empty. Its network is this
machine's. Of this machine's units it has the journal alone.
"""

import functools
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.servers import packages
from tests.servers.process import Process, ServerError, descendants

SECONDS = 60.0
# What a host has and units refer to; nothing of it starts anything here.
TARGETS = ("basic", "multi-user", "network-online", "shutdown", "sysinit", "timers")
JOURNAL = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")
NAMESPACE = """
set -eu
units=$(dirname "$(find /usr/lib/systemd/system /lib/systemd/system -name systemd-journald.service | head -n 1)")
mount -t tmpfs tmpfs "$1"
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for each in etc mnt opt var; do
    mkdir "$1/$each" "$1/$each.work"
    mount -t overlay overlay -o "lowerdir=/$each,upperdir=$1/$each,workdir=$1/$each.work" "/$each"
done
mkdir "$1/units"
for each in $2; do cp "$units/$each" "$1/units"; done
unit() { printf '[Unit]\\nDescription=a target\\nDefaultDependencies=no\\n%s\\n' "$2" >"$1.target"; }
for each in $3; do unit "$1/units/$each" ''; done
unit "$1/units/default" Wants=systemd-journald.service
mount --bind "$1/units" "$units"
mount -t tmpfs tmpfs /etc/systemd
mkdir /etc/systemd/system
rm -rf /var/log/journal
for each in run tmp; do mount -t tmpfs tmpfs "/$each"; done
exec env -i container=tests PATH="$PATH" "$4" --system --log-level=warning --show-status=no
"""


class Host:
    """One host; use it as a context manager. It needs root."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp())
        self._group = _control_groups() / f"tests-{uuid.uuid4().hex[:8]}"
        program = Path("/usr/lib/systemd/systemd")
        if not program.exists():
            packages.ensure("systemd-analyze", "systemd")
        self._command = ["unshare", "--fork", "--kill-child", "--mount-proc", "-pmC", "sh", "-c", NAMESPACE, "sh"]
        self._command += [str(self._folder), " ".join(JOURNAL), " ".join(TARGETS), str(program)]

    def __enter__(self) -> Self:
        self._group.mkdir()
        joined = ["sh", "-c", f'echo $$ >{self._group}/cgroup.procs && exec "$@"', "sh", *self._command]
        self._process = Process(joined, log=self._folder.with_suffix(".log"))
        self._process.wait_until(self._answers, SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        for each in sorted(self._group.rglob("*/"), reverse=True):
            each.rmdir()
        self._group.rmdir()
        shutil.rmtree(self._folder)
        self._folder.with_suffix(".log").unlink()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command on it, as root."""
        inside = ["nsenter", "-t", str(self.first), "-p", "-m", "-C", *command]
        done = subprocess.run(inside, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on it."""
        there = Path(f"/proc/{self.first}/root{path}")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)
        there.chmod(mode)

    def properties(self, unit: str) -> dict[str, str]:
        """How a unit is, as in `ActiveState`."""
        lines = self.run("systemctl", "show", unit).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def wait(self, unit: str, seconds: float = SECONDS, **wanted: str) -> dict[str, str]:
        """Wait until properties of a unit have these values."""
        deadline = time.monotonic() + seconds
        while (found := self.properties(unit)) | wanted != found:
            if time.monotonic() > deadline:
                seen = {name: found.get(name) for name in wanted}
                raise AssertionError(f"{unit}: {seen}, not {wanted}\n{self.journal(unit)}")
            time.sleep(0.1)
        return found

    def journal(self, unit: str) -> str:
        """What a unit has written."""
        return self.run("journalctl", "--quiet", "--no-pager", "--output=cat", f"--unit={unit}").stdout

    @functools.cached_property
    def first(self) -> int:
        """The number of its first process, seen from here."""
        for each in sorted(descendants(self._process.pid)):
            with suppress(FileNotFoundError):  # it has ended meanwhile
                numbers = Path(f"/proc/{each}/status").read_text().split("NSpid:")[1].splitlines()[0].split()
                if numbers[1:] == ["1"]:
                    return each
        raise ServerError("systemd did not start")

    def _answers(self) -> bool:
        try:
            return self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")
        except ServerError:
            return False


def _control_groups() -> Path:
    """Where control groups of version 2 are."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = [Path(each[1]) for each in mounts if each[2] == "cgroup2"]
    if not found or not os.access(found[0], os.W_OK):
        raise ServerError("systemd needs control groups of version 2 that root may change")
    return found[0]
