"""Where a node runs: namespaces of processes, mounts and network. All that it starts and mounts ends with them.

A container outlives what started it, and a mount outlives everybody; but neither outlives its namespace. Nothing leaves
this network, and nothing on the machine meets it: servers in it have the ports that they have in production.
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests import commands
from tests.servers import packages
from tests.servers.process import Process, ServerError, descendants, reachable

ADDRESS = "10.90.0.10"  # of the node, and of all servers that run beside it
CLONE_NEWNET = 0x40000000  # sched.h
# Names of Services resolve for what is no pod, too: the node asks the DNS of the cluster.
RESOLVER = f"nameserver {ADDRESS}\nsearch svc.cluster.local cluster.local\noptions ndots:5\n"
NAMESPACE = """
set -eu
mount --make-rshared /
for each in /run /var/log; do mount -t tmpfs tmpfs "$each"; done
mkdir -p /var/lib/cni
mount -t tmpfs tmpfs /var/lib/cni
if [ ! -e /etc/resolv.conf ]; then
    file=$(readlink -m /etc/resolv.conf)
    mkdir -p "${file%/*}"
    touch "$file"
fi
mount --bind "$1" /etc/resolv.conf
ip link set lo up
ip link add node0 type veth peer name node1
ip addr add "$2/24" dev node0
ip link set node0 up
ip link set node1 up
ip route add default via "${2%.*}.1" dev node0 # one must exist; nobody answers there
echo 1 >/proc/sys/net/ipv4/ip_forward
echo ready
exec sleep infinity
"""


class Space:
    """The namespaces, until the end of a `with`; in it, this thread is in the network, too. It needs root."""

    def __init__(self) -> None:
        if os.getuid() != 0:
            raise ServerError("a node of its own needs root; or set KUBECONFIG and GATEWAY to a cluster that is there")
        packages.ensure("ip", "iproute2")
        self.home = Path(tempfile.mkdtemp(prefix="node-", dir=reachable()))
        self.home.chmod(0o755)
        self.logs = self.home / "logs"
        self.logs.mkdir()
        self.processes: dict[str, Process] = {}
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)

    def __enter__(self) -> Self:
        resolver = self.home / "resolv.conf"
        resolver.write_text(RESOLVER)
        apart = ["unshare", "--fork", "--kill-child", "--pid", "--mount-proc", "--net"]
        self._holder = Process(
            [*apart, "sh", "-c", NAMESPACE, "sh", resolver, ADDRESS], log=self.logs / "namespace.log"
        )
        self._holder.wait_until(lambda: "ready" in (self.logs / "namespace.log").read_text(), 10)
        self._first = next(pid for pid in descendants(self._holder.pid) if _is_first(pid))
        with open(f"/proc/{self._first}/ns/net") as network:
            _enter(network.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes.values()):
            process.kill()
        self._holder.kill()
        _enter(self._outside)
        os.close(self._outside)
        with suppress(FileNotFoundError):
            shutil.rmtree(self.home)

    def within(self, *command: str | Path) -> list[str | Path]:
        """A command that runs inside."""
        return ["nsenter", f"--target={self._first}", "--pid", "--mount", "--net", *command]

    def start(self, name: str, *command: str | Path, env: Mapping[str, str] | None = None) -> Process:
        """Start a program of the node; its log is `logs/NAME.log`."""
        log = self.logs / f"{name}.log"
        self.processes[name] = Process(self.within(*command), log=log, env={**os.environ, **(env or {})}, cwd=self.home)
        return self.processes[name]

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end."""
        return commands.run(*self.within(*command))


def _is_first(pid: int) -> bool:
    with suppress(FileNotFoundError):
        numbers = Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].splitlines()[0].split()
        return numbers[1:] == ["1"]
    return False


def _enter(network: int) -> None:
    """Move this thread, and what it starts, into a network (setns(2); Python has it from 3.12 on)."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(network, CLONE_NEWNET) != 0:
        raise ServerError(f"setns: {os.strerror(ctypes.get_errno())}")
